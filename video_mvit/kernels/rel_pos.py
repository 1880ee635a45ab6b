"""Attention with decomposed relative positions (paper, section 4.1), without a bias in memory.

The bias of a query and a key is q.R_t + q.R_h + q.R_w, where each term depends on one axis of the
key. So the terms are extra dimensions of the heads,

    q' = [q, q.R_t, q.R_h, q.R_w],  k' = [k * D**-0.5, onehot(t), onehot(h), onehot(w)],

and q'.k' is the biased score: no (N x Nkv) tensor of scores or biases is ever stored. A cls token
has zeros there. `folding.py` makes them; `split_attention.py` is for those wider
than the fast attention of a GPU takes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from video_mvit.kernels import cpu_attention, plain, split_attention
from video_mvit.kernels.dispatch import COMPILABLE, EAGER, TRACEABLE, Form, Operation
from video_mvit.kernels.folding import fold
from video_mvit.kernels.plain import Grid, Grids, round_up

# Of a GPU, fastest first: 0.42, 0.63 and 1.33 ms in the first block of S on an H100.
BACKENDS = (
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)


def folded_attention(
    q: Tensor, k: Tensor, v: Tensor, tables: Sequence[Tensor], grids: Grids, num_cls: int
) -> Tensor:
    """As `plain.rel_pos_attention`, with relative positions as extra head dimensions."""
    return attention(*fold(q, k, tables, grids, num_cls), v)


def _pinned_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel(list(BACKENDS), set_priority=True):
        v, D = split_attention.widen(v, q.shape[-1]), v.shape[-1]
        return F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., :D]


def _fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    D = v.shape[-1]
    v = F.pad(v, (0, q.shape[-1] - D))  # one width for q, k and v: fused kernels want it
    x: Tensor = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    return x[..., :D]


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
    B, h = 2, 3

    def random(*shape: int) -> Tensor:
        x = torch.randn(shape, generator=generator)
        return x / shape[-1] ** 0.5  # type: ignore[no-any-return]

    cases: list[tuple[int, Grid, Grid, int]] = [  # D, grids of queries and keys, num_cls
        (12, (2, 5, 4), (2, 3, 2), 1),
        (12, (1, 5, 4), (1, 3, 3), 0),
        (96, (2, 2, 3), (2, 9, 13), 1),  # wide when folded
        (88, (1, 5, 4), (1, 17, 11), 0),
    ]
    examples = []
    for D, q_thw, kv_thw, num_cls in cases:
        has_time = q_thw[0] > 1
        tables = [random(q, round_up(k), D) for q, k in zip(q_thw, kv_thw, strict=True)]
        num_q, num_kv = (plain.num_tokens(thw, num_cls) for thw in (q_thw, kv_thw))
        q, k, v = random(B, h, num_q, D), random(B, h, num_kv, D), random(B, h, num_kv, D)
        examples.append((q, k, v, tables if has_time else tables[1:], (q_thw, kv_thw), num_cls))
    return examples  # type: ignore[return-value]


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
        Form(name="pinned", run=_pinned_attention, devices=("cuda",), stages=EAGER),
        Form(name="fused", run=_fused_attention, devices=("cpu", "cuda"), stages=TRACEABLE),
    ),
    examples=_attention_examples,
)
REL_POS_ATTENTION = Operation(
    name="rel_pos_attention",
    plain=plain.rel_pos_attention,
    forms=(
        Form(
            name="split",
            run=split_attention.attention,
            devices=("cuda",),
            stages=EAGER,
            applies=split_attention.applies,
            tried=True,
            trial_dtype=torch.bfloat16,
        ),
        Form(name="folded", run=folded_attention, devices=("cpu", "cuda"), stages=TRACEABLE),
    ),
    examples=_rel_pos_examples,
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


def rel_pos_attention(
    q: Tensor, k: Tensor, v: Tensor, tables: Sequence[Tensor], grids: Grids, num_cls: int
) -> Tensor:
    """Attend with decomposed relative positions: (B, h, N', D), 2 x (B, h, Nkv, D) -> as q.

    Args:
        tables: (size_q, size_k', D) for each axis t, h, w; an image has none for t. The keys of an
            axis are rounded up with `round_up`; what is beyond them means nothing.
        grids: of the queries, and of the keys, each behind `num_cls` cls tokens.
    """
    return REL_POS_ATTENTION(q, k, v, tables, grids, num_cls)


def residual_merge(x: Tensor, q: Tensor, num_cls: int) -> Tensor:
    """Add pooled queries to all tokens but cls, merge heads: 2 x (B, h, N, D) -> (B, N, h*D)."""
    return RESIDUAL_MERGE(x, q, num_cls)
