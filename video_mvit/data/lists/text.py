"""Read list files line by line.

An invalid line is quoted with its number, never skipped.
"""

import codecs
import csv
import difflib
import itertools
import logging
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

from video_mvit.errors import MissingFileError, UserError
from video_mvit.schema import MismatchError, parse_json
from video_mvit.text import short

logger = logging.getLogger(__name__)

MAX_LINE = 2**16  # characters
MAX_QUOTED = 60
# Largest label of a list without class names; a larger number is no label, and naming every class
# up to it could exhaust memory.
MAX_UNNAMED_CLASSES = 100_000
COMPRESSED = {
    b"\x1f\x8b": "compressed with gzip",
    b"PK\x03\x04": "a zip archive or a table of Excel",
    b"BZh": "compressed with bzip2",
    b"\xfd7zX": "compressed with xz",
    b"(\xb5/\xfd": "compressed with zstd",
}
MAX_DIGITS = 18  # of a number, which fits into 64 bits


def read_class_names(path: str) -> tuple[str, ...]:
    """Read class names, one per line, in label order. Raises `UserError` for duplicates."""
    numbers: dict[str, int] = {}
    for number, line in read_lines(path):
        first = numbers.setdefault(line.strip(), number)
        if first != number:
            raise UserError(f"{path} lines {first} and {number}: {quote(line)} occurs twice")
    if not numbers:
        raise UserError(f"{path} contains no class name")
    return tuple(numbers)


def class_order(class_names: Sequence[str] | None, labels: Iterable[str]) -> tuple[str, ...]:
    """Return the given class order, else the sorted labels."""
    return tuple(class_names if class_names is not None else sorted(set(labels)))


def check_same_classes(path: str, names: Sequence[str], class_names: Sequence[str] | None) -> None:
    """Raise `UserError` unless both are the same classes, in any order."""
    if class_names is None or sorted(class_names) == sorted(names):
        return
    known = set(class_names)
    strange = next((name for name in names if name not in known), None)
    raise UserError(
        f"{path}: its {len(names)} classes are not the {len(class_names)} classes of the model or "
        "data set" + ("" if strange is None else f", which have no {strange!r}")
    )


def unknown_class(place: str, label: str, names: Sequence[str]) -> UserError:
    """Return the error for a class that the data set does not have."""
    return UserError(
        f"{place}: label {label!r} is not among the {len(names)} classes of the data set"
    )


def unknown_classes(place: str, unknown: Sequence[str], names: Sequence[str]) -> UserError:
    """Return the error for classes that the data set does not have, with the nearest one."""
    near = difflib.get_close_matches(unknown[0].casefold(), [n.casefold() for n in names], 1)
    alike = [name for name in names if near and name.casefold() == near[0]]
    hint = f"; the nearest is {alike[0]!r}" if alike else ""
    what = "class is" if len(unknown) == 1 else "classes are"
    return UserError(
        f"{place}: {len(unknown)} {what} not among the {len(names)} classes of the model or "
        f"training data, first: {unknown[0]!r}{hint}"
    )


def warn_of_similar_names(place: str, names: Iterable[str]) -> None:
    """Warn of classes whose names differ only in case or in the form of their Unicode."""
    first: dict[str, str] = {}
    pairs = []
    for name in names:
        other = first.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            pairs.append((other, name))
    if pairs:
        message = "%d classes of %s differ from another only in case, first: %r and %r; %s"
        advice = "each is a class of its own, so merge them if they are one"
        logger.warning(message, len(pairs), place, *pairs[0], advice)


def is_number(text: str) -> bool:
    """Return whether a field is a whole number, of few enough digits to be one."""
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS


def holds_half_character(text: str) -> bool:
    """Return whether a text cannot be a name of a file: it holds half of a surrogate pair."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return True
    return False


def quote(text: object) -> str:
    """Quote the beginning of a line, with line ends visible; of other values, the kind."""
    if not isinstance(text, str):
        return short(text)
    return repr(text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}...")


def read_lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield number, from 1, and text of every non-blank line."""
    with open_list(path) as file:
        for number, line in numbered_lines(path, file):
            if not line.isspace():
                yield number, line.rstrip("\n")


def numbered_lines(path: str, file: TextIO) -> Iterator[tuple[int, str]]:
    """Yield number, from 1, and text of every line; raises `UserError` for what is no text."""
    for number in itertools.count(1):
        line = file.readline(MAX_LINE)
        if not line:
            return
        if "\0" in line:
            raise UserError(f"{path} line {number}: NUL bytes, so that this is not a list in UTF-8")
        if len(line) == MAX_LINE and not line.endswith("\n"):
            raise UserError(f"{path} line {number} is longer than {MAX_LINE:,} characters")
        yield number, line


def read_csv(path: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the last line and the fields of every non-blank row."""
    with open_list(path) as file:
        lines = (line for _, line in numbered_lines(path, file))
        reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)
        try:
            yield from ((reader.line_num, row) for row in reader if row)
        except csv.Error as error:
            raise UserError(f"{path} line {reader.line_num}: unbalanced quotes ({error})") from None


def read_named_columns(path: str, names: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield number and the named fields of each row of a csv; raises `UserError`."""
    rows = read_csv(path, ",")
    number, header = next(rows, (1, []))
    if absent := [name for name in names if name not in header]:
        raise UserError(
            f"{path} line {number}: {quote(','.join(header))} has no column {', '.join(absent)}"
        )
    places = [header.index(name) for name in names]
    for number, row in rows:
        if len(row) != len(header):
            raise UserError(f"{path} line {number} has {len(row)} fields, not {len(header)}")
        yield number, [row[place].strip() for place in places]


def open_list(path: str) -> TextIO:
    """Open a file as text in UTF-8, or in UTF-16 where it begins with the mark of that.

    Bytes that are not UTF-8 are kept, since lists contain file names. Raises `UserError` for a
    compressed file.
    """
    if not os.path.isfile(path):
        raise MissingFileError(f"{path} does not exist; expected a list of videos")
    with open(path, "rb") as file:
        start = file.read(4)
    if kind := next((kind for magic, kind in COMPRESSED.items() if start.startswith(magic)), None):
        raise UserError(f"{path} is {kind}; expected a list of videos as plain text")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return open(path, encoding="utf-16", errors="replace")
    return open(path, encoding="utf-8-sig", errors="surrogateescape")


def read_json(path: str, kind: type) -> Any:
    """Read a JSON file that holds an object or a list; raises `UserError`."""
    with open_list(path) as file:
        try:
            content = parse_json(file.read())
        except MismatchError as error:
            raise UserError(f"{path}: {error}") from None
    if not isinstance(content, kind):
        raise UserError(
            f"{path}: expected a JSON {'object' if kind is dict else 'list'}, "
            f"got {type(content).__name__}"
        )
    return content
