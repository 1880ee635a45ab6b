"""Pickles that no program writes: random operations, and parts of real ones in random order."""

import pickle
import random
from collections.abc import Callable

import numpy as np

NAMES = (
    "numpy dtype",
    "numpy ndarray",
    "numpy.core.multiarray _reconstruct",
    "numpy._core.multiarray scalar",
    "numpy._core.numeric _frombuffer",
    "_codecs encode",
    "collections OrderedDict",
    "collections defaultdict",
    "argparse Namespace",
    "types SimpleNamespace",
    "__builtin__ xrange",
    "builtins getattr",
    "builtins eval",
    "posix system",
    "numpy memmap",
)
SIMPLE = (
    *b"0 1 2 ( ) ] } N . a e s u t d l R b o".split(),
    *(bytes([code]) for code in (0x81, *range(0x85, 0x8A), *range(0x8F, 0x95))),
)
STATE = (3, "<", None, None, None, -1, -1, 0)


def generated_pickle(rng: random.Random) -> bytes:
    """Return a pickle of random operations; most stop early, some come far."""
    parts = [b"\x80" + bytes([rng.randint(2, 5)])]
    for _ in range(rng.randint(1, 40)):
        parts.append(rng.choice(PARTS)(rng))
    return b"".join([*parts, b"."])


def _simple(rng: random.Random) -> bytes:
    return rng.choice(SIMPLE)


def _name(rng: random.Random) -> bytes:
    module, name = rng.choice(NAMES).split()
    return f"c{module}\n{name}\n".encode()


def _value(rng: random.Random) -> bytes:
    values = (0, -1, 2**31 - 1, 2**63, 1.5, "f4", "latin1", "<", b"\0" * 8, (), (3,), [], {}, None)
    return pickle.dumps(rng.choice(values), 2)[2:-1]


def _memo(rng: random.Random) -> bytes:
    return rng.choice((b"q", b"h")) + bytes([rng.randrange(8)])


def _length(rng: random.Random) -> bytes:
    """An operation that says how long its argument is, and is wrong."""
    size = rng.choice((0, 1, 2**31 - 1, 2**32 - 1)).to_bytes(4, "little")
    wide = rng.choice((1, 2**40, 2**63 - 1, 2**64 - 1)).to_bytes(8, "little")
    return rng.choice((b"X" + size, b"B" + size, b"\x8b" + size, b"\x8e" + wide, b"\x96" + wide))


def _dtype(rng: random.Random) -> bytes:
    """A data type, its state with one part that NumPy does not write, or as it does."""
    code = rng.choice(("f4", "i8", "O8", "V16", "U5", "M8", "f16", "S1", "f4,f4"))
    state = list(STATE)
    if rng.random() < 0.7:
        place = rng.randrange(len(state))
        state[place] = rng.choice((4, "|", (), ("a",), {"a": 1}, 2**31 - 1, -1, None, "x"))
    text = pickle.dumps(code, 2)[2:-1]
    return b"cnumpy\ndtype\n(" + text + b"K\x00K\x01tR" + pickle.dumps(tuple(state), 2)[2:-1] + b"b"


def _array(rng: random.Random) -> bytes:
    array = np.zeros(rng.choice(((2,), (0,), (2, 3))), rng.choice(("f4", "i8", "O", "U3")))
    content = bytearray(pickle.dumps(array, rng.choice((2, 4)))[2:-1])
    for _ in range(rng.randint(0, 2)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


PARTS: tuple[Callable[[random.Random], bytes], ...] = (
    *(_simple,) * 4,
    _name,
    *(_value,) * 3,
    _memo,
    _length,
    _dtype,
    _array,
)
