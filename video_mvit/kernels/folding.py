"""Relative positions as extra head dimensions: q' and k', whose products are the biased scores.

Widths are rounded up to multiples of 8, which matrix products and attention want. Tables come
rounded up, too: k' is zero in the columns that are added, so q' may have anything there.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from video_mvit.kernels import plain
from video_mvit.kernels.dispatch import EAGER, Form, Operation
from video_mvit.kernels.plain import Grid, Grids, round_up


def fold(
    q: Tensor, k: Tensor, tables: Sequence[Tensor], grids: Grids, num_cls: int
) -> tuple[Tensor, Tensor]:
    """Return q' and k', whose products are the biased scores.

    (B, h, N', D), (B, h, Nkv, D) -> (B, h, N', W), (B, h, Nkv, W); tables (size_q, size_k', D).
    """
    q_thw, kv_thw = grids
    width = folded_width(q.shape[-1], kv_thw[-len(tables) :])
    q = FOLD_QUERIES(q, tables, q_thw, width, num_cls)
    return q, FOLD_KEYS(k, kv_thw[-len(tables) :], width, num_cls)


def folded_width(head_dim: int, sizes: Sequence[int]) -> int:
    """Return the width of q' and k' for keys of these sizes."""
    return round_up(head_dim + sum(round_up(size) for size in sizes))


def _triton_queries(
    q: Tensor, tables: Sequence[Tensor], thw: Grid, width: int, num_cls: int
) -> Tensor:
    from video_mvit.kernels.triton_queries import fold_queries

    return fold_queries(q, tables, thw, width, num_cls)


def _triton_keys(k: Tensor, sizes: tuple[int, ...], width: int, num_cls: int) -> Tensor:
    from video_mvit.kernels.triton_keys import fold_keys

    return fold_keys(k, sizes, width, num_cls)


def _query_examples() -> list[tuple[object, ...]]:
    generator = torch.Generator().manual_seed(0)
    B, h, thw, D = 2, 3, (2, 5, 4), 40
    examples: list[tuple[object, ...]] = []
    for num_cls, sizes in ((1, (8, 8, 16)), (0, (16, 8))):
        T = 2 if len(sizes) == 3 else 1
        q = torch.randn(B, h, num_cls + T * 20, D, generator=generator)
        q_sizes = (T, *thw[1:])[-len(sizes) :]
        tables = [
            torch.randn(n, m, D, generator=generator) for n, m in zip(q_sizes, sizes, strict=True)
        ]
        examples.append((q, tables, (T, *thw[1:]), 80, num_cls))
    return examples


def _key_examples() -> list[tuple[object, ...]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(2, 3, num_cls + prod(sizes), 40, generator=generator), sizes, 80, num_cls)
        for num_cls, sizes in ((1, (2, 5, 9)), (0, (3, 4)))
    ]


FOLD_QUERIES = Operation(
    name="fold_queries",
    plain=plain.fold_queries,
    forms=(Form(name="triton", run=_triton_queries, devices=("cuda",), stages=EAGER, tried=True),),
    examples=_query_examples,
)
FOLD_KEYS = Operation(
    name="fold_keys",
    plain=plain.fold_keys,
    forms=(Form(name="triton", run=_triton_keys, devices=("cuda",), stages=EAGER, tried=True),),
    examples=_key_examples,
)
