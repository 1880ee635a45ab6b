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
    q: Tensor, k: Tensor, v: Tensor, tables: Sequence[Tensor], q_thw: Grid, num_cls: int
) -> Tensor:
    """Attend with decomposed relative positions, none for cls (paper, section 4.1).

    (B, h, N', D), (B, h, Nkv, D), (B, h, Nkv, D) -> (B, h, N', D). q enters the tables unscaled.

    Args:
        tables: (size_q, size_k, D) for each axis t, h, w; an image has none for t.
    """
    D = q.shape[-1]
    scores = q * D**-0.5 @ k.transpose(2, 3)  # (B, h, N', Nkv)
    grid = q[:, :, num_cls:].reshape(*q.shape[:2], *q_thw, D)  # (B, h, T, H, W, D)
    *table_t, table_h, table_w = (table.to(q.dtype) for table in tables)
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


def append_rel_pos(q: Tensor, terms: Sequence[Tensor], width: int, num_cls: int) -> Tensor:
    """Append products with relative positions to queries, then zeros up to a width.

    (B, h, N, D) -> (B, h, N, width); cls gets zeros only.

    Args:
        terms: (B*h*T*H*W, size) for each axis, but of the last one (W, B*h*T*H, size).
    """
    B, h, N, D = q.shape
    cls, grid = torch.split(q, [num_cls, N - num_cls], dim=2)
    *others, last = terms
    parts = [term.view(B, h, N - num_cls, -1) for term in others]
    parts.append(last.transpose(0, 1).reshape(B, h, N - num_cls, -1))
    padding = width - D - sum(part.shape[-1] for part in parts)
    zeros = grid.new_zeros(1).expand(B, h, N - num_cls, padding)
    grid = torch.cat([grid, *parts, zeros], dim=-1)
    return torch.cat([F.pad(cls, (0, width - D)), grid], dim=2) if num_cls else grid


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
