"""Compare two regressions of the same videos: whether one has less error, and on which videos.

The 95 % interval of a difference is over resampled videos (bootstrap), the same for both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from video_mvit.errors import UserError
from video_mvit.evaluation.intervals import Interval
from video_mvit.evaluation.listed_results import in_both
from video_mvit.evaluation.regression_metrics import quantiles, resampled
from video_mvit.evaluation.regression_predictions import RegressionVideo, value_arrays


class MaeChange(NamedTuple):
    """The mean absolute error of a target before and after, and the interval of the difference."""

    name: str
    before: float
    after: float
    interval: Interval

    @property
    def is_significant(self) -> bool:
        """Return whether the interval of the difference leaves out 0."""
        return not self.interval.low <= 0 <= self.interval.high


class ErrorChange(NamedTuple):
    """The absolute error of a video before and after.

    Of several targets, it is the mean of the errors in standard deviations of the true values.
    """

    video: str
    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class RegressionComparison:
    """Two evaluations over the `num_videos` that both have.

    `videos` are those whose error changed, the largest rise first. `num_only_one` videos were
    evaluated in one of them only, and do not count.
    """

    num_videos: int
    num_only_one: int
    targets: tuple[MaeChange, ...]
    videos: tuple[ErrorChange, ...]


def compare_regressions(
    before: Sequence[RegressionVideo],
    after: Sequence[RegressionVideo],
    targets: tuple[Sequence[str], Sequence[str]],
) -> RegressionComparison:
    """Compare video by video, matched by name; raises `UserError` where they do not fit."""
    if sorted(targets[0]) != sorted(targets[1]):
        raise UserError("the two evaluations have other targets, so that their errors do not match")
    first, second, num_only_one = in_both(before, after)
    places = {name: k for k, name in enumerate(targets[1])}
    order = [places[name] for name in targets[0]]
    values_1, truth = value_arrays(first)
    values_2, truth_2 = (each[:, order] for each in value_arrays(second))
    if not np.array_equal(truth, truth_2):
        raise UserError("the two evaluations have other true values of the same videos")
    errors_1, errors_2 = np.abs(values_1 - truth), np.abs(values_2 - truth)
    changes = errors_2 - errors_1
    intervals = quantiles(np.array([w @ changes for w in resampled(len(first))]) / len(first))
    means = zip(errors_1.mean(axis=0).tolist(), errors_2.mean(axis=0).tolist(), strict=True)
    of_targets = zip(targets[0], means, intervals, strict=True)
    return RegressionComparison(
        num_videos=len(first),
        num_only_one=num_only_one,
        targets=tuple(MaeChange(name, *pair, interval) for name, pair, interval in of_targets),
        videos=_changed(
            [each.video for each in first],
            *(errors_of_videos(each, truth) for each in (errors_1, errors_2)),
        ),
    )


def errors_of_videos(
    errors: NDArray[np.float64], truth: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return one error of each video: (N, K), (N, K) -> (N,).

    Of one target, it is in its units; of several, the mean in standard deviations of the true
    values, where these differ.
    """
    errors = np.abs(errors)
    if errors.shape[1] == 1:
        return errors[:, 0]
    stds = truth.std(axis=0)
    found: NDArray[np.float64] = (errors / np.where(stds, stds, 1)).mean(axis=1)
    return found


def _changed(
    videos: Sequence[str], before: NDArray[np.float64], after: NDArray[np.float64]
) -> tuple[ErrorChange, ...]:
    rows = zip(videos, before.tolist(), after.tolist(), strict=True)
    changes = [ErrorChange(*row) for row in rows if row[1] != row[2]]
    return tuple(sorted(changes, key=lambda each: each.before - each.after))
