"""Queries with their products with relative positions on a GPU, forward and backward.

Written by hand, since autograd adds up four gradients of the queries, each as large as they are:
here the products with the tables add to what is there. Two products do for three axes: frames and
lines have a table in common, (T*H, size_t' + size_h', D). The parts are joined, and their gradients
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
        q = q.contiguous()
        grid = q[:, :, num_cls:].contiguous()
        lines, columns = _views(grid, thw)
        of_lines, of_columns = _line_table(tables[:-1]), tables[-1]
        terms = [lines @ of_lines.mT, torch.bmm(columns, of_columns.mT)]
        whole = q.new_empty(*q.shape[:3], width)
        run_join(whole, [q, grid, *(term.to(q.dtype) for term in terms)], splits=False)
        # Only the gradients of the tables need the queries.
        needs_tables = any(ctx.needs_input_grad[4:])
        ctx.save_for_backward(grid if needs_tables else None, of_lines, of_columns)
        ctx.thw, ctx.num_cls, ctx.sizes = thw, num_cls, [len(table[0]) for table in tables[:-1]]
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grid, of_lines, of_columns = ctx.saved_tensors
        B, h, N, _ = grad.shape
        D = of_lines.shape[-1]
        cls = grad.new_empty(B, h, ctx.num_cls, D)
        made = grad.new_empty(B, h, N - ctx.num_cls, D)
        made_lines, made_columns = _views(made, ctx.thw)
        in_lines, in_columns = (
            grad.new_empty(*x.shape[:-1], table.shape[1])
            for x, table in ((made_lines, of_lines), (made_columns, of_columns))
        )
        run_join(grad, [cls, made, in_lines, in_columns], splits=True)
        # Of the tables; that of the lines is summed over clips, heads and the other axis.
        tables: list[Tensor | None] = [None] * (len(ctx.sizes) + 1)
        if grid is not None:
            lines, columns = _views(grid, ctx.thw)
            grad_lines = (in_lines.mT @ lines).view(B * h, *ctx.thw[:2], -1, D)
            *parts, of_h = torch.split(grad_lines, ctx.sizes, dim=3)
            tables = [*(part.sum((0, 2)) for part in parts), of_h.sum((0, 1))]
            tables.append(torch.bmm(in_columns.mT, columns))
        # Of the queries.
        many = of_lines.expand(len(made_lines), -1, -1, -1).flatten(0, 1)
        made_lines.flatten(0, 1).baddbmm_(in_lines.flatten(0, 1), many)
        made_columns.baddbmm_(in_columns, of_columns)
        grad_q = torch.cat([cls, made], dim=2) if ctx.num_cls else made
        return grad_q, None, None, None, *tables


def _views(grid: Tensor, thw: Grid) -> tuple[Tensor, Tensor]:
    """View queries, (B, h, T*H*W, D), line by line and column by column.

    -> (B*h, T*H, W, D), (W, B*h*T*H, D)
    """
    B, h, _, D = grid.shape
    T, H, W = thw
    return grid.view(B * h, T * H, W, D), grid.view(B * h * T * H, W, D).transpose(0, 1)


def _line_table(tables: Sequence[Tensor]) -> Tensor:
    """Join the tables of frames, if any, and lines: -> (T*H, size_t' + size_h', D)."""
    if len(tables) == 1:
        return tables[0]
    of_t, of_h = tables
    T, H = len(of_t), len(of_h)
    parts = [of_t[:, None].expand(-1, H, -1, -1), of_h.expand(T, -1, -1, -1)]
    return torch.cat(parts, dim=2).flatten(0, 1)
