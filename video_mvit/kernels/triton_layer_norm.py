"""Layer normalisation on a GPU, forward and backward: two Triton kernels.

Rows are read where they lie, heads that
lie side by side too, and written in the order of the shape. Statistics and sums are in float32
(float64 for float64).

Each program takes `ELEMENTS` at once. The gradients of weight and bias are summed in parts, each
always in the same order, so that they are the same in every run.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from video_mvit.kernels.dispatch import on_device_of

ELEMENTS = 4096  # that a program takes at once; or a row, where it is longer
NUM_PARTS = 512  # programs of the backward pass
WARPS = 8


@triton.jit
def _starts(row, H, N, step_b, step_h, step_n):
    """Where rows of a (B, H, N, D) tensor begin."""
    b, h, n = row // (H * N), row // N % H, row % N
    return b.to(tl.int64) * step_b + h.to(tl.int64) * step_h + n.to(tl.int64) * step_n


@triton.jit
def _forward_kernel(
    x, weight, bias, y, means, scales, num_rows, H, N, step_b, step_h, step_n, eps,
    D: tl.constexpr, PD: tl.constexpr, P: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * P + tl.arange(0, P)
    d = tl.arange(0, PD)
    is_row, is_d = row < num_rows, d < D
    is_there = is_row[:, None] & is_d[None, :]
    read = _starts(row, H, N, step_b, step_h, step_n)[:, None] + d[None, :]
    values = tl.load(x + read, mask=is_there, other=0.0).to(SUM)
    mean = tl.sum(values, axis=1) / D
    centred = tl.where(is_there, values - mean[:, None], 0.0)
    scale = 1 / tl.sqrt(tl.sum(centred * centred, axis=1) / D + eps)
    w = tl.load(weight + d, mask=is_d, other=0.0).to(SUM)
    b = tl.load(bias + d, mask=is_d, other=0.0).to(SUM)
    made = centred * scale[:, None] * w[None, :] + b[None, :]
    tl.store(y + row.to(tl.int64)[:, None] * D + d[None, :], made, mask=is_there)
    tl.store(means + row, mean, mask=is_row)
    tl.store(scales + row, scale, mask=is_row)


@triton.jit
def _backward_kernel(
    x, weight, grad, grad_x, parts, means, scales, num_rows, H, N, step_b, step_h, step_n,
    grad_b, grad_h, grad_n, made_b, made_h, made_n,
    D: tl.constexpr, PD: tl.constexpr, P: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    d = tl.arange(0, PD)
    is_d = d < D
    w = tl.load(weight + d, mask=is_d, other=0.0).to(SUM)
    of_weight = tl.zeros((P, PD), dtype=SUM)
    of_bias = tl.zeros((P, PD), dtype=SUM)
    for first in range(tl.program_id(0) * P, num_rows, tl.num_programs(0) * P):
        row = first + tl.arange(0, P)
        is_row = row < num_rows
        is_there = is_row[:, None] & is_d[None, :]
        read = _starts(row, H, N, step_b, step_h, step_n)[:, None] + d[None, :]
        values = tl.load(x + read, mask=is_there, other=0.0).to(SUM)
        read = _starts(row, H, N, grad_b, grad_h, grad_n)[:, None] + d[None, :]
        of_y = tl.load(grad + read, mask=is_there, other=0.0).to(SUM)
        mean = tl.load(means + row, mask=is_row, other=0.0)
        scale = tl.load(scales + row, mask=is_row, other=0.0)
        normal = tl.where(is_there, (values - mean[:, None]) * scale[:, None], 0.0)
        of_weight += of_y * normal
        of_bias += of_y
        of_normal = of_y * w[None, :]
        along = tl.sum(of_normal * normal, axis=1) / D
        of_x = of_normal - tl.sum(of_normal, axis=1)[:, None] / D - normal * along[:, None]
        write = _starts(row, H, N, made_b, made_h, made_n)[:, None] + d[None, :]
        tl.store(grad_x + write, of_x * scale[:, None], mask=is_there)
    place = parts + tl.program_id(0) * 2 * D + d
    tl.store(place, tl.sum(of_weight, axis=0), mask=is_d)
    tl.store(place + D, tl.sum(of_bias, axis=0), mask=is_d)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """(B, N, C) or (B, h, N, D), channels side by side -> the same shape, contiguous."""
    rows = x.unsqueeze(1) if x.ndim == 3 else x
    return _LayerNorm.apply(rows, weight, bias, eps).view(x.shape)  # type: ignore[no-untyped-call]


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        num_rows, sizes = y.numel() // y.shape[-1], _sizes(x)
        statistics = x.new_empty(2, num_rows, dtype=torch.promote_types(x.dtype, torch.float32))
        with on_device_of(x):
            _forward_kernel[(triton.cdiv(num_rows, sizes["P"]),)](
                x, weight, bias, y, *statistics, num_rows, *x.shape[1:3], *x.stride()[:3], eps,
                **sizes,
            )  # fmt: skip
        ctx.save_for_backward(x, weight, statistics)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, statistics = ctx.saved_tensors
        if grad.stride(-1) != 1:
            grad = grad.contiguous()
        grad_x = torch.empty_like(x)  # in the order of x
        num_rows, sizes = grad.numel() // grad.shape[-1], _sizes(x)
        num_parts = min(NUM_PARTS, triton.cdiv(num_rows, sizes["P"]))
        parts = statistics.new_empty(num_parts, 2, x.shape[-1])
        with on_device_of(x):
            _backward_kernel[(num_parts,)](
                x, weight, grad, grad_x, parts, *statistics, num_rows, *x.shape[1:3],
                *x.stride()[:3], *grad.stride()[:3], *grad_x.stride()[:3], **sizes,
            )  # fmt: skip
        grad_weight, grad_bias = parts.sum(0).to(weight.dtype)
        return grad_x, grad_weight, grad_bias, None


def _sizes(x: Tensor) -> dict[str, Any]:
    length = triton.next_power_of_2(x.shape[-1])
    total = tl.float64 if x.dtype == torch.float64 else tl.float32
    rows = max(1, ELEMENTS // length)
    return {"D": x.shape[-1], "PD": length, "P": rows, "SUM": total, "num_warps": WARPS}
