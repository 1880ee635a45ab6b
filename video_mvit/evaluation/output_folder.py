"""Read and check the output folder of an evaluation."""

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from video_mvit.errors import UserError
from video_mvit.evaluation.predictions import (
    VideoResult,
    identity_of,
    read_partial_results,
    read_predictions,
)
from video_mvit.evaluation.results import IDENTITY, Result, differences, read_result

RESULTS, PREDICTIONS, REPORT = "results.json", "predictions.csv", "report.html"
PARTIAL_DIR = "notes"  # results so far of an evaluation that runs or was stopped
VideoResults = dict[int, VideoResult]  # by index in the list of present videos
logger = logging.getLogger(__name__)


def read_folder(folder: Path) -> tuple[Result, list[VideoResult]]:
    """Read the metrics and predictions of a finished evaluation.

    Raises `FileNotFoundError`, or `UserError` in one sentence.
    """
    result = read_result(folder / RESULTS)
    return result, read_predictions(folder / PREDICTIONS, result.origin.class_names)


def read_resumed(
    folder: Path, identity: Mapping[str, Any], names: Sequence[str]
) -> tuple[VideoResults, int]:
    """Read the results of an interrupted run, and a number for the next file of them."""
    known: VideoResults = {}
    if (folder / RESULTS).is_file():
        origin = read_result(folder / RESULTS).origin
        table = read_predictions(folder / PREDICTIONS, origin.class_names)
        known = {i: each for i, each in enumerate(table[: len(names)]) if not each.problem}
    for path in partial_files(folder):
        if identity_of(path) == identity:
            known |= read_partial_results(path, names)
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
    """Return the files of partial results in a folder."""
    return sorted((folder / PARTIAL_DIR).glob("*.jsonl"))


def next_partial_number(folder: Path) -> int:
    """Return a number for the next file of partial results."""
    return max((int(path.stem) for path in partial_files(folder)), default=-1) + 1


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
    shutil.rmtree(folder / PARTIAL_DIR, ignore_errors=True)
