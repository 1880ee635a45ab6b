"""Compute metrics from predictions: accuracy, calibration, classes, confusions, errors."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from video_mvit.evaluation.intervals import (
    Interval,
    Scored,
    calibration_interval,
    f1_interval,
    mean_interval,
    wilson,
)
from video_mvit.evaluation.predictions import VideoResult, evaluated

NUM_BINS = 15  # of confidence, as Guo et al. 2017 (arXiv 1706.04599) have it


class Accuracies(NamedTuple):
    """Shares of the evaluated videos.

    `mean_class_accuracy` is the mean recall of the classes that have videos. `calibration_error` is
    the ECE: the mean gap between confidence and accuracy over 15 bins of confidence.
    """

    top1: float
    top5: float
    mean_class_accuracy: float
    calibration_error: float
    motion: dict[str, float]


class ClassResult(NamedTuple):
    """Counts of one class; `predicted_as` are wrong classes with counts, most common first.

    `num_predicted` counts videos of any class that were predicted as this one.
    """

    label: int
    num_videos: int
    num_right: int
    num_right_in_top5: int
    num_predicted: int
    predicted_as: tuple[tuple[int, int], ...]

    @property
    def recall(self) -> float | None:
        """Return the share of its videos that were predicted as the class; None without videos."""
        return self.num_right / self.num_videos if self.num_videos else None

    @property
    def precision(self) -> float | None:
        """Return the share of videos predicted as the class that are of it; None without any."""
        return self.num_right / self.num_predicted if self.num_predicted else None

    @property
    def f1(self) -> float | None:
        """Return the harmonic mean of recall and precision; None without videos of the class."""
        if not self.num_videos:
            return None
        return 2 * self.num_right / (self.num_videos + self.num_predicted)

    @property
    def f1_interval(self) -> Interval:
        """Return the 95 % interval of F1."""
        return f1_interval(
            self.num_right, self.num_videos + self.num_predicted - 2 * self.num_right
        )


class Confusion(NamedTuple):
    """Number of videos of class `label` that were predicted as `predicted`."""

    label: int
    predicted: int
    num_videos: int


class Bin(NamedTuple):
    """Videos whose top score is in (low, high], with mean score and accuracy; 0 without videos."""

    low: float
    high: float
    num_videos: int
    confidence: float
    accuracy: float


def measure(predictions: Sequence[VideoResult], num_classes: int) -> Accuracies:
    """Compute all metrics of an evaluation; videos with a problem do not count.

    Raises `UserError` where none is left.
    """
    found = evaluated(predictions)
    classes = class_results(found, num_classes)
    recalls = [each.recall for each in classes if each.recall is not None]
    return Accuracies(
        top1=sum(p.is_right for p in found) / len(found),
        top5=sum(p.label in p.classes for p in found) / len(found),
        mean_class_accuracy=sum(recalls) / len(recalls),
        calibration_error=calibration_error(calibration_bins(found)),
        motion={
            test: sum(p.motion[test] == p.label for p in found) / len(found)
            for test in found[0].motion
        },
    )


def confusion_matrix(predictions: Sequence[VideoResult], num_classes: int) -> Tensor:
    """Count videos by true class (rows) and predicted class (columns): -> (K, K) int64."""
    found = evaluated(predictions)
    labels = torch.tensor([p.label for p in found])
    classes = torch.tensor([p.classes[0] for p in found])
    pairs = torch.bincount(labels * num_classes + classes, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def class_results(predictions: Sequence[VideoResult], num_classes: int) -> list[ClassResult]:
    """Count the results of every class, in order, including classes without videos."""
    found = evaluated(predictions)
    num_videos, num_predicted = (Counter[int | None](), Counter[int]())
    in_top5, wrong = Counter[int | None](), defaultdict[int, Counter[int]](Counter)
    for p in found:
        num_videos[p.label] += 1
        num_predicted[p.classes[0]] += 1
        in_top5[p.label] += p.label in p.classes
        if p.label is not None and not p.is_right:
            wrong[p.label][p.classes[0]] += 1
    return [
        ClassResult(
            label=label,
            num_videos=num_videos[label],
            num_right=num_videos[label] - wrong[label].total(),
            num_right_in_top5=in_top5[label],
            num_predicted=num_predicted[label],
            predicted_as=tuple(sorted(wrong[label].items(), key=lambda pair: (-pair[1], pair[0]))),
        )
        for label in range(num_classes)
    ]


def most_confused(predictions: Sequence[VideoResult], num_classes: int) -> list[Confusion]:
    """List the confused pairs of classes, most common first."""
    pairs = [
        Confusion(result.label, predicted, count)
        for result in class_results(predictions, num_classes)
        for predicted, count in result.predicted_as
    ]
    return sorted(pairs, key=lambda pair: -pair.num_videos)


def calibration_bins(predictions: Sequence[VideoResult]) -> list[Bin]:
    """Compute confidence and accuracy in 15 equal bins of confidence."""
    found = evaluated(predictions)
    edges = [i / NUM_BINS for i in range(NUM_BINS + 1)]
    bins = []
    for low, high in pairwise(edges):
        inside = [p for p in found if low < p.scores[0] <= high]
        n = len(inside)
        confidence = sum(p.scores[0] for p in inside) / n if n else 0.0
        accuracy = sum(p.is_right for p in inside) / n if n else 0.0
        bins.append(Bin(low, high, n, confidence, accuracy))
    return bins


def scored(predictions: Sequence[VideoResult]) -> Scored:
    """Collect what the calibration error is computed from, of evaluated videos."""
    edges = [i / NUM_BINS for i in range(1, NUM_BINS)]
    scores = [p.scores[0] for p in predictions]
    return Scored(
        scores=np.array(scores, np.float64),
        is_right=np.array([p.is_right for p in predictions], np.bool_),
        bins=np.array([bisect_left(edges, score) for score in scores], np.int64),
    )


def measure_intervals(predictions: Sequence[VideoResult], num_classes: int) -> dict[str, Interval]:
    """Compute the 95 % intervals of an evaluation's metrics, by name."""
    found = evaluated(predictions)
    n = len(found)
    classes = class_results(found, num_classes)
    return {
        "top1": wilson(sum(p.is_right for p in found), n),
        "top5": wilson(sum(p.label in p.classes for p in found), n),
        "mean_class_accuracy": mean_interval(
            [(each.num_right, each.num_videos) for each in classes if each.num_videos]
        ),
        "calibration_error": calibration_interval(scored(found)),
    }


def calibration_error(bins: Sequence[Bin]) -> float:
    """Compute the expected calibration error: mean |confidence - accuracy|, weighted by videos."""
    distance = sum(b.num_videos * abs(b.confidence - b.accuracy) for b in bins)
    return distance / sum(b.num_videos for b in bins)


def most_confident_errors(
    predictions: Sequence[VideoResult], number: int | None = None
) -> list[VideoResult]:
    """Return the misclassified videos, those with the highest scores first."""
    wrong = [p for p in evaluated(predictions) if not p.is_right]
    return sorted(wrong, key=lambda p: -p.scores[0])[:number]


def class_examples(predictions: Sequence[VideoResult]) -> dict[int, VideoResult]:
    """Return a video of each class: the correct one with the highest score, else an error."""
    best: dict[int, VideoResult] = {}
    for p in evaluated(predictions):
        if p.label is not None:
            known = best.setdefault(p.label, p)
            if (p.is_right, p.scores[0]) > (known.is_right, known.scores[0]):
                best[p.label] = p
    return best
