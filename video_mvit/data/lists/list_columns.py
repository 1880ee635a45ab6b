"""Decide which column of a list holds the path and which the label, from all of its rows.

A header decides by the names of its columns. Without one, a list is a path and a label, or
mmaction2's folder of frames, how many of them are left out at its beginning (or not given), their
number, and a label. Whatever else may be meant is refused with its readings; the option `columns`
then decides (`named_columns`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from video_mvit.data.lists.list_table import (
    Table,
    UnknownListError,
    has_file_suffix,
    is_numeric,
)
from video_mvit.data.lists.text import quote
from video_mvit.errors import UserError

ROLES = ("path", "label", "offset", "num_frames", "start", "end")
IGNORED = "_"
# Usual names of columns, in lower case and without blanks, dashes and underscores.
PATH_NAMES = {
    *("path", "file", "filename", "filepath", "name", "relpath", "video", "videopath", "videofile"),
    *("videoname", "clip", "clippath", "clipname", "framedir", "frames", "folder", "dir"),
}
ID_NAMES = {"id", "videoid", "vid", "clipid", "uid"}  # where no column is named like a path
LABEL_NAMES = {
    *("label", "labels", "labelid", "labelidx", "labelindex", "class", "classes", "classid"),
    *("classidx", "classindex", "classname", "target", "category", "categoryid", "action"),
    *("actionid", "actionlabel", "y"),
}
COUNT_NAMES = {"numframes", "nframes", "totalframes", "framecount", "numberofframes"}
# Columns of which part of a video a row stands for, and of the split of a row.
PART_NAMES = {
    *("start", "end", "starttime", "endtime", "timestart", "timeend", "startframe", "endframe"),
    *("tstart", "tend", "begin", "startsec", "endsec", "starts", "ends"),
}
SPLIT_NAMES = {"split", "subset", "set", "partition", "fold", "usage"}
# Columns that say which row, part or split it is, not what its video shows.
ROW_NAMES = PART_NAMES | SPLIT_NAMES | ID_NAMES | COUNT_NAMES
MAX_LISTED = 6  # columns in a message


class AmbiguousListError(UserError):
    """A list that can be read in more than one way."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Columns of a list, by index; rows before `first_row` are its header.

    `offset` (of the first frame in its folder) and `num_frames` are of folders of frames; `start`
    and `end` (seconds) of a part of a video.
    `has_numbers` tells whether labels are numbers rather than names.
    """

    path: int
    label: int
    offset: int | None = None
    num_frames: int | None = None
    start: int | None = None
    end: int | None = None
    first_row: int = 0
    has_numbers: bool = True


def label_number(text: str) -> int | None:
    """Return a label that is a whole number, such as 7, 07, +7 or 7.0; None for other text."""
    if not is_numeric(text):
        return None
    whole, _, fraction = text.partition(".")
    return int(whole) if not fraction.strip("0") else None


def choose_columns(table: Table, exists: Callable[[str], bool]) -> Columns:
    """Decide the columns of a table; raises `AmbiguousListError` or `UserError`.

    `exists` tells whether a path names a video on disk. It is asked only where names and numbers
    cannot be told apart.
    """
    found = _choose(table, exists)
    labels = table.column(found.label, found.first_row)
    if table.separator == " " and found.label < found.path and any(" " in text for text in labels):
        row = table.rows[found.first_row]
        raise UnknownListError(
            f"{table.path} line {row.number}: {quote(row.text)} has a label of several words "
            "before the path; separate the columns by commas"
        )
    return found


def _choose(table: Table, exists: Callable[[str], bool]) -> Columns:
    if len(table.rows) == 1 and names_columns(table.rows[0].fields):
        raise UserError(f"{table.path} lists no videos, only a header")
    if (named := _columns_of_header(table)) is not None:
        return named
    first_row = int(_has_unnamed_header(table, exists))
    kinds = [_kind(table.column(i, first_row)) for i in range(table.num_columns)]
    numbers = [i for i, kind in enumerate(kinds) if kind == "number"]
    paths = _path_candidates(table, kinds, first_row)
    if table.num_columns == 2 and (len(numbers) == 2 or kinds == ["text", "text"]):
        return _of_two_alike(table, exists, first_row)
    if len(paths) == 1 and table.num_columns == 2:
        label = 1 - paths[0]
        if label == 0 and _counts_rows(table.column(0, first_row)):
            raise UnknownListError(
                f"{table.path}: its first column counts the rows, the other one holds the paths, "
                "so that no label is left; data.columns=[label,path] takes the count for labels"
            )
        return Columns(
            path=paths[0], label=label, first_row=first_row, has_numbers=label in numbers
        )
    is_of_frames = paths == [0] and not any(map(has_file_suffix, table.column(0, first_row)))
    is_of_frames = is_of_frames and not first_row
    if is_of_frames and numbers == list(range(1, table.num_columns)) and len(numbers) in (2, 3):
        found = Columns(
            path=0,
            offset=1 if len(numbers) == 3 else None,
            num_frames=len(numbers) - 1,
            label=len(numbers),
        )
        if _is_frame_form(table, found):
            return found
    raise _ambiguous(table, first_row, paths or [0])


def plain_name(name: str) -> str:
    return "".join(character for character in name.lower() if character not in " _-")


def names_columns(fields: Sequence[str]) -> bool:
    """Return whether a first row is a header: usual names of columns, and no file."""
    plain = {plain_name(field) for field in fields}
    return bool(plain & (PATH_NAMES | LABEL_NAMES)) and not any(map(_is_path, fields))


def _columns_of_header(table: Table) -> Columns | None:
    """Return the columns that the header names; None without such a header."""
    header, width = table.rows[0], range(table.num_columns)
    if not names_columns(header.fields):
        return None
    plain = [plain_name(field) for field in header.fields]
    kinds = [_kind(table.column(i, 1)) for i in width]
    _refuse_parts_and_splits(table, plain)
    paths = [i for i in width if plain[i] in PATH_NAMES]
    paths = [i for i in paths if kinds[i] == "path"] or paths
    labels = [i for i in width if plain[i] in LABEL_NAMES]
    others = [i for i in width if i not in labels]
    paths = paths or [i for i in others if kinds[i] == "path"]
    paths = paths or [i for i in others if plain[i] in ID_NAMES and len(others) == 1]
    labels = _same_labels(table, labels, kinds)
    if len(paths) != 1 or len(labels) != 1:
        raise _ambiguous(table, 1, paths or [0])
    counts = [i for i in width if plain[i] in COUNT_NAMES]
    of_frames = bool(counts) and _is_frame_list(table, plain)
    return Columns(
        path=paths[0],
        label=labels[0],
        offset=plain.index("offset") if of_frames and "offset" in plain else None,
        num_frames=counts[0] if of_frames else None,
        first_row=1,
        has_numbers=kinds[labels[0]] == "number",
    )


def _refuse_parts_and_splits(table: Table, plain: Sequence[str]) -> None:
    """Raise `UserError` for columns without which the rows of a list would mean something else."""
    for i, name in enumerate(plain):
        fields = table.column(i, 1)
        if name in PART_NAMES and any(fields):
            what = "parts of videos"
            advice = "name them with data.columns={path: ..., label: ..., start: ..., end: ...}"
        elif name in SPLIT_NAMES and len(set(fields)) > 1:
            what, advice = "several splits", "write one list for each"
        else:
            continue
        raise UserError(
            f"{table.path}: its column {table.rows[0].fields[i]!r} tells {what}, which a list of "
            f"whole videos cannot; {advice}, or say data.columns={_option(plain)}"
        )


def _is_frame_list(table: Table, plain: Sequence[str]) -> bool:
    """Return whether rows are folders of frames: a count of them, and no path with a suffix."""
    paths = [i for i, name in enumerate(plain) if name in PATH_NAMES]
    has_files = any(has_file_suffix(text) for i in paths for text in table.column(i, 1))
    return any(name in COUNT_NAMES for name in plain) and not has_files


def _same_labels(table: Table, labels: Sequence[int], kinds: Sequence[str]) -> list[int]:
    """Of columns of labels that say the same, keep the one of numbers, else the first."""
    if len(labels) < 2:
        return list(labels)
    pairs = set(zip(*(table.column(i, 1) for i in labels), strict=True))
    if any(len({pair[k] for pair in pairs}) != len(pairs) for k in range(len(labels))):
        return list(labels)
    return [next((i for i in labels if kinds[i] == "number"), labels[0])]


def _has_unnamed_header(table: Table, exists: Callable[[str], bool]) -> bool:
    """Return whether the first row is a header of other names: words above numbers, no file."""
    fields = table.rows[0].fields
    if len(table.rows) < 2 or any(map(_is_path, fields)):
        return False
    below = [table.column(i, 1) for i in range(table.num_columns)]
    is_above = any(
        (not is_numeric(field) and _kind(column) == "number") or all(map(has_file_suffix, column))
        for field, column in zip(fields, below, strict=True)
    )
    return is_above and not any(map(is_numeric, fields)) and not any(map(exists, fields))


def _is_path(text: str) -> bool:
    return has_file_suffix(text) or "/" in text or "\\" in text


def _kind(fields: Sequence[str]) -> str:
    """Return what all fields of a column are: number, path (of some), empty or text."""
    if all(map(is_numeric, fields)):
        return "number"
    if all(map(_is_path, fields)):
        return "path"
    return "text" if any(fields) else "empty"


def _path_candidates(table: Table, kinds: Sequence[str], first_row: int) -> list[int]:
    """Return the columns that may hold paths: those with suffixes, with slashes, else names."""
    columns = range(table.num_columns)
    with_suffix = [i for i in columns if all(map(has_file_suffix, table.column(i, first_row)))]
    with_slash = [i for i in columns if kinds[i] == "path"]
    texts = [i for i in columns if kinds[i] == "text"]
    some = [i for i in texts if any(map(_is_path, table.column(i, first_row)))]
    return with_suffix or with_slash or some or texts


def _is_frame_form(table: Table, columns: Columns) -> bool:
    """Return whether columns may be numbers of frames: no 0, and not the ends of parts instead."""
    assert columns.num_frames is not None
    counts = [label_number(text) or 0 for text in table.column(columns.num_frames)]
    if columns.offset is None:
        return min(counts) > 0
    offsets = [label_number(text) or 0 for text in table.column(columns.offset)]
    may_be_ends = all(count > offset for count, offset in zip(counts, offsets, strict=True))
    return min(counts) > 0 and (not any(offsets) or not may_be_ends)


def _counts_rows(fields: Sequence[str]) -> bool:
    """Return whether a column is the number of each row, from 0 or 1, of three rows or more."""
    numbers = [label_number(field) for field in fields]
    return len(numbers) > 2 and numbers in [list(range(k, len(numbers) + k)) for k in (0, 1)]


def _of_two_alike(table: Table, exists: Callable[[str], bool], first_row: int) -> Columns:
    """Decide between names without suffix and labels by which of them exist as videos."""
    found = [sum(map(exists, table.column(i, first_row))) for i in range(2)]
    if found[0] == found[1]:
        raise _ambiguous(table, first_row, [0, 1])
    path = int(found[1] > found[0])
    has_numbers = all(map(is_numeric, table.column(1 - path, first_row)))
    return Columns(path=path, label=1 - path, first_row=first_row, has_numbers=has_numbers)


def _ambiguous(table: Table, first_row: int, paths: Sequence[int]) -> UserError:
    """Return the error for a list that can be read in two ways, with both, or in none."""
    columns = range(table.num_columns)
    readings = [
        (path, label)
        for path in paths
        for label in reversed(columns)
        if label != path and any(table.column(label, first_row))
    ]
    rows = table.rows[first_row:]
    if len(readings) < 2:
        return UnknownListError(
            f"{table.path} line {rows[0].number}: {quote(rows[0].text)} is not a row of a path and "
            "a label; if it is, name its columns with data.columns"
        )
    # A row in which the two readings differ.
    (path, label), (other_path, other) = readings[:2]
    row = next((row for row in rows if row.fields[label] != row.fields[other]), rows[0])
    texts = [
        f"{quote(row.fields[i])} of class {quote(row.fields[j])} "
        f"(data.columns=[{_roles(table, i, j)}])"
        for i, j in ((path, label), (other_path, other))
    ]
    return AmbiguousListError(
        f"{table.path} line {row.number}: {quote(row.text)} may be {', or '.join(texts)}; say "
        f"which with data.columns, which names every column, {IGNORED} for one that is ignored"
    )


def _roles(table: Table, path: int, label: int) -> str:
    roles = [IGNORED] * table.num_columns
    roles[path], roles[label] = "path", "label"
    return ",".join(roles)


def _option(plain: Sequence[str]) -> str:
    roles = [
        "path" if name in PATH_NAMES else "label" if name in LABEL_NAMES else IGNORED
        for name in plain
    ]
    return f"[{','.join(roles[:MAX_LISTED])}]"
