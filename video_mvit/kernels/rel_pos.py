"""Attention with decomposed relative positions (paper, section 4.1), without a bias in memory.

The bias of a query and a key is q.R_t + q.R_h + q.R_w, where each term depends on one axis of the
key. So the terms are extra dimensions of the heads,

    q' = [q, q.R_t, q.R_h, q.R_w],  k' = [k * D**-0.5, onehot(t), onehot(h), onehot(w)],

and q'.k' is the biased score: no (N x Nkv) tensor of scores or biases is ever stored. A cls token
has zeros there. Widths are rounded up to multiples of 8, which matrix products and attention want.
"""

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from video_mvit.kernels import cpu_attention, plain
from video_mvit.kernels.dispatch import COMPILABLE, EAGER, TRACEABLE, Form, Operation
from video_mvit.kernels.plain import Grid

WIDTH_MULTIPLE = 8


def round_up(width: int) -> int:
    """Return the next multiple of 8."""
    return (width + WIDTH_MULTIPLE - 1) // WIDTH_MULTIPLE * WIDTH_MULTIPLE


def fold(
    q: Tensor, k: Tensor, tables: Sequence[Tensor], q_thw: Grid, num_cls: int
) -> tuple[Tensor, Tensor]:
    """Return q' and k', whose products are the biased scores.

    (B, h, N', D), (B, h, Nkv, D) -> (B, h, N', W), (B, h, Nkv, W); tables (size_q, size_k, D).
    """
    B, h, _, D = q.shape
    sizes = [table.shape[1] for table in tables]
    padded = [
        F.pad(table, (0, 0, 0, round_up(n) - n)) for table, n in zip(tables, sizes, strict=True)
    ]
    positions = key_positions(sizes, num_cls, like=k)
    width = round_up(D + positions.shape[1])
    q = append_rel_pos(q, rel_pos_terms(q[:, :, num_cls:], padded, q_thw), width, num_cls)
    positions = F.pad(positions, (0, width - D - positions.shape[1]))
    return q, torch.cat([k * D**-0.5, positions.expand(B, h, -1, -1)], dim=-1)


def key_positions(sizes: Sequence[int], num_cls: int, like: Tensor) -> Tensor:
    """Return the one-hot position of each key on each axis, zeros for cls: -> (Nkv, sum of widths).

    Each width is the size of an axis, rounded up.
    """
    one_hots = []
    for axis, n in enumerate(sizes):
        eye = torch.eye(n, round_up(n), dtype=like.dtype, device=like.device)
        shape = [1] * len(sizes) + [eye.shape[1]]
        shape[axis] = n
        one_hots.append(eye.view(shape).expand(*sizes, -1))
    positions = torch.cat(one_hots, dim=-1).view(prod(sizes), -1)
    return F.pad(positions, (0, 0, num_cls, 0))


def rel_pos_terms(q: Tensor, tables: Sequence[Tensor], thw: Grid) -> list[Tensor]:
    """Multiply queries of the grid, (B, h, T*H*W, D), with the table of each axis.

    Returns:
        (B*h*T*H*W, size_k) for each axis, but of w (W, B*h*T*H, size_k), as they are computed.
    """
    B, h, _, D = q.shape
    T, H, W = thw
    *table_t, table_h, table_w = (table.transpose(1, 2) for table in tables)  # (size_q, D, size_k)
    rows = q.contiguous().view(B * h * T, H, W, D)
    columns = rows.view(B * h * T * H, W, D).transpose(0, 1)  # (W, B*h*T*H, D)
    terms = [rows.view(B * h, T, H * W, D) @ table for table in table_t]
    return [term.flatten(0, -2) for term in (*terms, rows @ table_h)] + [columns @ table_w]


def folded_attention(
    q: Tensor, k: Tensor, v: Tensor, tables: Sequence[Tensor], q_thw: Grid, num_cls: int
) -> Tensor:
    """As `plain.rel_pos_attention`, with relative positions as extra head dimensions."""
    return attention(*fold(q, k, tables, q_thw, num_cls), v)


def _fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    D = v.shape[-1]
    v = F.pad(v, (0, q.shape[-1] - D))  # one width for q, k and v: fused kernels want it
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., :D]


def _triton_append(q: Tensor, terms: Sequence[Tensor], width: int, num_cls: int) -> Tensor:
    from video_mvit.kernels.triton_rel_pos import append_rel_pos

    return append_rel_pos(q, terms, width, num_cls)


def _triton_merge(x: Tensor, q: Tensor, num_cls: int) -> Tensor:
    from video_mvit.kernels.triton_rel_pos import residual_merge

    return residual_merge(x, q, num_cls)


def _attention_examples() -> list[tuple[object, ...]]:
    generator = torch.Generator().manual_seed(0)
    return [
        tuple(
            torch.randn(2, 3, n, width, generator=generator)
            for n, width in ((num_q, 24), (num_k, 24), (num_k, 16))
        )
        for num_q, num_k in ((70, 9), (1300, 200))
    ]


def _rel_pos_examples() -> list[tuple[object, ...]]:
    generator = torch.Generator().manual_seed(0)
    B, h, D = 2, 3, 12

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    examples = []
    for q_thw, kv_thw, num_cls in (((2, 5, 4), (2, 3, 2), 1), ((1, 5, 4), (1, 3, 3), 0)):
        has_time = q_thw[0] > 1
        tables = [random(q, k, D) for q, k in zip(q_thw, kv_thw, strict=True)]
        num_q, num_kv = (plain.num_tokens(thw, num_cls) for thw in (q_thw, kv_thw))
        q, k, v = random(B, h, num_q, D), random(B, h, num_kv, D), random(B, h, num_kv, D)
        examples.append((q, k, v, tables if has_time else tables[1:], q_thw, num_cls))
    return examples  # type: ignore[return-value]


def _append_examples() -> list[tuple[object, ...]]:
    generator = torch.Generator().manual_seed(0)
    B, h, T, H, W, D = 2, 3, 2, 5, 4, 40
    M = B * h * T * H
    examples: list[tuple[object, ...]] = []
    for num_cls, sizes in ((1, (8, 8, 16)), (0, (16, 8))):
        q = torch.randn(B, h, num_cls + T * H * W, D, generator=generator)
        shapes = [*((M * W, n) for n in sizes[:-1]), (W, M, sizes[-1])]
        terms = [torch.randn(shape, generator=generator) for shape in shapes]
        examples.append((q, terms, 80, num_cls))
    return examples


def _merge_examples() -> list[tuple[object, ...]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(2, 3, 41, 48, generator=generator)[..., :40],
            torch.randn(2, 3, 41, 40, generator=generator),
            num_cls,
        )
        for num_cls in (0, 1)
    ]


ATTENTION = Operation(
    name="attention",
    plain=plain.attention,
    forms=(
        Form(
            name="blocks",
            run=cpu_attention.attention,
            devices=("cpu",),
            stages=COMPILABLE,
            applies=cpu_attention.applies,
        ),
        Form(name="fused", run=_fused_attention, devices=("cpu", "cuda"), stages=TRACEABLE),
    ),
    examples=_attention_examples,
)
REL_POS_ATTENTION = Operation(
    name="rel_pos_attention",
    plain=plain.rel_pos_attention,
    forms=(Form(name="folded", run=folded_attention, devices=("cpu", "cuda"), stages=TRACEABLE),),
    examples=_rel_pos_examples,
)
APPEND_REL_POS = Operation(
    name="append_rel_pos",
    plain=plain.append_rel_pos,
    forms=(Form(name="triton", run=_triton_append, devices=("cuda",), stages=EAGER, tried=True),),
    examples=_append_examples,
)
RESIDUAL_MERGE = Operation(
    name="residual_merge",
    plain=plain.residual_merge,
    forms=(
        Form(
            name="triton",
            run=_triton_merge,
            devices=("cuda",),
            stages=EAGER,
            tried=True,
        ),
    ),
    examples=_merge_examples,
)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention, scores not scaled: (B, h, N, W), (B, h, Nkv, W), (B, h, Nkv, D)."""
    return ATTENTION(q, k, v)


def append_rel_pos(q: Tensor, terms: Sequence[Tensor], width: int, num_cls: int) -> Tensor:
    """Append relative position terms to queries: (B, h, N, D) -> (B, h, N, width)."""
    return APPEND_REL_POS(q, terms, width, num_cls)


def rel_pos_attention(
    q: Tensor, k: Tensor, v: Tensor, tables: Sequence[Tensor], q_thw: Grid, num_cls: int
) -> Tensor:
    """Attend with decomposed relative positions: (B, h, N', D), 2 x (B, h, Nkv, D) -> as q.

    Args:
        tables: (size_q, size_k, D) for each axis t, h, w; an image has none for t.
        q_thw: grid of the queries behind `num_cls` cls tokens.
    """
    return REL_POS_ATTENTION(q, k, v, tables, q_thw, num_cls)


def residual_merge(x: Tensor, q: Tensor, num_cls: int) -> Tensor:
    """Add pooled queries to all tokens but cls, merge heads: 2 x (B, h, N, D) -> (B, N, h*D)."""
    return RESIDUAL_MERGE(x, q, num_cls)
