"""Read and write weight files; the meaning of their tensors is in `key_formats.py`.

Nothing in a file is ever executed: PyTorch files are checked (`torch_files.py`) and read with
`weights_only=True`, plain pickles by an interpreter that knows arrays alone (`arrays.py`), and no
configuration inside is used. Our own files carry a hash of their tensors, which is verified.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from video_mvit.errors import MissingFileError, UserError
from video_mvit.files import check_room, replace_atomically
from video_mvit.renamed import CHECKPOINT_KEYS, rename_keys
from video_mvit.weights.arrays import read_arrays
from video_mvit.weights.card_schema import MAX_CARD_BYTES, check_class_names, read_json
from video_mvit.weights.model_card import FORMAT, ModelCard, card_of, read_card_and_hash
from video_mvit.weights.pickle_limits import BrokenPickleError, RefusedPickleError, quoted
from video_mvit.weights.torch_files import DAMAGE, LEGACY, ZIP, as_user_error, read_torch_file

PICKLE = b"\x80"
MAX_HEADER_BYTES = 16 * 2**20  # of safetensors: a hundred thousand tensors
HASH = "weights_sha1"  # in the header of our safetensors files
# Key of the tensors in a checkpoint, and the kind of file.
PLACES = {
    "model_state": "SlowFast checkpoint",
    "state_dict": "PyTorch checkpoint",
    "model": "PyTorch checkpoint",
    "model_state_dict": "PyTorch checkpoint",
}
UNCHECKED = "%s is a %s without checksums: damage to its numbers would not be found"
logger = logging.getLogger(__name__)
Which = Literal["ema", "raw"]  # of a checkpoint that has an EMA of its weights


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
    if start.startswith((ZIP, LEGACY)):
        return _from_content(path, read_torch_file(path, ignore_settings=True), weights)
    if start.startswith(PICKLE):
        return _from_content(path, _load_arrays(path), weights)
    if path.suffix == ".safetensors":
        return _load_safetensors(path, start)
    raise UserError(f"{path} {_what_else(start)}")


def write_safetensors(path: Path, state: Mapping[str, Tensor], card: ModelCard | None) -> None:
    """Write tensors and their card as NAME.json, replacing old files only on success.

    Both carry the hash of the tensors.
    """
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    digest = weights_sha1(tensors)
    with replace_atomically(path) as temporary:
        check_room(path.parent, sum(tensor.nbytes for tensor in tensors.values()))
        save_file(tensors, temporary, metadata={"format": "pt", HASH: digest})
    if card is not None:
        with replace_atomically(path.with_suffix(".json")) as temporary:
            card.write(temporary, digest)


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a PyTorch file, replacing an old one only on success."""
    with replace_atomically(path) as temporary, temporary.open("wb") as file:
        torch.save(dict(content), file)


def _load_arrays(path: Path) -> Any:
    try:
        arrays = read_arrays(path)
    except (RefusedPickleError, BrokenPickleError, *DAMAGE) as error:
        raise as_user_error(path, error) from None
    logger.info(UNCHECKED, path, "pickle")
    return arrays


def _load_safetensors(path: Path, start: bytes) -> WeightFile:
    if len(start) < 8 or _header_length(start) > min(MAX_HEADER_BYTES, path.stat().st_size):
        raise UserError(f"{path} {_what_else(start)}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, *DAMAGE):
        raise UserError(f"{path} is damaged or truncated; copy or download it again") from None
    card, expected = _card_beside(path)
    _check_hashes(path, state, metadata.get(HASH), expected)
    return WeightFile(
        path=str(path),
        container="exported model" if card else "safetensors file",
        state=state,
        card=card,
        class_names=card.class_names if card else None,
    )


def _header_length(start: bytes) -> int:
    return int.from_bytes(start[:8], "little")


def _check_hashes(
    path: Path, state: Mapping[str, Tensor], own: str | None, of_card: str | None
) -> None:
    """Compare the tensors with the hashes in their header and in the card, where there are any."""
    if own is None and of_card is None:
        logger.info(UNCHECKED, path, "safetensors file")
        return
    found = weights_sha1(state)
    if own is not None and own != found:
        raise UserError(
            f"{path} is damaged: its weights are not those that were written; copy or download it "
            "again"
        )
    if of_card is not None and of_card != found:
        raise UserError(
            f"{path.with_suffix('.json')} is the card of other weights than those in {path.name}; "
            "copy or download both again"
        )


def _card_beside(path: Path) -> tuple[ModelCard | None, str | None]:
    """Read our card NAME.json and the hash in it; other JSON files are ignored."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return None, None
    with beside.open("rb") as file:
        text = file.read(MAX_CARD_BYTES + 1).decode(errors="replace")
    if f'"{FORMAT}"' not in text[:100] and not _is_card(text):
        return None, None
    if beside.stat().st_size > MAX_CARD_BYTES:
        raise UserError(f"{beside} is too large for a model card")
    return read_card_and_hash(text, str(beside))


def _is_card(text: str) -> bool:
    """Return whether a text is our card, its format not first."""
    try:
        content = read_json(text, "")
    except UserError:
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


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
        names = ", ".join(map(quoted, list(state)[:3]))
        raise UserError(f"{path} contains no named tensors, only {names or 'nothing'}")
    if all(name.startswith("module.") for name in tensors):  # saved through DataParallel
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return WeightFile(path=str(path), container=container, state=tensors)


def _tensor(path: Path, name: str, array: np.ndarray[Any, Any]) -> Tensor:
    """Return a copy of an array, in the byte order of this machine."""
    try:
        return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))
    except TypeError:
        raise UserError(
            f"{path}: {quoted(name)} is an array of {array.dtype}, not of numbers"
        ) from None


def _training_checkpoint(path: Path, content: Mapping[str, Any], weights: Which) -> WeightFile:
    """Read a checkpoint of video-mvit train: the network is the trainer's module "model"."""
    content = rename_keys(content, CHECKPOINT_KEYS)
    state, names = content["state_dict"], content["class_names"]
    if not isinstance(state, Mapping) or not isinstance(names, list | tuple):
        raise UserError(f"{path} is not a checkpoint of video-mvit train")
    check_class_names(names, str(path))
    card = None
    if isinstance(content.get("card"), Mapping) and content["card"]:
        card = card_of(content["card"], f"the card in {path}")
    tensors = {
        name.removeprefix("model."): tensor
        for name, tensor in _named_tensors(path, state).items()
        if name.startswith("model.")
    }
    container, ema = "training checkpoint", content.get("ema")
    if weights == "ema" and isinstance(ema, Mapping):
        container, tensors = "training checkpoint, EMA weights", _named_tensors(path, ema)
    return WeightFile(
        path=str(path),
        container=container,
        state=tensors,
        card=card,
        class_names=tuple(names) or None,
    )


def _named_tensors(path: Path, state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return a state dict; raises `UserError` if it holds anything else than tensors."""
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(f"{path}: {quoted(name)} is not a tensor")
    return dict(state)


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
