"""The result of a regression: JSON, lines of text, and its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from video_mvit.errors import UserError
from video_mvit.evaluation.listed_results import (
    ListedResult,
    check_listed_folder,
    check_number_of_rows,
    facts_again,
    facts_of,
    read_known,
    read_listed_json,
)
from video_mvit.evaluation.output_folder import PREDICTIONS, RESULTS
from video_mvit.evaluation.regression_metrics import (
    TargetNumbers,
    mean_absolute_error,
    mean_r2,
    target_numbers,
)
from video_mvit.evaluation.regression_predictions import (
    VALUE,
    ListedValues,
    RegressionVideo,
    read_partial_regression,
    read_regression_predictions,
    value_arrays,
)
from video_mvit.evaluation.results import Origin
from video_mvit.schema import MAX_NUMBER, Check, number, one_of, optional, record, row, table
from video_mvit.text import printable

TASK = "regression"
ERROR = number(0, MAX_NUMBER)
R2, CORRELATION = optional(number(-MAX_NUMBER, 1)), optional(number(-1, 1))
TARGET: dict[str, Check] = {
    **dict.fromkeys(("mae", "rmse", "baseline_mae"), ERROR),
    "r2": R2,
    **dict.fromkeys(("pearson", "spearman"), CORRELATION),
    "mae_interval": row(ERROR, ERROR),
    "r2_interval": optional(row(VALUE, VALUE)),
}
OF_TARGETS = ("targets", "target_mean")
NAMES: dict[str, Check] = {
    "task": one_of(TASK),
    "mae": ERROR,
    "r2": R2,
    "targets": table(record(TARGET)),
    "target_mean": table(VALUE),
}


@dataclass(frozen=True, kw_only=True)
class RegressionResult(ListedResult):
    """Numbers of each target, whose names are the class names of `origin`.

    `mae` and `r2` are means over the targets (of R2, those that differ between videos; None
    without any). `target_mean` are those of the training list, which the baseline always says.
    """

    task = TASK
    mae: float
    r2: float | None
    targets: Sequence[TargetNumbers]
    target_mean: tuple[float, ...]

    @property
    def by_name(self) -> dict[str, TargetNumbers]:
        """Return the numbers of each target by its name."""
        return dict(zip(self.origin.class_names, self.targets, strict=True))

    def numbers_to_json(self) -> dict[str, Any]:
        names = self.origin.class_names
        return {
            "mae": self.mae,
            "r2": self.r2,
            "targets": {name: each._asdict() for name, each in self.by_name.items()},
            "target_mean": dict(zip(names, self.target_mean, strict=True)),
        }

    def number_lines(self) -> dict[str, str]:
        lines = {}
        for target, each in self.by_name.items():
            name, (low, high) = printable(target), each.mae_interval
            lines[f"MAE {name}"] = (
                f"{each.mae:.4g}  (95 % interval {low:.4g} to {high:.4g}; always the training "
                f"mean: {each.baseline_mae:.4g})"
            )
            lines[f"R2 {name}"] = "not defined, all true values are equal"
            if each.r2 is not None and each.r2_interval is not None:
                low, high = each.r2_interval
                lines[f"R2 {name}"] = f"{each.r2:.3f}  (95 % interval {low:.3f} to {high:.3f})"
        return lines


def summarize_regression(
    predictions: Sequence[RegressionVideo],
    origin: Origin,
    *,
    target_mean: tuple[float, ...],
    time_s: float,
    num_clips: int,
    num_resumed: int,
) -> RegressionResult:
    """Summarize predictions, one for each listed video.

    `num_clips` went through the network in `time_s`. Raises `UserError` where no video is left.
    """
    values, truth = value_arrays(predictions)
    if not (np.abs(values) < MAX_NUMBER).all():
        raise UserError("the model predicts values that are too large to be told")
    mae = mean_absolute_error(values, truth)
    assert mae is not None
    return RegressionResult(
        mae=mae,
        r2=mean_r2(values, truth),
        targets=target_numbers(values, truth, target_mean),
        target_mean=target_mean,
        **facts_of(
            predictions, origin, time_s=time_s, num_clips=num_clips, num_resumed=num_resumed
        ),
    )


def summarize_regression_again(
    before: Mapping[str, Any], predictions: Sequence[RegressionVideo]
) -> RegressionResult:
    """Recompute a result from predictions, with what `read_regression_json` gives of an earlier."""
    means = tuple(before["target_mean"][name] for name in before["class_names"])
    return summarize_regression(predictions, target_mean=means, **facts_again(before))


def read_regression_json(path: Path) -> dict[str, Any]:
    """Read what `RegressionResult.write` wrote; raises `FileNotFoundError` or `UserError`."""
    return read_listed_json(path, NAMES, "of numbers", OF_TARGETS)


def read_regression_folder(folder: Path) -> tuple[RegressionResult, list[RegressionVideo]]:
    """Read predictions of a finished evaluation, and compute its numbers from them again.

    Raises `FileNotFoundError`, or `UserError` in one sentence.
    """
    content = read_regression_json(folder / RESULTS)
    predictions = read_regression_predictions(folder / PREDICTIONS, content["class_names"])
    check_number_of_rows(folder, len(predictions), content["num_listed"])
    return summarize_regression_again(content, predictions), predictions


def check_regression_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Raise `UserError` where the folder holds another evaluation."""
    check_listed_folder(folder, identity, TASK, read_regression_json)


def read_regression_resumed(
    folder: Path, identity: Mapping[str, Any], listed: ListedValues
) -> tuple[dict[int, RegressionVideo], int]:
    """Read the results of an interrupted run, and a number for the next file of them."""
    return read_known(
        folder,
        identity,
        listed.names,
        lambda folder: read_regression_folder(folder)[1],
        lambda path: read_partial_regression(path, listed),
    )
