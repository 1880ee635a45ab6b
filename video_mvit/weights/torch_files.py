"""Read PyTorch files (`.pth`, `.pyth`, `.ckpt`), checked before PyTorch reads them.

A file of PyTorch 1.6 or later is a zip of uncompressed records with checksums: all are verified.
Older files have none. In both, the pickle is interpreted first (`pickles.py`), so that no tensor
reaches beyond its storage, no storage beyond the file, and nothing is allocated that is not there.
"""

import io
import logging
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import IO, Any

import torch

from video_mvit.errors import UserError
from video_mvit.weights.pickle_limits import (
    BrokenPickleError,
    Budget,
    Ignored,
    Known,
    RefusedPickleError,
    RefusedTensorError,
    check_key,
    quoted,
)
from video_mvit.weights.pickle_stubs import stubs_for_names, stubs_for_torch
from video_mvit.weights.pickles import make_bytes, make_dict, read_pickle
from video_mvit.weights.zip_records import Records

ZIP = b"PK\x03\x04"
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # PyTorch before 1.6
LEGACY_PROTOCOL = 1001
MAX_PICKLE_BYTES = 64 * 2**20  # of a zip, whose tensors are records of their own
MAX_DIMS = 16
MAX_VIEWS = 4  # bytes of all tensors to those of the storages: a storage can be shared
STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
DAMAGE = (
    OSError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    RuntimeError,
    EOFError,
    KeyError,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    ImportError,
    OverflowError,
    MemoryError,
)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    num_bytes: int


@dataclass(frozen=True, eq=False)
class _Tensor:
    num_bytes: int
    problem: str = ""


@dataclass(kw_only=True)
class _Contents:
    """What the pickle of a file describes; `stored` gives the bytes of a storage, if known."""

    stored: Callable[[str], int] | None
    storages: dict[str, _Storage] = field(default_factory=dict)
    tensors: list[_Tensor] = field(default_factory=list)
    hooks: list[dict[Any, Any]] = field(default_factory=list)

    def storage(self, identifier: Any) -> _Storage:
        """Return the storage that a persistent identifier names."""
        size = 5 if self.stored else 6  # the last of a legacy file describes a view
        if type(identifier) is not tuple or len(identifier) != size:
            raise BrokenPickleError("no storage")
        what, dtype, key, _, numel, *view = identifier
        if what not in ("storage", b"storage") or any(part is not None for part in view):
            raise RefusedPickleError("it refers to something that is not a whole storage")
        if not isinstance(dtype, torch.dtype) or type(key) is not str or type(numel) is not int:
            raise BrokenPickleError("no storage")
        found = _Storage(key, dtype, numel * dtype.itemsize)
        if numel < 0 or (self.stored and self.stored(key) != found.num_bytes):
            raise RefusedPickleError(f"storage {quoted(key)} has another size than its record")
        if self.storages.setdefault(key, found) != found:
            raise RefusedPickleError(f"storage {quoted(key)} has two types or sizes")
        return found

    def tensor(self, args: tuple[Any, ...], dtype: torch.dtype | None = None) -> _Tensor:
        """Return a tensor, with what is wrong about it."""
        storage, offset, sizes, strides, *rest = args
        self.keep_options(rest[:2])
        if not isinstance(storage, _Storage) or not _are_sizes(sizes, strides, (offset,)):
            raise BrokenPickleError("no tensor")
        if len(sizes) != len(strides) or len(sizes) > MAX_DIMS:
            raise BrokenPickleError("no tensor")
        itemsize = (dtype or storage.dtype).itemsize
        numel, steps = prod(sizes), list(zip(sizes, strides, strict=True))
        end = (offset + (sum((n - 1) * step for n, step in steps) + 1 if numel else 0)) * itemsize
        problem = ""
        if any(n > 1 and step == 0 for n, step in steps):
            problem = "repeats its values (a stride of 0)"
        elif end > storage.num_bytes or (offset + numel) * itemsize > storage.num_bytes:
            problem = "reaches beyond the values that are stored for it"
        self.tensors.append(_Tensor(numel * itemsize, problem))
        return self.tensors[-1]

    def keep_options(self, options: tuple[Any, ...] | list[Any]) -> None:
        """Take what follows the shape of a tensor: a flag, and hooks, which may be filled later."""
        for option in options:
            if isinstance(option, dict):
                self.hooks.append(option)
            elif not isinstance(option, bool | None):
                raise RefusedPickleError("a tensor has hooks")

    def check(self, content: Any) -> None:
        """Raise `RefusedPickleError` that names the first tensor with a problem."""
        if any(self.hooks):
            raise RefusedPickleError("a tensor has hooks")
        for tensor in self.tensors:
            if tensor.problem:
                raise RefusedTensorError(f"{_name_of(tensor, content)} {tensor.problem}")
        stored = sum(storage.num_bytes for storage in self.storages.values())
        if sum(tensor.num_bytes for tensor in self.tensors) > MAX_VIEWS * stored + 2**20:
            raise RefusedPickleError("its tensors share their values again and again")


def is_torch_file(path: Path) -> bool:
    """Return whether a file begins like one of PyTorch, which a plain pickle does not."""
    with path.open("rb") as file:
        return file.read(len(LEGACY)).startswith((ZIP, LEGACY))


def read_torch_file(path: Path, *, ignore_settings: bool = False) -> Any:
    """Read tensors and plain values, on the CPU.

    `ignore_settings` also reads files with settings of other trainers, and drops these. Raises
    `UserError` if the file is damaged, or would need anything else.
    """
    stubs = stubs_for_torch() if ignore_settings else []
    try:
        with path.open("rb") as file:
            _check(file, path, stubs_for_names() if ignore_settings else {})
            file.seek(0)
            with torch.serialization.safe_globals(stubs):
                return torch.load(file, map_location="cpu", weights_only=True)
    except (RefusedPickleError, BrokenPickleError, *DAMAGE) as error:
        raise as_user_error(path, error) from None


def _check(file: IO[bytes], path: Path, stubs: dict[str, Any]) -> None:
    """Check the checksums, the pickle and the storages of a file without reading its tensors."""
    size = path.stat().st_size
    if file.read(len(LEGACY)).startswith(ZIP):
        _check_zip(file, size, stubs)
    else:
        file.seek(0)
        _check_legacy(file, size, stubs)
        logger.info(
            "%s is of PyTorch before 1.6, which wrote no checksums: "
            "damage to its numbers would not be found",
            path,
        )


def as_user_error(path: Path, error: Exception) -> UserError:
    """Say in one sentence what an error of reading means."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, RefusedPickleError):
        return UserError(f"{path} is refused: {error}; {error.advice}")
    detail = f"; {str(error)[:120]}" if isinstance(error, zipfile.BadZipFile) else ""
    num_bytes = path.stat().st_size if path.exists() else 0
    return UserError(
        f"{path} is damaged or truncated ({num_bytes:,} bytes{detail}); copy or download it again"
    )


def _check_zip(file: IO[bytes], size: int, stubs: dict[str, Any]) -> None:
    records = Records(file, size)
    if "constants.pkl" in records.sizes:
        raise RefusedPickleError("it is a TorchScript program")
    if records.sizes.get("data.pkl", MAX_PICKLE_BYTES + 1) > MAX_PICKLE_BYTES:
        raise zipfile.BadZipFile("no record data.pkl, or a huge one")
    records.verify()
    text = records.read("data.pkl")
    contents = _Contents(stored=lambda key: records.sizes.get(f"data/{key}", -1))
    budget = Budget(size=len(text))
    names = stubs | _names(contents)
    found = read_pickle(io.BytesIO(text), names, budget, contents.storage)
    contents.check(found)


def _check_legacy(file: IO[bytes], size: int, stubs: dict[str, Any]) -> None:
    """Check a file of five pickles and the storages in the order of the last."""
    contents, budget = _Contents(stored=None), Budget(size=size)
    for expected in (None, LEGACY_PROTOCOL, None):  # magic number, protocol, machine
        found = read_pickle(file, {}, budget)
        if expected is not None and found != expected:
            raise BrokenPickleError("no legacy file")
    found = read_pickle(file, stubs | _names(contents), budget, contents.storage)
    contents.check(found)
    keys = read_pickle(file, {}, budget)
    if type(keys) is not list or sorted(keys) != sorted(contents.storages):
        raise BrokenPickleError("no list of storages")
    for key in keys:
        storage = contents.storages[key]
        (numel,) = struct.unpack("<q", file.read(8))
        if numel * storage.dtype.itemsize != storage.num_bytes:
            raise BrokenPickleError("a storage has another size")
        file.seek(storage.num_bytes, io.SEEK_CUR)
    if file.tell() > size:
        raise BrokenPickleError("the last storage is cut")


def _names(contents: _Contents) -> dict[str, Any]:
    """Return what the names in the pickle of a PyTorch file stand for."""

    def rebuild(args: tuple[Any, ...], _: Budget) -> _Tensor:
        contents.keep_options(args[6:])
        return contents.tensor(args)

    def rebuild_as(args: tuple[Any, ...], _: Budget) -> _Tensor:
        contents.keep_options(args[7:])
        if not isinstance(args[6], torch.dtype):
            raise BrokenPickleError("no type")
        return contents.tensor(args, args[6])

    def rebuild_meta(_args: tuple[Any, ...], _: Budget) -> _Tensor:
        contents.tensors.append(_Tensor(0, "has no values (a meta tensor)"))
        return contents.tensors[-1]

    def rebuild_parameter(args: tuple[Any, ...], _: Budget) -> _Tensor:
        contents.keep_options(args[1:])
        if not isinstance(args[0], _Tensor):
            raise BrokenPickleError("no tensor")
        return args[0]

    functions = {
        "_codecs.encode": make_bytes,
        "builtins.bytearray": _make_bytearray,
        "builtins.complex": _make_complex,
        "builtins.set": _make_set,
        "collections.Counter": _make_counter,
        "collections.OrderedDict": make_dict,
        "torch.Size": _make_size,
        "torch.device": _make_device,
        "torch._utils._rebuild_meta_tensor_no_storage": rebuild_meta,
        "torch._utils._rebuild_parameter": rebuild_parameter,
        "torch._utils._rebuild_tensor": rebuild,
        "torch._utils._rebuild_tensor_v2": rebuild,
        "torch._utils._rebuild_tensor_v3": rebuild_as,
    }
    return {
        **{str(dtype): dtype for dtype in STORAGES.values()},
        **{f"torch.{name}Storage": dtype for name, dtype in STORAGES.items()},
        **{f"torch.cuda.{name}Storage": dtype for name, dtype in STORAGES.items()},
        "torch.storage.UntypedStorage": torch.uint8,
        **{name: Known(name, function) for name, function in functions.items()},
    }


def _are_sizes(*tuples: Any) -> bool:
    return all(
        isinstance(numbers, tuple) and all(type(n) is int and 0 <= n < 2**62 for n in numbers)
        for numbers in tuples
    )


def _make_size(args: tuple[Any, ...], _budget: Budget) -> tuple[int, ...]:
    (sizes,) = args
    if not _are_sizes(sizes) or len(sizes) > MAX_DIMS:
        raise BrokenPickleError("no sizes")
    return tuple(sizes)


def _make_device(args: tuple[Any, ...], _budget: Budget) -> Ignored:
    if not all(type(part) in (str, int) for part in args):
        raise BrokenPickleError("no device")
    return Ignored()


def _make_complex(args: tuple[Any, ...], _budget: Budget) -> complex:
    if not all(type(part) is float for part in args):
        raise BrokenPickleError("no complex number")
    return complex(*args)


def _make_bytearray(args: tuple[Any, ...], budget: Budget) -> bytes:
    if not args or type(args[0]) is bytes:
        budget.copy(sum(map(len, args[:1])))
        return args[0] if args else b""
    return make_bytes(args, budget)


def _make_set(args: tuple[Any, ...], budget: Budget) -> Ignored:
    items = args[0] if args else []
    if type(items) is not list:
        raise BrokenPickleError("no set")
    budget.spend(len(items) * 96)
    for item in items:
        check_key(item)
    return Ignored()


def _make_counter(args: tuple[Any, ...], budget: Budget) -> Any:
    if args and not isinstance(args[0], dict):
        raise BrokenPickleError("no counter")
    return make_dict(args, budget)


def _name_of(tensor: _Tensor, content: Any) -> str:
    """Return the name of a tensor in nested dictionaries and lists."""
    waiting, seen = [(content, "")], set()
    while waiting:
        value, name = waiting.pop()
        if value is tensor:
            return quoted(name)
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            start = f"{name}." if name else ""
            waiting += [(part, f"{start}{key}") for key, part in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(part, name) for part in value]
    return "a tensor"
