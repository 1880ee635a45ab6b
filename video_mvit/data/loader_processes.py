"""What processes that load batches need from the system: signals, open files, shared memory."""

import dataclasses
import functools
import logging
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

from torch import Tensor
from torch.utils.data import get_worker_info

from video_mvit.errors import UserError

logger = logging.getLogger(__name__)

BatchT = TypeVar("BatchT")
GRACE_S = 30  # time that a process outlives a signal, for its run to save itself
SHARED_MEMORY = Path("/dev/shm")
PREFETCHED = 2  # batches for each process, as the loader asks for
OPEN_FILES = 4096  # asked for, where the system allows more than it gives at first
FILES_OF_RUN, FILES_OF_PROCESS = 32, 32  # that a run, and each process, may open besides


def outlive_signals(_: int) -> None:
    """Let a loader process outlive the signals that shut its run down.

    Schedulers and terminals signal every process of a run, and a run fails if it loses one before
    it has saved itself. The run stops its processes when it ends.
    """
    signal.signal(signal.SIGTERM, _leave_later)
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def _leave_later(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    later = threading.Timer(GRACE_S, os._exit, [0])
    later.daemon = True
    later.start()


def reserve_open_files(num_processes: int) -> None:
    """Raise the limit of open files if need be; `UserError` if it cannot be raised enough."""
    import resource  # not on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    needed = FILES_OF_RUN + FILES_OF_PROCESS * num_processes
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise UserError(
            f"a process may have {soft} open files here, but data.num_workers={num_processes} "
            f"needs up to {needed}; raise the limit (ulimit -n {OPEN_FILES}) or lower "
            "data.num_workers, 0 loads in the process that trains"
        )


class ShareOrPickle(Generic[BatchT]):
    """Collate; where a batch does not fit into shared memory, let it be pickled instead.

    Torch hands tensors over in shared memory and loses a batch, or the process, where that is full.
    """

    def __init__(self, collate: Callable[[list[Any]], BatchT]) -> None:
        self._collate = collate

    def __call__(self, items: list[Any]) -> BatchT:
        batch = self._collate(items)
        worker = get_worker_info()
        if worker is None:
            return batch
        size = sum(each.nbytes for each in tensors_of(batch))
        if size * (PREFETCHED * worker.num_workers + 1) <= free_shared_memory():
            return batch
        return _Pickled(batch)  # type: ignore[return-value] # unpickled as the batch


class _Pickled:
    """A batch whose tensors are pickled by value; the receiver gets the batch."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        return _unpickle, (pickle.dumps(self.batch, pickle.HIGHEST_PROTOCOL),)


def _unpickle(content: bytes) -> Any:
    _tell_once()
    return pickle.loads(content)


@functools.cache
def _tell_once() -> None:
    logger.warning(
        "%s is too small for these batches: loader processes pass them on through pipes, which is "
        "slower; give it more, for example with docker run --shm-size=8g",
        SHARED_MEMORY,
    )


def tensors_of(content: Any) -> Iterator[Tensor]:
    """Return all tensors in nested sequences, mappings and dataclasses."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping):
        for each in content.values():
            yield from tensors_of(each)
    elif isinstance(content, list | tuple):
        for each in content:
            yield from tensors_of(each)
    elif dataclasses.is_dataclass(content) and not isinstance(content, type):
        yield from tensors_of(vars(content))


def free_shared_memory() -> float:
    """Return the free bytes of shared memory; infinite where the system has another kind."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return float("inf")
    return float(found.f_bavail * found.f_frsize)
