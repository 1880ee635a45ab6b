"""Split the rows of a list into fields: tabs, semicolons, commas or spaces between them.

Every separator that fits all rows is a possible reading; `list_columns` decides between them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from video_mvit.data.lists.text import quote, read_csv, read_lines
from video_mvit.data.reading.formats import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from video_mvit.errors import UserError

SEPARATORS = {"\t": "tabs", ";": "semicolons", ",": "commas", " ": "spaces"}
NUMBER = re.compile(r"[+-]?\d{1,18}(?:\.\d{0,9})?", re.ASCII)
FILE_SUFFIXES = VIDEO_SUFFIXES + PICTURE_SUFFIXES


# A quoted field of a row, or a word.
TOKEN = re.compile(r'"([^"]*)"(?=\s|$)|\S+')


class Token(NamedTuple):
    """A word of a row, without its quotes where it has them, and where it ends in the row."""

    quoted: str | None
    text: str
    stop: int


class UnknownListError(UserError):
    """A list that is not one of paths and labels."""


class TableRow(NamedTuple):
    """A row of a list: the number of its line, its text, and its fields without blanks."""

    number: int
    text: str
    fields: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """All rows of a list, split by one separator; each has `num_columns` fields."""

    path: str
    separator: str
    rows: Sequence[TableRow]

    @property
    def num_columns(self) -> int:
        return len(self.rows[0].fields)

    def column(self, index: int, first_row: int = 0) -> list[str]:
        """Return the fields of a column from a row on."""
        return [row.fields[index] for row in self.rows[first_row:]]


def is_numeric(text: str) -> bool:
    """Return whether a field is a number, such as 7, +7, -1, 7.0 or 0.25."""
    return NUMBER.fullmatch(text) is not None


def has_file_suffix(text: str) -> bool:
    """Return whether a field ends like the name of a video or picture."""
    return text.lower().endswith(FILE_SUFFIXES) and not is_numeric(text)  # 0.264


def read_tables(path: str, exists: Callable[[str], bool]) -> Iterator[Table | UserError]:
    """Yield a list as split by each separator that is in all of its rows, or what does not fit.

    Spaces come last. Lines that begin with "# " are comments. `exists` tells whether a path names a
    video. Raises `UserError` for a list without rows.
    """
    lines = [(number, line) for number, line in read_lines(path) if not _is_comment(line)]
    if not lines:
        raise UserError(f"{path} lists no videos")
    for separator in SEPARATORS:
        if not all(separator in line for _, line in lines) and separator != " ":
            continue
        try:
            if separator == " ":
                rows = _split_at_spaces(lines, exists)
            else:
                rows = _separated(path, separator)
            table = _table(path, separator, rows)
        except UserError as error:
            yield error
        else:
            yield table


def _is_comment(line: str) -> bool:
    return line.startswith("# ") or line.strip() == "#"


def _table(path: str, separator: str, rows: Sequence[TableRow]) -> Table:
    """Check that all rows have the same number of fields; empty last columns are dropped."""
    width = max((i + 1 for row in rows for i, field in enumerate(row.fields) if field), default=0)
    rows = [row._replace(fields=row.fields[:width]) for row in rows]
    first = rows[0]
    for row in rows:
        if len(row.fields) != len(first.fields):
            raise UserError(
                f"{path} line {row.number}: {quote(row.text)} has {len(row.fields)} field"
                f"{'s' * (len(row.fields) != 1)} separated by {SEPARATORS[separator]}, line "
                f"{first.number} has {len(first.fields)}; quote a path that contains the separator"
            )
    if width < 2:
        raise UnknownListError(
            f"{path} line {first.number}: {quote(first.text)} is not a row of a path and a label"
        )
    return Table(path=path, separator=separator, rows=rows)


def _separated(path: str, separator: str) -> list[TableRow]:
    rows = (
        TableRow(number, separator.join(row), tuple(field.strip() for field in row))
        for number, row in read_csv(path, separator)
    )
    return [row for row in rows if any(row.fields) and not _is_comment(row.text)]


def _split_at_spaces(
    lines: Sequence[tuple[int, str]], exists: Callable[[str], bool]
) -> list[TableRow]:
    """Split rows at spaces, except those inside of a path or of a class name.

    A path ends where a token ends in the suffix of a video, else before the numbers at the end.
    """
    counts = [_num_numbers_at_end(line.split()) for _, line in lines]
    files = [any(map(has_file_suffix, line.replace('"', "").split())) for _, line in lines]
    is_above = (counts[0] == 0 and min(counts[1:], default=0) > 0) or all(files[1:])
    has_header = len(lines) > 1 and not files[0] and is_above
    num_numbers = min(counts[has_header:])
    rows = [
        TableRow(number, line, tuple(_fields(line.strip(), num_numbers))) for number, line in lines
    ]
    if has_header:
        rows[0] = rows[0]._replace(fields=tuple(rows[0].text.split()))
    # A number before the path is a column of its own, unless it belongs to the names.
    head, body = rows[:has_header], rows[has_header:]
    leading = [row.fields[0].partition(" ") for row in body]
    are_numbers = all(
        is_numeric(number) and name.strip() and not row.text.lstrip().startswith('"')
        for row, (number, _, name) in zip(body, leading, strict=True)
    )
    if not are_numbers or any(exists(row.fields[0]) for row in body):
        return rows
    return head + [
        row._replace(fields=(number, name.strip(), *row.fields[1:]))
        for row, (number, _, name) in zip(body, leading, strict=True)
    ]


def _fields(line: str, num_numbers: int) -> Iterator[str]:
    """Yield the path and the other fields of a row; quoted ones are fields as they are."""
    tokens = [Token(match[1], match[0], match.end()) for match in TOKEN.finditer(line)]
    ends = [i for i, token in enumerate(tokens) if has_file_suffix(token.text.strip('"'))]
    if tokens[0].quoted is not None:
        num_before = 1
    elif ends:
        num_before = ends[-1] + 1
    else:
        first_quoted = next((i for i, t in enumerate(tokens) if t.quoted is not None), None)
        num_before = first_quoted or max(len(tokens) - max(num_numbers, 1), 1)
    # The path as it is written, with all of its spaces.
    path = tokens[0].quoted if num_before == 1 else None
    yield line[: tokens[num_before - 1].stop].strip('"') if path is None else path
    words: list[str] = []
    for token in tokens[num_before:]:
        if token.quoted is None and not is_numeric(token.text):
            words.append(token.text)
            continue
        if words:
            yield " ".join(words)
        words = []
        yield token.text if token.quoted is None else token.quoted
    if words:
        yield " ".join(words)


def _num_numbers_at_end(tokens: Sequence[str]) -> int:
    """Count the numbers at the end of a row; the first token is never one of them."""
    others = (i for i, token in enumerate(reversed(tokens[1:])) if not is_numeric(token))
    return next(others, len(tokens) - 1)
