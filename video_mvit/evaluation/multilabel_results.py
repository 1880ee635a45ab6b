"""The result of an evaluation with several labels: JSON, lines of text, and its folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from video_mvit.errors import MissingFileError, UserError
from video_mvit.evaluation.listed_result import (
    ListedResult,
    account_before,
    account_of,
    origin_in,
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
from video_mvit.evaluation.output_folder import (
    PREDICTIONS,
    RESULTS,
    next_partial_number,
    partial_files,
    partial_identities,
    refuse_others,
    task_of_folder,
)
from video_mvit.evaluation.predictions import identity_of
from video_mvit.evaluation.results import (
    IDENTITY,
    RESULT_NAMES,
    RESULT_OBJECT,
    SHARE,
    Origin,
)
from video_mvit.schema import (
    Check,
    MismatchError,
    one_of,
    optional,
    parse_json,
    record,
    table,
    whole,
)
from video_mvit.text import percent

TASK = "multi_label"
NUMBERS: dict[str, Check] = {
    **dict.fromkeys(("map", "map_weighted", "f1_micro", "f1_macro", "exact"), SHARE),
    "num_classes": whole(1),
}
OF_SINGLE_LABEL = (
    *("top1", "top5", "mean_class_accuracy", "calibration_error", "motion", "intervals"),
)
NAMES: dict[str, Check] = {
    "task": one_of(TASK),
    **NUMBERS,
    "average_precision": table(optional(SHARE)),
    "thresholds": table(optional(SHARE)),
    **{name: check for name, check in RESULT_NAMES.items() if name not in OF_SINGLE_LABEL},
}
Results = dict[int, MultiLabelVideo]  # by index in the list of present videos


@dataclass(frozen=True, kw_only=True)
class MultiLabelResult(ListedResult):
    """Numbers of the evaluated videos, and of each class."""

    numbers: MultiLabelNumbers
    classes: Sequence[MultiLabelClass]

    def to_json(self) -> str:
        """Serialize to one flat object, with precision and best threshold of each class by name."""
        content = asdict(self)
        origin, names = content.pop("origin"), self.origin.class_names
        for name in ("numbers", "classes"):
            content.pop(name)
        origin.pop("motion")
        whole_result = {
            "task": TASK,
            "protocol": origin.pop("protocol"),
            **self.numbers._asdict(),
            "average_precision": {names[c.label]: c.average_precision for c in self.classes},
            "thresholds": {names[c.label]: c.best and c.best.threshold for c in self.classes},
            **content,
            **origin,
        }
        return json.dumps(whole_result, indent=2)

    def lines(self) -> dict[str, str]:
        """Return name and text of each line of the terminal summary."""
        numbers, num_classes = self.numbers, len(self.origin.class_names)
        lines = {"mAP": percent(numbers.map)}
        if numbers.num_classes < num_classes:
            lines["mAP"] += f"  (of {numbers.num_classes:,} of {num_classes:,} classes with videos)"
        lines |= {
            "mAP, by videos": percent(numbers.map_weighted),
            "F1 micro": f"{percent(numbers.f1_micro)}  (of scores from 50 % on)",
            "F1 macro": percent(numbers.f1_macro),
            "all classes right": percent(numbers.exact),
        }
        return lines | self.closing_lines()


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
    account = account_of(
        predictions, origin, time_s=time_s, num_clips=num_clips, num_resumed=num_resumed
    )
    return MultiLabelResult(
        numbers=summarize_classes(classes, scores, truth), classes=classes, **account
    )


def summarize_multilabel_again(
    before: Mapping[str, Any], predictions: Sequence[MultiLabelVideo]
) -> MultiLabelResult:
    """Recompute a result from predictions, with what `read_multilabel_json` gives of an earlier."""
    return summarize_multilabel(predictions, origin_in(before), **account_before(before))


def read_multilabel_json(path: Path) -> dict[str, Any]:
    """Read what `MultiLabelResult.write` wrote; raises `FileNotFoundError` or `UserError`."""
    if not path.is_file():
        raise MissingFileError(f"no results {path}; video-mvit evaluate writes them")
    try:
        whole_file = RESULT_OBJECT(parse_json(path.read_bytes()))
        known = {name: whole_file[name] for name in whole_file if name in NAMES}
        content: dict[str, Any] = record(NAMES)(known)
        if len(set(content["class_names"])) < len(content["class_names"]):
            raise MismatchError("a class occurs twice")
        for name in ("average_precision", "thresholds"):
            if set(content[name]) != set(content["class_names"]):
                raise MismatchError(f"{name} are of other classes")
    except MismatchError as error:
        raise UserError(
            f"{path} is not a results.json of video-mvit evaluate with several labels: {error}; "
            "evaluate again"
        ) from None
    return content


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
    if len(predictions) != content["num_listed"]:
        raise UserError(
            f"{folder / PREDICTIONS} has {len(predictions):,} videos, but {RESULTS} beside it is "
            f"of {content['num_listed']:,}; evaluate again"
        )
    return summarize_multilabel_again(content, predictions), predictions


def check_multilabel_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Raise `UserError` where the folder holds another evaluation."""
    before = partial_identities(folder)
    if (folder / RESULTS).is_file():
        before = [{}]
        if task_of_folder(folder) == TASK:
            before = [origin_in(read_multilabel_json(folder / RESULTS)).identity]
    refuse_others(folder, before, identity, IDENTITY)


def read_multilabel_resumed(
    folder: Path, identity: Mapping[str, Any], listed: ListedSets
) -> tuple[Results, int]:
    """Read the results of an interrupted run, and a number for the next file of them."""
    known: Results = {}
    if (folder / RESULTS).is_file():
        _, rows = read_multilabel_folder(folder)
        rows = rows[: len(listed.names)]
        if [each.video for each in rows] != list(listed.names):
            raise UserError(
                f"{folder / PREDICTIONS} has other videos than the list; overwrite=true evaluates "
                "all again"
            )
        known = {i: each for i, each in enumerate(rows) if not each.problem}
    for path in partial_files(folder):
        if identity_of(path) == identity:
            known |= read_partial_multilabel(path, listed)
    return known, next_partial_number(folder)
