"""Read and check the output folder of an evaluation."""

import contextlib
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from video_mvit.errors import UserError
from video_mvit.evaluation.predictions import (
    Listed,
    VideoResult,
    identity_of,
    read_partial_results,
    read_predictions,
)
from video_mvit.evaluation.results import IDENTITY, Result, differences, read_result
from video_mvit.files import is_plain_file
from video_mvit.schema import MismatchError, parse_json

RESULTS, PREDICTIONS, REPORT = "results.json", "predictions.csv", "report.html"
PARTIAL_DIR = "notes"  # results so far of an evaluation that runs or was stopped
NUMBERED = re.compile(r"[0-9]+\.jsonl")  # names of the files in it
VideoResults = dict[int, VideoResult]  # by index in the list of present videos
logger = logging.getLogger(__name__)


def read_folder(folder: Path) -> tuple[Result, list[VideoResult]]:
    """Read the metrics and predictions of a finished evaluation.

    Raises `FileNotFoundError`, or `UserError` in one sentence.
    """
    result = read_result(folder / RESULTS)
    predictions = read_predictions(folder / PREDICTIONS, result.origin.class_names)
    if len(predictions) != result.num_listed:
        raise UserError(
            f"{folder / PREDICTIONS} has {len(predictions):,} videos, but {RESULTS} beside it is "
            f"of {result.num_listed:,}; evaluate again"
        )
    return result, predictions


def read_resumed(
    folder: Path, identity: Mapping[str, Any], listed: Listed
) -> tuple[VideoResults, int]:
    """Read the results of an interrupted run, and a number for the next file of them."""
    known: VideoResults = {}
    if (folder / RESULTS).is_file():
        origin = read_result(folder / RESULTS).origin
        rows = read_predictions(folder / PREDICTIONS, origin.class_names)[: len(listed.names)]
        if [each.video for each in rows] != list(listed.names):
            raise UserError(
                f"{folder / PREDICTIONS} has other videos than the list; overwrite=true evaluates "
                "all again"
            )
        known = {i: each for i, each in enumerate(rows) if not each.problem}
    for path in partial_files(folder):
        if identity_of(path) == identity:
            known |= read_partial_results(path, listed, identity.get("motion", ()))
    return known, next_partial_number(folder)


def check_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Raise `UserError` where the folder holds another evaluation."""
    if (folder / RESULTS).is_file():
        try:
            before = [read_result(folder / RESULTS).origin.identity]
        except ValueError:
            before = [{}]
    else:
        before = partial_identities(folder)
    refuse_others(folder, before, identity, IDENTITY)


def task_of_folder(folder: Path) -> str | None:
    """Return the task that results in a folder name; None of a single label, or without results."""
    try:
        content = parse_json((folder / RESULTS).read_bytes())
    except (OSError, MismatchError):
        return None
    task = content.get("task") if isinstance(content, dict) else None
    return task if isinstance(task, str) else None


def partial_identities(folder: Path) -> list[dict[str, Any]]:
    """Return the identities of all partial results."""
    identities = map(identity_of, partial_files(folder))
    return [about for about in identities if about is not None]


def refuse_others(
    folder: Path,
    before: Iterable[Mapping[str, Any]],
    identity: Mapping[str, Any],
    words: Mapping[str, str],
) -> None:
    """Raise `UserError` where an identity in the folder is not that of this evaluation."""
    for each in before:
        if found := differences(each, identity, words):
            raise UserError(
                f"{folder} holds an evaluation with {', '.join(found)}; output=... keeps it, "
                "overwrite=true replaces it"
            )


def partial_files(folder: Path) -> list[Path]:
    """Return the files of partial results in a folder: our names, and regular files only."""
    within = folder / PARTIAL_DIR
    if within.is_symlink():
        raise UserError(
            f"{within} is a link, which an evaluation neither follows nor removes; remove it, or "
            "choose another folder with output=..."
        )
    return sorted(filter(is_plain_file, _numbered(within)))


def _numbered(folder: Path) -> list[Path]:
    """Return all that is called like a file of partial results."""
    return [path for path in folder.glob("*.jsonl") if NUMBERED.fullmatch(path.name)]


def next_partial_number(folder: Path) -> int:
    """Return a number for the next file of partial results."""
    taken = _numbered(folder / PARTIAL_DIR)
    return max((int(path.stem) for path in taken), default=-1) + 1


def new_partial_path(folder: Path, number: int) -> Path:
    """Return the path of a file of partial results; its folder is made."""
    (folder / PARTIAL_DIR).mkdir(exist_ok=True)
    return folder / PARTIAL_DIR / f"{number}.jsonl"


def log_resumed(num_resumed: int, num_listed: int, unit: str) -> None:
    """Say how many videos or images are left out, since an earlier run evaluated them."""
    if num_resumed:
        logger.info(
            "resuming: %s of %s %s were evaluated by an earlier run",
            f"{num_resumed:,}",
            f"{num_listed:,}",
            unit,
        )


def clear_folder(folder: Path, names: Iterable[str] = (RESULTS, PREDICTIONS, REPORT)) -> None:
    """Remove the evaluation that `overwrite=true` replaces."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
    clear_partial_results(folder)


def clear_partial_results(folder: Path) -> None:
    """Remove partial results, and their folder unless it holds anything else."""
    for path in partial_files(folder):
        path.unlink()
    with contextlib.suppress(OSError):
        (folder / PARTIAL_DIR).rmdir()
