"""Per-video results of an evaluation: in memory, as a CSV table, and as partial results.

Metrics and report are computed from the table (`predictions.csv`) alone. While an evaluation runs,
each process appends finished videos to a file of its own; a second run over the same list, with the
same weights and views, resumes from them.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from video_mvit.errors import MissingFileError, UserError
from video_mvit.files import replace_atomically
from video_mvit.renamed import RESULT_FIELDS, rename_keys

NUM_BEST = 5
MISSING = "missing"
FIRST_COLUMNS = ("video", "label", "problem")


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
    with (
        replace_atomically(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        # Before Python 3.13, a lone carriage return is not quoted by default.
        texts = (*class_names, *(text for p in predictions for text in (p.video, p.problem)))
        if any("\r" in text for text in texts):
            table = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        else:
            table = csv.writer(file, lineterminator="\n")
        table.writerow([*FIRST_COLUMNS, *best, *tests])
        for p in predictions:
            label = "" if p.label is None else class_names[p.label]
            cells = [*(class_names[c] for c in p.classes), *map(repr, p.scores)]
            cells += [class_names[p.motion[test]] for test in tests if p.motion]
            cells += [""] * (len(best) + len(tests) - len(cells))
            table.writerow([p.video, label, p.problem, *cells])


def read_predictions(path: Path, class_names: Sequence[str]) -> list[VideoResult]:
    """Read rows of `write_predictions`; raises `FileNotFoundError` or `UserError`."""
    if not path.is_file():
        raise MissingFileError(f"no predictions {path}; video-mvit evaluate writes them")
    index = {name: i for i, name in enumerate(class_names)}
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.DictReader(file)
        columns = list(table.fieldnames or ())
        if not {*FIRST_COLUMNS, "top1", "score1"} <= set(columns):
            raise UserError(f"{path} is no predictions.csv of video-mvit evaluate")
        num_best = sum(name.startswith("top") for name in columns)
        tests = columns[len(FIRST_COLUMNS) + 2 * num_best :]
        try:
            return [_read_row(row, num_best, tests, index) for row in table]
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"{path}, line {table.line_num}: {error} is not expected there; was it edited?"
            ) from None


def _read_row(
    row: Mapping[str, str], num_best: int, tests: Sequence[str], index: Mapping[str, int]
) -> VideoResult:
    label = index[row["label"]] if row["label"] else None
    if row["problem"]:
        return VideoResult(video=row["video"], label=label, problem=row["problem"])
    places = range(1, num_best + 1)
    return VideoResult(
        video=row["video"],
        label=label,
        classes=tuple(index[row[f"top{place}"]] for place in places),
        scores=tuple(float(row[f"score{place}"]) for place in places),
        motion={test: index[row[test]] for test in tests},
    )


class PartialFile:
    """File of finished items, one JSON list per line, after a line with the evaluation's identity.

    Used by one process; every line is flushed, so that it survives a kill.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._file = path.open("w", encoding="utf-8")
        self.write(about)

    def write(self, content: Any) -> None:
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
    with path.open(encoding="utf-8") as file:
        about = _json(file.readline())
    return rename_keys(about, RESULT_FIELDS) if isinstance(about, dict) else None


def read_partial_results(path: Path, names: Sequence[str]) -> dict[int, VideoResult]:
    """Read partial results by index in the list `names`."""
    return {
        index: VideoResult(
            video=names[index],
            label=label,
            classes=tuple(classes),
            scores=tuple(scores),
            motion=motion,
        )
        for index, label, classes, scores, motion in read_partial_file(path)
    }


def read_partial_file(path: Path) -> list[Any]:
    """Read the items of a `PartialFile`; an incomplete last line is skipped."""
    lines = [_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines[1:] if line]


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
