"""The result of an evaluation with several labels: JSON, lines of text, and its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from video_mvit.evaluation.listed_results import (
    ListedResult,
    check_listed_folder,
    check_number_of_rows,
    facts_again,
    facts_of,
    read_known,
    read_listed_json,
)
from video_mvit.evaluation.multilabel_metrics import (
    MultiLabelClass,
    MultiLabelNumbers,
    class_numbers,
    summarize_classes,
)
from video_mvit.evaluation.multilabel_predictions import (
    ListedSets,
    MultiLabelVideo,
    as_arrays,
    read_multilabel_predictions,
    read_partial_multilabel,
)
from video_mvit.evaluation.output_folder import PREDICTIONS, RESULTS
from video_mvit.evaluation.results import SHARE, Origin
from video_mvit.schema import Check, one_of, optional, table, whole
from video_mvit.text import percent

TASK = "multi_label"
NUMBERS: dict[str, Check] = {
    **dict.fromkeys(("map", "map_weighted", "f1_micro", "f1_macro", "exact"), SHARE),
    "num_classes": whole(1),
}
OF_CLASSES = ("average_precision", "thresholds")
NAMES: dict[str, Check] = {
    "task": one_of(TASK),
    **NUMBERS,
    **dict.fromkeys(OF_CLASSES, table(optional(SHARE))),
}
Results = dict[int, MultiLabelVideo]  # by index in the list of present videos


@dataclass(frozen=True, kw_only=True)
class MultiLabelResult(ListedResult):
    """Numbers of the evaluated videos, and of each class."""

    task = TASK
    numbers: MultiLabelNumbers
    classes: Sequence[MultiLabelClass]

    def numbers_to_json(self) -> dict[str, Any]:
        names = self.origin.class_names
        return {
            **self.numbers._asdict(),
            "average_precision": {names[c.label]: c.average_precision for c in self.classes},
            "thresholds": {names[c.label]: c.best and c.best.threshold for c in self.classes},
        }

    def number_lines(self) -> dict[str, str]:
        numbers, num_classes = self.numbers, len(self.origin.class_names)
        lines = {"mAP": percent(numbers.map)}
        if numbers.num_classes < num_classes:
            lines["mAP"] += f"  (of {numbers.num_classes:,} of {num_classes:,} classes with videos)"
        return lines | {
            "mAP, by videos": percent(numbers.map_weighted),
            "F1 micro": f"{percent(numbers.f1_micro)}  (of scores from 50 % on)",
            "F1 macro": percent(numbers.f1_macro),
            "all classes right": percent(numbers.exact),
        }


def summarize_multilabel(
    predictions: Sequence[MultiLabelVideo],
    origin: Origin,
    *,
    time_s: float,
    num_clips: int,
    num_resumed: int,
) -> MultiLabelResult:
    """Summarize predictions, one for each listed video.

    `num_clips` went through the network in `time_s`. Raises `UserError` where no video is left.
    """
    scores, truth = as_arrays(predictions, len(origin.class_names))
    classes = class_numbers(scores, truth)
    return MultiLabelResult(
        numbers=summarize_classes(classes, scores, truth),
        classes=classes,
        **facts_of(
            predictions, origin, time_s=time_s, num_clips=num_clips, num_resumed=num_resumed
        ),
    )


def summarize_multilabel_again(
    before: Mapping[str, Any], predictions: Sequence[MultiLabelVideo]
) -> MultiLabelResult:
    """Recompute a result from predictions, with what `read_multilabel_json` gives of an earlier."""
    return summarize_multilabel(predictions, **facts_again(before))


def read_multilabel_json(path: Path) -> dict[str, Any]:
    """Read what `MultiLabelResult.write` wrote; raises `FileNotFoundError` or `UserError`."""
    return read_listed_json(path, NAMES, "with several labels", OF_CLASSES)


def read_thresholds(path: Path) -> dict[str, float]:
    """Return the best threshold of each class that had videos; raises as `read_multilabel_json`."""
    found = read_multilabel_json(path)["thresholds"]
    return {name: value for name, value in found.items() if value is not None}


def read_multilabel_folder(folder: Path) -> tuple[MultiLabelResult, list[MultiLabelVideo]]:
    """Read predictions of a finished evaluation, and compute its numbers from them again.

    Raises `FileNotFoundError`, or `UserError` in one sentence.
    """
    content = read_multilabel_json(folder / RESULTS)
    predictions = read_multilabel_predictions(folder / PREDICTIONS, content["class_names"])
    check_number_of_rows(folder, len(predictions), content["num_listed"])
    return summarize_multilabel_again(content, predictions), predictions


def check_multilabel_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Raise `UserError` where the folder holds another evaluation."""
    check_listed_folder(folder, identity, TASK, read_multilabel_json)


def read_multilabel_resumed(
    folder: Path, identity: Mapping[str, Any], listed: ListedSets
) -> tuple[Results, int]:
    """Read the results of an interrupted run, and a number for the next file of them."""
    return read_known(
        folder,
        identity,
        listed.names,
        lambda folder: read_multilabel_folder(folder)[1],
        lambda path: read_partial_multilabel(path, listed),
    )
