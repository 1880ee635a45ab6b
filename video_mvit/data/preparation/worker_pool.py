"""Map a function over items in processes that may crash or hang without stopping the others.

A worker process holds one item at a time, so that the item it died of is known.
"""

import contextlib
import functools
import multiprocessing
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from video_mvit.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")
START_LIMIT_S = 300.0  # time to import the package from a slow disk


@dataclass(frozen=True)
class WorkerCrashed:
    """Reason why the process of an item did not return, in a few words."""

    reason: str


class WorkerTimedOut(WorkerCrashed):
    """The process took too long."""


@dataclass(kw_only=True)
class _Worker:
    """A process, the pipe to it, and its item since when; `item` is None while it starts."""

    process: BaseProcess
    connection: "Connection[Any, Any]"
    item: Any = None
    since_s: float = 0.0

    def give(self, item: Any) -> None:
        self.item, self.since_s = item, time.monotonic()
        self.connection.send(item)

    def stop(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join(1.0)


def map_in_processes(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    num_workers: int,
    time_limit_s: float,
) -> Generator[tuple[Item, Result | WorkerCrashed], None, None]:
    """Yield (item, result) in order of completion; the result may be a `WorkerCrashed`.

    `work` must be importable by name, or a `functools.partial` of such a function. A process that
    exceeds `time_limit_s` for an item is killed. Closing the generator ends all processes. Raises
    `UserError` for an invalid number of workers, `ChildProcessError` if they cannot start.
    """
    if num_workers < 1:
        raise UserError(f"num_workers {num_workers} must be positive")
    left = deque(items)
    workers = [_start_worker(work) for _ in range(min(num_workers, len(left)))]
    try:
        while workers:
            for worker in _wait_for_news(workers, time_limit_s):
                item, result = worker.item, _receive(worker, time_limit_s)
                if isinstance(result, WorkerCrashed) or not _give_next(worker, left):
                    worker.stop()
                    workers.remove(worker)
                    if left:
                        workers.append(_start_worker(work))
                if item is not None:
                    yield item, result
    finally:
        for worker in workers:
            worker.stop()


def _start_worker(work: Callable[[Item], Result]) -> _Worker:
    """Start a process without inherited threads or locks, unlike a fork."""
    context: ForkServerContext | SpawnContext = multiprocessing.get_context("spawn")
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
    module = (work.func if isinstance(work, functools.partial) else work).__module__
    context.set_forkserver_preload([__name__, module])  # imported once, not by every worker
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs), daemon=True)
    with _hidden_command():
        process.start()
    theirs.close()  # so that the pipe closes with the process
    return _Worker(process=process, connection=ours, since_s=time.monotonic())


@contextlib.contextmanager
def _hidden_command() -> Iterator[None]:
    """Keep a new process from importing `__main__`, which takes seconds.

    multiprocessing imports it for functions defined there.
    """
    command = vars(sys.modules["__main__"])
    kept: dict[str, Any] = {
        name: command[name] for name in ("__file__", "__spec__") if name in command
    }
    command.update(__file__=None, __spec__=None)
    try:
        yield
    finally:
        del command["__file__"], command["__spec__"]
        command.update(kept)


def _serve(work: Callable[[Item], Result], connection: "Connection[Any, Any]") -> None:
    """Process items from the pipe until it closes; interrupts are handled by the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    result: Result | None = None  # the first message reports the start
    try:
        while True:
            connection.send(result)
            result = work(connection.recv())
    except (EOFError, BrokenPipeError):
        return


def _give_next(worker: _Worker, left: deque[Item]) -> bool:
    """Send the next item; False if none is left, or the worker died after its last result."""
    if not left:
        return False
    try:
        worker.give(left[0])
    except (BrokenPipeError, ConnectionResetError):
        return False
    left.popleft()
    return True


def _wait_for_news(workers: Sequence[_Worker], time_limit_s: float) -> list[_Worker]:
    """Wait for workers that sent something, died or timed out."""
    first_end_s = min(worker.since_s + _limit(worker, time_limit_s) for worker in workers)
    ready = wait([w.connection for w in workers], max(first_end_s - time.monotonic(), 0))
    return [w for w in workers if w.connection in ready or _is_late(w, time_limit_s)]


def _receive(worker: _Worker, time_limit_s: float) -> Any:
    """Receive a result or the reason of a loss; raises if a worker died before its first item."""
    try:
        if worker.connection.poll():
            return worker.connection.recv()
        lost: WorkerCrashed = WorkerTimedOut(f"took longer than {_limit(worker, time_limit_s):g} s")
    except (EOFError, ConnectionResetError):
        worker.process.join()
        lost = WorkerCrashed(_death(worker.process.exitcode or 0))
    if worker.item is None:
        raise ChildProcessError(f"a worker process {lost.reason} before it could start")
    return lost


def _death(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended its process with exit code {exit_code}"
    return f"crashed the decoder ({signal.Signals(-exit_code).name})"


def _limit(worker: _Worker, time_limit_s: float) -> float:
    return time_limit_s if worker.item is not None else START_LIMIT_S


def _is_late(worker: _Worker, time_limit_s: float) -> bool:
    return time.monotonic() > worker.since_s + _limit(worker, time_limit_s)
