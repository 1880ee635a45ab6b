"""Drop path on a GPU: one Triton kernel, forward and backward."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from video_mvit.kernels.dispatch import on_device_of

ELEMENTS = 2048  # that a program copies
WARPS = 4


@triton.jit
def _drop_path_kernel(x, draws, y, length, keep, P: tl.constexpr, SUM: tl.constexpr):
    """y = x / keep in clips whose draw + keep, in the type of the draws, is at least 1; else 0."""
    clip = tl.program_id(1)
    draw = tl.load(draws + clip)
    kept = tl.floor((draw.to(SUM) + keep).to(draw.dtype).to(SUM))
    place = tl.program_id(0) * P + tl.arange(0, P)
    first = clip.to(tl.int64) * length
    values = tl.load(x + first + place, mask=place < length, other=0.0).to(SUM)
    tl.store(y + first + place, values / keep * kept, mask=place < length)


def drop_path(x: Tensor, draws: Tensor, drop_prob: float) -> Tensor:
    """As `plain.drop_path`: (B, ...) -> (B, ...)."""
    return _DropPath.apply(x, draws, 1 - drop_prob)  # type: ignore[no-untyped-call]


class _DropPath(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, draws: Tensor, keep: float) -> Tensor:
        ctx.save_for_backward(draws)
        ctx.keep = keep
        return _run(x, draws, keep)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (draws,) = ctx.saved_tensors
        of_draws = torch.zeros_like(draws) if ctx.needs_input_grad[1] else None
        return _run(grad, draws, ctx.keep), of_draws, None


def _run(x: Tensor, draws: Tensor, keep: float) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    length = x[0].numel()
    total = tl.float64 if x.dtype == torch.float64 else tl.float32
    with on_device_of(x):
        _drop_path_kernel[(triton.cdiv(length, ELEMENTS), len(x))](
            x, draws, y, length, keep, P=ELEMENTS, SUM=total, num_warps=WARPS
        )
    return y
