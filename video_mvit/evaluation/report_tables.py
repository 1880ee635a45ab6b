"""Rows of a report's tables: classes with their intervals, confused pairs, the confusion matrix."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from video_mvit.evaluation.intervals import Interval, wilson
from video_mvit.evaluation.metrics import (
    ClassResult,
    Confusion,
    class_results,
    confusion_matrix,
    most_confused,
)
from video_mvit.evaluation.predictions import VideoResult
from video_mvit.evaluation.thumbnails import matrix_picture, order_by_confusion
from video_mvit.text import brief, printable

NUM_PAIRS = 20
NUM_WORST = 5
MAX_TABLE_CLASSES = 30  # a larger confusion matrix is a picture
MAX_MAP_CLASSES = 2000  # of that picture
MAX_ROWS = 2000  # of the class table; predictions.csv has all


class Rate(NamedTuple):
    """A share of videos with its 95 % interval."""

    share: float
    interval: Interval

    @classmethod
    def of(cls, num_right: int, num_videos: int) -> "Rate | None":
        """Return the share; None without videos."""
        if not num_videos:
            return None
        return cls(num_right / num_videos, wilson(num_right, num_videos))


class ClassRow(NamedTuple):
    """Row of the class table; what has no denominator is None."""

    label: int
    name: str
    num_videos: int
    recall: Rate | None
    recall_in_top5: Rate | None
    precision: Rate | None
    f1: Rate | None
    predicted_as: int | None  # the most common error
    most_common_error: str
    num_most_common: int


class PairRow(NamedTuple):
    label: int
    predicted: int
    num_videos: int
    share: Rate  # of the videos of `label`
    num_reverse: int  # of `predicted` that were predicted as `label`


class MatrixRow(NamedTuple):
    label: int
    name: str
    counts: tuple[int, ...]
    shares: tuple[float, ...]


def class_rows(predictions: Sequence[VideoResult], names: Sequence[str]) -> list[ClassRow]:
    """Return a row for each class, lowest recall first, classes without videos last."""
    rows = [_class_row(result, names) for result in class_results(predictions, len(names))]
    return sorted(rows, key=lambda row: 2 if row.recall is None else row.recall.share)


def worst_classes(rows: Sequence[ClassRow]) -> list[ClassRow]:
    """Return five of `class_rows` with the lowest recall, the largest first among equals."""
    known = [(row.recall.share, -row.num_videos, row) for row in rows if row.recall]
    return [row for _, _, row in sorted(known, key=lambda each: each[:2])[:NUM_WORST]]


def _class_row(result: ClassResult, names: Sequence[str]) -> ClassRow:
    predicted_as, num_most_common = result.predicted_as[0] if result.predicted_as else (None, 0)
    return ClassRow(
        label=result.label,
        name=names[result.label],
        num_videos=result.num_videos,
        recall=Rate.of(result.num_right, result.num_videos),
        recall_in_top5=Rate.of(result.num_right_in_top5, result.num_videos),
        precision=Rate.of(result.num_right, result.num_predicted),
        f1=None if result.f1 is None else Rate(result.f1, result.f1_interval),
        predicted_as=predicted_as,
        most_common_error="" if predicted_as is None else names[predicted_as],
        num_most_common=num_most_common,
    )


def confusion_parts(predictions: Sequence[VideoResult], names: Sequence[str]) -> dict[str, Any]:
    """Return the most confused pairs, and the matrix: a table of few classes, an image of many.

    `predictions` are evaluated ones.
    """
    counts = Counter((p.label, p.classes[0]) for p in predictions if p.label is not None)
    sizes = Counter(p.label for p in predictions)
    pairs = [
        PairRow(
            label,
            predicted,
            n,
            Rate(n / sizes[label], wilson(n, sizes[label])),
            counts[predicted, label],
        )
        for label, predicted, n in most_confused(predictions, len(names))[:NUM_PAIRS]
    ]
    parts: dict[str, Any] = {"pairs": pairs, "matrix": None, "map": None}
    if len(names) <= MAX_TABLE_CLASSES:
        parts["matrix"] = [
            MatrixRow(label, names[label], tuple(row), tuple(n / max(sum(row), 1) for n in row))
            for label, row in enumerate(confusion_matrix(predictions, len(names)).tolist())
        ]
    elif len(names) <= MAX_MAP_CLASSES:
        cells = [Confusion(label, predicted, n) for (label, predicted), n in sorted(counts.items())]
        order = order_by_confusion(cells, len(names))
        details = {
            "names": [brief(printable(name)) for name in names],
            "order": order,
            "cells": cells,
            "items": "videos",
        }
        parts["map"] = {"picture": Markup(matrix_picture(cells, order)), "details": details}
    return parts
