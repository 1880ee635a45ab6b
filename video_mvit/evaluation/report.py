"""Render an evaluation as one self-contained HTML page, from the same numbers as the JSON.

Order: accuracy, temporal ablation, confusion matrix, errors, classes, calibration, training curves;
then the evaluation setup and excluded videos.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup
from numpy.typing import NDArray

from video_mvit.evaluation.figures import Curves, draw_calibration, draw_curves
from video_mvit.evaluation.metrics import (
    ClassResult,
    Confusion,
    calibration_bins,
    class_results,
    most_confident_errors,
    most_confused,
)
from video_mvit.evaluation.motion_tests import MEANING
from video_mvit.evaluation.predictions import VideoResult, evaluated
from video_mvit.evaluation.results import Result, percent
from video_mvit.evaluation.summary_text import (
    accuracy_sentence,
    calibration_sentence,
    chance_level,
    motion_sentences,
    protocol_sentence,
)
from video_mvit.evaluation.thumbnails import matrix_picture, order_by_confusion, strip_pictures
from video_mvit.text import printable

NUM_ERRORS = 12
NUM_PAIRS = 20
MAX_TABLE_CLASSES = 30  # a larger confusion matrix is a picture
MAX_NAMES = 1000  # of excluded videos; longer pages are slow, results.json has all


class ClassRow(NamedTuple):
    """Row of the class table; shares are None where their denominator is zero."""

    name: str
    num_videos: int
    top1: float | None
    top5: float | None
    precision: float | None
    most_common_error: str
    num_most_common: int


class PairRow(NamedTuple):
    label: int
    predicted: int
    num_videos: int
    share: float  # of the videos of `label`
    num_reverse: int  # of `predicted` that were predicted as `label`


class ScoredClass(NamedTuple):
    name: str
    score: float
    is_right: bool


class ConfidentError(NamedTuple):
    video: str
    label: str
    top_classes: tuple[ScoredClass, ...]
    rank: int | None  # of the true class, from 1; None where it is not in the top classes
    pictures: tuple[str, ...]


class MatrixRow(NamedTuple):
    name: str
    counts: tuple[int, ...]
    shares: tuple[float, ...]


def render_report(
    result: Result,
    predictions: Sequence[VideoResult],
    *,
    curves: Curves,
    strips: Mapping[str, NDArray[np.uint8]],
) -> str:
    """Render the page; `strips` are frames (T, H, W, 3), by video, of the errors that are shown.

    These are `most_confident_errors(predictions, NUM_ERRORS)`. Missing frames and `curves` are left
    out.
    """
    found = evaluated(predictions)
    names = result.origin.class_names
    bins = calibration_bins(found)
    return (
        page_environment()
        .get_template("report.html.j2")
        .render(
            result=result,
            numbers=result.accuracies,
            origin=result.origin,
            num_classes=len(names),
            chance_level=chance_level(result),
            accuracy_sentence=accuracy_sentence(result),
            motion=[(test, MEANING[test], top1) for test, top1 in result.accuracies.motion.items()],
            motion_sentences=motion_sentences(result),
            protocol_sentence=protocol_sentence(result.origin.protocol),
            calibration=[b for b in bins if b.num_videos],
            calibration_sentence=calibration_sentence(bins),
            calibration_figure=Markup(draw_calibration(bins)),
            curves={title: Markup(svg) for title, svg in draw_curves(curves).items()},
            classes=class_rows(found, names),
            confident_errors=confident_errors(found, names, strips),
            num_errors=sum(not p.is_right for p in found),
            max_names=MAX_NAMES,
            **_confusions(found, names),
        )
    )


def class_rows(predictions: Sequence[VideoResult], names: Sequence[str]) -> list[ClassRow]:
    """Return a row for each class, lowest recall first, classes without videos last."""
    rows = [_class_row(result, names) for result in class_results(predictions, len(names))]
    return sorted(rows, key=lambda row: 2 if row.top1 is None else row.top1)


def _class_row(result: ClassResult, names: Sequence[str]) -> ClassRow:
    n, num_predicted = result.num_videos, result.num_predicted
    predicted_as, num_most_common = result.predicted_as[0] if result.predicted_as else (None, 0)
    return ClassRow(
        name=names[result.label],
        num_videos=n,
        top1=result.num_right / n if n else None,
        top5=result.num_right_in_top5 / n if n else None,
        precision=result.num_right / num_predicted if num_predicted else None,
        most_common_error="" if predicted_as is None else names[predicted_as],
        num_most_common=num_most_common,
    )


def confident_errors(
    predictions: Sequence[VideoResult],
    names: Sequence[str],
    strips: Mapping[str, NDArray[np.uint8]],
) -> list[ConfidentError]:
    """Return the most confident errors, with frames where there are some."""
    return [
        ConfidentError(
            video=p.video,
            label=names[p.label],
            top_classes=tuple(
                ScoredClass(names[c], score, c == p.label)
                for c, score in zip(p.classes, p.scores, strict=True)
            ),
            rank=p.classes.index(p.label) + 1 if p.label in p.classes else None,
            pictures=tuple(strip_pictures(strips[p.video])) if p.video in strips else (),
        )
        for p in most_confident_errors(predictions, NUM_ERRORS)
        if p.label is not None
    ]


def _confusions(predictions: Sequence[VideoResult], names: Sequence[str]) -> dict[str, Any]:
    """Return the most confused pairs, and the matrix: a table of few classes, an image of many."""
    counts = Counter((p.label, p.classes[0]) for p in predictions if p.label is not None)
    sizes = Counter(p.label for p in predictions)
    pairs = [
        PairRow(label, predicted, n, n / sizes[label], counts[predicted, label])
        for label, predicted, n in most_confused(predictions, len(names))[:NUM_PAIRS]
    ]
    if len(names) <= MAX_TABLE_CLASSES:
        classes = range(len(names))
        rows = [
            MatrixRow(
                names[label],
                tuple(counts[label, predicted] for predicted in classes),
                tuple(counts[label, predicted] / max(sizes[label], 1) for predicted in classes),
            )
            for label in classes
        ]
        return {"pairs": pairs, "matrix": rows, "map": None}
    cells = [Confusion(label, predicted, n) for (label, predicted), n in sorted(counts.items())]
    order = order_by_confusion(cells, len(names))
    details = {
        "names": [printable(name) for name in names],
        "order": order,
        "cells": cells,
        "items": "videos",
    }
    return {
        "pairs": pairs,
        "matrix": None,
        "map": {"picture": Markup(matrix_picture(cells, order)), "details": details},
    }


def page_environment(*rooms: str) -> Environment:
    """Return the environment of a page, with the templates of this room and of others."""
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader(f"video_mvit.{room}", ".") for room in ("evaluation", *rooms)]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_encodable,
    )
    environment.filters |= {"percent": percent, "ordinal": _ordinal}
    return environment


def _encodable(value: Any) -> Any:
    """Escape control characters of names, and replace bytes that are not UTF-8."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return value


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth"}[number]
