"""Rows of the relative position tables (paper, section 4.1)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from video_mvit.kernels import round_up

Size = tuple[int, int]  # of an axis: of queries, of keys


def relative_index(q_size: int, k_size: int) -> Tensor:
    """Return the table row of each query and key of one axis: -> (q_size, k_size).

    The order of the float32 operations is part of the contract: at 312 px the products round, and
    the truncation then differs from exact arithmetic in 103 of 78x10 and 38 of 39x10 places.
    Released weights were trained with it (SlowFast `attention.py:48-147`).
    """
    scale_q, scale_k = max(k_size / q_size, 1.0), max(q_size / k_size, 1.0)
    i = torch.arange(q_size, dtype=torch.float32, device="cpu")[:, None]
    j = torch.arange(k_size, dtype=torch.float32, device="cpu")[None, :]
    return (i * scale_q - j * scale_k + (k_size - 1) * scale_k).long()


def joint_index(sizes: Sequence[Size]) -> Tensor:
    """Return the row of each query and key of every axis, where tables lie behind each other.

    -> (sum of q_size * k_size', ), with k_size rounded up: what is added is the first row, any will
    do, since no key is there (`kernels.rel_pos`).
    """
    parts, first = [], 0
    for q_size, k_size in sizes:
        added = (0, round_up(k_size) - k_size)
        parts.append(F.pad(relative_index(q_size, k_size), added).flatten() + first)
        first += num_rows(q_size, k_size)
    return torch.cat(parts)


def num_rows(q_size: int, k_size: int) -> int:
    """Return how many distances, rows of a table, an axis has."""
    return 2 * max(q_size, k_size) - 1


def take_rows(
    tables: Sequence[Tensor], index: Tensor, sizes: Sequence[Size], dtype: torch.dtype
) -> list[Tensor]:
    """Take the rows of `joint_index` from all tables at once: (rows, D) -> (q_size, k_size', D)."""
    rows = F.embedding(index, torch.cat(list(tables))).to(dtype)
    lengths = [q_size * round_up(k_size) for q_size, k_size in sizes]
    parts = zip(torch.split(rows, lengths), sizes, strict=True)
    return [part.view(q_size, -1, part.shape[1]) for part, (q_size, _) in parts]


def resize_table(table: Tensor, q_size: int, k_size: int) -> Tensor:
    """Resize a table to another grid: (rows, D) -> (rows', D).

    Linear, in float32, differentiable (detectron2 `modeling/backbone/utils.py`).
    """
    length = num_rows(q_size, k_size)
    if len(table) == length:
        return table
    return F.interpolate(table.T[None].float(), length, mode="linear")[0].T
