"""Activation checkpointing: which activations are kept for the backward pass.

`none` keeps all of them; `light` keeps attention, pooling and matrix products, and computes the
rest again; `selective` keeps neither pooling nor the widest products; `full` keeps only what enters
the attention and the MLP of each block.
It is PyTorch's own checkpointing, with its limits: hooks inside a block fire again in the backward
pass, and function transforms (`torch.func.grad`) work with `none` only.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from video_mvit import kernels
from video_mvit.models.config import MLP_RATIO
from video_mvit.models.config import Checkpointing as Checkpointing

MODES: tuple[Checkpointing, ...] = get_args(Checkpointing)
ATTENTION = ("scaled_dot_product", "blocked_attention")
POOLING = ("convolution", "pooled_tokens")
# Operators of linear layers -> output and input channels, from their arguments.
PRODUCTS: dict[str, Callable[..., tuple[int, int]]] = {
    "aten::addmm": lambda _bias, _rows, weight, **_: (weight.shape[1], weight.shape[0]),
    "aten::mm": lambda _rows, weight, **_: (weight.shape[1], weight.shape[0]),
    "aten::mkldnn_convolution": lambda _image, weight, *_, **__: tuple(weight.shape[:2]),
}


def run(function: Callable[[Tensor], Tensor], x: Tensor, mode: Checkpointing) -> Tensor:
    """Apply part of a block to tokens, keeping for the backward pass what `mode` says."""
    if mode == "none" or not torch.is_grad_enabled():
        return _run(function, x)
    options: dict[str, Any] = {}
    if mode in KEEPS:
        policy = partial(_policy, KEEPS[mode])
        options["context_fn"] = partial(create_selective_checkpoint_contexts, policy)
    return checkpoint(_run, function, x, use_reentrant=False, **options)  # type: ignore[no-any-return]


def _run(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with kernels.fast_linear(x):
        return function(x)


def _policy(
    keeps: Callable[..., bool], _: object, operator: Any, *args: Any, **__: Any
) -> CheckpointPolicy:
    is_kept = keeps(operator.name(), *args)
    return CheckpointPolicy.MUST_SAVE if is_kept else CheckpointPolicy.PREFER_RECOMPUTE


def _is_costly(operator: str, *_: Any) -> bool:
    """Return whether an operator is attention, pooling, another convolution, or a product."""
    return operator in PRODUCTS or any(each in operator for each in (*ATTENTION, *POOLING))


def _is_costly_and_narrow(operator: str, *args: Any) -> bool:
    """Return whether it is attention, or a product that widens tokens less than that of an MLP."""
    if operator in PRODUCTS:
        num_out, num_in = PRODUCTS[operator](*args)
        return num_out < MLP_RATIO * num_in
    return any(each in operator for each in ATTENTION)


KEEPS: Mapping[Checkpointing, Callable[..., bool]] = {
    "light": _is_costly,
    "selective": _is_costly_and_narrow,
}
