"""What changed between two evaluations of the same videos, and whether chance would do it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt

from video_mvit.errors import UserError
from video_mvit.evaluation.predictions import VideoResult

NORMAL_95 = 1.959964  # two-sided 95 % quantile of the normal distribution
SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class Flip:
    """A video that one evaluation has right and the other wrong, with both best classes."""

    video: str
    label: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two evaluations over the `num_videos` that both have.

    `gained` are right in the second only, `lost` in the first only. `num_only_one` videos were
    evaluated in one of them only, and do not count.
    """

    num_videos: int
    num_only_one: int
    num_right: tuple[int, int]
    gained: tuple[Flip, ...]
    lost: tuple[Flip, ...]

    @property
    def difference(self) -> float:
        """Top-1 of the second less that of the first."""
        return (len(self.gained) - len(self.lost)) / self.num_videos

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the difference, for paired shares (Wald; Agresti 2013)."""
        n, b, c = self.num_videos, len(self.gained), len(self.lost)
        reach = NORMAL_95 * sqrt(max(b + c - (b - c) ** 2 / n, 0)) / n
        return self.difference - reach, self.difference + reach

    @property
    def p_value(self) -> float:
        """Chance of at least so uneven flips if both were equally good (exact McNemar test)."""
        return sign_test(len(self.gained), len(self.lost))


def sign_test(num_gained: int, num_lost: int) -> float:
    """Two-sided exact binomial test of even odds."""
    n, k = num_gained + num_lost, min(num_gained, num_lost)
    tail = sum(comb(n, i) for i in range(k + 1))
    return min(1.0, float(2 * tail / 2**n))


def compare(
    before: Sequence[VideoResult],
    after: Sequence[VideoResult],
    class_names: tuple[Sequence[str], Sequence[str]],
) -> Comparison:
    """Compare video by video; videos are the same where name and label are.

    Raises `ValueError` where no video is in both.
    """
    first, second = (
        {(p.video, names[p.label]): p for p in predictions if not p.problem and p.label is not None}
        for predictions, names in zip((before, after), class_names, strict=True)
    )
    both = [key for key in first if key in second]
    if not both:
        raise UserError("no video was evaluated in both")
    gained, lost = [], []
    for video, label in both:
        a, b = first[video, label], second[video, label]
        flip = Flip(
            video=video,
            label=label,
            before=class_names[0][a.classes[0]],
            after=class_names[1][b.classes[0]],
        )
        if b.is_right and not a.is_right:
            gained.append(flip)
        if a.is_right and not b.is_right:
            lost.append(flip)
    return Comparison(
        num_videos=len(both),
        num_only_one=len(first.keys() ^ second.keys()),
        num_right=(sum(first[k].is_right for k in both), sum(second[k].is_right for k in both)),
        gained=tuple(gained),
        lost=tuple(lost),
    )
