"""The result of an evaluation with several heads: JSON, lines of text, and its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from video_mvit.class_heads import ALL, Heads, heads_of
from video_mvit.errors import UserError
from video_mvit.evaluation.intervals import Interval
from video_mvit.evaluation.listed_results import (
    ListedResult,
    check_listed_folder,
    check_number_of_rows,
    facts_again,
    facts_of,
    read_known,
    read_listed_json,
)
from video_mvit.evaluation.metrics import Accuracies, measure, measure_intervals
from video_mvit.evaluation.multihead_predictions import (
    ListedHeads,
    MultiHeadVideo,
    combine,
    of_head,
    read_multihead_predictions,
    read_partial_multihead,
)
from video_mvit.evaluation.output_folder import PREDICTIONS, RESULTS
from video_mvit.evaluation.results import METRICS, SHARE, Origin
from video_mvit.schema import Check, MismatchError, one_of, record, row, table
from video_mvit.text import percent, printable

TASK = "multi_head"
OF_ALL = ("top1", "top5")  # told of all heads together
NAMES: dict[str, Check] = {
    "task": one_of(TASK),
    **{f"{ALL}_{name}": SHARE for name in OF_ALL},
    "heads": table(record(dict.fromkeys(METRICS, SHARE))),
    "intervals": table(table(row(SHARE, SHARE), METRICS)),
}
Results = dict[int, MultiHeadVideo]  # by index in the list of present videos


@dataclass(frozen=True, kw_only=True)
class MultiHeadResult(ListedResult):
    """Accuracies of the evaluated videos in each head, and of all heads together.

    Together, a combination of classes scores the product of theirs, and is right where all are.
    `intervals` are 95 % intervals, by head (or "all") and metric.
    """

    task = TASK
    heads: Mapping[str, Accuracies]
    together: Accuracies
    intervals: Mapping[str, Mapping[str, Interval]]

    @property
    def sizes(self) -> Heads:
        """Return the number of classes of each head."""
        return heads_of(self.origin.class_names)

    def numbers_to_json(self) -> dict[str, Any]:
        return {
            **{f"{ALL}_{name}": getattr(self.together, name) for name in OF_ALL},
            "heads": {
                head: {name: getattr(found, name) for name in METRICS}
                for head, found in self.heads.items()
            },
            "intervals": {head: dict(found) for head, found in self.intervals.items()},
        }

    def number_lines(self) -> dict[str, str]:
        lines = {
            "top-1, all heads": percent(self.together.top1),
            "top-5, all heads": percent(self.together.top5),
        }
        for head, found in self.heads.items():
            lines[f"top-1, {printable(head)}"] = (
                f"{percent(found.top1)}  (top-5 {percent(found.top5)}, mean class accuracy "
                f"{percent(found.mean_class_accuracy)})"
            )
        return lines


def summarize_multihead(
    predictions: Sequence[MultiHeadVideo],
    origin: Origin,
    *,
    time_s: float,
    num_clips: int,
    num_resumed: int,
) -> MultiHeadResult:
    """Summarize predictions, one for each listed video.

    `num_clips` went through the network in `time_s`. Raises `UserError` where no video is left.
    """
    heads, intervals = {}, {}
    combined, combinations = combine(predictions)
    for place, (head, size) in enumerate(heads_of(origin.class_names).items()):
        found = of_head(predictions, place)
        heads[head] = measure(found, size)
        intervals[head] = measure_intervals(found, size)
    of_all = measure_intervals(combined, len(combinations))
    return MultiHeadResult(
        heads=heads,
        together=measure(combined, len(combinations)),
        intervals={ALL: {name: of_all[name] for name in OF_ALL}, **intervals},
        **facts_of(
            predictions, origin, time_s=time_s, num_clips=num_clips, num_resumed=num_resumed
        ),
    )


def summarize_multihead_again(
    before: Mapping[str, Any], predictions: Sequence[MultiHeadVideo]
) -> MultiHeadResult:
    """Recompute a result from predictions, with what `read_multihead_json` gives of an earlier."""
    return summarize_multihead(predictions, **facts_again(before))


def read_multihead_json(path: Path) -> dict[str, Any]:
    """Read what `MultiHeadResult.write` wrote; raises `FileNotFoundError` or `UserError`."""
    return read_listed_json(path, NAMES, "with several heads", check=check_heads_of_classes)


def check_heads_of_classes(content: Mapping[str, Any]) -> None:
    """Raise `MismatchError` where heads are not those of the class names."""
    try:
        found = list(heads_of(content["class_names"]))
    except UserError as error:
        raise MismatchError(str(error)) from None
    if found != list(content["heads"]):
        raise MismatchError("heads are not those of the classes")


def read_multihead_folder(folder: Path) -> tuple[MultiHeadResult, list[MultiHeadVideo]]:
    """Read predictions of a finished evaluation, and compute its numbers from them again.

    Raises `FileNotFoundError`, or `UserError` in one sentence.
    """
    content = read_multihead_json(folder / RESULTS)
    predictions = read_multihead_predictions(folder / PREDICTIONS, content["class_names"])
    check_number_of_rows(folder, len(predictions), content["num_listed"])
    return summarize_multihead_again(content, predictions), predictions


def check_multihead_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Raise `UserError` where the folder holds another evaluation."""
    check_listed_folder(folder, identity, TASK, read_multihead_json)


def read_multihead_resumed(
    folder: Path, identity: Mapping[str, Any], listed: ListedHeads
) -> tuple[Results, int]:
    """Read the results of an interrupted run, and a number for the next file of them."""
    return read_known(
        folder,
        identity,
        listed.names,
        lambda folder: read_multihead_folder(folder)[1],
        lambda path: read_partial_multihead(path, listed),
    )
