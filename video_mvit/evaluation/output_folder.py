"""Read and check the output folder of an evaluation."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from video_mvit.errors import UserError
from video_mvit.evaluation.predictions import (
    VideoResult,
    identity_of,
    read_partial_results,
    read_predictions,
)
from video_mvit.evaluation.results import Result, differences, read_result

RESULTS, PREDICTIONS, REPORT = "results.json", "predictions.csv", "report.html"
PARTIAL_DIR = "notes"  # results so far of an evaluation that runs or was stopped
VideoResults = dict[int, VideoResult]  # by index in the list of present videos


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
    notes = _partial_files(folder)
    for path in notes:
        if identity_of(path) == identity:
            known |= read_partial_results(path, names)
    return known, max((int(path.stem) for path in notes), default=-1) + 1


def check_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Raise `UserError` where the folder holds another evaluation."""
    if (folder / RESULTS).is_file():
        try:
            before = [read_result(folder / RESULTS).origin.identity]
        except ValueError:
            before = [{}]
    else:
        before = [
            about for path in _partial_files(folder) if (about := identity_of(path)) is not None
        ]
    for each in before:
        if found := differences(each, identity):
            raise UserError(
                f"{folder} holds an evaluation with {', '.join(found)}; output=... keeps it, "
                "overwrite=true replaces it"
            )


def _partial_files(folder: Path) -> list[Path]:
    return sorted((folder / PARTIAL_DIR).glob("*.jsonl"))


def clear_folder(folder: Path) -> None:
    """Remove the evaluation that `overwrite=true` replaces."""
    for name in (RESULTS, PREDICTIONS, REPORT):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / PARTIAL_DIR, ignore_errors=True)
