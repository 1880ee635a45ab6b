"""MViTv2 for video and images: configuration, block schedule, modules, model, variants.

Follows Li et al., "MViTv2: Improved Multiscale Vision Transformers for Classification and
Detection" (arXiv 2112.01526) and the official code it was trained with, SlowFast
`models/attention.py` and `models/video_model_builder.py`. Parameter names are the official ones. An
image model is the same network with one frame and kernels of one frame.

A model is built for one clip shape: its relative position tables fit its own token grids, and
nothing is resized in `forward`. It maps a normalised clip to logits and knows nothing of softmax,
losses, views or files.

Shapes: B clips; C channels; thw = (T, H, W) token grid; N = num_cls + T*H*W tokens, cls first; h
heads; D = C // h.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from pytorchvideo.layers.drop_path import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from video_mvit.kernels.cpu_attention import KeepAttention, attention
from video_mvit.kernels.cpu_linear import Linear
from video_mvit.kernels.layer_norm import LayerNorm
from video_mvit.kernels.pooling import (
    DepthwisePool,
    Grid,
    pool_tokens,
    split_cls,
)
from video_mvit.kernels.recompute import is_cheap, recompute_if_cheap
from video_mvit.kernels.rel_pos import join_queries, merge_heads
from video_mvit.kernels.tracing import is_recorded
from video_mvit.models.config import MLP_RATIO, NARROW, BlockSpec, MViTConfig, block_schedule

WIDTH_MULTIPLE = 8
PART = 2**21  # hidden values of an MLP at once, where no gradients are wanted


def relative_index(q_size: int, k_size: int) -> Tensor:
    """Row of the relative position table for each query and key of one axis: -> (q_size, k_size).

    The order of the float32 operations is part of the contract: at 312 px the products round, and
    the truncation then differs from exact arithmetic in 103 of 78x10 and 38 of 39x10 places.
    Released weights were trained with it (SlowFast `attention.py:48-147`).
    """
    scale_q, scale_k = max(k_size / q_size, 1.0), max(q_size / k_size, 1.0)
    i = torch.arange(q_size, dtype=torch.float32, device="cpu")[:, None]
    j = torch.arange(k_size, dtype=torch.float32, device="cpu")[None, :]
    return (i * scale_q - j * scale_k + (k_size - 1) * scale_k).long()


def key_positions(kv_thw: Sequence[int], num_cls: int) -> Tensor:
    """One-hot position of each key on each axis, zeros for cls: -> (N, T + H + W).

    Each of the widths T, H, W is rounded up to a multiple of 8.
    """
    axes = [torch.arange(n, device="cpu") for n in kv_thw]
    grids = torch.meshgrid(*axes, indexing="ij")
    one_hots = [
        F.one_hot(grid.flatten(), round_up(n)) for grid, n in zip(grids, kv_thw, strict=True)
    ]
    return F.pad(torch.cat(one_hots, dim=1), (0, 0, num_cls, 0)).float()


def round_up(width: int) -> int:
    """The next multiple of 8: kernels of matrix products and attention want such widths."""
    return -(-width // WIDTH_MULTIPLE) * WIDTH_MULTIPLE


def tokens_at(positions: Sequence[Sequence[int]], thw: Grid, num_cls: int) -> Tensor:
    """Numbers of the tokens at these positions of each axis, and of cls, as they lie in memory."""
    axes = (torch.tensor(axis, device="cpu") for axis in positions)
    t, h, w = torch.meshgrid(*axes, indexing="ij")
    _, H, W = thw
    grid = num_cls + ((t * H + h) * W + w).flatten()
    return torch.cat([torch.arange(num_cls, device="cpu"), grid])


def rel_pos_terms(q: Tensor, tables: Sequence[Tensor], thw: Grid) -> list[Tensor]:
    """Products of queries (B, h, T*H*W, D) with relative positions, for each axis t, h, w.

    Args:
        tables: (size_q, size_k, D) for each axis; an image has none for t.

    Returns:
        (B*h*T*H*W, size_k) for each axis, but of w (W, B*h*T*H, size_k), as they are computed.
    """
    B, h, _, D = q.shape
    T, H, W = thw
    *table_t, table_h, table_w = (table.transpose(1, 2) for table in tables)  # (size_q, D, size_k)
    rows = q.view(B * h * T, H, W, D)
    columns = rows.view(B * h * T * H, W, D).transpose(0, 1)  # (W, B*h*T*H, D)
    terms = [q.view(B * h, T, H * W, D) @ table for table in table_t]
    return [term.flatten(0, -2) for term in (*terms, rows @ table_h)] + [columns @ table_w]


def in_parts(function: Callable[[Tensor], Tensor], x: Tensor, max_tokens: int) -> Tensor:
    """Apply a function of single tokens to so many at once, on a CPU: (B, N, C) -> (B, N, C')."""
    is_compiled = torch.compiler.is_compiling() or is_recorded()
    if x.device.type != "cpu" or is_compiled or x.shape[:2].numel() <= max_tokens:
        return function(x)
    parts = torch.split(x.flatten(0, 1)[None], max_tokens, dim=1)
    return torch.cat([function(part) for part in parts], dim=1).view(*x.shape[:2], -1)


def into_cells(x: Tensor, cell: Sequence[int]) -> Tensor:
    """Pixels of each cell as channels, which are neighbours in memory.

    (B, C, T, H, W) -> (B, t*h*w*C, T/t, H/h, W/w) for cells of (t, h, w)
    """
    B, C, *thw = x.shape
    (T, H, W), (t, h, w) = (n // c for n, c in zip(thw, cell, strict=True)), cell
    x = x.view(B, C, T, t, H, h, W, w).permute(0, 2, 4, 6, 3, 5, 7, 1)
    return x.reshape(B, T, H, W, t * h * w * C).permute(0, 4, 1, 2, 3)


class PatchEmbed(nn.Module):
    """Cube patches: (B, 3, T, H, W) -> (B, T'*H'*W', C)."""

    def __init__(self, config: MViTConfig) -> None:
        super().__init__()
        t, h, w = config.patch_kernel
        self.padding, self.stride = (t // 2, h // 2, w // 2), config.patch_stride
        self.proj = nn.Conv3d(
            3, config.embed_dim, (t, h, w), stride=self.stride, padding=self.padding
        )

    def forward(self, clip: Tensor) -> Tensor:
        x: Tensor = self.by_cells(clip) if clip.device.type == "cuda" else self.proj(clip)
        return x.flatten(2).transpose(1, 2)  # (B, N, C)

    def by_cells(self, clip: Tensor) -> Tensor:
        """`proj`, 4 times faster on GPUs, which are slow with 3 channels: -> (B, C, T', H', W').

        The pixels of a cell, as large as the stride, become channels. A patch reads the cell that
        its centre is in, and on padded axes the cell before.
        """
        if torch.is_autocast_enabled(clip.device.type):
            clip = clip.to(torch.get_autocast_dtype(clip.device.type))
        before = [s if p > 0 else 0 for p, s in zip(self.padding, self.stride, strict=True)]
        missing = [b - p for b, p in zip(before, self.padding, strict=True)]
        clip, weight = (
            into_cells(F.pad(x, (w, 0, h, 0, t, 0)), self.stride)
            for x, (t, h, w) in ((clip, before), (self.proj.weight, missing))
        )
        return F.conv3d(clip, weight, self.proj.bias)


class MultiScaleAttention(nn.Module):
    """Pooling attention with relative positions and residual pooling: (B, N, C) -> (B, N', C').

    Section 4.1 of the paper. `forward` also takes the normalisation of its input, to recompute it.
    """

    rel_pos_h: nn.Parameter
    rel_pos_w: nn.Parameter
    rel_pos_t: nn.Parameter
    index_t: Tensor
    index_h: Tensor
    index_w: Tensor
    key_positions: Tensor
    seen: Tensor | None

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.spec = spec
        self.qkv = Linear(spec.dim, 3 * spec.dim_attn)
        self.proj = Linear(spec.dim_attn, spec.dim_attn)
        D = spec.head_dim
        self.pool_q = DepthwisePool(D, spec.pool_kernel, spec.stride_q)
        self.norm_q = LayerNorm(D)
        self.pool_k = DepthwisePool(D, spec.pool_kernel, spec.stride_seen)
        self.norm_k = LayerNorm(D)
        self.pool_v = DepthwisePool(D, spec.pool_kernel, spec.stride_seen)
        self.norm_v = LayerNorm(D)
        for axis, q_size, k_size in zip("thw", spec.q_thw, spec.kv_thw, strict=True):
            if axis != "t" or spec.has_time:  # an image has no temporal table
                table = nn.Parameter(torch.empty(2 * max(q_size, k_size) - 1, D))
                # Behind the last key any row will do: what it gives meets zeros of `key_positions`.
                index = F.pad(relative_index(q_size, k_size), (0, round_up(k_size) - k_size))
                self.register_parameter(f"rel_pos_{axis}", table)
                self.register_buffer(f"index_{axis}", index, persistent=False)
        positions = key_positions(spec.kv_thw if spec.has_time else spec.kv_thw[1:], spec.num_cls)
        padding = round_up(D) - D
        self.register_buffer("key_positions", F.pad(positions, (0, padding)), persistent=False)
        self.seen_thw, seen = [len(axis) for axis in spec.seen], None
        if spec.stride_seen != spec.stride_kv:
            seen = tokens_at(spec.seen, spec.thw, spec.num_cls)
        self.register_buffer("seen", seen, persistent=False)

    @property
    def additional_flops(self) -> int:
        """FLOPs of a clip's forward pass that the network as published does not have.

        In channels that `attention` takes and gives beside those of the heads, and widths that are
        rounded up; less those of keys and values that no window sees.
        """
        spec = self.spec
        num_q, num_kv = (spec.num_cls + prod(n) for n in (spec.q_thw, spec.kv_thw))
        appended = 2 * spec.num_heads * num_q * num_kv * self.key_positions.shape[1]
        axes = spec.kv_thw if spec.has_time else spec.kv_thw[1:]
        rounded = prod(spec.q_thw) * spec.dim_attn * sum(round_up(n) - n for n in axes)
        num_unseen = prod(spec.thw) - prod(self.seen_thw)
        return 2 * (appended + rounded - num_unseen * spec.dim * 2 * spec.dim_attn)

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        mix = partial(self.mix, [])  # a list for what attention gives, see `KeepAttention`
        if self.spec.is_narrow:
            return recompute_if_cheap(lambda x: mix(*self.project(norm(x))), x)  # type: ignore[no-any-return]
        return recompute_if_cheap(mix, *recompute_if_cheap(lambda x: self.project(norm(x)), x))  # type: ignore[no-any-return]

    def project(self, x: Tensor) -> list[Tensor]:
        """Queries, keys and values side by side, keys and values of tokens that windows see.

        (B, N, C) -> [(B, N, 3*C')], or where windows do not see all [(B, N, C'), (B, Nseen, 2*C')]
        """
        if self.seen is None:
            return [self.qkv(x)]
        first = self.spec.dim_attn
        # Keys and values first: what comes last is not recomputed, and is usually the larger.
        kv = self.qkv(x.index_select(1, self.seen), slice(first, None))
        return [self.qkv(x, slice(first)), kv]

    def mix(self, kept: list[Any], *projected: Tensor) -> Tensor:
        """Pool, attend, add the pooled queries, merge heads: of `project` -> (B, N', C').

        `kept` holds what attention gave until the backward pass, which mixes again.
        """
        q_cls, q_grid, k, v = self.pool_qkv(projected)
        q, k = self.lengthen(q_cls, q_grid, k)
        with KeepAttention(kept) if is_cheap(q) else nullcontext():
            x = attention(q, k, v)
        return self.proj(merge_heads(x, q_grid, self.spec.num_cls))  # type: ignore[no-any-return]

    def pool_qkv(self, projected: Sequence[Tensor]) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
        """Pooled queries, those of cls (if any) and of the grid apart, keys and values.

        Of `project` -> [(B, h, 1, D)], (B, h, T'*H'*W', D), (B, h, Nkv, D), (B, h, Nkv, D)
        """
        C = self.spec.dim_attn
        q, kv = projected if len(projected) == 2 else torch.split(projected[0], [C, 2 * C], dim=-1)
        parts = self.pool(q, self.spec.thw, [self.pool_q])
        *q_cls, q_grid = (self.norm_q(self.split_heads(part)) for part in parts)
        parts = self.pool(kv, self.seen_thw, [self.pool_k, self.pool_v])
        pairs = zip(*(torch.chunk(part, 2, dim=-1) for part in parts), strict=True)
        k, v = (torch.cat([self.split_heads(part) for part in pair], dim=2) for pair in pairs)
        return q_cls, q_grid, self.norm_k(k), self.norm_v(v)

    def pool(self, x: Tensor, thw: Sequence[int], pools: Sequence[DepthwisePool]) -> list[Tensor]:
        """Pool tokens on their grid, the channels of several poolings at once.

        (B, N, n*C') -> [(B, 1, n*C'), (B, T'*H'*W', n*C')], without cls [the grid].
        """
        weight = torch.cat([pool.weight for pool in pools for _ in range(self.spec.num_heads)])
        return pool_tokens(x, weight, thw, pools[0].stride, self.spec.num_cls)

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, N, C') -> (B, h, N, D)"""
        return x.view(*x.shape[:2], self.spec.num_heads, -1).transpose(1, 2)

    def lengthen(self, q_cls: list[Tensor], q_grid: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """q' and k' whose products are the scores of attention.

        With k' = [k*scale, onehot(t), onehot(h), onehot(w)] and q' = [q, q.R_t, q.R_h, q.R_w],
        q'.k' is the biased score of the paper (section 4.1): the bias never exists as an (N x N')
        tensor. q enters the tables unscaled, as in the official code; that of cls has no bias.

        -> (B, h, N', W), (B, h, Nkv, W)
        """
        B, h, _, D = k.shape
        positions = self.key_positions.to(k.dtype)
        width = D + positions.shape[1]
        terms = rel_pos_terms(q_grid, self.rel_pos(), self.spec.q_thw)
        q = join_queries(q_cls, q_grid, terms, width)
        return q, torch.cat([k * D**-0.5, positions.expand(B, h, -1, -1)], dim=-1)

    def rel_pos(self) -> list[Tensor]:
        """Embedding of every (query, key) distance on each axis: [(size_q, size_k, D)].

        size_k is rounded up, as in `key_positions`.
        """
        spatial = [self.rel_pos_h[self.index_h], self.rel_pos_w[self.index_w]]
        return [self.rel_pos_t[self.index_t], *spatial] if self.spec.has_time else spatial


class Mlp(nn.Module):
    """Two linear layers around an exact GELU: (B, N, C) -> (B, N, C').

    The widest tensor of a block is kept for the backward pass once, not twice, and where channels
    are few, not at all. `forward` also takes the normalisation of its input, to recompute it.
    """

    def __init__(self, dim: int, dim_hidden: int, dim_out: int) -> None:
        super().__init__()
        self.is_narrow = dim <= NARROW
        self.fc1 = Linear(dim, dim_hidden)
        self.fc2 = Linear(dim_hidden, dim_out)

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        if not torch.is_grad_enabled():
            return in_parts(lambda x: self.wide(x, norm), x, PART // self.fc1.out_features)
        if self.is_narrow:
            return recompute_if_cheap(lambda x: self.wide(x, norm), x)  # type: ignore[no-any-return]
        return self.fc2(recompute_if_cheap(lambda x: self.fc1(norm(x)), x), after_gelu=True)  # type: ignore[no-any-return]

    def wide(self, x: Tensor, norm: nn.Module) -> Tensor:
        return self.fc2(self.fc1(norm(x)), after_gelu=True)  # type: ignore[no-any-return]


class MultiScaleBlock(nn.Module):
    """Attention and MLP, each with a skip path, pooled and widened: (B, N, C) -> (B, N', C')."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.spec = spec
        self.norm1 = LayerNorm(spec.dim)
        self.attn = MultiScaleAttention(spec)
        self.drop_path = DropPath(spec.drop_path)
        self.norm2 = LayerNorm(spec.dim_attn)
        self.mlp = Mlp(spec.dim_attn, MLP_RATIO * spec.dim_attn, spec.dim_out)
        if spec.dim != spec.dim_out:
            self.proj = Linear(spec.dim, spec.dim_out)

    def forward(self, x: Tensor) -> Tensor:
        # Not a mistake: where channels double, the skip path projects the normalised tokens,
        # elsewhere it takes the raw ones.
        skip = x
        if self.spec.dim != self.spec.dim_attn:
            skip = recompute_if_cheap(lambda x: self.pool_skip(self.widen(x)), x)
        elif max(self.spec.stride_q) > 1:
            skip = self.pool_skip(x)
        x = skip + self.drop_path(self.attn(x, self.norm1))
        skip = x
        if self.spec.dim_attn != self.spec.dim_out:
            skip = recompute_if_cheap(lambda x: self.proj(self.norm2(x)), x)
        return skip + self.drop_path(self.mlp(x, self.norm2))  # type: ignore[no-any-return]

    def widen(self, x: Tensor) -> Tensor:
        """Tokens of the skip path before they are pooled: (B, N, C) -> (B, N, C')."""
        return self.proj(self.norm1(x)) if self.spec.dim != self.spec.dim_attn else x

    def pool_skip(self, x: Tensor) -> Tensor:
        """Max-pool to the grid of Q, cls untouched: (B, N, C) -> (B, N', C)."""
        T, H, W = self.spec.thw
        *cls, grid = split_cls(x, self.spec.num_cls)
        grid = grid.reshape(x.shape[0] * T, H, W, x.shape[-1]).permute(0, 3, 1, 2)
        stride = self.spec.stride_q[1:]  # Q is never strided in time
        grid = F.max_pool2d(grid, kernel_size=3, stride=stride, padding=1)
        grid = grid.permute(0, 2, 3, 1).reshape(x.shape[0], prod(self.spec.q_thw), x.shape[-1])
        return torch.cat([*cls, grid], dim=1)


class Head(nn.Module):
    """Dropout and linear classifier: (B, C) -> logits (B, K), in training and in evaluation."""

    def __init__(self, dim: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.dropout(x))  # type: ignore[no-any-return]


class MViT(nn.Module):
    """MViTv2 classifier: normalised float clip (B, 3, T, H, W) -> logits (B, num_classes)."""

    card: Any = None  # what the file says that the weights came from (`weights/card.py`)

    def __init__(self, config: MViTConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = block_schedule(config)
        self.patch_embed = PatchEmbed(config)
        if config.cls_token:
            self.cls_token = nn.Parameter(torch.empty(1, 1, config.embed_dim))
        self.blocks = nn.ModuleList(MultiScaleBlock(spec) for spec in self.schedule)
        self.norm = LayerNorm(self.schedule[-1].dim_out)
        self.head = Head(self.schedule[-1].dim_out, config.num_classes, config.head_dropout)
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise as the official video code does, from torch's global generator."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv3d | DepthwisePool):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear | nn.LayerNorm):
                # Not a mistake: biases start at 0.02 (SlowFast video_model_builder.py:1085-1092;
                # torchvision and detectron2 use 0).
                nn.init.constant_(module.bias, 0.02)
        for name, parameter in self.named_parameters():
            if "rel_pos" in name or name == "cls_token":
                nn.init.trunc_normal_(parameter, std=0.02)
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.mul_(self.config.head_init_scale)

    def forward(self, clip: Tensor) -> Tensor:
        x = self._encode(clip)
        if self.config.head == "cls":
            return self.head(self.norm(x)[:, 0])  # type: ignore[no-any-return]
        if self.config.cls_token:
            return self.head(self.norm(x[:, 1:].mean(dim=1)))  # type: ignore[no-any-return]
        return self.head(self.norm(x).mean(dim=1))  # type: ignore[no-any-return]

    def forward_features(self, clip: Tensor) -> tuple[Tensor, Grid]:
        """Normalised tokens of the last block (B, N, C), cls first if any, and their (T, H, W)."""
        x = self._encode(clip)
        return self.norm(x), self.schedule[-1].q_thw

    def forward_stages(self, clip: Tensor) -> list[Tensor]:
        """Output of each of the four stages: maps (B, C_s, T_s, H_s, W_s), no cls, not normalised.

        With `expand_dim_in="mlp"` the last block of a stage already has the channels of the next.
        """
        maps = []
        last_blocks = [sum(self.config.depths[: stage + 1]) - 1 for stage in range(4)]
        for i, x in enumerate(self._run_blocks(clip)):
            if i in last_blocks:
                spec = self.schedule[i]
                grid = x[:, spec.num_cls :].transpose(1, 2)  # (B, C, T*H*W)
                maps.append(grid.reshape(*grid.shape[:2], *spec.q_thw))
        return maps

    def _encode(self, clip: Tensor) -> Tensor:
        """Tokens (B, N, C) after the last block; those of earlier ones are let go."""
        for x in self._run_blocks(clip):
            tokens = x
        return tokens

    def _run_blocks(self, clip: Tensor) -> Iterator[Tensor]:
        """Tokens (B, N, C) after each block."""
        x = self._embed(clip)
        for block in self.blocks:
            if self.config.checkpoint_activations and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
            yield x

    def _embed(self, clip: Tensor) -> Tensor:
        side = self.config.crop_size
        expected = (3, self.config.num_frames, side, side)
        if clip.ndim != 5 or tuple(clip.shape[1:]) != expected or not clip.is_floating_point():
            raise ValueError(
                f"got a clip of shape {tuple(clip.shape)} and {clip.dtype}; this model was built "
                f"for normalised float clips (B, 3, {expected[1]}, {side}, {side}) = "
                "(batch, RGB, num_frames, crop_size, crop_size)"
            )
        x: Tensor = self.patch_embed(clip)  # (B, N, C)
        if self.config.cls_token:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1).to(x.dtype), x], dim=1)
        return x
