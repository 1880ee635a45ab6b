"""Attention inside windows of the pooled grids (paper, section 4.2: hybrid window attention).

The windows are cut from pooled and normalized queries, keys and values. At the bottom and on the
right, grids are padded with zeros to whole windows, and nothing is masked: padded keys take part in
the softmax with their positions, as in the reference (detectron2, `modeling/backbone/mvit.py`).

Shapes: B images; h heads; D channels of a head; thw = (1, H, W); windows w = (1, wh, ww).
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from video_mvit.kernels.plain import Grid, Grids
from video_mvit.kernels.rel_pos import rel_pos_attention


def window_attention(
    q: Tensor, k: Tensor, v: Tensor, tables: Sequence[Tensor], grids: Grids, windows: Grids
) -> Tensor:
    """Attend inside windows: (B, h, H*W, D), 2 x (B, h, Hkv*Wkv, D) -> (B, h, H*W, D).

    Args:
        tables: (wh, wh_kv', D) and (ww, ww_kv', D), positions inside a window, keys rounded up.
        grids: token grids of queries, and of keys and values.
        windows: their windows; both grids have the same number of them.
    """
    (q_thw, kv_thw), (q_window, kv_window) = grids, windows
    q = to_windows(q, q_thw, q_window)  # (B*windows, h, wh*ww, D)
    k, v = to_windows(k, kv_thw, kv_window), to_windows(v, kv_thw, kv_window)
    x = rel_pos_attention(q, k, v, tables, windows, 0)
    return from_windows(x, q_thw, q_window)


def to_windows(x: Tensor, thw: Grid, window: Grid) -> Tensor:
    """Cut a grid into windows: (B, h, H*W, D) -> (B*windows, h, wh*ww, D)."""
    B, h, _, D = x.shape
    (_, H, W), (_, wh, ww), (rows, columns) = thw, window, num_windows(thw, window)
    x = F.pad(x.view(B, h, H, W, D), (0, 0, 0, columns * ww - W, 0, rows * wh - H))
    x = x.reshape(B, h, rows, wh, columns, ww, D)
    return x.permute(0, 2, 4, 1, 3, 5, 6).reshape(-1, h, wh * ww, D)


def from_windows(x: Tensor, thw: Grid, window: Grid) -> Tensor:
    """Put windows together and drop the padding: (B*windows, h, wh*ww, D) -> (B, h, H*W, D)."""
    _, h, _, D = x.shape
    (_, H, W), (_, wh, ww), (rows, columns) = thw, window, num_windows(thw, window)
    x = x.view(-1, rows, columns, h, wh, ww, D).permute(0, 3, 1, 4, 2, 5, 6)
    x = x.reshape(-1, h, rows * wh, columns * ww, D)[:, :, :H, :W]  # (B, h, H, W, D)
    return x.flatten(2, 3)


def num_windows(thw: Grid, window: Grid) -> tuple[int, int]:
    """Return how many windows cover a grid, down and across."""
    (_, H, W), (_, wh, ww) = thw, window
    # Graphs for any size must not divide negative numbers, as -(-H // wh) does: ONNX truncates.
    return (H + wh - 1) // wh, (W + ww - 1) // ww
