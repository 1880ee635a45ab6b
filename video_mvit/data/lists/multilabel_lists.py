"""Lists of videos with any number of classes: rows, columns of 0 and 1, or JSON.

What can be read in two ways is refused.
"""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from video_mvit.data.lists.list_columns import (
    LABEL_NAMES,
    PART_NAMES,
    PATH_NAMES,
    SPLIT_NAMES,
    plain_name,
)
from video_mvit.data.lists.list_pairs import ListPairSource, take_even_part
from video_mvit.data.lists.list_table import SEPARATORS, has_file_suffix
from video_mvit.data.lists.multilabel_manifest import (
    LabelSetRow,
    MultiLabelManifest,
    find_label_sets,
)
from video_mvit.data.lists.path_lists import is_class_name
from video_mvit.data.lists.text import (
    check_same_classes,
    is_number,
    quote,
    read_class_names,
    read_csv,
    read_json,
    read_lines,
    unknown_classes,
    warn_of_similar_names,
)
from video_mvit.errors import UserError
from video_mvit.text import short

MAX_NUMBERED_CLASSES = 10_000  # of a list without class names
BINARY = {"0": False, "1": True, "0.0": False, "1.0": True}
INNER = re.compile(r"[;,|]")  # between the labels of one field
CLASS_WORDS = {"action", "target", "class", "category", "y"}  # of `LABEL_NAMES`, also of classes
EXPECTED = (
    "expected rows 'path,label,label,...', a header 'path,labels' above rows with labels such as "
    '"walk;talk", columns of 0 and 1 named by a header, or JSON {"path": ["label", ...]}'
)


class ListedLabels(NamedTuple):
    """A row of a list as written: the number of its line or entry, a path, and labels."""

    number: int
    path: str
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LabelList:
    """A list as written; `columns` are the classes of one with a column for each."""

    rows: Sequence[ListedLabels]
    columns: tuple[str, ...] | None = None
    unit: Literal["line", "entry"] = "line"


@dataclass(frozen=True, kw_only=True)
class MultiLabelSource(ListPairSource):
    """A list of videos with any number of classes each; see `read_label_list` for its forms.

    Labels are whole numbers, from which `label_offset` is subtracted, or names of classes;
    `classes` is a file with a class name per line, in the order of the numbers.
    """

    classes: str | None = None
    columns: Mapping[str, str] | None = None  # {path: file, labels: tags}
    label_offset: int = 0

    def read(self, class_names: Sequence[str] | None = None) -> MultiLabelManifest:
        path, is_divided = self.choose_list()
        whole = self._read_list(path, class_names)
        return take_even_part(whole, self.part, self.division, path) if is_divided else whole

    def _read_list(self, path: str, class_names: Sequence[str] | None) -> MultiLabelManifest:
        listed = read_label_list(path, self.columns)
        given = class_names
        if self.classes is not None:
            given = read_class_names(self.classes)
            check_same_classes(self.classes, given, class_names)
        names, rows = number_labels(path, listed, given, self.label_offset)
        found = find_label_sets(path, self.folder, rows, names, listed_as=listed.unit)
        return found.in_class_order(class_names)


def number_labels(
    place: str, listed: LabelList, class_names: Sequence[str] | None, label_offset: int = 0
) -> tuple[tuple[str, ...], list[LabelSetRow]]:
    """Return the classes in order, and the rows with their indices.

    Raises `UserError` for labels that are neither all numbers nor all names of classes.
    """
    labels = [label for row in listed.rows for label in row.labels]
    if listed.columns is None and labels and all(map(is_number, labels)):
        rows = [_numbered(f"{place} {listed.unit}", row, label_offset) for row in listed.rows]
        return _classes_of_numbers(f"{place} {listed.unit}", rows, class_names), rows
    if label_offset:
        raise UserError(f"data.label_offset is for numbers, and {place} has names of classes")
    for row in listed.rows:
        numbers = [label for label in row.labels if not is_class_name(label)]
        if numbers and listed.columns is None:
            raise UserError(
                f"{place} {listed.unit} {row.number}: {quote(numbers[0])} is a number, and not "
                "all labels are whole numbers; labels are whole numbers from 0 in all rows, or "
                "names in all"
            )
    known = listed.columns or sorted(set(labels))
    names = tuple(known if class_names is None else class_names)
    index = {name: i for i, name in enumerate(names)}
    if unknown := [name for name in known if name not in index]:
        raise unknown_classes(place, unknown, names)
    if not names:
        raise UserError(f"{place}: no video in it has a class")
    warn_of_similar_names(place, names)
    return names, [
        LabelSetRow(row.number, row.path, frozenset(index[label] for label in row.labels))
        for row in listed.rows
    ]


def _classes_of_numbers(
    place: str, rows: Sequence[LabelSetRow], class_names: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the classes that labels are numbers of, by default named by them.

    `place` ends in the unit of a row.
    """
    highest, number = max((max(row.labels, default=0), row.number) for row in rows)
    if class_names is None and highest < MAX_NUMBERED_CLASSES:
        return tuple(map(str, range(highest + 1)))
    if class_names is None:
        raise UserError(
            f"{place} {number}: {highest} is too large for a label; if it is one, provide a "
            "file with one class name per line (data.classes)"
        )
    if highest >= len(class_names):
        raise UserError(
            f"{place} {number} has label {highest}; there are {len(class_names)} classes, "
            f"labels 0 to {len(class_names) - 1}"
        )
    return tuple(class_names)


def _numbered(place: str, row: ListedLabels, label_offset: int) -> LabelSetRow:
    numbers = frozenset(int(label) - label_offset for label in row.labels)
    if any(number < 0 for number in numbers):
        raise UserError(
            f"{place} {row.number} has label {min(numbers) + label_offset}, less than "
            f"data.label_offset={label_offset}"
        )
    return LabelSetRow(row.number, row.path, numbers)


def read_label_list(path: str, columns: Mapping[str, str] | None = None) -> LabelList:
    """Read a list: JSON, rows with a header, or rows of a path and labels.

    A header names a column of paths and one of labels (`columns` says which, where their names are
    not usual ones), or a column of paths and one for each class, of 0 and 1. Columns of parts or
    splits of videos are refused unless `columns` says which count. Without a header, rows
    are a path and its labels, separated by tabs, semicolons, commas or spaces. Labels of one field
    have `;`, `,` or `|` between them, numbers also spaces. Rows of the same video add up.
    """
    if columns is not None and set(columns) != {"path", "labels"}:
        raise UserError(
            f"data.columns is {short(dict(columns))} of {', '.join(columns)}; it names the columns "
            "path and labels, such as {path: file, labels: tags}"
        )
    if path.lower().endswith(".json"):
        return LabelList(rows=list(_read_json(path, columns or {})), unit="entry")
    table = list(read_fields(path))
    if not table:
        raise UserError(f"{path} lists no videos")
    header = table[0][1]
    if columns is not None:
        return _named_columns(path, table, columns["path"], columns["labels"])
    paths = [name for name in header if plain_name(name) in PATH_NAMES]
    if len(paths) != 1 or any(map(has_file_suffix, header)):
        return LabelList(rows=[ListedLabels(n, row[0], _split_labels(row[1:])) for n, row in table])
    _refuse_parts_and_splits(f"{path} line {table[0][0]}", header)
    labels = [name for name in header if plain_name(name) in LABEL_NAMES]
    if len(labels) == 1 and not _is_a_class(table, paths[0], labels[0]):
        return _named_columns(path, table, paths[0], labels[0])
    return _class_columns(path, table, header.index(paths[0]))


def _refuse_parts_and_splits(place: str, names: Iterable[str]) -> None:
    """Raise `UserError` for columns without which the rows of a list would mean something else."""
    for name in names:
        if plain_name(name) in PART_NAMES | SPLIT_NAMES:
            raise UserError(
                f"{place} has a column {short(name)}, which tells parts or splits of videos and "
                "would not count; remove it, or name the columns that count, such as "
                "data.columns={path: path, labels: labels} (a part of a video is a path such as "
                "a.mp4#t=3.5,7.25)"
            )


def _is_a_class(table: Sequence[tuple[int, list[str]]], path_name: str, name: str) -> bool:
    """Return whether a column named like labels is of a class, as all beside it: of 0 and 1."""
    header = table[0][1]
    columns = [i for i, each in enumerate(header) if each not in ("", path_name)]
    if plain_name(name) not in CLASS_WORDS or len(columns) < 2:
        return False
    return all(i < len(row) and row[i] in BINARY for _, row in table[1:] for i in columns)


def _named_columns(
    path: str, table: Sequence[tuple[int, list[str]]], path_name: str, labels_name: str
) -> LabelList:
    """Return the rows of a list whose header names a column of paths and one of labels."""
    (number, header), body = table[0], table[1:]
    for name in (path_name, labels_name):
        if header.count(name) != 1:
            raise UserError(
                f"{path} line {number} has no column {short(name)}; its columns are "
                f"{', '.join(map(short, header[:6]))}"
            )
    places = header.index(path_name), header.index(labels_name)
    rows = []
    for row_number, row in body:
        if len(row) > len(header):
            raise UserError(
                f"{path} line {row_number} has {len(row)} fields, but {len(header)} columns are "
                "named; quote labels that contain the separator"
            )
        cells = [*row, *[""] * (len(header) - len(row))]
        rows.append(ListedLabels(row_number, cells[places[0]], _split_labels([cells[places[1]]])))
    return LabelList(rows=rows)


def _class_columns(
    path: str, table: Sequence[tuple[int, list[str]]], path_column: int
) -> LabelList:
    """Return the rows of a list with a column of 0 and 1 for each class."""
    (_, header), body = table[0], table[1:]
    classes = [(i, name) for i, name in enumerate(header) if i != path_column and name]
    names = tuple(name for _, name in classes)
    if len(set(names)) < len(names):
        raise UserError(f"{path}: two columns have the same name; each is a class of its own")
    rows = []
    for number, row in body:
        cells = [row[i].strip() if i < len(row) else "" for i, _ in classes]
        if wrong := [cell for cell in cells if cell not in BINARY]:
            raise UserError(
                f"{path} line {number}: {quote(wrong[0])} is neither 0 nor 1, and no column of the "
                f"header is named labels; {EXPECTED}, or name both with data.columns"
            )
        labels = tuple(name for name, cell in zip(names, cells, strict=True) if BINARY[cell])
        rows.append(ListedLabels(number, row[path_column], labels))
    return LabelList(rows=rows, columns=names)


def read_fields(path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield number and fields of each row, a path first, by the separator that fits the list."""
    lines = [(n, line.strip()) for n, line in read_lines(path) if not line.startswith("# ")]
    problem: UserError | None = None  # a row with quotes has another separator
    for separator in SEPARATORS:
        if separator == " " and problem is None:
            yield from ((n, _split_at_spaces(path, n, line)) for n, line in lines)
            return
        if separator != " " and any(separator in line for _, line in lines):
            try:
                rows = [
                    (n, [field.strip() for field in row])
                    for n, row in read_csv(path, separator)
                    if not row[0].startswith("# ")
                ]
            except UserError as error:
                problem = problem or error
                continue
            files = [row[0].partition("#t=")[0] for _, row in rows]  # without the part of a video
            others = " ," if separator == ";" else " "  # labels of one field have ; between them
            if all(has_file_suffix(file) or not set(others) & set(file) for file in files):
                yield from ((n, row) for n, row in rows if any(row))
                return
    if problem is not None:
        raise problem


def _split_at_spaces(path: str, number: int, line: str) -> list[str]:
    """Split a row at spaces, but not within quotes, nor in a path that ends in a known suffix."""
    try:
        words = shlex.split(line, posix=True) if '"' in line else line.split()
    except ValueError:
        raise UserError(f"{path} line {number}: unbalanced quotes in {quote(line)}") from None
    ends = [i + 1 for i, word in enumerate(words) if has_file_suffix(word)]
    end = ends[0] if ends else 1
    return [" ".join(words[:end]), *words[end:]]


def _split_labels(fields: Sequence[str]) -> tuple[str, ...]:
    """Return the labels of the fields of a row."""
    found: list[str] = []
    for field in fields:
        parts = [part.strip() for part in INNER.split(field)]
        for part in parts:
            words = part.split()
            found += words if len(words) > 1 and all(map(is_number, words)) else [part]
    return tuple(label for label in found if label)


def _read_json(path: str, columns: Mapping[str, str]) -> Iterator[ListedLabels]:
    """Yield the rows of {"path": [labels]}, or of a list of objects with both."""
    content = read_json(path, object)
    if isinstance(content, dict):
        for number, (name, labels) in enumerate(content.items(), 1):
            yield ListedLabels(number, name, _labels_of(path, number, labels))
        return
    if not isinstance(content, list) or not content:
        raise UserError(f"{path} holds no videos; {EXPECTED}")
    path_name, labels_name = columns.get("path", "path"), columns.get("labels", "labels")
    for number, entry in enumerate(content, 1):
        if not isinstance(entry, dict) or not isinstance(entry.get(path_name), str):
            raise UserError(
                f"{path} entry {number}: {quote(entry)} has no {short(path_name)}; {EXPECTED}"
            )
        if not columns:
            _refuse_parts_and_splits(f"{path} entry {number}", entry)
        yield ListedLabels(
            number, entry[path_name], _labels_of(path, number, entry.get(labels_name))
        )


def _labels_of(path: str, number: int, labels: Any) -> tuple[str, ...]:
    """Return the labels of an entry, which are texts or whole numbers, as texts."""
    if not isinstance(labels, list) or not all(type(each) in (str, int) for each in labels):
        raise UserError(
            f"{path} entry {number}: {quote(labels)} is not a list of labels; {EXPECTED}"
        )
    found = tuple(str(each).strip() for each in labels)
    if not all(found):
        raise UserError(f"{path} entry {number} has an empty label; remove it, or name its class")
    return found
