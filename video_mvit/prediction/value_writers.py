"""What predictions of numbers look like as text, JSON and CSV; `writers.py` writes them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from video_mvit.prediction.predictor import Prediction
from video_mvit.text import csv_cell, printable


def digits(value: float) -> float:
    """Return a value with nine digits, as files have it."""
    return float(f"{value:.9g}")


def values_as_plain(prediction: Prediction) -> dict[str, Any]:
    """Return what JSON has of the values of a video, and of the windows of its timeline."""
    content: dict[str, Any] = {"values": _named(prediction, prediction.scores)}
    if prediction.timeline is not None:
        content["windows"] = [
            {"start_s": start_s, "end_s": end_s, "values": _named(prediction, values)}
            for start_s, end_s, values in _windows(prediction)
        ]
        if prediction.timeline.problem:
            content["problem"] = prediction.timeline.problem
    return content


def _named(prediction: Prediction, values: Tensor) -> dict[str, float]:
    pairs = zip(prediction.class_names, values.tolist(), strict=True)
    return {name: digits(value) for name, value in pairs}


def _windows(prediction: Prediction) -> Iterator[tuple[float, float, Tensor]]:
    """Yield start, end and values (K,) of each window of the timeline."""
    timeline = prediction.timeline
    assert timeline is not None
    for (start_s, end_s), values in zip(pairwise(timeline.bounds_s), timeline.scores, strict=False):
        yield round(start_s, 3), round(end_s, 3), values


def value_lines(prediction: Prediction) -> Iterator[str]:
    """Yield a line for each target, with its range over the timeline, if there is one."""
    names = [printable(name) for name in prediction.class_names]
    width, timeline = max(map(len, names)), prediction.timeline
    for place, (name, value) in enumerate(zip(names, prediction.scores.tolist(), strict=True)):
        line = f"{name:<{width}}  {value:.4g}"
        if timeline is not None and len(timeline.scores):
            column = timeline.scores[:, place]
            line += f"  ({column.min():.4g} to {column.max():.4g} in {len(column):,} windows)"
        yield line
    if timeline is not None and timeline.problem:
        yield f"cannot be read from there on: {printable(timeline.problem)}"


def value_columns(targets: Sequence[str]) -> list[str]:
    """Return the columns of a table of values."""
    return ["video", "start_s", "end_s", *map(csv_cell, targets), "problem"]


def value_rows(prediction: Prediction, video: str) -> Iterator[list[str | float]]:
    """Yield the row of a video under this name, and one for each window, which has times.

    An unreadable video has one row, with the reason.
    """
    name, timeline = csv_cell(video), prediction.timeline
    nothing = [""] * len(prediction.class_names)
    if prediction.problem:
        yield [name, "", "", *nothing, csv_cell(prediction.problem)]
        return
    yield [name, "", "", *map(digits, prediction.scores.tolist()), ""]
    if timeline is not None:
        for start_s, end_s, values in _windows(prediction):
            yield [name, start_s, end_s, *map(digits, values.tolist()), ""]
        if timeline.problem:
            yield [name, "", "", *nothing, csv_cell(timeline.problem)]
