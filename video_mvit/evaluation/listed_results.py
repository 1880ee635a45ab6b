"""What evaluations of a list share, beside their numbers: JSON, lines of text, folders, resuming.

Those with one label a video have files of their own, of older versions too (`results.py`).
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from video_mvit.errors import MissingFileError, UserError
from video_mvit.evaluation.output_folder import (
    PREDICTIONS,
    RESULTS,
    next_partial_number,
    partial_files,
    partial_identities,
    refuse_others,
)
from video_mvit.evaluation.predictions import MISSING, identity_of
from video_mvit.evaluation.results import IDENTITY, RESULT_NAMES, RESULT_OBJECT, Origin
from video_mvit.files import replace_atomically
from video_mvit.schema import Check, MismatchError, parse_json, record

OF_SINGLE_LABEL = (
    *("top1", "top5", "mean_class_accuracy", "calibration_error", "motion", "intervals"),
)
FACTS: Mapping[str, Check] = {
    name: check for name, check in RESULT_NAMES.items() if name not in OF_SINGLE_LABEL
}


class ListedVideo(Protocol):
    """A listed video; `problem` is why it was not evaluated, or ""."""

    @property
    def video(self) -> str: ...
    @property
    def problem(self) -> str: ...


VideoT = TypeVar("VideoT", bound=ListedVideo)


def in_both(
    before: Sequence[VideoT], after: Sequence[VideoT]
) -> tuple[list[VideoT], list[VideoT], int]:
    """Return the videos evaluated in both, matched by name, and how many are in one of them only.

    Raises `UserError` where there are none.
    """
    first, second = (
        {each.video: each for each in predictions if not each.problem}
        for predictions in (before, after)
    )
    names = [name for name in first if name in second]
    if not names:
        raise UserError("no video was evaluated in both")
    num_only_one = len(first.keys() ^ second.keys())
    return [first[name] for name in names], [second[name] for name in names], num_only_one


@dataclass(frozen=True, kw_only=True)
class ListedResult:
    """The result of an evaluation; subclasses add its numbers.

    Listed videos that are `missing` or `unreadable` (name and reason) are named, never replaced.
    `time_s` and `clips_per_s` are of the last run, which resumed with `num_resumed` videos.
    """

    task: ClassVar[str]
    num_videos: int
    num_listed: int
    missing: tuple[str, ...]
    unreadable: Mapping[str, str]
    time_s: float
    clips_per_s: float
    num_resumed: int
    origin: Origin

    def numbers_to_json(self) -> dict[str, Any]:
        """Return the numbers in plain values, by the names under which they are written."""
        raise NotImplementedError

    def number_lines(self) -> dict[str, str]:
        """Return name and text of the lines of the terminal summary that tell the numbers."""
        raise NotImplementedError

    def to_json(self) -> str:
        """Serialize to one flat object."""
        facts = {each.name: getattr(self, each.name) for each in fields(ListedResult)}
        origin = asdict(facts.pop("origin"))
        origin.pop("motion")
        content = {
            "task": self.task,
            "protocol": origin.pop("protocol"),
            **self.numbers_to_json(),
            **facts,
            **origin,
        }
        return json.dumps(content, indent=2)

    def write(self, path: Path) -> None:
        with replace_atomically(path) as temporary:
            temporary.write_text(self.to_json() + "\n", encoding="utf-8")

    def lines(self) -> dict[str, str]:
        """Return name and text of each line of the terminal summary."""
        lines = {**self.number_lines(), "videos": f"{self.num_videos:,}"}
        if self.num_videos < self.num_listed:
            lines["videos"] += (
                f" of {self.num_listed:,}: {len(self.missing)} missing, "
                f"{len(self.unreadable)} unreadable"
            )
        lines["protocol"] = self.origin.protocol
        lines["time"] = f"{self.time_s:.0f} s, {self.clips_per_s:.1f} clips/s"
        if self.num_resumed:
            lines["time"] += f"  ({self.num_resumed:,} videos resumed from an earlier run)"
        ema = "  (EMA weights)" if "EMA" in self.origin.weights else ""
        lines["checkpoint"] = f"{self.origin.checkpoint}{ema}"
        return lines


def facts_of(
    predictions: Sequence[ListedVideo],
    origin: Origin,
    *,
    time_s: float,
    num_clips: int,
    num_resumed: int,
) -> dict[str, Any]:
    """Return the fields of `ListedResult`, by predictions, one for each listed video.

    `num_clips` went through the network in `time_s`.
    """
    left_out = [p for p in predictions if p.problem]
    return {
        "num_videos": len(predictions) - len(left_out),
        "num_listed": len(predictions),
        "missing": tuple(p.video for p in left_out if p.problem == MISSING),
        "unreadable": {p.video: p.problem for p in left_out if p.problem != MISSING},
        "time_s": time_s,
        "clips_per_s": num_clips / time_s if time_s else 0.0,
        "num_resumed": num_resumed,
        "origin": origin,
    }


def facts_again(before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the setup and time of an earlier result, as `facts_of` takes them."""
    return {
        "origin": origin_in(before),
        "time_s": before["time_s"],
        "num_clips": round(before["clips_per_s"] * before["time_s"]),
        "num_resumed": before["num_resumed"],
    }


def origin_in(content: Mapping[str, Any]) -> Origin:
    """Return the setup of an evaluation that was read."""
    known = {field.name: content[field.name] for field in fields(Origin) if field.name != "motion"}
    return Origin(**known, motion=())


def task_in(folder: Path) -> str | None:
    """Return the task of the evaluation in a folder; None where it has one label, or is none."""
    try:
        content = parse_json((folder / RESULTS).read_bytes())
    except (OSError, MismatchError):
        return None
    task = content.get("task") if isinstance(content, dict) else None
    return task if isinstance(task, str) else None


def read_listed_json(
    path: Path,
    names: Mapping[str, Check],
    what: str,
    of_classes: Iterable[str] = (),
    check: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Read what `ListedResult.write` wrote, with these fields of its own beside `FACTS`.

    The fields `of_classes` are objects with the names of the classes, and `check` raises
    `MismatchError` for others that do not fit. `what` kind of evaluation is
    expected is told in errors: raises `FileNotFoundError` or `UserError`.
    """
    if not path.is_file():
        raise MissingFileError(f"no results {path}; video-mvit evaluate writes them")
    schema = {**names, **FACTS}
    try:
        whole_file = RESULT_OBJECT(parse_json(path.read_bytes()))
        known = {name: whole_file[name] for name in whole_file if name in schema}
        content: dict[str, Any] = record(schema)(known)
        if len(set(content["class_names"])) < len(content["class_names"]):
            raise MismatchError("a class occurs twice")
        for name in of_classes:
            if set(content[name]) != set(content["class_names"]):
                raise MismatchError(f"{name} are of other classes")
        check(content)
    except MismatchError as error:
        raise UserError(
            f"{path} is not a results.json of video-mvit evaluate {what}: {error}; evaluate again"
        ) from None
    return content


def check_number_of_rows(folder: Path, num_rows: int, num_listed: int) -> None:
    """Raise `UserError` where the predictions in a folder are not those of its results."""
    if num_rows != num_listed:
        raise UserError(
            f"{folder / PREDICTIONS} has {num_rows:,} videos, but {RESULTS} beside it is "
            f"of {num_listed:,}; evaluate again"
        )


def check_listed_folder(
    folder: Path, identity: Mapping[str, Any], task: str, read: Callable[[Path], Mapping[str, Any]]
) -> None:
    """Raise `UserError` where the folder holds another evaluation; `read` reads one of the task."""
    before = partial_identities(folder)
    if (folder / RESULTS).is_file():
        is_alike = task_in(folder) == task
        before = [origin_in(read(folder / RESULTS)).identity] if is_alike else [{}]
    refuse_others(folder, before, identity, IDENTITY)


def read_known(
    folder: Path,
    identity: Mapping[str, Any],
    names: Sequence[str],
    read_rows: Callable[[Path], Sequence[VideoT]],
    read_partial: Callable[[Path], Mapping[int, VideoT]],
) -> tuple[dict[int, VideoT], int]:
    """Read the results of an interrupted run, and a number for the next file of them.

    `read_rows` reads the predictions of a finished evaluation in the folder, `read_partial` a file
    of partial results. Raises `UserError` where the folder has other videos than `names`.
    """
    known: dict[int, VideoT] = {}
    if (folder / RESULTS).is_file():
        rows = read_rows(folder)[: len(names)]
        if [each.video for each in rows] != list(names):
            raise UserError(
                f"{folder / PREDICTIONS} has other videos than the list; overwrite=true evaluates "
                "all again"
            )
        known = {i: each for i, each in enumerate(rows) if not each.problem}
    for path in partial_files(folder):
        if identity_of(path) == identity:
            known |= read_partial(path)
    return known, next_partial_number(folder)
