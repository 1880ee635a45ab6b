"""MViTv2 for video and images, as the paper describes it.

Follows Li et al., "MViTv2: Improved Multiscale Vision Transformers for Classification and
Detection" (arXiv 2112.01526) and the official code it was trained with, SlowFast
`models/attention.py` and `models/video_model_builder.py`. Parameter names are the official ones. An
image model is the same network with one frame and kernels of one frame.

A model is built for one clip shape: its relative position tables fit its own token grids, and
nothing is resized in `forward`. It maps a normalized clip to logits and knows nothing of softmax,
losses, views or files. Which kernels compute it is decided in `video_mvit.kernels`. Detection
(`backbone.py`) runs the same blocks on images of any size: it hands each block its `BlockSpec`.

Shapes: B clips; C channels; thw = (T, H, W) token grid; N = num_cls + T*H*W tokens, cls first; h
heads; D = C // h. A prime marks what has been pooled.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from video_mvit import kernels
from video_mvit.errors import UserError
from video_mvit.kernels import DropPath, Grid, LayerNorm, PatchConv
from video_mvit.models.checkpointing import Checkpointing, run
from video_mvit.models.config import MLP_RATIO, BlockSpec, MViTConfig, block_schedule
from video_mvit.models.heads import AttentiveHead, Head
from video_mvit.models.mlp import Mlp
from video_mvit.models.relative_positions import joint_index, num_rows, resize_table, take_rows

NORM_EPS = 1e-6


class PatchEmbed(nn.Module):
    """Cut a clip into overlapping cube patches: (B, 3, T, H, W) -> (B, T'*H'*W', C)."""

    def __init__(self, config: MViTConfig) -> None:
        super().__init__()
        t, h, w = config.patch_kernel
        padding, stride = (t // 2, h // 2, w // 2), config.patch_stride
        self.proj = PatchConv(3, config.embed_dim, (t, h, w), stride=stride, padding=padding)

    def forward(self, clip: Tensor) -> Tensor:
        x: Tensor = self.proj(clip)  # (B, C, T', H', W')
        return x.flatten(2).transpose(1, 2)  # (B, N, C)


class TokenPool(nn.Module):
    """Pool the grid of every head with one depthwise kernel: (B, N, h*D) -> (B, N', h*D).

    The cls token is not pooled. MViTv1 (arXiv 2104.11227), section 3.1, mode "conv".
    """

    def __init__(self, spec: BlockSpec, stride: Grid) -> None:
        super().__init__()
        self.thw, self.stride, self.num_cls = spec.thw, stride, spec.num_cls
        kernel = spec.pool_kernel[1:] if spec.flat_pool_weights else spec.pool_kernel
        self.weight = nn.Parameter(torch.empty(spec.head_dim, 1, *kernel))

    def forward(self, x: Tensor, thw: Grid | None = None) -> Tensor:
        return kernels.pool_tokens(x, self.weight, thw or self.thw, self.stride, self.num_cls)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, kernel={tuple(self.weight.shape[2:])}, stride={self.stride}"


class MultiScaleAttention(nn.Module):
    """Pooling attention with relative positions and residual pooling: (B, N, C) -> (B, N', C').

    Section 4.1 of the paper.
    """

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.spec, D = spec, spec.head_dim
        self.qkv = nn.Linear(spec.dim, 3 * spec.dim_attn)
        self.proj = nn.Linear(spec.dim_attn, spec.dim_attn)
        self.pool_q, self.norm_q = TokenPool(spec, spec.stride_q), LayerNorm(D, eps=NORM_EPS)
        self.pool_k, self.norm_k = TokenPool(spec, spec.stride_kv), LayerNorm(D, eps=NORM_EPS)
        self.pool_v, self.norm_v = TokenPool(spec, spec.stride_kv), LayerNorm(D, eps=NORM_EPS)
        self.axes = "thw" if spec.has_time else "hw"  # an image has no temporal table
        if spec.relative_positions:
            self.sizes = self.axis_sizes(spec.q_thw, spec.kv_thw)
            for axis, size in zip(self.axes, self.sizes, strict=True):
                table = nn.Parameter(torch.empty(num_rows(*size), D))
                self.register_parameter(f"rel_pos_{axis}", table)
            self.index: Tensor
            self.register_buffer("index", joint_index(self.sizes), persistent=False)

    def forward(self, x: Tensor, spec: BlockSpec | None = None) -> Tensor:
        spec = spec or self.spec
        q, k, v = self.pooled_qkv(x, spec)
        # Attend; the tables bias every score but those of the cls token.
        tables, grids = self.tables(spec, q.dtype), (spec.q_thw, spec.kv_thw)
        if spec.window:
            x = kernels.window_attention(q, k, v, tables, grids, spec.attended_thw)
        else:
            x = kernels.rel_pos_attention(q, k, v, tables, grids, spec.num_cls)
        # Residual pooling adds q to every token but cls, which then is the heads side by side.
        q = q if spec.residual_pooling else torch.zeros_like(q)
        x = kernels.residual_merge(x, q, spec.num_cls)  # (B, N', C')
        return self.proj(x)  # type: ignore[no-any-return]

    def pooled_qkv(self, x: Tensor, spec: BlockSpec) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, h, N', D), keys and values (B, h, Nkv, D)."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # (B, N, C') each
        # Pool on the token grid, then normalize each head.
        q = self.norm_q(self.heads(self.pool_q(q, spec.thw)))
        k = self.norm_k(self.heads(self.pool_k(k, spec.thw)))
        v = self.norm_v(self.heads(self.pool_v(v, spec.thw)))
        return q, k, v

    def score_factors(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return q', k' and v, where q'.k' are the biased scores: to look at attention weights."""
        q, k, v = self.pooled_qkv(x, self.spec)
        tables, grids = self.tables(self.spec, q.dtype), (self.spec.q_thw, self.spec.kv_thw)
        return *kernels.fold(q, k, tables, grids, self.spec.num_cls), v

    def heads(self, x: Tensor) -> Tensor:
        """Split channels into heads: (B, N, C') -> (B, h, N, D)."""
        return x.view(*x.shape[:2], self.spec.num_heads, -1).transpose(1, 2)

    def axis_sizes(self, q_thw: Grid, kv_thw: Grid) -> list[tuple[int, int]]:
        """Return the sizes of the axes with a table, of queries and of keys."""
        return list(zip(q_thw, kv_thw, strict=True))[-len(self.axes) :]

    def tables(self, spec: BlockSpec, dtype: torch.dtype) -> list[Tensor]:
        """Return the embedding of each (query, key) distance on each axis: (size_q, size_k', D)."""
        sizes = self.axis_sizes(*spec.attended_thw)
        if not spec.relative_positions:
            zeros = partial(self.qkv.weight.new_zeros, dtype=dtype)
            return [zeros(q, kernels.round_up(k), spec.head_dim) for q, k in sizes]
        tables = [getattr(self, f"rel_pos_{axis}") for axis in self.axes]
        if sizes == self.sizes:
            return take_rows(tables, self.index, sizes, dtype)
        # Another grid, that of an image: the stored rows, resized to it.
        tables = [resize_table(table, *size) for table, size in zip(tables, sizes, strict=True)]
        return take_rows(tables, joint_index(sizes).to(self.qkv.weight.device), sizes, dtype)


class MultiScaleBlock(nn.Module):
    """Attention and MLP, each with a skip path, pooled and widened: (B, N, C) -> (B, N', C')."""

    def __init__(self, spec: BlockSpec, checkpointing: Checkpointing = "none") -> None:
        super().__init__()
        self.spec, self.checkpointing = spec, checkpointing
        self.norm1 = LayerNorm(spec.dim, eps=NORM_EPS)
        self.attn = MultiScaleAttention(spec)
        self.drop_path1 = DropPath(spec.drop_path)
        self.norm2 = LayerNorm(spec.dim_attn, eps=NORM_EPS)
        self.mlp = Mlp(spec.dim_attn, MLP_RATIO * spec.dim_attn, spec.dim_out)
        self.drop_path2 = DropPath(spec.drop_path)
        if spec.dim != spec.dim_out:
            self.proj = nn.Linear(spec.dim, spec.dim_out)

    def forward(self, x: Tensor, spec: BlockSpec | None = None) -> Tensor:
        attend = partial(self.attend, spec=spec or self.spec)
        x = run(attend, x, self.checkpointing)  # (B, N', C')
        return run(self.mix_channels, x, self.checkpointing)

    def attend(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """Attention and its skip path: (B, N, C) -> (B, N', C')."""
        normed = self.norm1(x)
        # Not a mistake: where channels double, the skip path projects the normalized tokens,
        # elsewhere it takes the raw ones.
        skip = self.proj(normed) if spec.dim != spec.dim_attn else x
        skip = self.pool_skip(skip, spec)
        return skip + self.drop_path1(self.attn(normed, spec))  # type: ignore[no-any-return]

    def pool_skip(self, x: Tensor, spec: BlockSpec) -> Tensor:
        """Max-pool the skip path to the grid of Q, where Q is strided: (B, N, C) -> (B, N', C)."""
        if max(spec.stride_q) == 1:
            return x
        return kernels.max_pool_tokens(x, spec.thw, spec.stride_q, spec.num_cls)

    def mix_channels(self, x: Tensor) -> Tensor:
        """MLP and its skip path, which is projected as above: (B, N, C) -> (B, N, C')."""
        normed = self.norm2(x)
        skip = self.proj(normed) if self.spec.dim_attn != self.spec.dim_out else x
        return skip + self.drop_path2(self.mlp(normed))  # type: ignore[no-any-return]


class MViT(nn.Module):
    """MViTv2 classifier: normalized float clip (B, 3, T, H, W) -> logits (B, num_classes)."""

    card: Any = None  # what the weight file says about the model (`weights/model_card.py`)

    def __init__(self, config: MViTConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = block_schedule(config)
        self.patch_embed = PatchEmbed(config)
        if config.cls_token:
            self.cls_token = nn.Parameter(torch.empty(1, 1, config.embed_dim))
        mode = config.activation_checkpointing
        self.blocks = nn.ModuleList(MultiScaleBlock(spec, mode) for spec in self.schedule)
        self.norm = LayerNorm(self.schedule[-1].dim_out, eps=NORM_EPS)
        dim, dropout = self.schedule[-1].dim_out, config.head_dropout
        self.head: Head | AttentiveHead = Head(dim, config.num_classes, dropout)
        if config.head == "attentive":
            shape = {"num_heads": config.head_num_heads, "depth": config.head_depth}
            self.head = AttentiveHead(dim, config.num_classes, dropout, **shape)
        self.init_weights()

    def init_weights(self) -> None:
        """Initialize as the official video code does, from torch's global generator."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv3d | TokenPool):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear | nn.LayerNorm):
                # Not a mistake: biases start at 0.02 (SlowFast video_model_builder.py:1085-1092;
                # torchvision and detectron2 use 0).
                nn.init.constant_(module.bias, 0.02)
        for name, parameter in self.named_parameters():
            if "rel_pos" in name or name == "cls_token":
                nn.init.trunc_normal_(parameter, std=0.02)
        self.head.init_weights(self.config.head_init_scale)

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.head_input(self.encode(clip)))  # type: ignore[no-any-return]

    def head_input(self, x: Tensor) -> Tensor:
        """Return what the head takes, of tokens after the last block: (B, N, C) -> (B, C).

        An attentive head takes all tokens, (B, N, C).
        """
        if self.config.head == "attentive":
            return self.norm(x)  # type: ignore[no-any-return]
        # Pool the tokens: cls, or the mean (MaskFeat fine-tunes normalize after averaging).
        if self.config.head == "cls":
            return self.norm(x)[:, 0]  # type: ignore[no-any-return]
        if self.config.cls_token:
            return self.norm(x[:, 1:].mean(dim=1))  # type: ignore[no-any-return]
        return self.norm(x).mean(dim=1)  # type: ignore[no-any-return]

    def forward_features(self, clip: Tensor) -> tuple[Tensor, Grid]:
        """Return normalized tokens of the last block (B, N, C), cls first if any, and (T, H, W)."""
        x = self.encode(clip)
        return self.norm(x), self.schedule[-1].q_thw

    def forward_stages(self, clip: Tensor) -> list[Tensor]:
        """Return the output of each of the four stages: maps (B, C_s, T_s, H_s, W_s).

        Without cls, not normalized. With `expand_dim_in="mlp"` the last block of a stage already
        has the channels of the next.
        """
        maps = []
        last_blocks = [sum(self.config.depths[: stage + 1]) - 1 for stage in range(4)]
        for i, x in enumerate(self._run_blocks(clip)):
            if i in last_blocks:
                spec = self.schedule[i]
                grid = x[:, spec.num_cls :].transpose(1, 2)  # (B, C, T*H*W)
                maps.append(grid.reshape(*grid.shape[:2], *spec.q_thw))
        return maps

    def encode(self, clip: Tensor) -> Tensor:
        """Return tokens (B, N, C) after the last block; those of earlier ones are let go."""
        for x in self._run_blocks(clip):
            tokens = x
        return tokens

    def _run_blocks(self, clip: Tensor) -> Iterator[Tensor]:
        """Yield tokens (B, N, C) after each block."""
        x = self._embed(clip)
        for block in self.blocks:
            x = block(x)
            yield x

    def _embed(self, clip: Tensor) -> Tensor:
        """Return patch tokens, cls first if there is one: (B, 3, T, H, W) -> (B, N, C)."""
        side = self.config.crop_size
        expected = (3, self.config.num_frames, side, side)
        if clip.ndim != 5 or tuple(clip.shape[1:]) != expected or not clip.is_floating_point():
            raise UserError(
                f"got a clip of shape {tuple(clip.shape)} and {clip.dtype}; this model was built "
                f"for normalized float clips (B, 3, {expected[1]}, {side}, {side}) = "
                "(batch, RGB, num_frames, crop_size, crop_size)"
            )
        x: Tensor = self.patch_embed(clip)  # (B, N, C)
        if self.config.cls_token:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1).to(x.dtype), x], dim=1)
        return x
