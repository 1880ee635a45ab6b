"""Rows of the relative position tables (paper, section 4.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor


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


def resized_table(table: Tensor, q_size: int, k_size: int) -> Tensor:
    """Resize a table to another grid and take its rows: (rows, D) -> (q_size, k_size, D).

    Linear, in float32, differentiable (detectron2 `modeling/backbone/utils.py`).
    """
    num_rows = 2 * max(q_size, k_size) - 1
    if len(table) != num_rows:
        table = F.interpolate(table.T[None].float(), num_rows, mode="linear")[0].T
    return table[relative_index(q_size, k_size).to(table.device)]
