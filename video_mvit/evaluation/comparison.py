"""Compare two evaluations of the same videos: flipped predictions and their significance."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from video_mvit.errors import UserError
from video_mvit.evaluation.intervals import (
    Interval,
    PairedCounts,
    Scored,
    calibration_difference,
    paired_difference,
)
from video_mvit.evaluation.metrics import scored
from video_mvit.evaluation.predictions import VideoResult

SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class Flip:
    """A video that exactly one of two evaluations classifies correctly, with both predictions."""

    video: str
    label: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two evaluations over the `num_videos` that both have.

    `fixed` videos are correct in the second only, `broken` ones in the first only. `num_only_one`
    videos were evaluated in one of them only, and do not count.
    """

    num_videos: int
    num_only_one: int
    num_right: tuple[int, int]
    fixed: tuple[Flip, ...]
    broken: tuple[Flip, ...]
    scored: tuple[Scored, Scored]

    @property
    def calibration_difference(self) -> tuple[float, Interval]:
        """Compute the calibration error of the second minus that of the first; its interval."""
        first, second = self.scored
        return second.error() - first.error(), calibration_difference(first, second)

    @property
    def difference(self) -> float:
        """Return the top-1 of the second minus that of the first."""
        return (len(self.fixed) - len(self.broken)) / self.num_videos

    @property
    def interval(self) -> Interval:
        """Compute the 95 % interval of the difference."""
        only_first, only_second = len(self.broken), len(self.fixed)
        both = self.num_right[0] - only_first
        neither = self.num_videos - both - only_first - only_second
        return paired_difference(PairedCounts(both, only_first, only_second, neither))

    @property
    def p_value(self) -> float:
        """Compute the p-value of the exact McNemar test: equal accuracy is the null hypothesis."""
        return sign_test(len(self.fixed), len(self.broken))


def sign_test(num_fixed: int, num_broken: int) -> float:
    """Compute the p-value of a two-sided exact binomial test of even odds."""
    n, k = num_fixed + num_broken, min(num_fixed, num_broken)
    tail = sum(comb(n, i) for i in range(k + 1))
    return min(1.0, float(2 * tail / 2**n))


def compare(
    before: Sequence[VideoResult],
    after: Sequence[VideoResult],
    class_names: tuple[Sequence[str], Sequence[str]],
) -> Comparison:
    """Compare video by video; videos match by name and label.

    Raises `UserError` where no video is in both.
    """
    first, second = (
        {(p.video, names[p.label]): p for p in predictions if not p.problem and p.label is not None}
        for predictions, names in zip((before, after), class_names, strict=True)
    )
    both = [key for key in first if key in second]
    if not both:
        raise UserError("no video was evaluated in both")
    fixed, broken = [], []
    for video, label in both:
        a, b = first[video, label], second[video, label]
        flip = Flip(
            video=video,
            label=label,
            before=class_names[0][a.classes[0]],
            after=class_names[1][b.classes[0]],
        )
        if b.is_right and not a.is_right:
            fixed.append(flip)
        if a.is_right and not b.is_right:
            broken.append(flip)
    return Comparison(
        num_videos=len(both),
        num_only_one=len(first.keys() ^ second.keys()),
        num_right=(sum(first[k].is_right for k in both), sum(second[k].is_right for k in both)),
        fixed=tuple(fixed),
        broken=tuple(broken),
        scored=(scored([first[k] for k in both]), scored([second[k] for k in both])),
    )
