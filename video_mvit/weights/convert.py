"""Write weight files for other libraries, and verify them by re-reading."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from video_mvit.errors import MissingFileError, UserError
from video_mvit.weights.checkpoint_files import write_checkpoint, write_safetensors
from video_mvit.weights.key_formats import KEY_FORMATS, OFFICIAL, matches, to_key_format
from video_mvit.weights.load import read_source, shortened
from video_mvit.weights.model_card import ModelCard
from video_mvit.weights.published_files import IMAGENET, VIDEO

LARGE_DIM = 144  # embed_dim of L


@dataclass(frozen=True, kw_only=True)
class Container:
    """File suffixes of a library, and the key of its tensors, if any."""

    suffixes: tuple[str, ...]
    place: str | None = None


CONTAINERS: Mapping[str, Container] = {
    "video_mvit": Container(suffixes=(".safetensors",)),
    "slowfast": Container(suffixes=(".pyth",), place="model_state"),
    "mvit": Container(suffixes=(".pyth",), place="model_state"),
    "torchvision": Container(suffixes=(".pth", ".pt")),
    "timm": Container(suffixes=(".safetensors", ".pth", ".bin")),
    "mmaction2": Container(suffixes=(".pth",), place="state_dict"),
    "detectron2": Container(suffixes=(".pth",), place="model"),
}


@dataclass(frozen=True, kw_only=True)
class KeyRow:
    """One line of a key table: names in both files, and the number of tensors."""

    source: str
    target: str | None
    num_tensors: int


def check_target(path: Path, key_format: str, *, overwrite: bool) -> None:
    """Raise `UserError` if a file of this key format cannot be written to this path."""
    if key_format not in CONTAINERS:
        raise UserError(f"format is {key_format!r}, expected one of {', '.join(CONTAINERS)}")
    suffixes = CONTAINERS[key_format].suffixes
    if path.suffix not in suffixes:
        raise UserError(f"{path} must end in {' or '.join(suffixes)} for {key_format} to read it")
    for present in (path, path.with_suffix(".json")):
        if present.exists() and not overwrite and (present == path or key_format == "video_mvit"):
            raise UserError(f"{present} exists; overwrite=true replaces it")
    if not path.parent.is_dir():
        raise MissingFileError(f"no folder {path.parent} to write {path.name} to")


def write_key_format(
    path: Path, official: Mapping[str, Tensor], key_format: str, card: ModelCard
) -> tuple[str, ...]:
    """Write a file that a library reads, and verify it by re-reading.

    Returns the official names that the library does not have (detectron2 has no head).

    Raises:
        UserError: if the library has no such network, the state has tensors that no MViTv2 has, or
            re-reading gives something else.
    """
    theirs, dropped = to_key_format(official, KEY_FORMATS[key_format])
    known = {name for template in OFFICIAL for name, _ in matches(template, official)}
    if strange := [name for name in official if name not in known]:
        raise UserError(f"no MViTv2 has {shortened(strange)}; nothing was written")
    if key_format == "video_mvit":
        write_safetensors(path, theirs, card)
    elif path.suffix == ".safetensors":
        write_safetensors(path, theirs, None)
    else:
        tensors = {name: tensor.detach().clone().contiguous() for name, tensor in theirs.items()}
        place = CONTAINERS[key_format].place
        write_checkpoint(path, {place: tensors} if place else tensors)
    read_back = read_source(path).state
    for name, tensor in read_back.items():
        if name not in official or not _same(tensor, official[name]):
            raise UserError(f"{path} was written, but {name} differs after re-reading")
    if lost := [name for name in official if name not in {*read_back, *dropped}]:
        raise UserError(f"{path} was written, but lacks {shortened(lost)} after re-reading")
    return dropped


def key_table(official: Mapping[str, Tensor], source: str, target: str) -> list[KeyRow]:
    """Compare the names of each kind of tensor in two formats; {} is block, weight or axis."""
    ours, theirs = KEY_FORMATS[source].table(), KEY_FORMATS[target].table()
    rows = []
    for template in OFFICIAL:
        num_tensors = len(list(matches(template, official)))
        if num_tensors:
            new = theirs.get(template)
            row = KeyRow(
                source=_plain(ours.get(template, template)),
                target=None if new is None else _plain(new),
                num_tensors=num_tensors,
            )
            rows.append(row)
    return rows


def published_normalization(
    architecture: Mapping[str, object],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and std of the recipes of published weights.

    Image models and video L used those of ImageNet, video S and B 0.45 and 0.225 (SlowFast
    `configs/Kinetics/MVITv2_L_40x3_test.yaml`, `config/defaults.py`).
    """
    is_large = architecture.get("embed_dim") == LARGE_DIM
    return IMAGENET if architecture.get("num_frames") == 1 or is_large else VIDEO


def _same(one: Tensor, other: Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.view(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def _plain(template: str) -> str:
    """Format a template: "stages.{s}.blocks.{j}.norm1.{p}" -> "stages.*.blocks.*.norm1.*"."""
    return re.sub(r"\{\w\}", "*", template)
