"""Per-video results of a regression: in memory, as CSV, and partial.

The table has the true and predicted value of every target, so that all metrics are computed from it
alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from video_mvit.errors import UserError
from video_mvit.evaluation.prediction_table import read_rows, write_rows
from video_mvit.evaluation.predictions import PartialFile, not_of_list, read_partial_file
from video_mvit.schema import MAX_NUMBER, MismatchError, number, row, sequence, whole
from video_mvit.text import short

FIRST_COLUMNS = ("video", "problem")
VALUE = number(-MAX_NUMBER, MAX_NUMBER)


@dataclass(frozen=True, kw_only=True)
class RegressionVideo:
    """Result of one listed video: a value of each target, or the `problem` that excluded it.

    `truth` are the listed values; None where only the list's name is known.
    """

    video: str
    truth: tuple[float, ...] | None
    values: tuple[float, ...] = ()
    problem: str = ""


def values_of(values: Tensor) -> tuple[float, ...]:
    """Return predicted values (K,) with twelve digits: a scale and an offset of float32 ones."""
    return tuple(float(f"{value:.12g}") for value in values.tolist())


def value_arrays(
    predictions: Sequence[RegressionVideo],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return predicted and true values of the evaluated videos: (N, K), (N, K).

    Raises `UserError` where none is left.
    """
    found = [each for each in predictions if not each.problem]
    if not found:
        raise UserError("none of the listed videos could be evaluated")
    return np.array([each.values for each in found]), np.array([each.truth for each in found])


def write_regression_predictions(
    path: Path, predictions: Sequence[RegressionVideo], targets: Sequence[str]
) -> None:
    """Write all rows as CSV, atomically: two columns for each target, true and predicted."""
    nothing = [""] * len(targets)
    rows = []
    for each in predictions:
        truth = nothing if each.truth is None else map(repr, each.truth)
        values = map(repr, each.values) if each.values else nothing
        cells = [cell for pair in zip(truth, values, strict=True) for cell in pair]
        rows.append([each.video, each.problem, *cells])
    write_rows(path, _columns(targets), rows)


def read_regression_predictions(path: Path, targets: Sequence[str]) -> list[RegressionVideo]:
    """Read rows of `write_regression_predictions`; raises `FileNotFoundError` or `UserError`."""
    return read_rows(path, _columns(targets), _read_row, "targets")


def _columns(targets: Sequence[str]) -> list[str]:
    pairs = [(f"true {name}", f"predicted {name}") for name in targets]
    return [*FIRST_COLUMNS, *(name for pair in pairs for name in pair)]


def _read_row(cells: Sequence[str]) -> RegressionVideo:
    video, problem, *pairs = cells
    true, predicted = pairs[::2], pairs[1::2]
    truth = tuple(map(_value, true)) if any(true) or not problem else None
    if problem:
        return RegressionVideo(video=video, truth=truth, problem=problem)
    return RegressionVideo(video=video, truth=truth, values=tuple(map(_value, predicted)))


def _value(cell: str) -> float:
    try:
        return VALUE(float(cell))  # type: ignore[no-any-return]
    except ValueError:  # a mismatch, too
        raise MismatchError(f"{short(cell)} is not a number") from None


class PartialRegressionResults(PartialFile):
    """File of finished videos."""

    def add(self, video_index: int, prediction: RegressionVideo) -> None:
        self.write([video_index, prediction.truth, prediction.values])


@dataclass(frozen=True, kw_only=True)
class ListedValues:
    """The list that is evaluated: names of its videos, and a value of each target."""

    names: Sequence[str]
    values: Sequence[tuple[float, ...]]


def read_partial_regression(path: Path, listed: ListedValues) -> dict[int, RegressionVideo]:
    """Read partial results by index in a list; raises `UserError` with a line that does not fit."""
    num_targets = len(listed.values[0])
    values = sequence(VALUE, low=num_targets, high=num_targets)
    columns = row(whole(0, len(listed.names) - 1), values, values)
    found: dict[int, RegressionVideo] = {}
    for line_number, (index, truth, predicted) in read_partial_file(path, columns):
        if truth != listed.values[index]:
            raise not_of_list(path, line_number)
        found[index] = RegressionVideo(video=listed.names[index], truth=truth, values=predicted)
    return found
