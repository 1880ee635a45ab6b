"""How sure a mean average precision is, and whether two differ: resampled videos (bootstrap).

The 95 % interval is that of the mean average precision, or of the difference of two, over sets of
as many videos drawn with replacement; both evaluations get the same sets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from video_mvit.errors import UserError
from video_mvit.evaluation.intervals import Interval
from video_mvit.evaluation.listed_results import in_both
from video_mvit.evaluation.multilabel_metrics import Scores, Truth, average_precision
from video_mvit.evaluation.multilabel_predictions import MultiLabelVideo, as_arrays

NUM_SAMPLES = 400


@dataclass(frozen=True, kw_only=True)
class MapComparison:
    """Two evaluations over the `num_videos` that both have.

    `changes` are names of classes with their average precision before and after, the largest drop
    first. `num_only_one` videos were evaluated in one of them only, and do not count.
    """

    num_videos: int
    num_only_one: int
    before: float
    after: float
    interval: Interval
    changes: tuple[tuple[str, float, float], ...]

    @property
    def is_significant(self) -> bool:
        """Return whether the interval of the difference leaves out 0."""
        return not self.interval.low <= 0 <= self.interval.high


def compare_multilabel(
    before: Sequence[MultiLabelVideo],
    after: Sequence[MultiLabelVideo],
    class_names: tuple[Sequence[str], Sequence[str]],
) -> MapComparison:
    """Compare video by video, matched by name; raises `UserError` where they do not fit."""
    if sorted(class_names[0]) != sorted(class_names[1]):
        raise UserError("the two evaluations have other classes, so that their mAPs do not compare")
    first, second, num_only_one = in_both(before, after)
    num_classes = len(class_names[0])
    scores_1, truth = as_arrays(first, num_classes)
    scores_2, truth_2 = as_arrays(second, num_classes)
    order = [list(class_names[1]).index(name) for name in class_names[0]]
    scores_2, truth_2 = scores_2[:, order], truth_2[:, order]
    if not np.array_equal(truth, truth_2):
        raise UserError("the two evaluations have other labels of the same videos")
    pairs = [
        (name, average_precision(scores_1[:, k], truth[:, k]))
        for k, name in enumerate(class_names[0])
    ]
    changes = [
        (name, one, average_precision(scores_2[:, k], truth[:, k]) or 0.0)
        for k, (name, one) in enumerate(pairs)
        if one is not None
    ]
    if not changes:
        raise UserError("no video that was evaluated in both has a class")
    samples = _resampled_map(scores_2, truth) - _resampled_map(scores_1, truth)
    return MapComparison(
        num_videos=len(first),
        num_only_one=num_only_one,
        before=float(np.mean([one for _, one, _ in changes])),
        after=float(np.mean([two for _, _, two in changes])),
        interval=_quantiles(samples),
        changes=tuple(sorted(changes, key=lambda each: each[2] - each[1])),
    )


def map_interval(scores: Scores, truth: Truth) -> Interval:
    """Return the 95 % interval of a mean average precision: (N, K), (N, K) -> low, high."""
    return _quantiles(_resampled_map(scores, truth))


def _quantiles(samples: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(samples, [0.025, 0.975])
    return Interval(float(low), float(high))


def _resampled_map(scores: Scores, truth: Truth) -> NDArray[np.float64]:
    """Compute mAPs of resampled videos, the same for any scores: (N, K), (N, K) -> (samples,)."""
    num_videos, num_classes = scores.shape
    generator = np.random.default_rng(0)
    chances = np.full(num_videos, 1 / num_videos)
    weights = generator.multinomial(num_videos, chances, NUM_SAMPLES)  # (samples, N)
    total, num_seen = np.zeros(NUM_SAMPLES), np.zeros(NUM_SAMPLES)
    for label in range(num_classes):
        precisions, is_seen = _resampled_ap(scores[:, label], truth[:, label], weights)
        total += np.where(is_seen, precisions, 0.0)
        num_seen += is_seen
    return total / np.maximum(num_seen, 1)


def _resampled_ap(
    scores: Scores, truth: Truth, weights: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Compute the average precision of videos that count as often as their weights say.

    (N,), (N,), (samples, N) -> (samples,), and whether the class is in the sample.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of equal scores
    num_above = np.cumsum(weights[:, order], axis=1)[:, ends]
    hits = np.cumsum(weights[:, order] * truth[order], axis=1)[:, ends]
    num_positive = hits[:, -1:]
    rises = np.diff(hits, axis=1, prepend=0) / np.maximum(num_positive, 1)
    precisions = (hits / np.maximum(num_above, 1) * rises).sum(axis=1)
    return precisions, num_positive[:, 0] > 0
