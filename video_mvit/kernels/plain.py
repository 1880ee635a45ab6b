"""Plain PyTorch twins of every kernel: definition, fallback and test oracle at once.

Each function says in a few lines what the operation computes; the fast forms in this room compute
the same. `kernels.use("plain")` runs a whole network with them.

Shapes: B clips; C channels; thw = (T, H, W) token grid; N = num_cls + T*H*W tokens, cls first; h
heads; D = C // h.
"""

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int, int]
Grids = tuple[Grid, Grid]  # of queries, of keys and values


WIDTH_MULTIPLE = 8  # of channels, that matrix products and attention want


def round_up(width: int) -> int:
    """Return the next multiple of 8."""
    return (width + WIDTH_MULTIPLE - 1) // WIDTH_MULTIPLE * WIDTH_MULTIPLE


def conv_output_size(size: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> Grid:
    """Return the grid after a convolution with padding `kernel // 2`: (T, H, W) -> (T', H', W')."""
    t, h, w = (
        (n + 2 * (k // 2) - k) // s + 1 for n, k, s in zip(size, kernel, stride, strict=True)
    )
    return t, h, w


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise the last dimension: any shape -> the same shape."""
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Map the last dimension: (..., K), (M, K), (M,) -> (..., M)."""
    return F.linear(x, weight, bias)


def patch_embed(clip: Tensor, weight: Tensor, bias: Tensor, stride: Grid, padding: Grid) -> Tensor:
    """Convolve patches: (B, 3, T, H, W), (C, 3, kt, kh, kw) -> (B, C, T', H', W')."""
    return F.conv3d(clip, weight, bias, stride, padding)


def pool_tokens(x: Tensor, weight: Tensor, thw: Grid, stride: Grid, num_cls: int) -> Tensor:
    """Pool the grid of each head with one depthwise convolution, cls untouched.

    (B, N, h*D), (D, 1, kt, kh, kw) -> (B, N', h*D); padding is `kernel // 2`. MViTv1, section 3.1.
    """
    B, N, C = x.shape
    D, kernel = len(weight), weight.shape[2:]
    cls, grid = torch.split(x, [num_cls, N - num_cls], dim=1)
    grid = grid.reshape(B, *thw, C // D, D).permute(0, 4, 5, 1, 2, 3).flatten(0, 1)
    padding = [k // 2 for k in kernel]
    grid = F.conv3d(grid, weight.to(x.dtype), None, stride, padding, groups=D)  # (B*h, D, T'H'W')
    grid = grid.flatten(2).view(B, C, -1).transpose(1, 2)
    return torch.cat([cls, grid], dim=1)


def max_pool_tokens(x: Tensor, thw: Grid, stride: Grid, num_cls: int) -> Tensor:
    """Max-pool the grid of the skip path, cls untouched: (B, N, C) -> (B, N', C)."""
    B, N, C = x.shape
    cls, grid = torch.split(x, [num_cls, N - num_cls], dim=1)
    kernel = [s + 1 if s > 1 else 1 for s in stride]
    padding = [k // 2 for k in kernel]
    grid = grid.transpose(1, 2).reshape(B, C, *thw)
    grid = F.max_pool3d(grid, kernel, stride, padding).flatten(2).transpose(1, 2)
    return torch.cat([cls, grid], dim=1)


def rel_pos_attention(
    q: Tensor, k: Tensor, v: Tensor, tables: Sequence[Tensor], grids: Grids, num_cls: int
) -> Tensor:
    """Attend with decomposed relative positions, none for cls (paper, section 4.1).

    (B, h, N', D), (B, h, Nkv, D), (B, h, Nkv, D) -> (B, h, N', D). q enters the tables unscaled.

    Args:
        tables: (size_q, size_k', D) for each axis t, h, w; an image has none for t. What is beyond
            the keys of an axis means nothing.
        grids: of the queries, and of the keys, each behind `num_cls` cls tokens.
    """
    D, (q_thw, kv_thw) = q.shape[-1], grids
    scores = q * D**-0.5 @ k.transpose(2, 3)  # (B, h, N', Nkv)
    grid = q[:, :, num_cls:].reshape(*q.shape[:2], *q_thw, D)  # (B, h, T, H, W, D)
    sizes = kv_thw[-len(tables) :]
    *table_t, table_h, table_w = (
        table[:, :n].to(q.dtype) for table, n in zip(tables, sizes, strict=True)
    )
    bias = (grid @ table_h.transpose(1, 2))[..., None, :, None]  # of key rows
    bias = bias + torch.einsum("bnthwd,wkd->bnthwk", grid, table_w)[..., None, None, :]
    for table in table_t:
        bias = bias + torch.einsum("bnthwd,tkd->bnthwk", grid, table)[..., :, None, None]
    bias = bias.flatten(5, 7).flatten(2, 4)  # (B, h, T*H*W, Tk*Hk*Wk)
    scores = scores + F.pad(bias, (num_cls, 0, num_cls, 0))
    x: Tensor = scores.softmax(dim=-1) @ v
    return x


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention, scores not scaled: (B, h, N, W), (B, h, Nkv, W), (B, h, Nkv, D)."""
    return (q @ k.transpose(-1, -2)).softmax(dim=-1) @ v


def drop_path(x: Tensor, draws: Tensor, drop_prob: float) -> Tensor:
    """Keep a clip where its draw from [0, 1) lies above, scaled up; else zeros.

    (B, ...), (B, 1, ...) -> (B, ...).
    """
    keep = 1 - drop_prob
    return x.div(keep) * (keep + draws).floor()


def fold_queries(
    q: Tensor, tables: Sequence[Tensor], thw: Grid, width: int, num_cls: int
) -> Tensor:
    """Append products with the table of each axis to queries, then zeros up to a width.

    (B, h, N, D) -> (B, h, N, width); cls gets zeros only. Tables (size_q, size_k', D).
    """
    B, h, N, D = q.shape
    T, H, W = thw
    cls, grid = torch.split(q, [num_cls, N - num_cls], dim=2)
    *table_t, table_h, table_w = (table.transpose(1, 2) for table in tables)  # (size_q, D, size_k')
    rows = grid.contiguous().view(B * h * T, H, W, D)
    columns = rows.view(B * h * T * H, W, D).transpose(0, 1)  # (W, B*h*T*H, D)
    terms = [rows.view(B * h, T, H * W, D) @ table for table in table_t]
    terms = [*terms, rows @ table_h, (columns @ table_w).transpose(0, 1)]
    parts = [term.reshape(B, h, N - num_cls, -1) for term in terms]
    padding = width - D - sum(part.shape[-1] for part in parts)
    zeros = grid.new_zeros(1).expand(B, h, N - num_cls, padding)
    grid = torch.cat([grid, *parts, zeros], dim=-1)
    return torch.cat([F.pad(cls, (0, width - D)), grid], dim=2) if num_cls else grid


def fold_keys(k: Tensor, sizes: Sequence[int], width: int, num_cls: int) -> Tensor:
    """Scale keys by D**-0.5, append the one-hot position on each axis, then zeros up to a width.

    (B, h, N, D) -> (B, h, N, width); cls gets zeros only. Each axis has `round_up(size)` columns.
    """
    B, h, _, D = k.shape
    one_hots = []
    for axis, n in enumerate(sizes):
        eye = torch.eye(n, round_up(n), dtype=k.dtype, device=k.device)
        shape = [1] * len(sizes) + [eye.shape[1]]
        shape[axis] = n
        one_hots.append(eye.view(shape).expand(*sizes, -1))
    positions = torch.cat(one_hots, dim=-1).view(prod(sizes), -1)
    positions = F.pad(positions, (0, width - D - positions.shape[1], num_cls, 0))
    return torch.cat([k * D**-0.5, positions.expand(B, h, -1, -1)], dim=-1)


def residual_merge(x: Tensor, q: Tensor, num_cls: int) -> Tensor:
    """Add pooled queries to every token but cls, put heads side by side.

    (B, h, N, D), (B, h, N, D) -> (B, N, h*D). Residual pooling, paper section 4.1; not adding to
    cls is SlowFast attention.py:382 (timm adds it there, too).
    """
    x, q = x.transpose(1, 2), q.transpose(1, 2)  # (B, N, h, D)
    merged = torch.cat([x[:, :num_cls], x[:, num_cls:] + q[:, num_cls:]], dim=1)
    return merged.flatten(2)


def num_tokens(thw: Sequence[int], num_cls: int) -> int:
    """Return the number of tokens of a grid, cls included."""
    return num_cls + prod(thw)
