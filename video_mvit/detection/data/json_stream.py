"""Read a large JSON object element by element.

`json.load` of an annotation file takes ten times its size in memory. Here one element of one list
exists at a time: the standard library's decoder finds its end in a window of the text.
"""

import json
import os
from collections.abc import Iterator
from typing import Any, TextIO

from video_mvit.data.reading.containers import check_regular
from video_mvit.data.reading.reader import first_line
from video_mvit.errors import MissingFileError, UserError
from video_mvit.text import short

WINDOW = 2**22  # characters read at once
MAX_ELEMENT = 2**25  # characters of one element
MAX_TOKEN = 16  # characters at the end of a window that may be half a word or number
SPACE = " \t\n\r"


def read_elements(path: str) -> Iterator[tuple[str, Any]]:
    """Yield (name, element) of all lists of the outermost object, in the order of the file.

    Other values come as they are, an empty list not at all. Raises `UserError`.
    """
    try:
        check_regular(path)
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield from _Scanner(path, file).elements()
    except FileNotFoundError as error:
        raise MissingFileError(f"the annotation file {path} does not exist") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a JSON file: it is no UTF-8 text") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from error


class _Scanner:
    """A window that moves over a text; `_place` is the next character of it."""

    def __init__(self, path: str, file: TextIO) -> None:
        self._path, self._file = path, file
        self._window, self._place, self._num_before = "", 0, 0
        self._decoder = json.JSONDecoder()
        self._is_at_end = False

    def elements(self) -> Iterator[tuple[str, Any]]:
        if (first := self._peek()) != "{":
            found = "is empty" if not first else f"begins with {first!r}"
            raise UserError(
                f"{self._path} {found}; an annotation file is a JSON object with the lists "
                "images, annotations and categories"
            )
        self._place += 1
        name, seen = "the first name", set[str]()
        while self._peek() != "}":
            name = self._value(f"the name after {short(name)}")
            if not isinstance(name, str):
                raise self._broken("a name is not a string")
            if name in seen:
                raise self._broken(f"the name {short(name)} occurs twice")
            seen.add(name)
            self._expect(":", name)
            if self._peek() == "[":
                self._place += 1
                yield from self._list(name)
            else:
                yield name, self._value(name)
            if self._peek() != "}":
                self._expect(",", name)

    def _list(self, name: str) -> Iterator[tuple[str, Any]]:
        while self._peek() != "]":
            yield name, self._value(name)
            if self._peek() != "]":
                self._expect(",", name)
        self._place += 1

    def _value(self, name: str) -> Any:
        """Decode the value at the next character, reading on until it is complete."""
        self._peek()
        while True:
            try:
                value, stop = self._decoder.raw_decode(self._window, self._place)
            except json.JSONDecodeError as error:
                if not self._is_incomplete(error):
                    raise self._broken(f"{error.msg} in {short(name)}", error.pos) from error
                if self._is_at_end:
                    raise self._cut(name) from error
            except (RecursionError, ValueError) as error:
                raise self._broken(f"{first_line(error)} in {short(name)}") from error
            else:
                if stop + MAX_TOKEN < len(self._window) or self._is_at_end:  # a number may go on
                    self._place = stop
                    return value
            self._read_on()

    def _peek(self) -> str:
        """Skip space and return the next character, at the end of the file an empty string."""
        while True:
            while self._place < len(self._window):
                if (character := self._window[self._place]) not in SPACE:
                    return character
                self._place += 1
            if self._is_at_end:
                return ""
            self._read_on()

    def _expect(self, character: str, name: str) -> None:
        if (found := self._peek()) != character:
            if not found or (found in ".eE" and self._place + MAX_TOKEN > len(self._window)):
                raise self._cut(name)  # perhaps within a number
            raise self._broken(f"{character!r} expected in {short(name)}, found {found!r}")
        self._place += 1

    def _read_on(self) -> None:
        """Forget what was decoded, and at least double the rest of the window."""
        rest = self._window[self._place :]
        self._num_before += self._place
        new = self._file.read(max(WINDOW, len(rest)))
        self._window, self._place = rest + new, 0
        self._is_at_end = not new

    def _is_incomplete(self, error: json.JSONDecodeError) -> bool:
        """Return whether decoding failed because the window ends, and not earlier."""
        num_left = len(self._window) - self._place
        is_at_end = len(self._window) - error.pos <= MAX_TOKEN
        return num_left <= MAX_ELEMENT and (is_at_end or error.msg.startswith("Unterminated"))

    def _cut(self, name: str) -> UserError:
        size = os.path.getsize(self._path)
        return UserError(
            f"{self._path} ends after {size:,} bytes within {short(name)}: the file was cut off; "
            "copy or download it again"
        )

    def _broken(self, what: str, place: int | None = None) -> UserError:
        character = self._num_before + (self._place if place is None else place)
        return UserError(f"{self._path} is damaged at character {character:,}: {what}")
