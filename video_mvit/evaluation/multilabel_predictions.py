"""Per-video results where a video has any number of classes: in memory, as CSV, and partial.

The table has the score of every class, so that all metrics are computed from it alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from video_mvit.errors import UserError
from video_mvit.evaluation.prediction_table import read_rows, write_rows
from video_mvit.evaluation.predictions import SCORE, PartialFile, not_of_list, read_partial_file
from video_mvit.schema import MismatchError, parse_json, row, sequence, text, whole
from video_mvit.text import short

FIRST_COLUMNS = ("video", "labels", "problem")
NAMES = sequence(text())


@dataclass(frozen=True, kw_only=True)
class MultiLabelVideo:
    """Result of one listed video: the score of every class, or the `problem` that excluded it.

    `labels` are the classes that it has, in order; None where only the list's name is known.
    """

    video: str
    labels: tuple[int, ...] | None
    scores: tuple[float, ...] = ()
    problem: str = ""


def scores_of(scores: Tensor) -> tuple[float, ...]:
    """Return scores (K,) with nine digits, which tell any two float32 apart."""
    return tuple(min(float(f"{value:.9g}"), 1.0) for value in scores.tolist())


def as_arrays(
    predictions: Sequence[MultiLabelVideo], num_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return scores and truth of the evaluated videos: (N, K) float64, (N, K) bool.

    Raises `UserError` where none is left.
    """
    found = [each for each in predictions if not each.problem]
    if not found:
        raise UserError("none of the listed videos could be evaluated")
    truth = np.zeros((len(found), num_classes), np.bool_)
    for line, each in zip(truth, found, strict=True):
        line[list(each.labels or ())] = True
    return np.array([each.scores for each in found], np.float64), truth


def write_multilabel_predictions(
    path: Path, predictions: Sequence[MultiLabelVideo], class_names: Sequence[str]
) -> None:
    """Write all rows as CSV, atomically: labels as a list in JSON, a column of scores a class."""
    rows = []
    for each in predictions:
        names = [class_names[label] for label in each.labels or ()]
        labels = "" if each.labels is None else json.dumps(names, ensure_ascii=False)
        scores = map(repr, each.scores) if each.scores else [""] * len(class_names)
        rows.append([each.video, labels, each.problem, *scores])
    write_rows(path, [*FIRST_COLUMNS, *_columns(class_names)], rows)


def read_multilabel_predictions(path: Path, class_names: Sequence[str]) -> list[MultiLabelVideo]:
    """Read rows of `write_multilabel_predictions`; raises `FileNotFoundError` or `UserError`."""
    index = {name: i for i, name in enumerate(class_names)}
    columns = [*FIRST_COLUMNS, *_columns(class_names)]
    return read_rows(path, columns, lambda cells: _read_row(cells, index), "classes")


def _columns(class_names: Sequence[str]) -> list[str]:
    return [f"score {name}" for name in class_names]


def _read_row(cells: Sequence[str], index: Mapping[str, int]) -> MultiLabelVideo:
    video, listed, problem, *of_classes = cells
    labels = None
    if listed:
        names = NAMES(parse_json(listed))
        if unknown := [name for name in names if name not in index]:
            raise MismatchError(f"{short(unknown[0])} is not expected there")
        labels = tuple(sorted({index[name] for name in names}))
    if problem:
        return MultiLabelVideo(video=video, labels=labels, problem=problem)
    if labels is None:
        raise MismatchError("an evaluated video has no labels")
    return MultiLabelVideo(video=video, labels=labels, scores=tuple(map(_score, of_classes)))


def _score(cell: str) -> float:
    try:
        return SCORE(float(cell))  # type: ignore[no-any-return]
    except ValueError:
        raise MismatchError(f"{short(cell)} is not a score") from None


class PartialMultiLabelResults(PartialFile):
    """File of finished videos."""

    def add(self, video_index: int, prediction: MultiLabelVideo) -> None:
        self.write([video_index, prediction.labels, prediction.scores])


@dataclass(frozen=True, kw_only=True)
class ListedSets:
    """The list that is evaluated: names and classes of its videos, and how many classes it has."""

    names: Sequence[str]
    labels: Sequence[tuple[int, ...]]
    num_classes: int


def read_partial_multilabel(path: Path, listed: ListedSets) -> dict[int, MultiLabelVideo]:
    """Read partial results by index in a list; raises `UserError` with a line that does not fit."""
    columns = row(
        whole(0, len(listed.names) - 1),
        sequence(whole(0, listed.num_classes - 1)),
        sequence(SCORE, low=listed.num_classes, high=listed.num_classes),
    )
    found: dict[int, MultiLabelVideo] = {}
    for number, (index, labels, scores) in read_partial_file(path, columns):
        if labels != listed.labels[index]:
            raise not_of_list(path, number)
        found[index] = MultiLabelVideo(video=listed.names[index], labels=labels, scores=scores)
    return found
