"""The result of an evaluation with several heads: JSON, lines of text, and its folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from video_mvit.class_heads import ALL, Heads, heads_of
from video_mvit.errors import MissingFileError, UserError
from video_mvit.evaluation.intervals import Interval
from video_mvit.evaluation.listed_result import (
    ListedResult,
    account_before,
    account_of,
    origin_in,
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
    METRICS,
    RESULT_NAMES,
    RESULT_OBJECT,
    SHARE,
    Origin,
)
from video_mvit.schema import Check, MismatchError, one_of, parse_json, record, row, table
from video_mvit.text import percent

TASK = "multi_head"
OF_ALL = ("top1", "top5")  # told of all heads together
OF_SINGLE_LABEL = (*METRICS, "motion", "intervals")
NAMES: dict[str, Check] = {
    "task": one_of(TASK),
    **{f"{ALL}_{name}": SHARE for name in OF_ALL},
    "heads": table(record(dict.fromkeys(METRICS, SHARE))),
    "intervals": table(table(row(SHARE, SHARE), METRICS)),
    **{name: check for name, check in RESULT_NAMES.items() if name not in OF_SINGLE_LABEL},
}
Results = dict[int, MultiHeadVideo]  # by index in the list of present videos


@dataclass(frozen=True, kw_only=True)
class MultiHeadResult(ListedResult):
    """Accuracies of the evaluated videos in each head, and of all heads together.

    Together, a combination of classes scores the product of theirs, and is right where all are.
    `intervals` are 95 % intervals, by head (or "all") and metric.
    """

    heads: Mapping[str, Accuracies]
    together: Accuracies
    intervals: Mapping[str, Mapping[str, Interval]]

    @property
    def sizes(self) -> Heads:
        """Return the number of classes of each head."""
        return heads_of(self.origin.class_names)

    def to_json(self) -> str:
        """Serialize to one object, with the accuracies of each head by name."""
        content = asdict(self)
        origin = content.pop("origin")
        for name in ("heads", "together"):
            content.pop(name)
        origin.pop("motion")
        whole = {
            "task": TASK,
            "protocol": origin.pop("protocol"),
            **{f"{ALL}_{name}": getattr(self.together, name) for name in OF_ALL},
            "heads": {
                head: {name: getattr(found, name) for name in METRICS}
                for head, found in self.heads.items()
            },
            **content,
            **origin,
        }
        return json.dumps(whole, indent=2)

    def lines(self) -> dict[str, str]:
        """Return name and text of each line of the terminal summary."""
        lines = {
            "top-1, all heads": percent(self.together.top1),
            "top-5, all heads": percent(self.together.top5),
        }
        for head, found in self.heads.items():
            lines[f"top-1, {head}"] = (
                f"{percent(found.top1)}  (top-5 {percent(found.top5)}, mean class accuracy "
                f"{percent(found.mean_class_accuracy)})"
            )
        return lines | self.closing_lines()


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
    account = account_of(
        predictions, origin, time_s=time_s, num_clips=num_clips, num_resumed=num_resumed
    )
    return MultiHeadResult(
        heads=heads,
        together=measure(combined, len(combinations)),
        intervals={ALL: {name: of_all[name] for name in OF_ALL}, **intervals},
        **account,
    )


def summarize_multihead_again(
    before: Mapping[str, Any], predictions: Sequence[MultiHeadVideo]
) -> MultiHeadResult:
    """Recompute a result from predictions, with what `read_multihead_json` gives of an earlier."""
    return summarize_multihead(predictions, origin_in(before), **account_before(before))


def read_multihead_json(path: Path) -> dict[str, Any]:
    """Read what `MultiHeadResult.write` wrote; raises `FileNotFoundError` or `UserError`."""
    if not path.is_file():
        raise MissingFileError(f"no results {path}; video-mvit evaluate writes them")
    try:
        whole_file = RESULT_OBJECT(parse_json(path.read_bytes()))
        known = {name: whole_file[name] for name in whole_file if name in NAMES}
        content: dict[str, Any] = record(NAMES)(known)
        if len(set(content["class_names"])) < len(content["class_names"]):
            raise MismatchError("a class occurs twice")
        if list(heads_of(content["class_names"])) != list(content["heads"]):
            raise MismatchError("heads are not those of the classes")
    except ValueError as error:  # of the schema, or of names of classes
        raise UserError(
            f"{path} is not a results.json of video-mvit evaluate with several heads: {error}; "
            "evaluate again"
        ) from None
    return content


def read_multihead_folder(folder: Path) -> tuple[MultiHeadResult, list[MultiHeadVideo]]:
    """Read predictions of a finished evaluation, and compute its numbers from them again.

    Raises `FileNotFoundError`, or `UserError` in one sentence.
    """
    content = read_multihead_json(folder / RESULTS)
    predictions = read_multihead_predictions(folder / PREDICTIONS, content["class_names"])
    if len(predictions) != content["num_listed"]:
        raise UserError(
            f"{folder / PREDICTIONS} has {len(predictions):,} videos, but {RESULTS} beside it is "
            f"of {content['num_listed']:,}; evaluate again"
        )
    return summarize_multihead_again(content, predictions), predictions


def check_multihead_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Raise `UserError` where the folder holds another evaluation."""
    before = partial_identities(folder)
    if (folder / RESULTS).is_file():
        before = [{}]
        if task_of_folder(folder) == TASK:
            before = [origin_in(read_multihead_json(folder / RESULTS)).identity]
    refuse_others(folder, before, identity, IDENTITY)


def read_multihead_resumed(
    folder: Path, identity: Mapping[str, Any], listed: ListedHeads
) -> tuple[Results, int]:
    """Read the results of an interrupted run, and a number for the next file of them."""
    known: Results = {}
    if (folder / RESULTS).is_file():
        _, rows = read_multihead_folder(folder)
        rows = rows[: len(listed.names)]
        if [each.video for each in rows] != list(listed.names):
            raise UserError(
                f"{folder / PREDICTIONS} has other videos than the list; overwrite=true evaluates "
                "all again"
            )
        known = {i: each for i, each in enumerate(rows) if not each.problem}
    for path in partial_files(folder):
        if identity_of(path) == identity:
            known |= read_partial_multihead(path, listed)
    return known, next_partial_number(folder)
