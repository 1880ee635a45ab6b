"""Computing activations again in the backward pass instead of keeping them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recompute(function: Callable[..., Any], *args: Tensor) -> Any:
    """Apply a function whose inner activations are computed again in the backward pass, not kept.

    It must draw no random numbers. Recomputation stops once all that the backward pass needs is
    there: a trailing matrix product is not done twice. Parameters are read again in the backward
    pass, so that `torch.func.functional_call` gives wrong gradients. A compiler decides for itself
    what to recompute.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return function(*args)
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)


def recompute_if_cheap(function: Callable[..., Any], *args: Tensor) -> Any:
    """`recompute` what passes over memory and multiplies little, where that is cheap."""
    return recompute(function, *args) if is_cheap(args[0]) else function(*args)


def is_cheap(x: Tensor) -> bool:
    """On a CPU, where matrix products take most of the time; not on a GPU.

    There, passes over memory do: with them done again, a step of S takes 1.5 times as long on an
    H100 (`docs/benchmarks.md`).
    """
    is_compiling = torch.compiler.is_compiling()
    return x.device.type == "cpu" and torch.is_grad_enabled() and not is_compiling
