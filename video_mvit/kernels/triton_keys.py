"""Scale keys and append their positions on a GPU: a Triton kernel that reads and writes once."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from video_mvit.kernels.dispatch import on_device_of
from video_mvit.kernels.plain import round_up

ELEMENTS = 1024  # that a program writes
WARPS = 2


@triton.jit
def _keys_kernel(
    k, whole, num_rows, N, num_cls, H, W, width,
    D: tl.constexpr, ST: tl.constexpr, SH: tl.constexpr,
    P: tl.constexpr, PW: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """`ST` and `SH` are the columns of t, 0 for an image, and of h."""
    row = tl.program_id(0) * P + tl.arange(0, P)
    column = tl.arange(0, PW)
    is_row = row < num_rows
    place = row % N - num_cls
    is_key = is_row[:, None] & (column < D)[None, :]
    read = k + row.to(tl.int64)[:, None] * D + column[None, :]
    scale = 1 / tl.sqrt(tl.full((1, 1), D, SUM))
    values = tl.load(read, mask=is_key, other=0.0).to(SUM) * scale
    is_one = (column - D - ST)[None, :] == (place // W % H)[:, None]
    is_one |= (column - D - ST - SH)[None, :] == (place % W)[:, None]
    if ST > 0:
        is_one |= (column - D)[None, :] == (place // (H * W))[:, None]
    is_one &= (place >= 0)[:, None] & (column >= D)[None, :]
    values += tl.where(is_one, 1.0, 0.0)
    write = whole + row.to(tl.int64)[:, None] * width + column[None, :]
    tl.store(write, values, mask=is_row[:, None] & (column < width)[None, :])


def fold_keys(k: Tensor, sizes: tuple[int, ...], width: int, num_cls: int) -> Tensor:
    """As `plain.fold_keys`: (B, h, N, D) -> (B, h, N, width)."""
    return _FoldKeys.apply(k, sizes, width, num_cls)  # type: ignore[no-untyped-call]


class _FoldKeys(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, k: Tensor, sizes: tuple[int, ...], width: int, num_cls: int) -> Tensor:
        B, h, N, D = k.shape
        ctx.num_channels = D
        *of_t, of_h, _ = (round_up(size) for size in sizes)
        whole = k.new_empty(B, h, N, width)
        length = triton.next_power_of_2(width)
        rows = max(1, ELEMENTS // length)
        total = tl.float64 if k.dtype == torch.float64 else tl.float32
        with on_device_of(k):
            _keys_kernel[(triton.cdiv(B * h * N, rows),)](
                k.contiguous(), whole, B * h * N, N, num_cls, *sizes[-2:], width,
                D=D, ST=sum(of_t), SH=of_h,
                P=rows, PW=length, SUM=total, num_warps=WARPS,
            )  # fmt: skip
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad[..., : ctx.num_channels] * ctx.num_channels**-0.5, None, None, None
