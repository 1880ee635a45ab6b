"""Join queries with their relative position terms, and merge heads, on a GPU: two Triton kernels.

PyTorch concatenates such narrow parts at a fifth of the possible rate. Each program copies a few
rows.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from video_mvit.kernels.dispatch import on_device_of

ELEMENTS = 1024  # that a program copies
WARPS = 2


@triton.jit
def _copy(whole, part, column, first, size, is_row, row, SPLITS: tl.constexpr):
    """Between columns of `whole`, from `first` on, and rows of a part, `size` long."""
    is_there = is_row[:, None] & (column >= first)[None, :] & (column < first + size)[None, :]
    place = part + row.to(tl.int64)[:, None] * size + (column - first)[None, :]
    if SPLITS:
        tl.store(place, tl.load(whole, mask=is_there), mask=is_there)
    else:
        tl.store(whole, tl.load(place, mask=is_there), mask=is_there)


@triton.jit
def _join_kernel(
    whole, cls, grid, of_lines, of_columns, num_rows, H, N, num_cls, cls_rows, W,
    width: tl.constexpr, step_b, step_h, step_n, D: tl.constexpr, SL: tl.constexpr,
    SC: tl.constexpr, P: tl.constexpr, PW: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Parts into the whole, or the whole into parts."""
    row = tl.program_id(0) * P + tl.arange(0, P)
    column = tl.arange(0, PW)
    head, token = row // N, row % N
    is_row = row < num_rows
    is_grid = is_row & (token >= num_cls)
    place = head * (N - num_cls) + token - num_cls  # of the grid, that of all heads
    num_lines = num_rows // N * (N - num_cls) // W
    b, h = (head // H).to(tl.int64), (head % H).to(tl.int64)
    whole += (b * step_b + h * step_h + token.to(tl.int64) * step_n)[:, None] + column[None, :]
    if not SPLITS:
        is_there = is_row[:, None] & (column < width)[None, :]
        is_empty = (token < num_cls)[:, None] | (column >= D + SL + SC)[None, :]
        is_empty &= (column >= D)[None, :]
        tl.store(whole, tl.zeros((P, PW), dtype=tl.float32), mask=is_there & is_empty)
    is_cls = is_row & (token < num_cls)
    _copy(whole, cls, column, 0, D, is_cls, head * cls_rows + token, SPLITS)
    _copy(whole, grid, column, 0, D, is_grid, place, SPLITS)
    _copy(whole, of_lines, column, D, SL, is_grid, place, SPLITS)
    line = place % W * num_lines + place // W
    _copy(whole, of_columns, column, D + SL, SC, is_grid, line, SPLITS)


@triton.jit
def _merge_kernel(
    x, q, y, num_rows, H, N, num_cls, step_b, step_h, step_n, q_b, q_h, q_n,
    D: tl.constexpr, P: tl.constexpr, PD: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """y[b, n, h] = x[b, h, n] + (q[b, h, n] where n >= num_cls)."""
    row = tl.program_id(0) * P + tl.arange(0, P)
    d = tl.arange(0, PD)
    b, n, h = (row // (N * H)).to(tl.int64), row // H % N, row % H
    is_there = (row < num_rows)[:, None] & (d < D)[None, :]
    read = (b * step_b + h * step_h + n * step_n)[:, None] + d[None, :]
    total = tl.load(x + read, mask=is_there, other=0.0).to(SUM)
    read = (b * q_b + h * q_h + n * q_n)[:, None] + d[None, :]
    is_grid = (n >= num_cls)[:, None] & is_there
    total += tl.load(q + read, mask=is_grid, other=0.0).to(SUM)
    tl.store(y + row.to(tl.int64)[:, None] * D + d[None, :], total, mask=is_there)


def run_join(whole: Tensor, parts: Sequence[Tensor], *, splits: bool) -> None:
    """Copy parts, cls and grid of queries and their terms, into the whole, or back.

    Contiguous (B, h, num_cls or more, D), (B, h, T*H*W, D), of lines (B*h, T*H, W, size) and of
    columns (W, B*h*T*H, size) <-> (B, h, N, width).
    """
    cls, grid, of_lines, of_columns = parts
    if whole.stride(-1) != 1:
        whole = whole.contiguous()
    B, h, N, width = whole.shape
    num_rows, length = B * h * N, triton.next_power_of_2(width)
    rows = max(1, ELEMENTS // length)
    with on_device_of(whole):
        _join_kernel[(triton.cdiv(num_rows, rows),)](
            whole, cls, grid, of_lines, of_columns, num_rows, h, N, N - grid.shape[2],
            cls.shape[2], len(of_columns), width, *whole.stride()[:3], D=grid.shape[3],
            SL=of_lines.shape[-1], SC=of_columns.shape[-1], P=rows, PW=length, SPLITS=splits,
            num_warps=WARPS,
        )  # fmt: skip


def residual_merge(x: Tensor, q: Tensor, num_cls: int) -> Tensor:
    """As `plain.residual_merge`."""
    return _Merge.apply(x, q, num_cls)  # type: ignore[no-untyped-call]


class _Merge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, q: Tensor, num_cls: int) -> Tensor:
        x, q = (part if part.stride(-1) == 1 else part.contiguous() for part in (x, q))
        ctx.num_cls, ctx.num_heads, ctx.dtypes = num_cls, x.shape[1], (x.dtype, q.dtype)
        B, h, N, D = x.shape
        y = x.new_empty(B, N, h * D)
        length = triton.next_power_of_2(D)
        rows = max(1, ELEMENTS // length)
        total = tl.float64 if x.dtype == torch.float64 else tl.float32
        with on_device_of(x):
            _merge_kernel[(triton.cdiv(B * h * N, rows),)](
                x, q, y, B * h * N, h, N, num_cls, *x.stride()[:3], *q.stride()[:3],
                D=D, P=rows, PD=length, SUM=total, num_warps=WARPS,
            )  # fmt: skip
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad = grad.reshape(*grad.shape[:2], ctx.num_heads, -1).transpose(1, 2)  # (B, h, N, D)
        of_x, of_q = ctx.dtypes
        grad_q = grad.to(of_q)
        if ctx.num_cls:
            grad_q = grad_q.clone()
            grad_q[:, :, : ctx.num_cls] = 0
        return grad.to(of_x), grad_q, None
