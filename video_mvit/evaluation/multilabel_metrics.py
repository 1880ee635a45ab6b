"""Compute metrics of videos with any number of classes: average precision, F1, thresholds.

Letters: N videos, K classes. Scores of a class are those of all videos, whatever else they show.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from video_mvit.errors import UserError

Scores = NDArray[np.float64]  # (N,) or (N, K)
Truth = NDArray[np.bool_]  # of the same shape
MIN_SCORE = 0.5  # at which F1 is told; a class counts as predicted from it on


class BestThreshold(NamedTuple):
    """The score from which on a class counts as predicted where its F1 is the highest."""

    threshold: float
    f1: float


class MultiLabelClass(NamedTuple):
    """Numbers of one class; those without a denominator are None.

    `precision`, `recall` and `f1` are of scores from 0.5 on. `best` was chosen on the same videos,
    so that its F1 is higher than on others.
    """

    label: int
    num_videos: int
    num_predicted: int
    num_right: int
    average_precision: float | None
    best: BestThreshold | None

    @property
    def recall(self) -> float | None:
        return self.num_right / self.num_videos if self.num_videos else None

    @property
    def precision(self) -> float | None:
        return self.num_right / self.num_predicted if self.num_predicted else None

    @property
    def f1(self) -> float | None:
        """Return the harmonic mean of recall and precision; None without videos of the class."""
        if not self.num_videos:
            return None
        return 2 * self.num_right / (self.num_videos + self.num_predicted)


class MultiLabelNumbers(NamedTuple):
    """What an evaluation comes to.

    Attributes:
        map: mean average precision over the classes that have videos, each class the same.
        map_weighted: the same, each class weighted by its number of videos.
        f1_micro: of all pairs of a video and a class together, scores from 0.5 on.
        f1_macro: mean of the classes that have videos.
        exact: share of the videos whose classes are all right, and no other is predicted.
        num_classes: that have videos, and count in the means.
    """

    map: float
    map_weighted: float
    f1_micro: float
    f1_macro: float
    exact: float
    num_classes: int


def average_precision(scores: Scores, truth: Truth) -> float | None:
    """Compute the non-interpolated average precision: (N,), (N,) -> (); None without positives.

    The sum of precision times the rise of recall over the distinct scores, from the highest on;
    equal scores count together, as in scikit-learn.
    """
    num_positive = int(truth.sum())
    if not num_positive:
        return None
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(truth[order])
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of equal scores
    rises = np.diff(hits[ends], prepend=0) / num_positive
    return float((hits[ends] / (ends + 1) * rises).sum())


def mean_average_precision(scores: Scores, truth: Truth) -> float | None:
    """Average over the classes that have positives: (N, K), (N, K) -> (); None without any."""
    found = [average_precision(scores[:, k], truth[:, k]) for k in range(scores.shape[1])]
    known = [each for each in found if each is not None]
    return sum(known) / len(known) if known else None


def best_threshold(scores: Scores, truth: Truth) -> BestThreshold | None:
    """Find the threshold of the highest F1, the highest of equal ones; None without positives.

    It lies midway between two scores, so that rounding does not decide.
    """
    if not truth.any():
        return None
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(truth[order])
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    f1 = 2 * hits[ends] / (ends + 1 + truth.sum())
    best = int(f1.argmax())
    low = ranked[ends[best] + 1] if best + 1 < len(ends) else 0.0
    return BestThreshold(float((ranked[ends[best]] + low) / 2), float(f1[best]))


def class_numbers(scores: Scores, truth: Truth) -> list[MultiLabelClass]:
    """Compute the numbers of every class, in order: (N, K), (N, K) -> K of them."""
    predicted = scores >= MIN_SCORE
    return [
        MultiLabelClass(
            label=label,
            num_videos=int(truth[:, label].sum()),
            num_predicted=int(predicted[:, label].sum()),
            num_right=int((predicted[:, label] & truth[:, label]).sum()),
            average_precision=average_precision(scores[:, label], truth[:, label]),
            best=best_threshold(scores[:, label], truth[:, label]),
        )
        for label in range(scores.shape[1])
    ]


def summarize_classes(
    classes: Sequence[MultiLabelClass], scores: Scores, truth: Truth
) -> MultiLabelNumbers:
    """Summarize the numbers of all classes; raises `UserError` where no video has a class."""
    seen = [each for each in classes if each.num_videos]
    if not seen:
        raise UserError("none of the evaluated videos has a class, so that there is no mAP")
    precisions = np.array([each.average_precision for each in seen])
    num_videos = np.array([each.num_videos for each in seen])
    num_right = sum(each.num_right for each in classes)
    num_said = sum(each.num_videos + each.num_predicted for each in classes)
    return MultiLabelNumbers(
        map=float(precisions.mean()),
        map_weighted=float((precisions * num_videos).sum() / num_videos.sum()),
        f1_micro=2 * num_right / num_said,
        f1_macro=float(np.mean([each.f1 for each in seen])),
        exact=float(((scores >= MIN_SCORE) == truth).all(axis=1).mean()),
        num_classes=len(seen),
    )
