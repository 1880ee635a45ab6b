"""Read and write weight files; the meaning of their tensors is in `key_formats.py`.

Nothing in a file is ever executed: PyTorch files are read with `weights_only=True`, plain pickles
by an unpickler that only accepts arrays, and no configuration inside is used.
"""

import hashlib
import io
import json
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from video_mvit.errors import MissingFileError, UserError
from video_mvit.files import replace_atomically
from video_mvit.renamed import CHECKPOINT_KEYS, rename_card, rename_keys
from video_mvit.weights.model_card import FORMAT, ModelCard, read_card

ZIP = b"PK\x03\x04"
LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # PyTorch before 1.6
PICKLE = b"\x80"
MAX_HEADER_BYTES = 100_000_000  # limit of the safetensors library
# Key of the tensors in a checkpoint, and the kind of file.
PLACES = {
    "model_state": "SlowFast checkpoint",
    "state_dict": "PyTorch checkpoint",
    "model": "PyTorch checkpoint",
    "model_state_dict": "PyTorch checkpoint",
}
Which = Literal["ema", "raw"]  # of a checkpoint that has an EMA of its weights
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
REFUSAL = re.compile(r"(?:Unsupported global:|unsupported) GLOBAL ([\w.]*\w)")
BUILTINS = ("builtins", "__builtin__")
ARRAY_PARTS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("collections", "OrderedDict"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),
}


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """Tensors under the names of the file; `container` describes the kind of file."""

    path: str
    container: str
    state: Mapping[str, Tensor]
    card: ModelCard | None = None
    class_names: tuple[str, ...] | None = None


def read_weight_file(path: str | Path, weights: Which = "ema") -> WeightFile:
    """Read any weight file, or `model.safetensors` of a folder.

    Of a training checkpoint with both, `weights` selects EMA or raw. Raises `FileNotFoundError`, or
    `UserError` that says what the file is instead.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / "model.safetensors").is_file():
            raise UserError(f"{path} is a folder without model.safetensors; pass the weight file")
        path = path / "model.safetensors"
    if not path.is_file():
        raise MissingFileError(f"no weight file {path}")
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise UserError(f"{path} is empty; copy or download it again")
    if start[8:9] == b"{" and _header_length(start) <= path.stat().st_size:
        return _load_safetensors(path, start)  # first: its length can look like any magic number
    if start.startswith(ZIP) or start.startswith(LEGACY_TORCH):
        return _from_content(path, _load_torch(path), weights)
    if start.startswith(PICKLE):
        return _from_content(path, _load_arrays(path), weights)
    if path.suffix == ".safetensors":
        return _load_safetensors(path, start)
    raise UserError(f"{path} {_what_else(start)}")


def write_safetensors(path: Path, state: Mapping[str, Tensor], card: ModelCard | None) -> None:
    """Write tensors and their card as NAME.json, replacing old files only on success."""
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    with replace_atomically(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    if card is not None:
        with replace_atomically(path.with_suffix(".json")) as temporary:
            card.write(temporary)


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a PyTorch file, replacing an old one only on success."""
    with replace_atomically(path) as temporary:
        torch.save(dict(content), temporary)


def _load_torch(path: Path) -> Any:
    def load() -> Any:
        stubs: list[Any] = [(stub, ".".join(each)) for each, stub in SETTINGS.items()]
        with torch.serialization.safe_globals(stubs):
            return torch.load(path, map_location="cpu", weights_only=True)

    return _read(path, load)


def _load_arrays(path: Path) -> Any:
    return _read(path, lambda: _ArrayUnpickler(io.BytesIO(path.read_bytes())).load())


def _read(path: Path, load: Callable[[], Any]) -> Any:
    """Load a file; distinguishes damage from code in the error."""
    try:
        return load()
    except DAMAGE as error:
        if wanted := REFUSAL.search(str(error)):
            raise UserError(
                f"{path} is refused: it would run {wanted[1]}; if you trust it, save its tensors "
                "alone and load that file"
            ) from None
        raise UserError(
            f"{path} is damaged or truncated ({path.stat().st_size:,} bytes); copy or download it "
            "again"
        ) from None


class _Ignored:
    """Stands in for an object of settings, and drops whatever it was saved with."""

    def __new__(cls, *_: Any) -> "_Ignored":
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _empty_dict(*_: Any) -> OrderedDict[Any, Any]:
    return OrderedDict()


# Classes of settings that trainers save beside tensors -> what is made instead. Nothing of them is
# used, and nothing else may stand in a file: PyTorch fills exact dictionaries only.
SETTINGS: Mapping[tuple[str, str], Any] = {
    ("argparse", "Namespace"): _Ignored,
    ("collections", "defaultdict"): _empty_dict,
    ("detectron2.config.config", "CfgNode"): OrderedDict,
    ("fvcore.common.config", "CfgNode"): OrderedDict,
    ("omegaconf.base", "ContainerMetadata"): _Ignored,
    ("omegaconf.base", "Metadata"): _Ignored,
    ("omegaconf.dictconfig", "DictConfig"): _Ignored,
    ("omegaconf.listconfig", "ListConfig"): _Ignored,
    ("omegaconf.nodes", "AnyNode"): _Ignored,
    ("typing", "Any"): _Ignored,
    ("yacs.config", "CfgNode"): OrderedDict,
    **{(module, kind): _Ignored for module in BUILTINS for kind in ("dict", "list", "int")},
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickle arrays and plain containers only; anything else is refused before its import."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ARRAY_PARTS:
            return super().find_class(module, name)
        if (module, name) in SETTINGS:
            return SETTINGS[module, name]
        raise pickle.UnpicklingError(f"Unsupported global: GLOBAL {module}.{name}")


def _load_safetensors(path: Path, start: bytes) -> WeightFile:
    if len(start) < 8 or _header_length(start) > min(MAX_HEADER_BYTES, path.stat().st_size):
        raise UserError(f"{path} {_what_else(start)}")
    try:
        state = load_file(path)
    except (SafetensorError, *DAMAGE):
        raise UserError(f"{path} is damaged or truncated; copy or download it again") from None
    card = _card_beside(path)
    return WeightFile(
        path=str(path),
        container="exported model" if card else "safetensors file",
        state=state,
        card=card,
        class_names=card.class_names if card else None,
    )


def _header_length(start: bytes) -> int:
    return int.from_bytes(start[:8], "little")


def _card_beside(path: Path) -> ModelCard | None:
    """Read our card NAME.json; other JSON files are ignored."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return None
    text = beside.read_text(encoding="utf-8", errors="replace")
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        content = None
    is_ours = f'"{FORMAT}"' in text[:100]
    if not is_ours and not (isinstance(content, dict) and content.get("format") == FORMAT):
        return None
    return read_card(text, str(beside))


def _from_content(path: Path, content: Any, weights: Which) -> WeightFile:
    if not isinstance(content, Mapping):
        raise UserError(f"{path} contains a {type(content).__name__}, expected named tensors")
    if {"state_dict", "class_names"} <= set(content):
        return _training_checkpoint(path, content, weights)
    container, state = "PyTorch state dict", content
    for place, what in PLACES.items():
        if isinstance(content.get(place), Mapping):
            container, state = what, content[place]
            break
    tensors = {}
    for name, value in state.items():
        if isinstance(value, np.number):  # a counter of batch norm
            value = np.asarray(value)
        if isinstance(name, str) and isinstance(value, Tensor | np.ndarray):
            tensors[name] = value if isinstance(value, Tensor) else _tensor(path, name, value)
    if not tensors:
        names = ", ".join(map(str, list(state)[:3]))
        raise UserError(f"{path} contains no named tensors, only {names or 'nothing'}")
    if all(name.startswith("module.") for name in tensors):  # saved through DataParallel
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return WeightFile(path=str(path), container=container, state=tensors)


def _tensor(path: Path, name: str, array: np.ndarray[Any, Any]) -> Tensor:
    try:
        return torch.from_numpy(np.array(array))
    except TypeError:
        raise UserError(f"{path}: {name} is an array of {array.dtype}, not of numbers") from None


def _training_checkpoint(path: Path, content: Mapping[str, Any], weights: Which) -> WeightFile:
    """Read a checkpoint of video-mvit train: the network is the trainer's module "model"."""
    content = rename_keys(content, CHECKPOINT_KEYS)
    state, names = content["state_dict"], content["class_names"]
    if not isinstance(state, Mapping) or not isinstance(names, list | tuple):
        raise UserError(f"{path} is not a checkpoint of video-mvit train")
    card = None
    if isinstance(content.get("card"), Mapping) and content["card"]:
        known = {field.name for field in fields(ModelCard)}
        card_fields = rename_card(content["card"]).items()
        values = {name: value for name, value in card_fields if name in known}
        card = ModelCard(**values)
    tensors = {
        name.removeprefix("model."): tensor
        for name, tensor in state.items()
        if name.startswith("model.")
    }
    container, ema = "training checkpoint", content.get("ema")
    if weights == "ema" and isinstance(ema, Mapping):
        container, tensors = "training checkpoint, EMA weights", dict(ema)
    return WeightFile(
        path=str(path),
        container=container,
        state=tensors,
        card=card,
        class_names=tuple(map(str, names)) or None,
    )


def _what_else(start: bytes) -> str:
    """Describe a file without weights, and what to do."""
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself; git lfs pull fetches it"
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not weights; the download went wrong"
    if b"\0" not in start and all(byte >= 32 or byte in b"\t\n\r\f" for byte in start):
        return "is a text file, not weights"
    return "is not a supported weight file (PyTorch, safetensors), or is damaged"


def weights_sha1(state: Mapping[str, Tensor]) -> str:
    """Hash names, types, shapes and values of weights, independent of the file."""
    digest = hashlib.sha1(usedforsecurity=False)
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return str(digest.hexdigest())
