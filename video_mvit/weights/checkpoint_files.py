"""Read and write weight files; the meaning of their tensors is in `key_formats.py`.

Nothing in a file is ever executed: PyTorch files are checked (`torch_files.py`) and read with
`weights_only=True`, plain pickles by an interpreter that knows arrays alone (`arrays.py`), and no
configuration inside is used. Our own files carry a hash of their tensors, which is verified.
"""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from video_mvit.errors import MissingFileError, UserError
from video_mvit.files import check_room, replace_atomically
from video_mvit.renamed import CHECKPOINT_KEYS, rename_keys
from video_mvit.weights.adapters import merge_adapters, plain_names, read_record
from video_mvit.weights.arrays import read_arrays
from video_mvit.weights.card_schema import MAX_CARD_BYTES, check_class_names, read_json
from video_mvit.weights.model_card import FORMAT, ModelCard, card_of, read_card_and_hash
from video_mvit.weights.networks import (
    FindPrefixes,
    Network,
    check_choice,
    choice_in_words,
    choose_network,
    find_networks,
    mvitv2_prefixes,
    others_in_words,
    state_dicts,
)
from video_mvit.weights.other_files import (
    describe_address,
    describe_folder,
    describe_other_file,
    describe_zip,
)
from video_mvit.weights.pickle_limits import BrokenPickleError, RefusedPickleError, quoted
from video_mvit.weights.torch_files import DAMAGE, LEGACY, ZIP, as_user_error, read_torch_file

PICKLES = (b"\x80", b"}q")  # of protocol 2 and above, and a dictionary of protocol 1
MAX_HEADER_BYTES = 16 * 2**20  # of safetensors: a hundred thousand tensors
HASH = "weights_sha1"  # in the header of our safetensors files
ADAPTER_FORMAT = (
    "video_mvit adapter 1"  # the kind in the header of an adapter file, and of its card
)
OF_FOLDERS = ("model.safetensors", "pytorch_model.bin")  # as hubs name them
UNCHECKED = "%s is a %s without checksums: damage to its numbers would not be found"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """The tensors of a network, under the names that its library gives them.

    Attributes:
        container: kind of file, in words.
        prefix: of the names in the file, which is left out here.
        notes: what was chosen or left out, each to be told in a line that begins with the path.
        others: names of tensors that are not of the network.
    """

    path: str
    container: str
    state: Mapping[str, Tensor]
    prefix: str = ""
    card: ModelCard | None = None
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def read_weight_file(
    path: str | Path, weights: str = "ema", find_prefixes: FindPrefixes = mvitv2_prefixes
) -> WeightFile:
    """Read any weight file, or `model.safetensors` of a folder.

    Of a file with several networks, `weights` selects "ema", "raw", or one by the name of its
    container or prefix. `find_prefixes` finds the networks among names. Raises `FileNotFoundError`,
    or `UserError` that says what the file is instead.
    """
    check_choice(weights)
    path = weight_file_at(path)
    if not path.is_file():
        raise MissingFileError(f"no weight file {path}")
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise UserError(f"{path} is empty; copy or download it again")
    if start[8:9] == b"{" and _header_length(start) <= path.stat().st_size:
        # First: its length can look like any magic number.
        return _load_safetensors(path, start, weights, find_prefixes)
    if start.startswith(ZIP) and (what := describe_zip(path)):
        raise UserError(f"{path} {what}")
    if start.startswith((ZIP, LEGACY)):
        content = read_torch_file(path, ignore_settings=True)
    elif start.startswith(PICKLES):
        content = _load_arrays(path)
    elif path.suffix == ".safetensors":
        return _load_safetensors(path, start, weights, find_prefixes)
    else:
        raise UserError(f"{path} {describe_other_file(path, start)}")
    return _from_content(path, content, weights, find_prefixes)


def weight_file_at(path: str | Path) -> Path:
    """Return the path of a weight file that a user names: in the folder there, if it is one.

    Raises `UserError` for an address, and for a folder without one certain file.
    """
    if what := describe_address(str(path)):
        raise UserError(f"{path} {what}")
    place = Path(os.path.expanduser(path))  # which keeps ~ where there is no home
    if place.is_dir():
        found = [place / name for name in OF_FOLDERS if (place / name).is_file()]
        if not found:
            raise UserError(f"{place} {describe_folder(place)}")
        place = found[0]
    return place


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


def _load_safetensors(
    path: Path, start: bytes, weights: str, find_prefixes: FindPrefixes
) -> WeightFile:
    if len(start) < 8 or _header_length(start) > min(MAX_HEADER_BYTES, path.stat().st_size):
        raise UserError(f"{path} {describe_other_file(path, start)}")
    try:
        with safe_open(path, framework="pt") as tensors:
            metadata = tensors.metadata() or {}
            state = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, *DAMAGE):
        raise UserError(f"{path} is damaged or truncated; copy or download it again") from None
    if metadata.get("kind") == ADAPTER_FORMAT:
        raise UserError(
            f"{path} is an adapter, and this needs whole weights; video-mvit convert "
            "writes them, with base=... the weights that it was trained on"
        )
    card, expected = _card_beside(path)
    _check_hashes(path, state, metadata.get(HASH), expected)
    if card is None:
        file = _from_content(path, state, weights, find_prefixes)
        container = file.container.replace("PyTorch state dict", "safetensors file")
        return replace(file, container=container)
    return WeightFile(
        path=str(path),
        container="exported model",
        state=state,
        card=card,
        class_names=card.class_names,
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


def _from_content(
    path: Path, content: Any, weights: str, find_prefixes: FindPrefixes
) -> WeightFile:
    if not isinstance(content, Mapping | list | tuple):
        raise UserError(f"{path} contains a {type(content).__name__}, expected named tensors")
    if isinstance(content, Mapping) and {"state_dict", "class_names", "card"} <= set(content):
        return _training_checkpoint(path, content, weights)
    if networks := find_networks(content, find_prefixes):
        chosen = choose_network(networks, weights, str(path))
        notes = [choice_in_words(networks, chosen), others_in_words(chosen)]
    else:
        chosen, notes = _largest(path, content), []
    container = "SlowFast checkpoint" if "model_state" in chosen.keys else "PyTorch checkpoint"
    container = container if chosen.keys else "PyTorch state dict"
    below = f", names below {quoted(chosen.prefix)}" if chosen.prefix else ""
    state = {name: _tensor(path, name, value) for name, value in chosen.state.items()}
    return WeightFile(
        path=str(path),
        container=container + (", EMA weights" if chosen.kind == "ema" else "") + below,
        state=state,
        prefix=chosen.prefix,
        class_names=_class_names(path, content),
        notes=tuple(filter(None, notes)),
        others=chosen.others,
    )


def _largest(path: Path, content: Mapping[Any, Any] | Sequence[Any]) -> Network:
    """Return the tensors of a file without a network of the kind that is wanted."""
    found = list(state_dicts(content))
    if not found:
        if not isinstance(content, Mapping):
            kind = type(content).__name__
            raise UserError(
                f"{path} contains a {kind} without named tensors; save model.state_dict() instead"
            )
        names = ", ".join(map(quoted, list(content)[:3])) or "nothing"
        raise UserError(
            f"{path} contains no named tensors, only {names}; pass the file of the weights"
        )
    keys, tree = max(found, key=lambda each: len(each[1]))
    return Network(keys=keys, prefix="", state=tree)


def _class_names(path: Path, content: Any) -> tuple[str, ...] | None:
    """Return the class names that other checkpoints of ours have, or None."""
    names = content.get("class_names") if isinstance(content, Mapping) else None
    if not names or not isinstance(names, list | tuple) or "state_dict" not in content:
        return None
    check_class_names(names, str(path))
    return tuple(names)


def _tensor(path: Path, name: str, value: Any) -> Tensor:
    """Return a tensor as it is, an array or number as a copy in the byte order of this machine."""
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    try:
        return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))
    except TypeError:
        raise UserError(
            f"{path}: {quoted(name)} is an array of {array.dtype}, not of numbers"
        ) from None


def _training_checkpoint(path: Path, content: Mapping[str, Any], weights: str) -> WeightFile:
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
    if weights not in ("ema", "raw"):
        raise UserError(f"{path} has no network {weights!r}; weights=ema or weights=raw")
    container, ema = "training checkpoint", content.get("ema")
    if weights == "ema" and isinstance(ema, Mapping):
        container, tensors = "training checkpoint, EMA weights", _named_tensors(path, ema)
    if content.get("adapter") is not None:
        record = read_record(content["adapter"], str(path))
        tensors = merge_adapters(plain_names(tensors), record.alpha, str(path))
        container += ", adapters merged"
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


def weights_sha1(state: Mapping[str, Tensor]) -> str:
    """Hash names, types, shapes and values of weights, independent of the file."""
    digest = hashlib.sha1(usedforsecurity=False)
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return str(digest.hexdigest())
