"""Infer the configuration of a network from the shapes of its tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from video_mvit.errors import UserError
from video_mvit.weights.key_formats import is_image, num_blocks, stage_starts, widening_blocks

PATCH_STRIDE = (2, 4)  # frames, pixels
NUM_STAGES = 4


def infer_architecture(official: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the fields of `MViTConfig`, except for rates, from an official state.

    Shapes do not determine whether a head takes the cls token or the mean; with a cls token it is
    "cls", but "mean" if channels double in the MLP (the MaskFeat fine-tunes). Raises `UserError` if
    required tensors are missing.
    """
    needed = ("patch_embed.proj.weight", "blocks.0.attn.pool_q.weight", "blocks.0.attn.rel_pos_h")
    if absent := [name for name in needed if name not in official]:
        raise UserError(f"its {', '.join(absent)} is missing, so that its architecture is unknown")
    starts = stage_starts(official)
    if len(starts) != NUM_STAGES:
        raise UserError(f"it has {len(starts)} stages; an MViTv2 has {NUM_STAGES}")
    ends = [*starts[1:], num_blocks(official)]
    depths = tuple(end - start for start, end in zip(starts, ends, strict=True))
    widens_in = {where for _, where in widening_blocks(official)}
    in_mlp = "mlp" in widens_in
    embed_dim = official["patch_embed.proj.weight"].shape[0]
    has_cls = "cls_token" in official
    rows = [len(official[f"blocks.{i}.attn.rel_pos_h"]) for i in range(ends[-1])]
    stride = _stride_kv(rows, starts, preferred=4 if is_image(official) else 8)
    architecture: dict[str, Any] = {
        "num_frames": _num_frames(official),
        "crop_size": PATCH_STRIDE[1] * _side(rows[0]),
        "depths": depths,
        "embed_dim": embed_dim,
        "num_heads": max(1, embed_dim // official["blocks.0.attn.pool_q.weight"].shape[0]),
        "stride_kv": (1, stride, stride),
        "cls_token": has_cls,
        "head": "cls" if has_cls and not in_mlp else "mean",
        "expand_dim_in": "mlp" if in_mlp else "attention",
    }
    if "head.projection.weight" in official:
        architecture["num_classes"] = len(official["head.projection.weight"])
    return architecture


def _num_frames(official: Mapping[str, Tensor]) -> int:
    if is_image(official):
        return 1
    table = official.get("blocks.0.attn.rel_pos_t")
    if table is None:
        raise UserError("its blocks.0.attn.rel_pos_t is missing, so that its frames are unknown")
    return PATCH_STRIDE[0] * _side(len(table))


def _side(num_rows: int) -> int:
    """Return the size n of an axis whose table has 2 n - 1 rows."""
    return (num_rows + 1) // 2


def _stride_kv(rows: Sequence[int], starts: Sequence[int], preferred: int) -> int:
    """Return the K/V stride of the first stage that requires tables of these sizes."""
    for stride in (preferred, 8, 4, 16, 2, 1):
        for ceil in (False, True):
            if _table_rows(_side(rows[0]), stride, starts, len(rows), ceil=ceil) == list(rows):
                return stride
    return preferred


def _table_rows(
    side: int, stride: int, starts: Sequence[int], num_blocks: int, *, ceil: bool
) -> list[int]:
    """Return the rows of each block's spatial tables; official code rounds down (`ceil` False)."""
    rows = []
    for i in range(num_blocks):
        stride_q = 2 if i in starts[1:] else 1
        stride = max(stride // stride_q, 1)
        sizes = [-(-side // s) if ceil else side // s for s in (stride_q, stride)]
        rows.append(2 * max(sizes) - 1)
        side = sizes[0]
    return rows
