"""Read pickles without running them: an interpreter of their operations that knows a list of names.

Nothing in a file is imported or called: a name of the list stands for a function of ours, any other
name refuses the file. What a pickle may hold is bounded in number, nesting and copies, whatever the
file claims. Which names are known is decided by those who read (`arrays.py`, `torch_files.py`).
"""

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Protocol, cast

from video_mvit.weights.pickle_limits import (
    BrokenPickleError,
    Budget,
    Ignored,
    Known,
    RefusedPickleError,
    check_key,
    check_structure,
    quoted,
)

OPERATION_COST = 96  # bytes: the largest object that one operation makes, with its place
CALL_COST = 1000  # bytes: a tensor's header in C++
MAX_LINE = 4096
MAX_INT_BYTES = 64
OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
OLD_NAMES = {"builtins.long": "builtins.int", "builtins.xrange": "builtins.range"}  # protocol 2
LATIN1 = ("latin1", "latin-1")


@dataclass
class Unbuilt:
    """An object that is complete only with its state; `places` are those in the memo."""

    places: list[int] = field(default_factory=list)

    def build(self, state: Any, budget: Budget) -> Any:
        raise NotImplementedError


class Readable(Protocol):
    """A binary file."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self, size: int, /) -> bytes: ...


def read_pickle(
    file: Readable,
    names: Mapping[str, Any],
    budget: Budget,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the content of the pickle that starts at the file's position, and move behind it.

    Args:
        names: "module.name" -> what it stands for; a `Known` can be called by the pickle.
        persistent: called with identifiers of objects that lie outside of the pickle.

    Raises:
        RefusedPickleError: for a name that is not known, or for what exceeds a limit.
        BrokenPickleError: for anything else that cannot be read.
    """
    interpreter = _Interpreter(names, budget, persistent)
    try:
        for operation, value, _ in pickletools.genops(cast(IO[bytes], _Bounded(file, budget.size))):
            budget.spend(OPERATION_COST)
            interpreter.step(operation.name, value)
        content = interpreter.result[0]
    except (RefusedPickleError, BrokenPickleError):
        raise
    except Exception as error:  # of a pickle that pops from an empty stack, for one
        raise BrokenPickleError(type(error).__name__) from None
    check_structure(content)
    return content


def latin1(value: Any) -> bytes:
    """Return the bytes that a pickle holds, by Python 2 or an old protocol as text."""
    if isinstance(value, str):
        return value.encode("latin1")
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise BrokenPickleError("no bytes")


def make_bytes(args: tuple[Any, ...], budget: Budget) -> bytes:
    """Encode a text as numpy and bytes do in old protocols."""
    text, encoding = args
    if type(text) is not str or encoding not in LATIN1:
        raise RefusedPickleError("it encodes something else than bytes")
    budget.copy(len(text))
    return text.encode("latin1")


def make_ignored(_args: tuple[Any, ...], _budget: Budget) -> Ignored:
    return Ignored()


def make_empty_dict(_args: tuple[Any, ...], _budget: Budget) -> dict[Any, Any]:
    return OrderedDict()


def make_empty_list(_args: tuple[Any, ...], _budget: Budget) -> list[Any]:
    return []


def make_dict(args: tuple[Any, ...], budget: Budget) -> dict[Any, Any]:
    """Make a dictionary: empty, of pairs (Python 2), or of another dictionary."""
    if not args:
        return OrderedDict()
    (content,) = args
    if isinstance(content, Mapping):
        content = list(content.items())
    if not isinstance(content, list | tuple):
        raise BrokenPickleError("no pairs")
    budget.spend(OPERATION_COST * len(content))
    return OrderedDict((check_key(key), value) for key, value in content)


class _Bounded:
    """A file whose reads allocate no more than it has."""

    def __init__(self, file: Readable, size: int) -> None:
        self.file, self.size = file, size

    def read(self, size: int) -> bytes:
        return self.file.read(min(size, self.size))

    def readline(self) -> bytes:
        return self.file.readline(MAX_LINE)


PUSHED = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BYTEARRAY8"),
}
MADE: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": Ignored,
}
SAME = {
    **{"BINPUT": "PUT", "LONG_BINPUT": "PUT", "BINGET": "GET", "LONG_BINGET": "GET"},
    "NEWOBJ": "REDUCE",
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}  # operation -> length


class _Interpreter:
    """The stack and the memo of a pickle, changed by one operation at a time."""

    def __init__(
        self,
        names: Mapping[str, Any],
        budget: Budget,
        persistent: Callable[[Any], Any] | None,
    ) -> None:
        self.names, self.budget, self.persistent = names, budget, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # a stack for each mark
        self.memo: dict[int, Any] = {}
        self.result: list[Any] = []

    def step(self, operation: str, value: Any) -> None:
        if operation in PUSHED:
            if isinstance(value, int) and value.bit_length() > 8 * MAX_INT_BYTES:
                raise RefusedPickleError("it holds a number of thousands of digits")
            self.stack.append(value)
        elif operation in MADE:
            self.stack.append(MADE[operation]())
        elif operation in TUPLES:
            self._last_as_tuple(TUPLES[operation])
        else:
            method = getattr(self, f"_{SAME.get(operation, operation).lower()}", None)
            if method is None:
                raise RefusedPickleError(f"it needs the pickle operation {operation}")
            method(value)

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _proto(self, _: Any) -> None:
        pass

    def _frame(self, _: Any) -> None:
        pass

    def _stop(self, _: Any) -> None:
        self.result.append(self.stack.pop())

    def _mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._since_mark()

    def _pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _put(self, place: int) -> None:
        self.budget.spend(OPERATION_COST)
        value = self.memo[place] = self.stack[-1]
        if isinstance(value, Unbuilt):
            value.places.append(place)

    def _memoize(self, _: Any) -> None:
        self._put(len(self.memo))

    def _get(self, place: int) -> None:
        self.stack.append(self.memo[place])

    def _tuple(self, _: Any) -> None:
        items = tuple(self._since_mark())
        self.stack.append(items)

    def _last_as_tuple(self, count: int) -> None:
        if len(self.stack) < count:
            raise BrokenPickleError("too few objects")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _list(self, _: Any) -> None:
        items = self._since_mark()
        self.stack.append(items)

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self.stack.append({})
        self._fill(items)

    def _frozenset(self, _: Any) -> None:
        self._since_mark()
        self.stack.append(Ignored())

    def _append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    def _additems(self, _: Any) -> None:
        self._since_mark()
        if not isinstance(self.stack[-1], Ignored):
            raise BrokenPickleError("no set")

    def _extend(self, items: Sequence[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif not isinstance(target, Ignored):
            raise BrokenPickleError("no list")

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill([key, value])

    def _setitems(self, _: Any) -> None:
        self._fill(self._since_mark())

    def _fill(self, items: Sequence[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[check_key(key)] = value
        elif not isinstance(target, Ignored):
            raise BrokenPickleError("no dictionary")

    def _global(self, value: str) -> None:
        module, _, name = value.partition(" ")
        self.stack.append(self._find(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self._find(module, name))

    def _find(self, module: Any, name: Any) -> Any:
        if type(module) is not str or type(name) is not str:
            raise BrokenPickleError("no name")
        full = f"{OLD_MODULES.get(module, module)}.{name}"
        full = OLD_NAMES.get(full, full)
        if full not in self.names:
            raise RefusedPickleError(f"it would run {quoted(full)}")
        return self.names[full]

    def _reduce(self, _: Any) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        self._call(function, args)

    def _newobj_ex(self, _: Any) -> None:
        self.stack.pop()
        self._reduce(_)

    def _inst(self, value: str) -> None:
        args = tuple(self._since_mark())
        self._global(value)
        self._call(self.stack.pop(), args)

    def _obj(self, _: Any) -> None:
        function, *args = self._since_mark()
        self._call(function, tuple(args))

    def _call(self, function: Any, args: Any) -> None:
        if type(args) is not tuple:
            raise BrokenPickleError("no arguments")
        self.budget.spend(CALL_COST)
        if not isinstance(function, Known):
            raise RefusedPickleError("it would run something that is not a name")
        self.stack.append(function.make(args, self.budget))

    def _build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Unbuilt):
            built = self.stack[-1] = target.build(state, self.budget)
            for place in target.places:
                self.memo[place] = built
        elif isinstance(target, Ignored):
            pass
        elif isinstance(target, OrderedDict) and isinstance(state, Mapping):  # its attributes
            self.budget.spend(OPERATION_COST * len(state))
        else:
            raise RefusedPickleError("it sets the state of something that has none")

    def _binpersid(self, _: Any) -> None:
        if self.persistent is None:
            raise RefusedPickleError("it refers to objects outside of it")
        self.budget.spend(CALL_COST)
        self.stack.append(self.persistent(self.stack.pop()))
