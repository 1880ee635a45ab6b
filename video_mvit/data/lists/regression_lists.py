"""Lists of videos with numbers to predict: rows of a path and numbers, or JSON.

What is no finite number is refused with its line; nothing is filled in.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from video_mvit.data.lists.list_columns import PATH_NAMES, ROW_NAMES, plain_name
from video_mvit.data.lists.list_pairs import ListPairSource
from video_mvit.data.lists.list_table import has_file_suffix
from video_mvit.data.lists.multilabel_lists import read_fields
from video_mvit.data.lists.regression_manifest import (
    RegressionManifest,
    ValueRow,
    find_values,
    take_regression_part,
)
from video_mvit.data.lists.text import quote, read_json
from video_mvit.errors import UserError
from video_mvit.text import short, some_of

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)
MAX_DIGITS = 100  # characters of a number
MAX_VALUE = 1e30  # squares of it fit into any number that is computed with
EXPECTED = (
    "expected rows 'path,value', a header 'path,NAME,NAME' above rows of a path and numbers, or "
    'JSON {"path": value}'
)


@dataclass(frozen=True, kw_only=True)
class ListedCells:
    """A row of a list as written: the number of its line or entry, a path, and cells by column."""

    number: int
    path: str
    cells: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ValueList:
    """A list as written; `columns` are all that may be targets.

    Without names of its own (`has_names`), they are called value, or value 1, value 2, ...
    """

    rows: Sequence[ListedCells]
    columns: tuple[str, ...]
    has_names: bool
    unit: Literal["line", "entry"] = "line"


@dataclass(frozen=True, kw_only=True)
class RegressionSource(ListPairSource):
    """A list of videos with a number for each target; see `read_value_list` for its forms.

    `targets` chooses columns, in this order, and names those of a list without a header.
    """

    targets: Sequence[str] | None = None
    columns: Mapping[str, str] | None = None  # {path: file}

    def read(self, class_names: Sequence[str] | None = None) -> RegressionManifest:
        path, is_divided = self.choose_list()
        listed = name_columns(read_value_list(path, self.columns), class_names or self.targets)
        targets = choose_targets(path, listed, self.targets, class_names)
        rows = [
            ValueRow(row.number, row.path, _values_of(path, listed.unit, row, targets))
            for row in listed.rows
        ]
        whole = find_values(path, self.folder, rows, targets, listed.unit)
        return take_regression_part(whole, self.part, self.division, path) if is_divided else whole


def name_columns(listed: ValueList, names: Sequence[str] | None) -> ValueList:
    """Return a list without a header under these names, if they are as many as its columns."""
    columns = listed.columns
    if listed.has_names or names is None or len(names) != len(columns) or set(names) & set(columns):
        return listed
    rows = [
        ListedCells(
            number=row.number,
            path=row.path,
            cells={name: row.cells.get(old) for name, old in zip(names, columns, strict=True)},
        )
        for row in listed.rows
    ]
    return ValueList(rows=rows, columns=tuple(names), has_names=True, unit=listed.unit)


def choose_targets(
    place: str,
    listed: ValueList,
    targets: Sequence[str] | None,
    class_names: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Return the columns to predict: those of a model or training list, else as chosen, else all.

    Raises `UserError` for one that is not there, or that is rarely meant unless it is chosen.
    """
    if targets is not None and len(set(targets)) < max(len(targets), 1):
        raise UserError(f"data.targets is {short(list(targets))}; name each target once")
    if None not in (targets, class_names) and set(targets or ()) != set(class_names or ()):
        raise UserError(
            f"data.targets has {some_of(list(targets or ()))}, but the model or training list has "
            f"{some_of(list(class_names or ()))}"
        )
    wanted = class_names or targets
    for name in wanted or ():
        if name not in listed.columns:
            raise UserError(
                f"{place} has no column {short(name)}; its columns are "
                f"{some_of(list(listed.columns))}"
            )
    if wanted is None:
        for name in listed.columns:
            if plain_name(name) in ROW_NAMES:
                raise UserError(
                    f"{place} has a column {short(name)}, which is rarely to be predicted; name "
                    "the targets with data.targets=[...]"
                )
    return tuple(wanted or listed.columns)


def _values_of(
    place: str, unit: str, row: ListedCells, targets: Sequence[str]
) -> tuple[float, ...]:
    """Return the numbers of a row; raises `UserError` where one is missing or none."""
    found = []
    for name in targets:
        cell = row.cells.get(name)
        if cell is None or cell == "":
            raise UserError(f"{place} {unit} {row.number} has no {short(name)}")
        value = _number(cell)
        if value is None:
            raise UserError(
                f"{place} {unit} {row.number}: {short(name)} is {quote(cell)}, which is no finite "
                "number; correct it, or choose other columns with data.targets=[...]"
            )
        found.append(value)
    return tuple(found)


def _number(cell: Any) -> float | None:
    """Return a number as it is written in a list or in JSON, -0 as 0; None for anything else."""
    if isinstance(cell, str):
        if len(cell) > MAX_DIGITS or not NUMBER.fullmatch(cell):
            return None
        cell = float(cell)
    if type(cell) not in (int, float) or not -MAX_VALUE <= cell <= MAX_VALUE:
        return None
    return float(cell) + 0.0


def read_value_list(path: str, columns: Mapping[str, str] | None = None) -> ValueList:
    """Read a list: JSON, rows with a header, or rows of a path and one number or more.

    A header names a column of paths (`columns` says which, where its name is not a usual one) and
    others. Fields are separated by tabs, semicolons, commas or spaces. JSON is an object from paths
    to numbers, lists of them or objects, or a list of objects with a path.
    """
    if columns is not None and set(columns) != {"path"}:
        raise UserError(
            f"data.columns is {short(dict(columns))}; it names the column of paths, such as "
            "{path: file}; data.targets chooses the others"
        )
    if path.lower().endswith(".json"):
        return _read_json(path, (columns or {}).get("path"))
    table = list(read_fields(path))
    if not table:
        raise UserError(f"{path} lists no videos")
    number, header = table[0]
    paths = [name for name in header if plain_name(name) in PATH_NAMES]
    if columns is not None:
        if header.count(columns["path"]) != 1:
            raise UserError(
                f"{path} line {number} has no column {short(columns['path'])}; its columns are "
                f"{', '.join(map(short, header[:6]))}"
            )
        paths = [columns["path"]]
    if len(paths) == 1 and (columns is not None or not any(map(has_file_suffix, header))):
        return _with_header(path, table, paths[0])
    return _without_header(path, table)


def _with_header(path: str, table: Sequence[tuple[int, list[str]]], path_name: str) -> ValueList:
    (number, header), body = table[0], table[1:]
    names = [name for name in header if name != path_name and name]
    if len(set(names)) < len(names) or not names:
        raise UserError(
            f"{path} line {number}: {'two columns have the same name' if names else EXPECTED}"
        )
    rows = []
    for row_number, row in body:
        if len(row) > len(header):
            raise UserError(
                f"{path} line {row_number} has {len(row)} fields, but {len(header)} columns are "
                "named; quote a path that contains the separator"
            )
        cells = dict(zip(header, row, strict=False))
        rows.append(ListedCells(number=row_number, path=cells.get(path_name, ""), cells=cells))
    return ValueList(rows=rows, columns=tuple(names), has_names=True)


def _without_header(path: str, table: Sequence[tuple[int, list[str]]]) -> ValueList:
    first, row = table[0]
    if len(row) < 2:
        raise UserError(f"{path} line {first}: {quote(row[0])} has no number; {EXPECTED}")
    if _number(row[1]) is None and not has_file_suffix(row[0]):
        raise UserError(
            f"{path} line {first}: {quote(row[1])} is no number; {EXPECTED}; if the line is a "
            "header, data.columns={path: NAME} names its column of paths"
        )
    names = default_names(len(row) - 1)
    rows = []
    for number, fields in table:
        if len(fields) != len(row):
            raise UserError(
                f"{path} line {number} has {len(fields) - 1} numbers, line {first} has "
                f"{len(row) - 1}; quote a path that contains the separator"
            )
        cells = dict(zip(names, fields[1:], strict=True))
        rows.append(ListedCells(number=number, path=fields[0], cells=cells))
    return ValueList(rows=rows, columns=names, has_names=False)


def default_names(number: int) -> tuple[str, ...]:
    """Return the names of so many targets that a list gives none."""
    return ("value",) if number == 1 else tuple(f"value {i + 1}" for i in range(number))


def _read_json(path: str, path_name: str | None) -> ValueList:
    content = read_json(path, object)
    if isinstance(content, dict) and content:
        return _cells_by_path(path, list(content.items()))
    if not isinstance(content, list) or not content:
        raise UserError(f"{path} holds no videos; {EXPECTED}")
    pairs = []
    for number, entry in enumerate(content, 1):
        names = [path_name] if path_name else list(entry if isinstance(entry, dict) else ())
        found = [name for name in names if path_name or plain_name(name) in PATH_NAMES]
        if not isinstance(entry, dict) or len(found) != 1 or type(entry.get(found[0])) is not str:
            raise UserError(f"{path} entry {number}: {quote(entry)} has no path; {EXPECTED}")
        pairs.append((entry[found[0]], {k: v for k, v in entry.items() if k != found[0]}))
    return _cells_by_path(path, pairs)


def _cells_by_path(path: str, pairs: Sequence[tuple[str, Any]]) -> ValueList:
    """Return pairs of a path and a number, a list of them, or an object, which are all alike."""
    first = pairs[0][1]
    kind = type(first) if isinstance(first, dict | list) else None
    names = tuple(first) if kind is dict else default_names(len(first) if kind is list else 1)
    if not names:
        raise UserError(f"{path} entry 1: {quote(first)} has no number; {EXPECTED}")
    rows = []
    for number, (name, content) in enumerate(pairs, 1):
        is_alike = (type(content) if isinstance(content, dict | list) else None) is kind
        if not is_alike or (kind is list and len(content) != len(names)):
            raise UserError(
                f"{path} entry {number}: {quote(content)} is not of the form of entry 1"
            )
        cells = (
            content
            if kind is dict
            else dict(zip(names, content if kind is list else [content], strict=True))
        )
        rows.append(ListedCells(number=number, path=name, cells=cells))
    return ValueList(rows=rows, columns=names, has_names=kind is dict, unit="entry")
