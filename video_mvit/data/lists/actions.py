"""When the videos of a list show their classes, and which of them a clip shows.

SlowFast trains Charades on the classes that are seen between the first and the last frame of a clip
(`datasets/charades.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Unit = Literal["seconds", "frames"]


class Action(NamedTuple):
    """A class, and the first and last time or frame that shows it; both are included."""

    label: int
    first: float = -np.inf
    last: float = np.inf


class ClipSpan(NamedTuple):
    """First and last frame of a clip, and the seconds at which they appear in the video."""

    frames: tuple[int, int]
    seconds: tuple[float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Actions:
    """The actions of N videos, packed.

    Attributes:
        unit: of the times.
        starts: (N + 1,) place of the first action of each video, and their number.
        labels: (M,) class of each action.
        times: (M, 2) its first and last time.
    """

    unit: Unit
    starts: NDArray[np.int64]
    labels: NDArray[np.int32]
    times: NDArray[np.float64]

    @classmethod
    def of(cls, videos: Sequence[Sequence[Action]], unit: Unit) -> "Actions":
        """Pack the actions of each video."""
        each = [action for actions in videos for action in actions]
        times = np.array([(a.first, a.last) for a in each], np.float64)
        return cls(
            unit=unit,
            starts=np.cumsum([0, *map(len, videos)], dtype=np.int64),
            labels=np.array([action.label for action in each], np.int32),
            times=times.reshape(-1, 2),
        )

    def seen(self, index: int, span: ClipSpan) -> NDArray[np.int32]:
        """Return the classes that a video shows in a clip: (any number,)."""
        rows = slice(self.starts[index], self.starts[index + 1])
        start, end = span.seconds if self.unit == "seconds" else span.frames
        first, last = self.times[rows].T
        found: NDArray[np.int32] = self.labels[rows][(first <= end) & (last >= start)]
        return found

    def take(self, chosen: ArrayLike) -> "Actions":
        """Select videos by index, in that order."""
        indices = np.asarray(chosen, np.int64)
        counts = np.diff(self.starts)[indices]
        rows = np.concatenate(
            [np.arange(self.starts[i], self.starts[i + 1]) for i in indices.tolist()]
            or [np.zeros(0, np.int64)]
        )
        return Actions(
            unit=self.unit,
            starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            labels=self.labels[rows],
            times=self.times[rows],
        )

    def in_order(self, new: NDArray[np.int32]) -> "Actions":
        """Return the same with class i as `new[i]`."""
        return Actions(
            unit=self.unit, starts=self.starts, labels=new[self.labels], times=self.times
        )

    def content(self) -> bytes:
        """Return bytes that differ where the actions do."""
        parts = (self.starts, self.labels, self.times)
        return b"".join([self.unit.encode(), *(part.tobytes() for part in parts)])
