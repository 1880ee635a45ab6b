"""How sure a mean average precision is, and whether two differ: resampled videos (bootstrap).

The 95 % interval is that of the mean average precision, or of the difference of two, over sets of
as many videos drawn with replacement; both evaluations get the same sets. A class of few videos has
a higher precision where one of them is drawn twice, so that the distances of the sets to the number
are taken off, not added (the basic interval).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from video_mvit.errors import UserError
from video_mvit.evaluation.intervals import OUTER_95, Interval
from video_mvit.evaluation.listed_results import in_both
from video_mvit.evaluation.multilabel_metrics import (
    Scores,
    Truth,
    average_precision,
    mean_average_precision,
)
from video_mvit.evaluation.multilabel_predictions import MultiLabelVideo, as_arrays

NUM_SAMPLES = 400
MAX_DRAWN = 2**22  # videos of the samples that are computed together


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
    places = {name: k for k, name in enumerate(class_names[1])}
    order = [places[name] for name in class_names[0]]
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
    map_1 = float(np.mean([one for _, one, _ in changes]))
    map_2 = float(np.mean([two for _, _, two in changes]))
    return MapComparison(
        num_videos=len(first),
        num_only_one=num_only_one,
        before=map_1,
        after=map_2,
        interval=_basic_interval(map_2 - map_1, samples),
        changes=tuple(sorted(changes, key=lambda each: each[2] - each[1])),
    )


def map_interval(scores: Scores, truth: Truth) -> Interval:
    """Return the 95 % interval of a mean average precision: (N, K), (N, K) -> low, high.

    It holds the number itself; some class has a video.
    """
    number = mean_average_precision(scores, truth)
    assert number is not None
    low, high = _basic_interval(number, _resampled_map(scores, truth))
    return Interval(min(max(low, 0.0), number), max(min(high, 1.0), number))


def _basic_interval(number: float, samples: NDArray[np.float64]) -> Interval:
    """Return the interval of a number by those of resampled videos; NaN of these is left out."""
    least, most = np.nanquantile(samples, OUTER_95)
    return Interval(2 * number - float(most), 2 * number - float(least))


class Ranked(NamedTuple):
    """Videos of a class in the order of their scores, highest first.

    Attributes:
        order: their places.
        truth: whether they have the class.
        ends: where the last of equal scores is.
    """

    order: NDArray[np.int64]
    truth: Truth
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, scores: Scores, truth: Truth) -> "Ranked":
        """Rank videos: (N,), (N,)."""
        order = np.argsort(-scores, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
        return cls(order, truth[order], ends)


def _resampled_map(scores: Scores, truth: Truth) -> NDArray[np.float64]:
    """Compute mAPs of resampled videos, the same for any scores: (N, K), (N, K) -> (samples,).

    NaN where no video of a sample has a class.
    """
    num_videos = len(scores)
    generator = np.random.default_rng(0)
    chances = np.full(num_videos, 1 / num_videos)
    seen = np.flatnonzero(truth.any(axis=0)).tolist()
    classes = [Ranked.of(scores[:, label], truth[:, label]) for label in seen]
    num_together = max(1, MAX_DRAWN // num_videos)
    samples = []
    for start in range(0, NUM_SAMPLES, num_together):
        num_drawn = min(num_together, NUM_SAMPLES - start)
        weights = generator.multinomial(num_videos, chances, num_drawn)  # (drawn, N)
        total, num_seen = np.zeros(num_drawn), np.zeros(num_drawn)
        for ranked in classes:
            precisions, is_seen = _resampled_ap(ranked, weights)
            total += np.where(is_seen, precisions, 0.0)
            num_seen += is_seen
        samples.append(np.where(num_seen, total / np.maximum(num_seen, 1), np.nan))
    return np.concatenate(samples)


def _resampled_ap(
    ranked: Ranked, weights: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Compute the average precision of videos that count as often as their weights say.

    (samples, N) -> (samples,), and whether the class is in the sample.
    """
    drawn = weights[:, ranked.order]
    num_above = np.cumsum(drawn, axis=1)[:, ranked.ends]
    hits = np.cumsum(drawn * ranked.truth, axis=1)[:, ranked.ends]
    num_positive = hits[:, -1:]
    rises = np.diff(hits, axis=1, prepend=0) / np.maximum(num_positive, 1)
    precisions = (hits / np.maximum(num_above, 1) * rises).sum(axis=1)
    return precisions, num_positive[:, 0] > 0
