"""Queries with their products with relative positions on a GPU, forward and backward.

Written by hand, since autograd adds up four gradients of the queries, each as large as they are:
here the products with the tables add to what is there. The parts are joined, and their gradients
taken apart, by the kernel of `triton_rel_pos.py`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from video_mvit.kernels.plain import Grid
from video_mvit.kernels.triton_rel_pos import run_join


def fold_queries(
    q: Tensor, tables: Sequence[Tensor], thw: Grid, width: int, num_cls: int
) -> Tensor:
    """As `plain.fold_queries`: (B, h, N, D) -> (B, h, N, width)."""
    return _FoldQueries.apply(q, thw, width, num_cls, *tables)  # type: ignore[no-any-return, no-untyped-call]


class _FoldQueries(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, thw: Grid, width: int, num_cls: int, *tables: Tensor
    ) -> Tensor:
        cls, grid = (
            part.contiguous() for part in torch.split(q, [num_cls, q.shape[2] - num_cls], dim=2)
        )
        rows = _rows(grid, thw, len(tables))
        terms = [x @ table.mT for x, table in zip(rows, tables, strict=True)]
        whole = q.new_empty(*q.shape[:3], width)
        run_join(whole, [cls, grid, *(term.to(q.dtype) for term in terms)], splits=False)
        ctx.save_for_backward(grid, *tables)
        ctx.thw, ctx.num_cls = thw, num_cls
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grid, *tables = ctx.saved_tensors
        B, h, _, D = grid.shape
        rows = _rows(grid, ctx.thw, len(tables))
        sizes = [(*x.shape[:-1], table.shape[1]) for x, table in zip(rows, tables, strict=True)]
        cls = grad.new_empty(B, h, ctx.num_cls, D)
        of_grid = torch.empty_like(grid)
        of_terms = [grad.new_empty(size) for size in sizes]
        run_join(grad.contiguous(), [cls, of_grid, *of_terms], splits=True)
        of_tables = [
            _table_gradient(g, x) for g, x in zip(of_terms, rows, strict=True)
        ]  # before `of_terms` go
        for x, g, table in zip(_rows(of_grid, ctx.thw, len(tables)), of_terms, tables, strict=True):
            _add_product(x, g, table)
        of_q = torch.cat([cls, of_grid], dim=2) if ctx.num_cls else of_grid
        return of_q, None, None, None, *of_tables


def _rows(grid: Tensor, thw: Grid, num_tables: int) -> list[Tensor]:
    """View queries, (B, h, T*H*W, D), as matrices for each axis, whose positions come before.

    -> (B*h, T, H*W, D), (B*h*T, H, W, D), (W, B*h*T*H, D); no first one for two tables.
    """
    B, h, _, D = grid.shape
    T, H, W = thw
    views = [
        grid.view(B * h, T, H * W, D),
        grid.view(B * h * T, H, W, D),
        grid.view(B * h * T * H, W, D).transpose(0, 1),
    ]
    return views[-num_tables:]


def _table_gradient(grad: Tensor, rows: Tensor) -> Tensor:
    """(..., size, M, n), (..., size, M, D) -> (size, n, D)."""
    product = grad.mT @ rows
    return product.sum(0) if product.ndim == 4 else product


def _add_product(rows: Tensor, grad: Tensor, table: Tensor) -> None:
    """Add to rows, (..., size, M, D): (..., size, M, n) times (size, n, D)."""
    if rows.ndim == 4:
        table = table.expand(len(rows), -1, -1, -1).flatten(0, 1)
        rows, grad = rows.flatten(0, 1), grad.flatten(0, 1)
    rows.baddbmm_(grad, table)
