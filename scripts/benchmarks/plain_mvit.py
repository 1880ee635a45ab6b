"""MViTv2 written down as the paper and the official code say it, to measure against.

The stand-in for the official code in `benchmark.py`: channels-first pooling of each head with
`nn.Conv3d`, an attention matrix that exists, to which a decomposed bias is added, and nothing that
is computed twice. Names and shapes of parameters are the official ones:
one state fits both networks. Index tables are built once, which the official code does in every
pass; kernels of an image have one frame, which there have none.
"""

from math import prod

import torch
from pytorchvideo.layers.drop_path import DropPath
from torch import Tensor, nn

from video_mvit.kernels.pooling import Grid
from video_mvit.models.config import BlockSpec, MViTConfig, block_schedule

NORM_EPS = 1e-6


def distances(q_size: int, k_size: int) -> Tensor:
    """Row of a table of relative positions for each query and key of an axis: (q_size, k_size).

    In float32 and in the order of the official code (SlowFast `attention.py:48-147`).
    """
    q_ratio, k_ratio = max(k_size / q_size, 1.0), max(q_size / k_size, 1.0)
    q_places, k_places = torch.arange(q_size)[:, None], torch.arange(k_size)[None, :]
    return (q_places * q_ratio - k_places * k_ratio + (k_size - 1) * k_ratio).long()


def pooling(head_dim: int, kernel: Grid, stride: Grid) -> nn.Conv3d:
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return nn.Conv3d(
        head_dim, head_dim, kernel, stride=stride, padding=padding, groups=head_dim, bias=False
    )


class PlainAttention(nn.Module):
    """Pooling attention, section 4.1 of the paper: (B, N, C) -> (B, N', C')."""

    rel_pos_h: nn.Parameter
    rel_pos_w: nn.Parameter
    rel_pos_t: nn.Parameter
    index_h: Tensor
    index_w: Tensor
    index_t: Tensor

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.spec = spec
        D = spec.head_dim
        self.qkv = nn.Linear(spec.dim, 3 * spec.dim_attn)
        self.proj = nn.Linear(spec.dim_attn, spec.dim_attn)
        self.pool_q = pooling(D, spec.pool_kernel, spec.stride_q)
        self.norm_q = nn.LayerNorm(D, eps=NORM_EPS)
        self.pool_k = pooling(D, spec.pool_kernel, spec.stride_kv)
        self.norm_k = nn.LayerNorm(D, eps=NORM_EPS)
        self.pool_v = pooling(D, spec.pool_kernel, spec.stride_kv)
        self.norm_v = nn.LayerNorm(D, eps=NORM_EPS)
        for axis, q_size, k_size in zip("thw", spec.q_thw, spec.kv_thw, strict=True):
            if axis != "t" or spec.has_time:  # an image has no table of time
                table = torch.zeros(2 * max(q_size, k_size) - 1, D)
                self.register_parameter(f"rel_pos_{axis}", nn.Parameter(table))
                self.register_buffer(f"index_{axis}", distances(q_size, k_size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        B, N, _ = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.spec.num_heads, self.spec.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, h, N, D) each
        q = self.norm_q(self.pool(q, self.pool_q))
        k = self.norm_k(self.pool(k, self.pool_k))
        v = self.norm_v(self.pool(v, self.pool_v))
        scores = (q * self.spec.head_dim**-0.5) @ k.transpose(2, 3)  # (B, h, N', Nkv)
        weights = self.add_rel_pos(scores, q).softmax(dim=-1)
        x = weights @ v
        n = self.spec.num_cls
        x[:, :, n:] += q[:, :, n:]  # residual pooling, of all tokens but cls
        return self.proj(x.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def pool(self, x: Tensor, conv: nn.Module) -> Tensor:
        """Pool the grid of each head, cls untouched: (B, h, N, D) -> (B, h, N', D)."""
        B, h, _, D = x.shape
        n = self.spec.num_cls
        grid = x[:, :, n:].reshape(B * h, *self.spec.thw, D).permute(0, 4, 1, 2, 3).contiguous()
        pooled = conv(grid).reshape(B, h, D, -1).transpose(2, 3)
        return torch.cat([x[:, :, :n], pooled], dim=2)

    def add_rel_pos(self, scores: Tensor, q: Tensor) -> Tensor:
        """Add q.R of each axis to the scores of the grid; cls has none. q is not scaled."""
        B, h, _, D = q.shape
        n = self.spec.num_cls
        grid = q[:, :, n:].reshape(B, h, *self.spec.q_thw, D)
        by_height = torch.einsum("bnthwd,hkd->bnthwk", grid, self.rel_pos_h[self.index_h])
        by_width = torch.einsum("bnthwd,wkd->bnthwk", grid, self.rel_pos_w[self.index_w])
        bias = by_height[..., None, :, None] + by_width[..., None, None, :]
        if self.spec.has_time:
            by_time = torch.einsum("bnthwd,tkd->bnthwk", grid, self.rel_pos_t[self.index_t])
            bias = bias + by_time[..., :, None, None]
        scores[:, :, n:, n:] += bias.reshape(B, h, prod(self.spec.q_thw), prod(self.spec.kv_thw))
        return scores


class PlainMlp(nn.Module):
    """(B, N, C) -> (B, N, C')."""

    def __init__(self, dim: int, dim_out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(4 * dim, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))  # type: ignore[no-any-return]


class PlainBlock(nn.Module):
    """Attention and MLP, each with a skip path: (B, N, C) -> (B, N', C')."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.spec = spec
        self.norm1 = nn.LayerNorm(spec.dim, eps=NORM_EPS)
        self.attn = PlainAttention(spec)
        self.drop_path = DropPath(spec.drop_path)
        self.norm2 = nn.LayerNorm(spec.dim_attn, eps=NORM_EPS)
        self.mlp = PlainMlp(spec.dim_attn, spec.dim_out)
        if spec.dim != spec.dim_out:
            self.proj = nn.Linear(spec.dim, spec.dim_out)
        kernel = tuple(s + 1 if s > 1 else 1 for s in spec.stride_q)
        padding = tuple(k // 2 for k in kernel)
        self.pool_skip = nn.MaxPool3d(kernel, stride=spec.stride_q, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        attended = self.attn(normed)
        if self.spec.dim != self.spec.dim_attn:
            x = self.proj(normed)
        x = self.skip(x) + self.drop_path(attended)
        normed = self.norm2(x)
        mixed = self.mlp(normed)
        if self.spec.dim_attn != self.spec.dim_out:
            x = self.proj(normed)
        return x + self.drop_path(mixed)  # type: ignore[no-any-return]

    def skip(self, x: Tensor) -> Tensor:
        """Max-pool the grid where queries are strided: (B, N, C) -> (B, N', C)."""
        if max(self.spec.stride_q) == 1:
            return x
        n = self.spec.num_cls
        grid = x[:, n:].transpose(1, 2).reshape(len(x), x.shape[2], *self.spec.thw)
        pooled = self.pool_skip(grid).flatten(2).transpose(1, 2)
        return torch.cat([x[:, :n], pooled], dim=1)


class PlainPatchEmbed(nn.Module):
    """(B, 3, T, H, W) -> (B, N, C)."""

    def __init__(self, config: MViTConfig) -> None:
        super().__init__()
        kernel, stride = config.patch_kernel, config.patch_stride
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.proj = nn.Conv3d(3, config.embed_dim, kernel, stride=stride, padding=padding)

    def forward(self, clip: Tensor) -> Tensor:
        return self.proj(clip).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class PlainHead(nn.Module):
    """(B, C) -> logits (B, K)."""

    def __init__(self, dim: int, config: MViTConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.head_dropout)
        self.projection = nn.Linear(dim, config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.dropout(x))  # type: ignore[no-any-return]


class PlainMViT(nn.Module):
    """What `video_mvit.models.mvit.MViT` computes, under the same names.

    Weights are PyTorch's, to be replaced by a state. `checkpoint_activations` is not obeyed.
    """

    def __init__(self, config: MViTConfig) -> None:
        super().__init__()
        self.config = config
        schedule = block_schedule(config)
        self.patch_embed = PlainPatchEmbed(config)
        if config.cls_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.blocks = nn.ModuleList(PlainBlock(spec) for spec in schedule)
        self.norm = nn.LayerNorm(schedule[-1].dim_out, eps=NORM_EPS)
        self.head = PlainHead(schedule[-1].dim_out, config)

    def forward(self, clip: Tensor) -> Tensor:
        """Normalized float clip (B, 3, T, H, W) -> logits (B, K)."""
        x = self.patch_embed(clip)
        if self.config.cls_token:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        if self.config.head == "cls":
            x = self.norm(x)[:, 0]
        elif self.config.cls_token:
            x = self.norm(x[:, 1:].mean(dim=1))
        else:
            x = self.norm(x).mean(dim=1)
        return self.head(x)  # type: ignore[no-any-return]
