"""Per-video results of an evaluation: in memory, as a CSV table, and as partial results.

Metrics and report are computed from the table (`predictions.csv`) alone. While an evaluation runs,
each process appends finished videos to a file of its own; a second run over the same list, with the
same weights and views, resumes from them.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from video_mvit.errors import MissingFileError, UserError
from video_mvit.files import naming, replace_atomically
from video_mvit.renamed import RESULT_FIELDS, rename_keys
from video_mvit.schema import (
    Check,
    MismatchError,
    anything,
    number,
    parse_json,
    row,
    sequence,
    table,
    whole,
)
from video_mvit.text import csv_cell, csv_text, short

NUM_BEST = 5
MISSING = "missing"
FIRST_COLUMNS = ("video", "label", "problem")
EXCESS = "cells without a column"
MAX_LINE = 2**20  # bytes of an identity
SCORE = number(0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class VideoResult:
    """Result of one listed video: top classes with scores, or the `problem` that excluded it.

    `classes` are up to five, best first. `label` is None where only the list's name is known.
    `motion` is the predicted class of each temporal ablation (see `motion_tests.py`).
    """

    video: str
    label: int | None
    classes: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    motion: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""

    @property
    def is_right(self) -> bool:
        return not self.problem and self.classes[0] == self.label


def best_classes(scores: Tensor) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the top five classes and their scores: (K,) -> classes, scores; ties by index.

    Scores have nine digits, which tell any two float32 apart and are short to write. A mean that
    rounding has lifted above 1 is 1.
    """
    best = scores.sort(descending=True, stable=True)
    values = tuple(min(float(f"{value:.9g}"), 1.0) for value in best.values[:NUM_BEST].tolist())
    return tuple(best.indices[:NUM_BEST].tolist()), values


def evaluated(predictions: Iterable[VideoResult]) -> list[VideoResult]:
    """Return those without a problem; raises `UserError` where none is left."""
    found = [prediction for prediction in predictions if not prediction.problem]
    if not found:
        raise UserError("none of the listed videos could be evaluated")
    return found


def write_predictions(
    path: Path, predictions: Sequence[VideoResult], class_names: Sequence[str]
) -> None:
    """Write all rows as CSV with class names, atomically."""
    num_best = max([1, *(len(prediction.classes) for prediction in predictions)])
    tests = next((list(p.motion) for p in predictions if p.motion), [])
    best = [f"{what}{place}" for what in ("top", "score") for place in range(1, num_best + 1)]
    names = [csv_cell(name) for name in class_names]
    with (
        replace_atomically(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*FIRST_COLUMNS, *best, *tests])
        for p in predictions:
            label = "" if p.label is None else names[p.label]
            cells = [*(names[c] for c in p.classes), *map(repr, p.scores)]
            cells += [names[p.motion[test]] for test in tests if p.motion]
            cells += [""] * (len(best) + len(tests) - len(cells))
            table.writerow([csv_cell(p.video), label, csv_cell(p.problem), *cells])


def read_predictions(path: Path, class_names: Sequence[str]) -> list[VideoResult]:
    """Read rows of `write_predictions`; raises `FileNotFoundError` or `UserError`."""
    if not path.is_file():
        raise MissingFileError(f"no predictions {path}; video-mvit evaluate writes them")
    # Tables of earlier versions hold names as they are.
    index = {name: i for i, name in enumerate(class_names)}
    index |= {csv_cell(name): i for i, name in enumerate(class_names)}
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.DictReader(file, restkey=EXCESS)
        try:
            columns = list(table.fieldnames or ())
            if not {*FIRST_COLUMNS, "top1", "score1"} <= set(columns):
                raise UserError(f"{path} is no predictions.csv of video-mvit evaluate")
            num_best = sum(name.startswith("top") for name in columns)
            tests = columns[len(FIRST_COLUMNS) + 2 * num_best :]
            return [_read_row(row, num_best, tests, index) for row in table]
        except MismatchError as error:
            reason = str(error)
        except KeyError as error:
            reason = f"{short(error.args[0])} is not expected there"
        except csv.Error as error:
            reason = str(error)
    raise UserError(f"{path}, line {table.line_num}: {reason}; was it edited?")


def _read_row(
    row: Mapping[str, Any], num_best: int, tests: Sequence[str], index: Mapping[str, int]
) -> VideoResult:
    if EXCESS in row or None in row.values():
        raise MismatchError("the row has too many or too few cells")
    video, problem = csv_text(row["video"]), csv_text(row["problem"])
    label = index[row["label"]] if row["label"] else None
    if problem:
        return VideoResult(video=video, label=label, problem=problem)
    places = range(1, num_best + 1)
    return VideoResult(
        video=video,
        label=label,
        classes=tuple(index[row[f"top{place}"]] for place in places),
        scores=tuple(_score(row[f"score{place}"]) for place in places),
        motion={test: index[row[test]] for test in tests},
    )


def _score(cell: str) -> float:
    try:
        return float(SCORE(float(cell)))
    except ValueError:  # a mismatch, too
        raise MismatchError(f"{short(cell)} is not a score") from None


class PartialFile:
    """File of finished items, one JSON list per line, after a line with the evaluation's identity.

    Used by one process; every line is flushed, so that it survives a kill.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._path, self._file = path, path.open("w", encoding="utf-8")
        self.write(about)

    def write(self, content: Any) -> None:
        with naming(self._path):
            self._file.write(json.dumps(content) + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()


class PartialResults(PartialFile):
    """File of finished videos."""

    def add(self, video_index: int, prediction: VideoResult) -> None:
        p = prediction
        self.write([video_index, p.label, p.classes, p.scores, dict(p.motion)])


def identity_of(path: Path) -> dict[str, Any] | None:
    """Read the identity of partial results; None where it was not written completely."""
    with path.open("rb") as file:
        line = file.readline(MAX_LINE)
    if not line.endswith(b"\n"):
        return None
    about = _parse(path, 1, line, table(anything))
    return rename_keys(about, RESULT_FIELDS)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """The list that is evaluated: names and labels of its videos, and how many classes it has."""

    names: Sequence[str]
    labels: Sequence[int]
    num_classes: int


def read_partial_results(
    path: Path, listed: Listed, tests: Sequence[str] = ()
) -> dict[int, VideoResult]:
    """Read partial results by index in a list; `tests` are the temporal ablations.

    Raises `UserError` with the line that does not fit the list.
    """
    label = whole(0, listed.num_classes - 1)
    best = min(NUM_BEST, listed.num_classes)
    columns = row(
        whole(0, len(listed.names) - 1),
        label,
        sequence(label, low=best, high=best),
        sequence(SCORE, low=best, high=best),
        table(label, tests),
    )
    found: dict[int, VideoResult] = {}
    for line_number, (index, of, classes, scores, motion) in read_partial_file(path, columns):
        is_listed = of == listed.labels[index] and len(set(classes)) == best
        if not is_listed or motion.keys() != set(tests) or list(scores) != sorted(scores)[::-1]:
            raise not_of_list(path, line_number)
        found[index] = VideoResult(
            video=listed.names[index], label=of, classes=classes, scores=scores, motion=motion
        )
    return found


def read_partial_file(path: Path, check: Check) -> Iterator[tuple[int, Any]]:
    """Yield line number and item of a `PartialFile`; an incomplete last line is skipped.

    Raises `UserError` with the line that does not pass the check.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number > 1 and line.endswith(b"\n"):
                yield number, _parse(path, number, line, check)


def _parse(path: Path, number: int, line: bytes, check: Check) -> Any:
    try:
        return check(parse_json(line))
    except MismatchError as error:
        raise _damaged(path, number, str(error)) from None


def not_of_list(path: Path, number: int) -> UserError:
    """Return the error for a line of partial results that are of another list."""
    return _damaged(path, number, "it does not fit the list that is evaluated")


def _damaged(path: Path, number: int, reason: str) -> UserError:
    return UserError(
        f"{path} line {number} is not a result of this evaluation: {reason}; remove the file, and "
        "its items are evaluated again"
    )
