"""Read plain pickles of arrays (detectron2's `.pkl`); NumPy never sees what they hold.

A data type is rebuilt from a list of numeric codes and its byte order, an array from its bytes,
whose number must be that of its shape. Arrays of anything else are ignored.
"""

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from video_mvit.weights.pickle_limits import (
    BrokenPickleError,
    Budget,
    Ignored,
    Known,
    RefusedPickleError,
)
from video_mvit.weights.pickle_stubs import STUBS
from video_mvit.weights.pickles import Unbuilt, latin1, make_bytes, make_dict, read_pickle

NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
OTHERS = re.compile(r"[OSUVMm]\d{0,9}|f16|c32", re.ASCII)
# State of a numeric dtype, as NumPy writes it: version, byte order, nothing about fields.
BYTE_ORDERS = ("<", ">", "|", "=")
PLAIN_STATE = (None, None, None, -1, -1, 0)
MAX_DIMS = 32
NUMPY_MODULES = ("numpy.core", "numpy._core")


@dataclass
class _Dtype(Unbuilt):
    code: str = ""

    def build(self, state: Any, budget: Budget) -> Any:
        if self.code not in NUMBERS:
            return Ignored()
        if type(state) is not tuple or len(state) != 8 or state[0] != 3:
            raise RefusedPickleError("it has a data type that NumPy does not write")
        if state[1] not in BYTE_ORDERS or state[2:] != PLAIN_STATE:
            raise RefusedPickleError("it has a data type that NumPy does not write")
        return np.dtype(state[1] + self.code)


class _Array(Unbuilt):
    def build(self, state: Any, budget: Budget) -> Any:
        if type(state) is not tuple or len(state) != 5 or state[0] != 1:
            raise RefusedPickleError("it has an array that NumPy does not write")
        _, shape, dtype, is_fortran, content = state
        if isinstance(dtype, Ignored):
            return Ignored()
        return _array(content, dtype, shape, "F" if is_fortran else "C", budget)


def read_arrays(path: Path) -> Any:
    """Read a pickle of arrays and plain containers; other objects of the list are ignored.

    Raises as `read_pickle` does.
    """
    with path.open("rb") as file:
        return read_pickle(file, NAMES, Budget(size=path.stat().st_size))


def _array(content: Any, dtype: Any, shape: Any, order: Any, budget: Budget) -> Any:
    """Return an array of these bytes, read-only."""
    if not isinstance(dtype, np.dtype) or order not in ("C", "F"):
        raise BrokenPickleError("no array")
    if type(shape) is not tuple or len(shape) > MAX_DIMS:
        raise BrokenPickleError("no shape")
    if not all(type(n) is int and 0 <= n < 2**62 for n in shape):
        raise BrokenPickleError("no shape")
    values = latin1(content)
    budget.copy(len(values))
    if len(values) != prod(shape) * dtype.itemsize:
        raise RefusedPickleError(f"an array has {len(values)} bytes, not those of its shape")
    if not values:
        return np.empty(shape, dtype)
    return np.frombuffer(values, dtype).reshape(shape, order=order)


def _make_dtype(args: tuple[Any, ...], _budget: Budget) -> Any:
    code = args[0]
    if type(code) is not str or not (code in NUMBERS or OTHERS.fullmatch(code)):
        raise RefusedPickleError("it has a data type that is not of numbers")
    return _Dtype(code=code)


def _make_array(_args: tuple[Any, ...], _budget: Budget) -> Any:
    return _Array()  # its first argument is a class, which `NAMES` limits to the array of NumPy


def _make_from_buffer(args: tuple[Any, ...], budget: Budget) -> Any:
    content, dtype, shape, order = args
    if isinstance(dtype, Ignored):
        return Ignored()
    return _array(content, dtype, shape, order, budget)


def _make_scalar(args: tuple[Any, ...], budget: Budget) -> Any:
    dtype, content = args
    if isinstance(dtype, Ignored):
        return Ignored()
    return _array(content, dtype, (1,), "C", budget)[0]


def _make_empty_bytes(args: tuple[Any, ...], _budget: Budget) -> Any:
    return Ignored() if args else b""  # old protocols have no other way to write them


def _make_nothing(_args: tuple[Any, ...], _budget: Budget) -> Any:
    raise RefusedPickleError("it makes an array without its values")


NAMES: dict[str, Any] = {
    **STUBS,
    "_codecs.encode": Known("_codecs.encode", make_bytes),
    "builtins.bytes": Known("builtins.bytes", _make_empty_bytes),
    "collections.OrderedDict": Known("collections.OrderedDict", make_dict),
    "numpy.dtype": Known("numpy.dtype", _make_dtype),
    "numpy.ndarray": Known("numpy.ndarray", _make_nothing),
}
for _module in NUMPY_MODULES:
    NAMES |= {
        f"{_module}.multiarray._reconstruct": Known("_reconstruct", _make_array),
        f"{_module}.multiarray.scalar": Known("scalar", _make_scalar),
        f"{_module}.numeric._frombuffer": Known("_frombuffer", _make_from_buffer),
    }
