"""Text of a user's data (names of files and classes, reasons): how it is shown and written.

A name may hold anything. Control characters would act on a terminal, directional marks would show
another name than there is, and a spreadsheet would compute a cell that begins like a formula.
"""

import json
import logging
import os
import re
import shutil
import traceback
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import IO, Any

# C0 and C1 controls, separators of lines, and marks that change the direction of text. Joiners
# stay: emoji and some scripts need them.
UNSAFE = (
    *(*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029),
    *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
)
ESCAPES = {code: repr(chr(code))[1:-1] for code in UNSAFE}
KEPT_IN_LINES = (ord("\n"), ord("\t"))
LINE_ESCAPES = {code: shown for code, shown in ESCAPES.items() if code not in KEPT_IN_LINES}
JSON_ESCAPES = {code: f"\\u{code:04x}" for code in UNSAFE if code >= 0x7F}
CELL_ESCAPES = ESCAPES | {ord("\\"): "\\\\"}
FORMULA = re.compile(r"'*[=+\-@]")
CELL_ESCAPE = re.compile(r"\\(\\|[nrt]|x[0-9a-f]{2}|u[0-9a-f]{4})")
PLAIN_ESCAPES = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}
GAP = re.compile(r" +")
UNIT = re.compile(r"(?:%|fps|GB|MB|ms|s|h|min)(?!\w)")  # which stays with the number before it
MIN_WIDTH = 20  # of a terminal, below which lines are left as they are
SHORT = 40  # characters of a name in an error
NUM_NAMED = 3  # names in a message
BRIEF = 200  # of a name in a page


def percent(share: float) -> str:
    """Return a share as it is written everywhere: "84.4 %"."""
    return f"{100 * share:.1f} %"


def metric_text(name: str, value: float) -> str:
    """Return a metric as it is told: a share in percent; R2 and errors in units as they are."""
    is_share = re.split(r"[/_]", name)[-1] not in ("r2", "mae") and 0 <= value <= 1
    return percent(value) if is_share else f"{value:.4g}"


def printable(text: str) -> str:
    """Escape what does not print in one line: ESC becomes `\\x1b`, a line end `\\n`."""
    return text.translate(ESCAPES)


def printable_lines(text: str) -> str:
    """Escape control characters but line ends and tabs, in text of several lines."""
    return text.translate(LINE_ESCAPES)


def width_of(stream: IO[str]) -> int | None:
    """Return the columns of a terminal, or of COLUMNS; None for a file, whose lines have no end."""
    if not stream.isatty() and not os.environ.get("COLUMNS", "").isdecimal():
        return None
    return shutil.get_terminal_size().columns


def fitted(text: str, stream: IO[str], indent: int = 2) -> str:
    """Break the lines of a text for a terminal; later parts of a line are indented."""
    width = width_of(stream)
    if width is None:
        return text
    margin = f"\n{' ' * indent}"
    lines = (
        margin.join(line[start:end] for start, end in line_breaks(line, width, indent))
        for line in text.split("\n")
    )
    return "\n".join(lines)


def line_breaks(line: str, width: int, indent: int = 2) -> Iterator[tuple[int, int]]:
    """Yield the spans of a line that fit a width, all but the first one after an indent.

    A line is broken between its parts, which have two spaces between them, and within a part only
    where it does not fit alone. No word is cut: one that does not fit has a line of its own.
    """
    if len(line) <= width or width < MIN_WIDTH:
        yield 0, len(line)
        return
    gaps = [match.span() for match in GAP.finditer(line) if match.start()]
    wide = [0, *(end for start, end in gaps if end - start > 1), len(line)]
    parts = list(pairwise(wide))
    long = [(a, b) for a, b in parts if len(line[a:b].rstrip()) > width - indent]
    start = end = 0
    for before, after in [*gaps, (len(line), len(line))]:
        is_single = after - before == 1
        is_measure = is_single and line[before - 1].isdigit() and UNIT.match(line, after)
        if is_measure or (is_single and not any(a < after < b for a, b in long)):
            continue
        room = width - (indent if start else 0)
        if end > start and before - start > room:
            yield start, len(line[:end].rstrip())
            start = end
        end = after
    yield start, len(line)


def short(value: object) -> str:
    """Quote a value of a file in an error: a short name or number, else only its kind."""
    if isinstance(value, str):
        return repr(value if len(value) <= SHORT else f"{value[:SHORT]}...")
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**SHORT else "a number of many digits"
    return "an object" if isinstance(value, dict) else "a list"


def some_of(names: Sequence[str]) -> str:
    """Quote the first names of a list for one line, and count the others."""
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(map(short, names[:NUM_NAMED])) + more


def brief(text: str) -> str:
    """Leave out the middle of a name that would fill a page."""
    half = BRIEF // 2
    return text if len(text) <= BRIEF else f"{text[:half]}…{text[1 - half :]}"


def json_text(content: Any) -> str:
    """Serialize to one line of JSON without control characters; its value is the same."""
    return json.dumps(content, ensure_ascii=False).translate(JSON_ESCAPES)


def csv_cell(text: str) -> str:
    """Return a text as a cell of a table: printable, and no formula; `csv_text` undoes it."""
    cell = text.translate(CELL_ESCAPES)
    return f"'{cell}" if FORMULA.match(cell) else cell


def csv_text(cell: str) -> str:
    """Return the text of a cell that `csv_cell` wrote."""
    text = cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell
    return CELL_ESCAPE.sub(_unescape, text)


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    return PLAIN_ESCAPES[code] if code in PLAIN_ESCAPES else chr(int(code[1:], 16))


class PrintableRecord(logging.LogRecord):
    """A log record whose text holds no control characters, whoever writes it.

    `logging.setLogRecordFactory(PrintableRecord)` makes all records of a process such ones.
    """

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        if self.exc_info and self.exc_info[1] is not None:
            lines = traceback.format_exception(self.exc_info[1])
            self.exc_text = printable_lines("".join(lines)).rstrip("\n")

    def getMessage(self) -> str:  # noqa: N802
        """Return the message; a name in its arguments stays on one line."""
        text = str(self.msg)
        if isinstance(self.args, tuple) and self.args:
            text %= tuple(printable(a) if isinstance(a, str) else a for a in self.args)
        elif self.args:
            text %= self.args
        return printable_lines(text)
