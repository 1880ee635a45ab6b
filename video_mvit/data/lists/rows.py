"""Videos from rows of a path and a label in Python: pairs, mappings, or a table of pandas."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any, Literal

from video_mvit.data.lists.copies import ListingWithCopies
from video_mvit.data.lists.division import DividedSource, take_part
from video_mvit.data.lists.manifest import Manifest, Row, VideoList, find_videos
from video_mvit.data.lists.named_columns import usual_columns
from video_mvit.data.lists.path_lists import below_one_folder
from video_mvit.data.lists.text import (
    MAX_UNNAMED_CLASSES,
    class_order,
    holds_half_character,
    unknown_classes,
    warn_of_similar_names,
)
from video_mvit.errors import MissingFileError, UserError

logger = logging.getLogger(__name__)

PLACE = "rows"  # in messages
EXPECTED = "expected a path and a label, such as ('walk/a.mp4', 'walk')"


@dataclass(frozen=True)
class Rows:
    """Videos from rows of a path and a label.

    Rows are pairs, mappings with the keys `path` and `label`, or a pandas frame with such columns
    (usual names such as `file` and `class` count, else `columns` names them). Labels are names of
    classes, or whole numbers from 0. Paths are relative to `root`, by default the current folder,
    or begin with it; absolute ones are used as they are. A generator is read once.
    """

    rows: Iterable[object]
    root: str | Path | None = None
    columns: Mapping[str, str] | None = None

    def read(self, class_names: Sequence[str] | None = None) -> Manifest:
        """Look up the videos, with labels in the given class order, or sorted by name.

        Raises `UserError` for a row that is not a path and a label.
        """
        paths, labels = self._pairs
        names, indices = _class_indices(labels, class_names)
        folder = os.fspath(self.root) if self.root is not None else "."
        root, places = below_one_folder(folder, [_below(folder, path) for path in paths])
        if not os.path.isdir(root):
            raise MissingFileError(f"{root}, which {PLACE} are in, does not exist")
        listed = VideoList(
            path=PLACE,
            rows=[
                Row(number, path, index, (place,))
                for number, (path, index, place) in enumerate(
                    zip(paths, indices, places, strict=True), 1
                )
            ],
            class_names=names,
            unit="entry",
        )
        return find_videos(listed, ListingWithCopies(root, frozenset(places)))

    @cached_property
    def _pairs(self) -> tuple[list[str], list[str | int]]:
        """Read the rows: -> paths and labels."""
        paths, labels = [], []
        for number, (path, label) in enumerate(_split(self.rows, self.columns), 1):
            paths.append(_path(number, path))
            labels.append(_label(number, label))
        if not paths:
            raise UserError(f"there are no {PLACE}; {EXPECTED}")
        return paths, labels


@dataclass(frozen=True, kw_only=True)
class RowsSource(DividedSource):
    """The rows of one part: of `val_rows` those to validate on, or a part of `rows` (`Division`).

    Labels, `root` and `columns` are those of `Rows`.
    """

    part: Literal["train", "val"]
    rows: Iterable[object]
    val_rows: Iterable[object] | None = None
    root: str | None = None
    columns: Mapping[str, str] | None = None

    def read(self, class_names: Sequence[str] | None = None) -> Manifest:
        """Read the rows of the part; raises `UserError` as `Rows` does."""
        rows = self.rows if self.part == "train" or self.val_rows is None else self.val_rows
        found = Rows(rows, self.root, self.columns).read(class_names)
        if self.val_rows is None:
            return take_part(found, self.part, self.division, PLACE)
        if self.division.given:
            raise UserError(
                f"{self.division.given} divides videos that have no list to validate on, but "
                "data.val_rows is one; remove the option"
            )
        return found


def _below(folder: str, path: str) -> str:
    """Strip the folder from a path that begins with it, as those of `Path(folder).glob` do."""
    start = f"{os.path.normpath(folder)}/"
    inside = os.path.normpath(path)
    if not inside.startswith(start) or os.path.exists(os.path.join(folder, path)):
        return path
    return inside.removeprefix(start)


def _split(rows: Iterable[Any], columns: Mapping[str, str] | None) -> Iterator[tuple[Any, Any]]:
    """Yield path and label of each row."""
    if isinstance(rows, str) or not isinstance(rows, Iterable):
        raise UserError(
            f"{PLACE} are of type {type(rows).__name__}; expected a list of pairs of a path and a "
            "label"
        )
    if hasattr(rows, "columns") and hasattr(rows, "itertuples"):  # a pandas frame
        header = [str(name) for name in rows.columns]
        values = rows.itertuples(index=False, name=None)
        rows = (dict(zip(header, each, strict=True)) for each in values)
    named: Mapping[str, str] | None = columns
    for number, row in enumerate(rows, 1):
        if isinstance(row, Mapping):
            named = named or usual_columns(f"{PLACE} entry {number}", [str(key) for key in row])
            if absent := [key for key in named.values() if key not in row]:
                raise UserError(f"{PLACE} entry {number} has no {absent[0]!r}; {EXPECTED}")
            yield row[named["path"]], row[named["label"]]
        elif isinstance(row, Iterable) and not isinstance(row, str) and len(tuple(row)) == 2:
            path, label = row
            yield path, label
        else:
            raise UserError(f"{PLACE} entry {number} is {_shown(row)}; {EXPECTED}")


def _path(number: int, path: Any) -> str:
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"{PLACE} entry {number} has the path {_shown(path)}; {EXPECTED}")
    text = os.fspath(path)
    if not isinstance(text, str) or not text or "://" in text or holds_half_character(text):
        raise UserError(
            f"{PLACE} entry {number} has the path {_shown(text)}; expected that of a file"
        )
    return os.path.expanduser(text) if text.startswith("~/") else text


def _label(number: int, label: Any) -> str | int:
    """Return a label as text or as a number; those of numpy and pandas count too."""
    if isinstance(label, str) and label:
        return label
    if isinstance(label, Real) and not isinstance(label, bool):
        value = float(label)
        if value >= 0 and value.is_integer():
            return int(value)
    raise UserError(
        f"{PLACE} entry {number} has the label {_shown(label)}; a label is the name of a class, "
        "or a whole number, 0 for the first class"
    )


def _class_indices(
    labels: Sequence[str | int], class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], list[int]]:
    """Return the names of the classes, and the index of each label among them."""
    numbers = [label for label in labels if isinstance(label, int)]
    if len(numbers) == len(labels):
        return _numbered_classes(numbers, class_names), numbers
    texts = [label for label in labels if isinstance(label, str)]
    if numbers:
        raise UserError(
            f"{PLACE} have numbers such as {numbers[0]} and names such as {texts[0]!r} as labels; "
            "use one kind in all"
        )
    names = class_order(class_names, texts)
    if unknown := sorted(set(texts) - set(names)):
        raise unknown_classes(PLACE, unknown, names)
    warn_of_similar_names(PLACE, names)
    index = {name: i for i, name in enumerate(names)}
    return names, [index[text] for text in texts]


def _numbered_classes(labels: Sequence[int], class_names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the classes that labels are numbers of, by default the numbers."""
    highest = max(labels)
    num_classes = MAX_UNNAMED_CLASSES if class_names is None else len(class_names)
    if highest >= num_classes:
        known = "" if class_names is None else f"; there are {num_classes} classes, from 0"
        raise UserError(
            f"{PLACE} entry {labels.index(highest) + 1} has the label {highest}, which is too "
            f"large{known}"
        )
    if class_names is not None:
        return tuple(class_names)
    if empty := sorted(set(range(highest + 1)) - set(labels)):
        logger.warning(
            "%s: labels are %d to %d, so that the head gets %d outputs, %d of them without a "
            "video, first: %d",
            *(PLACE, min(labels), highest, highest + 1, len(empty), empty[0]),
        )
    return tuple(str(label) for label in range(highest + 1))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
