"""Activation checkpointing: which activations are kept for the backward pass.

`none` keeps all of them; `selective` keeps attention and matrix products, except the widest one,
and computes the rest again; `full` keeps only what enters the attention and the MLP of each block.
It is PyTorch's own checkpointing, with its limits: hooks inside a block fire again in the backward
pass, and function transforms (`torch.func.grad`) work with `none` only.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from video_mvit import kernels
from video_mvit.models.config import MLP_RATIO

Checkpointing = Literal["none", "selective", "full"]
MODES: tuple[Checkpointing, ...] = ("none", "selective", "full")  # the fastest first
ATTENTION = ("scaled_dot_product", "blocked_attention")
# Operators of linear layers -> output and input channels, from their arguments.
PRODUCTS: dict[str, Callable[..., tuple[int, int]]] = {
    "aten::addmm": lambda _bias, _rows, weight, **_: (weight.shape[1], weight.shape[0]),
    "aten::mm": lambda _rows, weight, **_: (weight.shape[1], weight.shape[0]),
    "aten::mkldnn_convolution": lambda _image, weight, *_, **__: tuple(weight.shape[:2]),
}
POLICIES = (CheckpointPolicy.PREFER_RECOMPUTE, CheckpointPolicy.MUST_SAVE)


def run(function: Callable[[Tensor], Tensor], x: Tensor, mode: Checkpointing) -> Tensor:
    """Apply part of a block to tokens, keeping for the backward pass what `mode` says."""
    if mode == "none" or not torch.is_grad_enabled():
        return _run(function, x)
    options: dict[str, Any] = {}
    if mode == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    return checkpoint(_run, function, x, use_reentrant=False, **options)  # type: ignore[no-any-return]


def _run(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with kernels.fast_linear(x):
        return function(x)


def _policy(_: object, operator: Any, *args: Any, **__: Any) -> CheckpointPolicy:
    """Keep attention and products, except those that widen tokens the most: the first of an MLP."""
    name = operator.name()
    if any(each in name for each in ATTENTION):
        return CheckpointPolicy.MUST_SAVE
    if name in PRODUCTS:
        num_out, num_in = PRODUCTS[name](*args)
        return POLICIES[num_out < MLP_RATIO * num_in]
    return CheckpointPolicy.PREFER_RECOMPUTE
