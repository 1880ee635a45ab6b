"""Merge low-rank adapters into plain weights, and what a training notes of them.

An adapted layer W computes with W + alpha / rank x B A. Names and numbers are checked: both come
from files.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from video_mvit.errors import UserError
from video_mvit.weights.card_schema import Check, check_fields, listed, number, text, word
from video_mvit.weights.pickle_limits import quoted

A, B = "lora_A", "lora_B"  # (rank, in) and (out, rank)
FACTORS = (f".{A}", f".{B}")
# Names in a network that peft has changed -> ours.
OF_PEFT = re.compile(r"(.*)\.(?:base_layer\.(weight|bias)|(lora_[AB])\.default\.weight)")
RECORD: Mapping[str, Check] = {  # of a training, in its checkpoints
    "alpha": number(0, 1e6, above=True),
    "base_sha1": word,
    "base": word,
    "own": listed(text, 0, 100_000),
}


@dataclass(frozen=True, kw_only=True)
class AdapterRecord:
    """What the adapters of a training belong to.

    Attributes:
        alpha: an adapter of rank r adds alpha / r times its product.
        base_sha1: digest of the base weights, without the tensors of `own`.
        base: name of published weights, if the base is such.
        own: names of tensors that the adapted network has instead of the base's.
    """

    alpha: float
    base_sha1: str
    base: str | None
    own: tuple[str, ...]


def read_record(content: object, where: str) -> AdapterRecord:
    """Check and return the record in a checkpoint or a card; raises `UserError`."""
    is_said = isinstance(content, Mapping) and None not in map(content.get, ("alpha", "base_sha1"))
    if not isinstance(content, Mapping) or not is_said:
        raise UserError(f"{where} does not say what its adapters belong to")
    check_fields(content, RECORD, where, strict=False)
    return AdapterRecord(
        alpha=float(content["alpha"]),
        base_sha1=content["base_sha1"],
        base=content.get("base"),
        own=tuple(content.get("own") or ()),
    )


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of a network with peft's layers under our names."""
    found = {}
    for name, tensor in state.items():
        match = OF_PEFT.fullmatch(name)
        found[f"{match[1]}.{match[2] or match[3]}" if match else name] = tensor
    return found


def merge_adapters(state: Mapping[str, Tensor], alpha: float, where: str) -> dict[str, Tensor]:
    """Return plain weights: each adapted layer's W + alpha / rank x B A, in float32.

    Raises `UserError` where factors do not fit their layer.
    """
    merged = {name: tensor for name, tensor in state.items() if not name.endswith(FACTORS)}
    layers = dict.fromkeys(name.rpartition(".")[0] for name in state if name.endswith(FACTORS))
    for layer in layers:
        a, b, weight = (state.get(f"{layer}.{part}") for part in (A, B, "weight"))
        if a is None or b is None or weight is None or not _fit(a, b, weight):
            raise UserError(f"{where}: the adapter of {quoted(layer)} does not fit a layer there")
        merged[f"{layer}.weight"] = weight.float() + alpha / len(a) * (b.float() @ a.float())
    return merged


def _fit(a: Tensor, b: Tensor, weight: Tensor) -> bool:
    are_real = all(each.is_floating_point() and each.ndim == 2 for each in (a, b, weight))
    return are_real and 0 < len(a) == b.shape[1] and (len(b), a.shape[1]) == tuple(weight.shape)
