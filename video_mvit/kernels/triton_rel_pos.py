"""Append relative position terms to queries and merge heads on a GPU: two Triton kernels.

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
    whole, cls, grid, of_t, of_h, of_w, num_rows, N, num_cls, W, width: tl.constexpr,
    D: tl.constexpr, ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    P: tl.constexpr, PW: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Parts into the whole, or the whole into parts."""
    row = tl.program_id(0) * P + tl.arange(0, P)
    column = tl.arange(0, PW)
    head, token = row // N, row % N
    is_row = row < num_rows
    is_grid = is_row & (token >= num_cls)
    place = head * (N - num_cls) + token - num_cls  # of the grid, that of all heads
    num_lines = num_rows // N * (N - num_cls) // W
    whole += row.to(tl.int64)[:, None] * width + column[None, :]
    if not SPLITS:
        is_there = is_row[:, None] & (column < width)[None, :]
        is_empty = (token < num_cls)[:, None] | (column >= D + ST + SH + SW)[None, :]
        is_empty &= (column >= D)[None, :]
        tl.store(whole, tl.zeros((P, PW), dtype=tl.float32), mask=is_there & is_empty)
    is_cls = is_row & (token < num_cls)
    _copy(whole, cls, column, 0, D, is_cls, head * num_cls + token, SPLITS)
    _copy(whole, grid, column, 0, D, is_grid, place, SPLITS)
    _copy(whole, of_t, column, D, ST, is_grid, place, SPLITS)
    _copy(whole, of_h, column, D + ST, SH, is_grid, place, SPLITS)
    line = place % W * num_lines + place // W
    _copy(whole, of_w, column, D + ST + SH, SW, is_grid, line, SPLITS)


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


def append_rel_pos(q: Tensor, terms: Sequence[Tensor], width: int, num_cls: int) -> Tensor:
    """As `plain.append_rel_pos`."""
    cls, grid = torch.split(q, [num_cls, q.shape[2] - num_cls], dim=2)
    return _Join.apply(cls, grid, width, *terms)  # type: ignore[no-untyped-call]


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cls: Tensor, grid: Tensor, width: int, *terms: Tensor) -> Tensor:
        B, h, num_cls, _ = cls.shape
        whole = grid.new_empty(B, h, num_cls + grid.shape[2], width)
        parts = [part.to(grid.dtype).contiguous() for part in (cls, grid, *terms)]
        _run_join(whole, parts, splits=False)
        ctx.kinds = [(part.shape, part.dtype) for part in (cls, grid, *terms)]
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        parts = [grad.new_empty(shape) for shape, _ in ctx.kinds]
        _run_join(grad.contiguous(), parts, splits=True)
        kinds = zip(parts, ctx.kinds, strict=True)
        cls, grid, *terms = (part.to(dtype) for part, (_, dtype) in kinds)
        return cls, grid, None, *terms


def _run_join(whole: Tensor, parts: Sequence[Tensor], *, splits: bool) -> None:
    cls, grid, *terms = parts
    if len(terms) == 2:  # an image
        terms.insert(0, terms[0][:, :0])
    B, h, N, width = whole.shape
    num_rows, length = B * h * N, triton.next_power_of_2(width)
    rows = max(1, ELEMENTS // length)
    sizes = [term.shape[-1] for term in terms]
    with on_device_of(whole):
        _join_kernel[(triton.cdiv(num_rows, rows),)](
            whole, cls, grid, *terms, num_rows, N, cls.shape[2], len(terms[-1]), width,
            grid.shape[3], *sizes, P=rows, PW=length, SPLITS=splits, num_warps=WARPS,
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
