"""Per-video results with several heads: in memory, as CSV, and partial.

Of each head, the best classes with their scores are kept, as with a single label. The best
combinations of classes follow from them: their scores are the products.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from video_mvit.class_heads import Heads, classes_of_heads, heads_of, parts_of
from video_mvit.errors import UserError
from video_mvit.evaluation.prediction_table import read_rows, write_rows
from video_mvit.evaluation.predictions import (
    NUM_BEST,
    SCORE,
    PartialFile,
    VideoResult,
    best_classes,
    read_partial_file,
)
from video_mvit.schema import Check, MismatchError, row, sequence, whole
from video_mvit.text import short

Labels = tuple[int, ...]  # a class of each head, counted within it


class Best(NamedTuple):
    """The best classes of a head, up to five, with their scores."""

    classes: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class MultiHeadVideo:
    """Result of one listed video: the best classes of each head, or the `problem` that excluded it.

    `labels` is None where only the list's name is known.
    """

    video: str
    labels: Labels | None
    best: tuple[Best, ...] = ()
    problem: str = ""

    @property
    def is_right(self) -> bool:
        """Return whether every head is right."""
        return not self.problem and tuple(each.classes[0] for each in self.best) == self.labels


class Combined(NamedTuple):
    """Results of all heads together, whose classes are combinations of a class of each head."""

    predictions: list[VideoResult]
    combinations: list[Labels]


def best_of_heads(scores: Tensor, heads: Heads) -> tuple[Best, ...]:
    """Return the top five classes of each head: scores (K,) -> H of them."""
    return tuple(Best(*best_classes(scores[part])) for part in parts_of(heads))


def best_combinations(best: Sequence[Best]) -> list[tuple[Labels, float]]:
    """Return the top five combinations with the products of their scores, best first.

    They are among those of the top five of each head: any other class has five better ones.
    """
    found: list[tuple[Labels, float]] = [((), 1.0)]
    for each in best:
        more = [
            ((*labels, label), product * score)
            for labels, product in found
            for label, score in zip(each.classes, each.scores, strict=True)
        ]
        found = sorted(more, key=lambda pair: -pair[1])[:NUM_BEST]
    return found


def of_head(predictions: Sequence[MultiHeadVideo], head: int) -> list[VideoResult]:
    """Return the results of one head, as those of a single label."""
    return [
        VideoResult(
            video=each.video,
            label=None if each.labels is None else each.labels[head],
            classes=each.best[head].classes if each.best else (),
            scores=each.best[head].scores if each.best else (),
            problem=each.problem,
        )
        for each in predictions
    ]


def combine(predictions: Sequence[MultiHeadVideo]) -> Combined:
    """Return the results of all heads together, as those of a single label."""
    best = [best_combinations(each.best) if each.best else [] for each in predictions]
    index: dict[Labels, int] = {}
    for each, found in zip(predictions, best, strict=True):
        for labels in (*([] if each.labels is None else [each.labels]), *(one for one, _ in found)):
            index.setdefault(labels, len(index))
    combined = [
        VideoResult(
            video=each.video,
            label=None if each.labels is None else index[each.labels],
            classes=tuple(index[labels] for labels, _ in found),
            scores=tuple(score for _, score in found),
            problem=each.problem,
        )
        for each, found in zip(predictions, best, strict=True)
    ]
    return Combined(combined, list(index))


def name_of(labels: Labels, classes: Mapping[str, Sequence[str]]) -> str:
    """Return the name of a combination: "open, door"."""
    return ", ".join(names[label] for names, label in zip(classes.values(), labels, strict=True))


def chance_of(heads: Heads) -> float:
    """Return the top-1 of a random guess in all heads."""
    return 1 / prod(heads.values())


def _columns(heads: Heads) -> list[str]:
    best = [
        f"{head} {what}{place}"
        for head, size in heads.items()
        for what in ("top", "score")
        for place in range(1, min(size, NUM_BEST) + 1)
    ]
    return ["video", *heads, "problem", *best]


def write_multihead_predictions(
    path: Path, predictions: Sequence[MultiHeadVideo], class_names: Sequence[str]
) -> None:
    """Write all rows as CSV with class names, atomically."""
    heads = heads_of(class_names)
    classes = list(classes_of_heads(class_names, heads).values())
    columns = _columns(heads)
    rows = []
    for each in predictions:
        labels = each.labels or [None] * len(heads)
        cells = [each.video]
        cells += [
            "" if label is None else names[label]
            for names, label in zip(classes, labels, strict=True)
        ]
        cells.append(each.problem)
        for names, best in zip(classes, each.best, strict=bool(each.best)):
            cells += [*(names[label] for label in best.classes), *map(repr, best.scores)]
        rows.append([*cells, *[""] * (len(columns) - len(cells))])
    write_rows(path, columns, rows)


def read_multihead_predictions(path: Path, class_names: Sequence[str]) -> list[MultiHeadVideo]:
    """Read rows of `write_multihead_predictions`; raises `FileNotFoundError` or `UserError`."""
    heads = heads_of(class_names)
    indices = [
        {name: i for i, name in enumerate(names)}
        for names in classes_of_heads(class_names, heads).values()
    ]
    return read_rows(path, _columns(heads), lambda cells: _read_row(cells, indices), "heads")


def _read_row(cells: Sequence[str], indices: Sequence[Mapping[str, int]]) -> MultiHeadVideo:
    """Read a row by the places of its columns: names of heads may make two of them alike."""
    video, *names_of_labels = cells[: 1 + len(indices)]
    problem, *others = cells[1 + len(indices) :]
    labels = None
    if any(names_of_labels):
        labels = tuple(map(_label, indices, names_of_labels))
    if problem:
        return MultiHeadVideo(video=video, labels=labels, problem=problem)
    if labels is None:
        raise MismatchError("an evaluated video has no labels")
    best = []
    for names in indices:
        number = min(len(names), NUM_BEST)
        scores = tuple(map(_score, others[number : 2 * number]))
        best.append(Best(tuple(_label(names, each) for each in others[:number]), scores))
        others = others[2 * number :]
    return MultiHeadVideo(video=video, labels=labels, best=tuple(best))


def _label(indices: Mapping[str, int], name: str) -> int:
    if name not in indices:
        raise MismatchError(f"{short(name)} is not expected there")
    return indices[name]


def _score(cell: str) -> float:
    try:
        return float(SCORE(float(cell)))
    except ValueError:  # a mismatch, too
        raise MismatchError(f"{short(cell)} is not a score") from None


class PartialMultiHeadResults(PartialFile):
    """File of finished videos."""

    def add(self, video_index: int, prediction: MultiHeadVideo) -> None:
        self.write([video_index, prediction.labels, prediction.best])


@dataclass(frozen=True, kw_only=True)
class ListedHeads:
    """The list that is evaluated: names and labels of its videos, and its heads."""

    names: Sequence[str]
    labels: Sequence[Labels]
    heads: Heads


def read_partial_multihead(path: Path, listed: ListedHeads) -> dict[int, MultiHeadVideo]:
    """Read partial results by index in a list; raises `UserError` with a line that does not fit."""
    sizes = list(listed.heads.values())
    columns = row(
        whole(0, len(listed.names) - 1),
        row(*(whole(0, size - 1) for size in sizes)),
        row(*map(_best_check, sizes)),
    )
    found: dict[int, MultiHeadVideo] = {}
    for number, (index, labels, best) in read_partial_file(path, columns):
        if labels != listed.labels[index]:
            raise UserError(
                f"{path} line {number} is not a result of this evaluation: it does not fit the "
                "list that is evaluated; remove the file, and its items are evaluated again"
            )
        found[index] = MultiHeadVideo(
            video=listed.names[index], labels=labels, best=tuple(Best(*each) for each in best)
        )
    return found


def _best_check(size: int) -> Check:
    """Check the best classes of a head: each once, the scores in order."""
    number = min(size, NUM_BEST)
    fields = row(
        sequence(whole(0, size - 1), low=number, high=number),
        sequence(SCORE, low=number, high=number),
    )

    def check(value: Any) -> Any:
        classes, scores = fields(value)
        if len(set(classes)) < number or list(scores) != sorted(scores, reverse=True):
            raise MismatchError("classes that occur twice, or scores that are not in order")
        return classes, scores

    return check
