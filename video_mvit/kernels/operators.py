"""Register functions as operators of PyTorch, which compilers and checkpointing take whole."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("video_mvit", "FRAGMENT")  # type: ignore[no-untyped-call]


Function = Callable[..., Tensor | tuple[Tensor, ...]]


def operator(name: str, fake: Function) -> Callable[[Function], Any]:
    """Return a decorator that makes a function the operator `video_mvit::NAME`.

    The low-level way: `torch.library.custom_op` costs some 11 us more a call. The operator has no
    gradient (an `autograd.Function` calls it), and must not return a view of an argument.

    Args:
        name: of the operator, without the name of the library.
        fake: takes the same arguments; returns empty tensors of the shape, type and memory order.
    """

    def register(function: Function) -> Any:
        schema = torch.library.infer_schema(function, mutates_args=())
        tags = (torch.Tag.pt2_compliant_tag,)
        _LIBRARY.define(name + schema, tags=tags)  # type: ignore[no-untyped-call]
        for device in ("CPU", "CUDA"):
            _LIBRARY.impl(name, function, device)  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"video_mvit::{name}", fake, lib=_LIBRARY)
        return getattr(torch.ops.video_mvit, name).default

    return register
