"""Heads of a classifier: from what the network says of a clip to logits.

Shapes: B clips; N tokens; C channels; K classes; h heads; D = C // h.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_mvit.models.mlp import Mlp

MLP_RATIO = 4


class Head(nn.Module):
    """Dropout and linear classifier: (B, C) -> logits (B, K), in training and in evaluation."""

    def __init__(self, dim: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(dim, num_classes)

    def init_weights(self, scale: float) -> None:
        """Scale the weights that the network has initialized."""
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.dropout(x))  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """Attention of queries to tokens, without a projection after it: (B, Q, C), (B, N, C)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        k, v = self.kv(tokens).chunk(2, dim=-1)
        return attend(self.q(queries), k, v, self.num_heads)


class SelfAttention(nn.Module):
    """Attention of tokens to each other: (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(attend(q, k, v, self.num_heads))  # type: ignore[no-any-return]


class PoolerBlock(nn.Module):
    """Self-attention and MLP, each on normalized tokens beside a skip path: (B, N, C)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), SelfAttention(dim, num_heads)
        self.norm2, self.mlp = nn.LayerNorm(dim), Mlp(dim, MLP_RATIO * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class CrossBlock(nn.Module):
    """Attention of queries, which are not normalized, to tokens, and an MLP: -> (B, Q, C)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.xattn = nn.LayerNorm(dim), CrossAttention(dim, num_heads)
        self.norm2, self.mlp = nn.LayerNorm(dim), Mlp(dim, MLP_RATIO * dim, dim)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        x = queries + self.xattn(queries, self.norm1(tokens))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class AttentivePooler(nn.Module):
    """Pool tokens with one learned query, after depth - 1 blocks: (B, N, C) -> (B, C)."""

    def __init__(self, dim: int, num_heads: int, depth: int) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.empty(1, 1, dim))
        self.cross_attention_block = CrossBlock(dim, num_heads)
        self.blocks = nn.ModuleList(PoolerBlock(dim, num_heads) for _ in range(depth - 1))

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        queries = self.query_tokens.expand(tokens.shape[0], -1, -1)
        return self.cross_attention_block(queries, tokens)[:, 0]  # type: ignore[no-any-return]


class AttentiveHead(nn.Module):
    """Pool all tokens by attention and classify: (B, N, C) -> logits (B, K).

    The attentive probe of V-JEPA 2 (arXiv 2506.09985), and its names of parameters below `pooler`.
    """

    def __init__(
        self, dim: int, num_classes: int, dropout: float, *, num_heads: int, depth: int
    ) -> None:
        super().__init__()
        self.pooler = AttentivePooler(dim, num_heads, depth)
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(dim, num_classes)

    def init_weights(self, scale: float = 1.0) -> None:
        """Initialize all, the classifier scaled, from torch's global generator."""
        for module in self.pooler.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()
        nn.init.trunc_normal_(self.pooler.query_tokens, std=0.02)
        self.projection.reset_parameters()
        with torch.no_grad():
            # What is added to a skip path, the less the more is added.
            num_added = max(2, 2 * len(self.pooler.blocks))
            self.pooler.cross_attention_block.mlp.fc2.weight.div_(math.sqrt(num_added))
            for number, block in enumerate(self.pooler.blocks, 1):
                block.attn.proj.weight.div_(math.sqrt(2 * number))  # type: ignore[operator, union-attr]
                block.mlp.fc2.weight.div_(math.sqrt(2 * number))  # type: ignore[operator, union-attr]
            for parameter in self.projection.parameters():
                parameter.mul_(scale)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.projection(self.dropout(self.pooler(tokens)))  # type: ignore[no-any-return]


def attend(q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
    """Attend with several heads: (B, Q, C), (B, N, C) twice -> (B, Q, C)."""
    q, k, v = (each.view(*each.shape[:2], num_heads, -1).transpose(1, 2) for each in (q, k, v))
    x = F.scaled_dot_product_attention(q, k, v)  # (B, h, Q, D)
    return x.transpose(1, 2).flatten(2)
