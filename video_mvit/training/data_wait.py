"""How long training waits for data, without ever making it wait, and what would help."""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

WORTH_SAYING = 0.1  # of training time
BATCHES_PER_WORKER = 4  # below, the filling of the queue counts for too much to judge
# What transcoding gave on three kinds of video, see README.
TRANSCODED = "a transcoded copy decodes 2 to 3.5 times faster: video-mvit prepare mode=transcode"


class Timestamp(Protocol):
    """A moment in the work of a device."""

    def until_s(self, later: "Timestamp") -> float | None:
        """Seconds to a later mark; None: the device has not come there yet."""
        ...


class CpuTimestamp:
    """Now, by the clock: a CPU has done all that it was given."""

    def __init__(self) -> None:
        self.time_s = time.perf_counter()

    def until_s(self, later: "Timestamp") -> float | None:
        assert isinstance(later, CpuTimestamp)
        return later.time_s - self.time_s


class CudaTimestamp:
    """When a GPU will have done all that it was given so far; the host does not wait for it."""

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self.event.record()

    def until_s(self, later: "Timestamp") -> float | None:
        assert isinstance(later, CudaTimestamp)
        if not later.event.query():  # type: ignore[no-untyped-call]
            return None
        return float(self.event.elapsed_time(later.event)) / 1000


def timestamp_type(device: torch.device) -> Callable[[], Timestamp]:
    return CudaTimestamp if device.type == "cuda" else CpuTimestamp


class EpochTimes(NamedTuple):
    """Of an epoch so far: training, and what of it was waiting, before its first batch and later.

    Training ends with the last batch; validation within is left out.
    """

    training_s: float
    first_wait_s: float
    later_waits_s: float

    @property
    def data_wait_fraction(self) -> float:
        return (self.first_wait_s + self.later_waits_s) / self.training_s

    @property
    def steady_wait_fraction(self) -> float:
        """Without the first batch, which waits for its own decoding, however many workers load."""
        return self.later_waits_s / (self.training_s - self.first_wait_s)


class DataWaitTimer:
    """Times the gaps between batches of an epoch; begins with the epoch.

    A gap is the time that the device has nothing to do between the end of a batch and the start of
    the next one; one with something else in it (`pause`, `skip_gap`) is no waiting.
    """

    def __init__(self, mark: Callable[[], Timestamp]) -> None:
        self._mark = mark
        self._start_s = self._end_s = time.perf_counter()
        self._gap_start: Timestamp | None = mark()
        self._paused_at_s: float | None = None
        self._paused_s = 0.0
        self._gaps: deque[tuple[Timestamp, Timestamp]] = (
            deque()
        )  # that the device has not come to yet
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
        """Something that is not training begins, until the next batch: validation."""
        self._paused_at_s = time.perf_counter()

    def skip_gap(self) -> None:
        """This gap is training, but not waiting for data: a checkpoint is written."""
        self._gap_start = None

    def read(self) -> EpochTimes:
        """Gaps that a GPU has not come to yet are left out; there are few, if any."""
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
    """How data came to one device in an epoch.

    Attributes:
        num_workers: loader processes; 0: training loads for itself.
        num_cores: of the machine, for each of its devices.
        num_batches: of the epoch.
        clips_per_s: that were trained on.
        data_wait_fraction: of that time, after the first batch.
    """

    num_workers: int
    num_cores: int
    num_batches: int
    clips_per_s: float
    data_wait_fraction: float


class LoaderAdvice(NamedTuple):
    """What would help, and how many workers that means (None: something else)."""

    num_workers: int | None
    sentence: str

    def is_same_as(self, other: "LoaderAdvice | None") -> bool:
        return other is not None and other.num_workers == self.num_workers


def advise(stats: LoaderStats) -> LoaderAdvice | None:
    """What to do about waiting for data; None: there is little of it, or too little to judge.

    While a device waits, its workers are busy all the time: what they gave is what they can give.
    """
    now, share = stats.num_workers, stats.data_wait_fraction
    if share <= WORTH_SAYING or stats.num_batches < BATCHES_PER_WORKER * max(now, 1):
        return None
    wanted = stats.clips_per_s / max(1 - share, 0.01)  # of a device that never waits
    # Without workers, clips are loaded in the time of waiting alone.
    of_each = stats.clips_per_s / (now or share)
    needed = max(math.ceil(wanted / of_each - 1e-6), now + 1)
    who = "each loads" if now else "training itself loads"
    what = f"data.num_workers={now}, {who} {of_each:.3g} clips/s, the device takes {wanted:.3g}"
    if needed < stats.num_cores:
        told = f"data.num_workers={needed} keeps it busy ({stats.num_cores} cores)"
        return LoaderAdvice(needed, f"waiting for data: {what}; {told}")
    told = f"{needed} workers would keep it busy, cores: {stats.num_cores}; {TRANSCODED}"
    return LoaderAdvice(None, f"waiting for data: {what}; {told}")
