"""Limits of what a pickle may hold: objects, copies, keys, nesting, and names in messages."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

MAX_COST = 64 * 2**20  # bytes of objects, arrays and long texts left out
MAX_DEPTH = 100
MAX_NODES = 4_000_000  # when shared parts are written out
MAX_KEY = 2**60  # larger ints can share a hash, which makes dictionaries slow
PLAIN_NAME = re.compile(r"[\w.]{1,100}", re.ASCII)


class RefusedPickleError(Exception):
    """What a pickle wants is not allowed; the message completes "the file is refused: "."""

    advice = "if you trust it, load it where it was made and save model.state_dict() alone"


class RefusedTensorError(RefusedPickleError):
    """A tensor has no values of its own."""

    advice = "save it again where its tensors have values of their own"


class BrokenPickleError(Exception):
    """The bytes are no pickle, or are a pickle that no program writes."""


class Ignored:
    """Stands in for an object of no interest, and drops whatever it was saved with."""

    def __new__(cls, *_: Any) -> "Ignored":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


@dataclass
class Budget:
    """What is left for the objects of a file of `size` bytes, and for copies of its bytes."""

    size: int
    cost: int = 0
    copied: int = 0

    def spend(self, cost: int) -> None:
        self.cost += cost
        if self.cost > MAX_COST:
            raise RefusedPickleError("it holds too many objects for a file of weights")

    def copy(self, num_bytes: int) -> None:
        """Count bytes that are made from those of the file: each is there twice at most."""
        self.copied += num_bytes
        if self.copied > 2 * self.size + 2**20:
            raise RefusedPickleError("it uses the same bytes again and again")


Make = Callable[[tuple[Any, ...], Budget], Any]


@dataclass(frozen=True)
class Known:
    """A name of the list: `make` gets the arguments that the pickle wants to call it with."""

    name: str
    make: Make


def quoted(name: object) -> str:
    """Return a name from a file for a message: short, without control characters."""
    text = name if isinstance(name, str) else f"<{type(name).__name__}>"
    return text if PLAIN_NAME.fullmatch(text) else ascii(text[:60])


def check_key(key: Any) -> Any:
    """Return a key of a dictionary if hashing it is cheap and safe."""
    if isinstance(key, str | bytes | float | None | Ignored):
        return key
    if isinstance(key, int) and abs(key) < MAX_KEY:
        return key
    raise RefusedPickleError("a key of a dictionary is neither a text nor a small number")


def check_structure(content: Any) -> None:
    """Refuse deep nesting, cycles, and shared parts that grow without bound when written out."""
    known: dict[int, tuple[int, int]] = {}  # id -> depth, number of nodes
    above: set[int] = set()
    waiting: list[tuple[Any, bool]] = [([content], False)]
    while waiting:
        value, is_complete = waiting.pop()
        if id(value) in known:
            continue
        parts = list(_containers(value))
        if is_complete:
            above.discard(id(value))
            depth = 1 + max((known[id(part)][0] for part in parts), default=0)
            nodes = 1 + len(value) + sum(known[id(part)][1] for part in parts)
            if depth > MAX_DEPTH:
                raise RefusedPickleError(f"it is nested more than {MAX_DEPTH} deep")
            if nodes > MAX_NODES:
                raise RefusedPickleError("it repeats its parts without end")
            known[id(value)] = (depth, nodes)
        elif isinstance(value, dict | list | tuple):
            if id(value) in above:
                raise RefusedPickleError("it contains itself")
            if any(isinstance(part, Known) for part in _parts(value)):
                raise RefusedPickleError("it keeps a class or a function")
            above.add(id(value))
            waiting.append((value, True))
            waiting += [(part, False) for part in parts]


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _containers(value: Any) -> Iterator[Any]:
    """Yield the containers in a container that are not empty."""
    if isinstance(value, dict | list | tuple):
        yield from (p for p in _parts(value) if isinstance(p, dict | list | tuple) and p)
