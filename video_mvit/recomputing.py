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
    if not recomputes():
        return function(*args)
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)


def recomputes() -> bool:
    """Whether `recompute` does so here."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()
