"""Bringing tokens of heads together: queries with their relative positions, heads side by side.

Copies only, and one sum. On a GPU, PyTorch concatenates such narrow parts at a fifth of the
possible rate; `heads_triton.py` does it in one pass, once a trial has shown that it works there.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from video_mvit.kernels.dispatch import difference_from_plain, kernels_work
from video_mvit.kernels.pooling import split_cls


def join_queries(cls: list[Tensor], grid: Tensor, terms: Sequence[Tensor], width: int) -> Tensor:
    """Queries with terms behind them, zeros up to `width`, cls queries first, with zeros only.

    Args:
        cls: [(B, h, 1, D)], or none.
        grid: (B, h, T*H*W, D)
        terms: (B*h*T*H*W, size) for each axis, but of the last (W, B*h*T*H, size).

    Returns:
        (B, h, N, width)
    """
    if _takes_triton(grid):
        from video_mvit.kernels.triton_rel_pos import join

        return join(cls, grid, terms, width)
    return _join(cls, grid, terms, width)


def _join(cls: list[Tensor], grid: Tensor, terms: Sequence[Tensor], width: int) -> Tensor:
    B, h, N, D = grid.shape
    *others, last = terms
    parts = [term.view(B, h, N, -1) for term in others]
    parts.append(last.transpose(0, 1).reshape(B, h, N, -1))
    padding = width - D - sum(part.shape[-1] for part in parts)
    zeros = grid.new_zeros(1).expand(B, h, N, padding)
    joined = torch.cat([grid, *parts, zeros], dim=-1)
    return torch.cat([*(F.pad(each, (0, width - D)) for each in cls), joined], dim=2)


def merge_heads(x: Tensor, q_grid: Tensor, num_cls: int) -> Tensor:
    """Residual pooling, heads side by side: (B, h, N, D), (B, h, T*H*W, D) -> (B, N, h*D).

    The pooled q is added to every token but cls (SlowFast attention.py:382; timm adds it to cls
    too, wrongly).
    """
    if _takes_triton(x):
        from video_mvit.kernels.triton_rel_pos import merge

        return merge(x, q_grid, num_cls)
    return _merge(x, q_grid, num_cls)


def _merge(x: Tensor, q_grid: Tensor, num_cls: int) -> Tensor:
    *cls, grid = split_cls(x.transpose(1, 2), num_cls)  # (B, N, h, D)
    return torch.cat([*cls, grid + q_grid.transpose(1, 2)], dim=1).flatten(2)


def _takes_triton(x: Tensor) -> bool:
    """A compiler writes such kernels itself."""
    if x.device.type != "cuda" or torch.compiler.is_compiling():
        return False
    return kernels_work("heads", x.device.index, worst_difference)


def worst_difference(device: torch.device) -> float:
    """Largest difference of Triton's outputs and gradients from PyTorch's."""
    from video_mvit.kernels.triton_rel_pos import join, merge

    B, h, T, H, W, D = 2, 3, 2, 5, 4, 40
    M = B * h * T * H
    shapes = ((B, h, 1, D), (B, h, T * H * W, D), (M * W, 8), (M * W, 8), (W, M, 16))
    differences = [
        difference_from_plain(
            lambda cls, grid, *terms: join([cls], grid, terms, 80),
            lambda cls, grid, *terms: _join([cls], grid, terms, 80),
            shapes,
            device,
        ),
        difference_from_plain(
            lambda x, q: merge(x[..., :D], q, 1),
            lambda x, q: _merge(x[..., :D], q, 1),
            ((B, h, 1 + T * H * W, 80), (B, h, T * H * W, D)),
            device,
        ),
    ]
    return float(torch.tensor(differences).max())
