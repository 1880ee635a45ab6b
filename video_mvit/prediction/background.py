"""Run work in other threads, in order and slightly ahead: decoding while the network runs."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, Full, Queue
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
WAKE_S = 0.1  # polling interval: abandoned threads end, and Ctrl-C works on all systems


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, num_threads: int
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, function(item)) in order; at most two results per thread are queued."""
    pool = ThreadPoolExecutor(num_threads)
    pending: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            pending.append((item, pool.submit(function, item)))
            if len(pending) >= 2 * num_threads:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _End(NamedTuple):
    """Marks the end, with the exception that caused it, if any."""

    error: BaseException | None


class RunAhead(Generic[Item]):
    """Iterate over items that a thread produces at most `num_ahead` ahead.

    Exceptions of the thread are raised here. The thread ends when the iteration does.
    """

    def __init__(self, items: Iterable[Item], *, num_ahead: int) -> None:
        self._items, self._is_unwanted = items, threading.Event()
        self._waiting: Queue[Item | _End] = Queue(num_ahead)

    def __iter__(self) -> Iterator[Item]:
        thread = threading.Thread(target=self._make, daemon=True)
        thread.start()
        try:
            while not isinstance(item := self._next(), _End):
                yield item
            if item.error is not None:
                raise item.error
        finally:
            self._is_unwanted.set()

    def _next(self) -> Item | _End:
        while True:
            try:
                return self._waiting.get(timeout=WAKE_S)
            except Empty:
                continue

    def _make(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    return
            self._put(_End(None))
        except BaseException as error:
            self._put(_End(error))

    def _put(self, item: Item | _End) -> bool:
        """Queue an item; False once the consumer is gone."""
        while not self._is_unwanted.is_set():
            try:
                self._waiting.put(item, timeout=WAKE_S)
            except Full:
                continue
            return True
        return False
