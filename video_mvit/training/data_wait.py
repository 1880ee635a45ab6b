"""Measure how long training waits for data, without synchronizing, and suggest a remedy."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from video_mvit.copies import choose_copy, workers_for

MIN_ADVISED_WAIT = 0.1  # fraction of training time
BATCHES_PER_WORKER = 4  # with fewer, prefetching at the start dominates


class Timestamp(Protocol):
    """A point in the device's stream of work."""

    def until_s(self, later: "Timestamp") -> float | None:
        """Return seconds to a later timestamp; None while the device has not reached it."""
        ...


class CpuTimestamp:
    """Wall clock: on a CPU, all earlier work is done."""

    def __init__(self) -> None:
        self.time_s = time.perf_counter()

    def until_s(self, later: "Timestamp") -> float | None:
        assert isinstance(later, CpuTimestamp)
        return later.time_s - self.time_s


class CudaTimestamp:
    """CUDA event recorded after all work queued so far; the host does not wait."""

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self.event.record()

    def until_s(self, later: "Timestamp") -> float | None:
        assert isinstance(later, CudaTimestamp)
        if not later.event.query():  # type: ignore[no-untyped-call]
            return None
        return float(self.event.elapsed_time(later.event)) / 1000


def timestamp_type(device: torch.device) -> Callable[[], Timestamp]:
    """Return the timestamp class of a device."""
    return CudaTimestamp if device.type == "cuda" else CpuTimestamp


class EpochTimes(NamedTuple):
    """Training time of an epoch so far, and data wait before the first batch and later.

    Training ends with the last batch; validation in between is excluded.
    """

    training_s: float
    first_wait_s: float
    later_waits_s: float

    @property
    def data_wait_fraction(self) -> float:
        return (self.first_wait_s + self.later_waits_s) / self.training_s

    @property
    def steady_wait_fraction(self) -> float:
        """Return the data wait after the first batch, whose wait no number of workers removes."""
        return self.later_waits_s / (self.training_s - self.first_wait_s)


class DataWaitTimer:
    """Time the gaps between batches of an epoch; starts with the epoch.

    A gap is the idle time of the device between the end of a batch and the start of the next one.
    Gaps with other work in them (`pause`, `skip_gap`) do not count as data wait.
    """

    def __init__(self, mark: Callable[[], Timestamp]) -> None:
        self._mark = mark
        self._start_s = self._end_s = time.perf_counter()
        self._gap_start: Timestamp | None = mark()
        self._paused_at_s: float | None = None
        self._paused_s = 0.0
        self._gaps: deque[tuple[Timestamp, Timestamp]] = deque()  # not reached by the device yet
        self._waits_s: list[float] = []

    def batch_start(self) -> None:
        if self._paused_at_s is not None:
            self._paused_s += time.perf_counter() - self._paused_at_s
        elif self._gap_start is not None:
            self._gaps.append((self._gap_start, self._mark()))
        self._gap_start = self._paused_at_s = None
        self._collect()

    def batch_end(self) -> None:
        self._end_s = time.perf_counter()
        self._gap_start = self._mark()

    def pause(self) -> None:
        """Stop the clock until the next batch: validation starts."""
        self._paused_at_s = time.perf_counter()

    def skip_gap(self) -> None:
        """Exclude the current gap from data wait: a checkpoint is being written."""
        self._gap_start = None

    def read(self) -> EpochTimes:
        """Return the times so far, without gaps that a GPU has not reached yet."""
        self._collect()
        first, *later = self._waits_s or [0.0]
        return EpochTimes(self._end_s - self._start_s - self._paused_s, first, sum(later))

    def _collect(self) -> None:
        while self._gaps:
            start, end = self._gaps[0]
            wait_s = start.until_s(end)
            if wait_s is None:
                return
            self._waits_s.append(wait_s)
            self._gaps.popleft()


@dataclass(frozen=True, kw_only=True)
class LoaderStats:
    """How fast data reached one device in an epoch.

    Attributes:
        num_workers: loader processes; 0: loading in the training process.
        num_cores: cores of the machine per device.
        num_batches: batches of the epoch.
        clips_per_s: clips trained per second.
        data_wait_fraction: of training time, after the first batch.
    """

    num_workers: int
    num_cores: int
    num_batches: int
    clips_per_s: float
    data_wait_fraction: float


class LoaderAdvice(NamedTuple):
    """A suggestion, and the number of workers that it means (None: something else)."""

    num_workers: int | None
    sentence: str

    def is_same_as(self, other: "LoaderAdvice | None") -> bool:
        return other is not None and other.num_workers == self.num_workers


def advise(stats: LoaderStats, transcode: str | None) -> LoaderAdvice | None:
    """Suggest how to reduce data wait; None if it is small or cannot be judged yet.

    `transcode` is the command that copies the videos; None where there are no files of videos.
    While a device waits, its workers are busy: their rate is what they can load.
    """
    now, share = stats.num_workers, stats.data_wait_fraction
    if share <= MIN_ADVISED_WAIT or stats.num_batches < BATCHES_PER_WORKER * max(now, 1):
        return None
    wanted = stats.clips_per_s / max(1 - share, 0.01)  # of a device without data wait
    # Without workers, clips are loaded during the wait only.
    of_each = stats.clips_per_s / (now or share)
    needed = max(workers_for(wanted / of_each), now + 1)
    who = "each loads" if now else "the training process loads"
    what = f"data.num_workers={now}, {who} {of_each:.3g} clips/s, the device needs {wanted:.3g}"
    if needed < stats.num_cores:
        remedy = f"data.num_workers={needed} would keep it busy ({stats.num_cores} cores)"
        return LoaderAdvice(needed, f"data wait: {what}; {remedy}")
    remedy = f"{needed} workers would keep it busy, available cores: {stats.num_cores}"
    if transcode:
        copy = choose_copy(wanted / of_each, stats.num_cores)
        remedy += f"; a transcoded copy would need {copy.num_workers}: "
        remedy += f"{transcode} transcode={copy.profile}"
    return LoaderAdvice(None, f"data wait: {what}; {remedy}")
