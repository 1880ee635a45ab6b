"""Read JSON that somebody else may have written, and check all of it before it is used.

A check takes a value and returns it, or raises `MismatchError` with a few words on what is
wrong; the reader of a file adds its name and line.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from typing import Any, NoReturn

from video_mvit.text import short

MAX_TEXT = 4096  # characters; a path may have as many
MAX_INT64 = 2**63 - 1
MAX_NUMBER = 1e300
Check = Callable[[Any], Any]


class MismatchError(ValueError):
    """A value that does not fit its schema; the message says which and why, in a few words."""


def parse_json(content: bytes | str) -> Any:
    """Parse strict JSON: UTF-8, finite numbers, every key once. Raises `MismatchError`."""
    try:
        words = content.decode("utf-8") if isinstance(content, bytes) else content
        return json.loads(words, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except MismatchError:
        raise
    except UnicodeDecodeError:
        raise MismatchError("not UTF-8") from None
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}: " if error.lineno > 1 else ""
        raise MismatchError(f"{line}not JSON ({error.msg})") from None
    except RecursionError:
        raise MismatchError("nested too deeply") from None
    except (ValueError, MemoryError):  # a number of thousands of digits
        raise MismatchError("not JSON that can be read") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(
            name for name, count in Counter(name for name, _ in pairs).items() if count > 1
        )
        raise MismatchError(f"the key {short(twice)} occurs twice")
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise MismatchError(f"{name} is no number of JSON")


def whole(low: int = 0, high: int = MAX_INT64) -> Check:
    """Check a whole number in [low, high]."""

    def check(value: Any) -> int:
        if type(value) is not int:
            raise MismatchError(f"{short(value)} is not a whole number")
        if not low <= value <= high:
            raise MismatchError(f"{short(value)} is not in {low} to {high}")
        return value

    return check


def number(low: float = -math.inf, high: float = math.inf) -> Check:
    """Check a finite number in [low, high]."""

    def check(value: Any) -> float:
        if type(value) not in (int, float):
            raise MismatchError(f"{short(value)} is not a number")
        if not low <= value <= high or abs(value) > MAX_NUMBER:
            raise MismatchError(f"{short(value)} is not a number in {low:g} to {high:g}")
        return float(value)

    return check


def text(max_length: int = MAX_TEXT) -> Check:
    """Check a string of bounded length, without NUL bytes."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise MismatchError(f"{short(value)} is not a text")
        if len(value) > max_length or "\0" in value:
            raise MismatchError(f"{short(value)} is too long a text, or has NUL bytes")
        return value

    return check


def one_of(*allowed: object) -> Check:
    """Check that a value is one of a few."""

    def check(value: Any) -> Any:
        if not any(type(value) is type(each) and value == each for each in allowed):
            raise MismatchError(f"{short(value)} is none of {', '.join(map(short, allowed))}")
        return value

    return check


def member(known: Container[int]) -> Check:
    """Check that a whole number is one of many."""

    def check(value: Any) -> int:
        if type(value) is not int or value not in known:
            raise MismatchError(f"{short(value)} is not among those that are known")
        return value

    return check


def optional(inner: Check) -> Check:
    """Check a value that may be null."""
    return lambda value: None if value is None else inner(value)


def sequence(inner: Check, *, low: int = 0, high: int | None = None) -> Check:
    """Check a list of `low` to `high` values: -> tuple."""

    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise MismatchError(f"{short(value)} is not a list")
        if len(value) < low or (high is not None and len(value) > high):
            raise MismatchError(f"a list of {len(value)} values")
        return tuple(_parts(((i, inner, each) for i, each in enumerate(value, 1)), "value "))

    return check


def table(inner: Check, keys: Collection[str] | None = None) -> Check:
    """Check an object from names, of `keys` if given, to values of one kind."""

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise MismatchError(f"{short(value)} is not an object")
        for name in value:
            if type(name) is not str or (keys is not None and name not in keys):
                raise MismatchError(f"{short(name)} is not expected")
        parts = ((name, inner, each) for name, each in value.items())
        return dict(zip(value, _parts(parts), strict=True))

    return check


def record(fields: Mapping[str, Check]) -> Check:
    """Check an object with exactly these fields."""

    def check(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise MismatchError(f"{short(value)} is not an object")
        for name in fields:
            if name not in value:
                raise MismatchError(f"without {name}")
        for name in value:
            if name not in fields:
                raise MismatchError(f"{short(name)} is not expected")
        parts = ((name, inner, value[name]) for name, inner in fields.items())
        return dict(zip(fields, _parts(parts), strict=True))

    return check


def row(*columns: Check) -> Check:
    """Check a list with one value of each kind: -> tuple."""

    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or len(value) != len(columns):
            raise MismatchError(f"{short(value)} is not a list of {len(columns)} values")
        parts = zip(range(1, len(columns) + 1), columns, value, strict=True)
        return tuple(_parts(parts, "value "))

    return check


def _parts(parts: Iterable[tuple[object, Check, Any]], prefix: str = "") -> Iterator[Any]:
    """Check the parts of a value, given with their names; an error names the part."""
    for name, inner, each in parts:
        try:
            yield inner(each)
        except MismatchError as error:
            shown = name if isinstance(name, int) else short(name)
            raise MismatchError(f"{prefix}{shown}: {error}") from None


def anything(value: Any) -> Any:
    """Accept a value of any kind, for what is compared only."""
    return value
