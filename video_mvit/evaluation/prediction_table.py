"""Tables of predictions as CSV: names of videos and classes are data, and are told apart again."""

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from video_mvit.errors import MissingFileError, UserError
from video_mvit.files import replace_atomically
from video_mvit.schema import MismatchError
from video_mvit.text import csv_cell, csv_text

MAX_CELL = 2**24  # characters: all class names of a video
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?", re.ASCII)  # no formula, though it begins with -
RowT = TypeVar("RowT")


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a header and rows of text, atomically; no cell is a formula to a spreadsheet.

    Numbers are written as they are: `repr` of one is not changed.
    """
    with (
        replace_atomically(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerows([_cell(each) for each in row] for row in (columns, *rows))


def _cell(text: str) -> str:
    return text if NUMBER.fullmatch(text) else csv_cell(text)


def read_rows(
    path: Path, columns: Sequence[str], read: Callable[[Sequence[str]], RowT], what: str
) -> list[RowT]:
    """Read what `write_rows` wrote with these columns, each row by `read`.

    `what` the columns are of is told in errors. Raises `FileNotFoundError`, or `UserError` with the
    line that does not fit.
    """
    if not path.is_file():
        raise MissingFileError(f"no predictions {path}; video-mvit evaluate writes them")
    before = csv.field_size_limit(MAX_CELL)
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            table = csv.reader(file)
            if list(next(table, ())) != list(map(_cell, columns)):
                raise UserError(
                    f"{path} is no predictions.csv of video-mvit evaluate with these {what}"
                )
            try:
                return [_read(cells, len(columns), read) for cells in table if cells]
            except (MismatchError, csv.Error) as error:
                reason = str(error)
            raise UserError(f"{path}, line {table.line_num}: {reason}; was it edited?")
    finally:
        csv.field_size_limit(before)


def _read(cells: Sequence[str], number: int, read: Callable[[Sequence[str]], RowT]) -> RowT:
    if len(cells) != number:
        raise MismatchError("the row has too many or too few cells")
    return read(list(map(csv_text, cells)))
