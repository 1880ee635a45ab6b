"""Infer the configuration of a network from the shapes of its tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from video_mvit.errors import UserError
from video_mvit.weights.card_schema import CLASSIFIER, check_fields
from video_mvit.weights.key_formats import (
    check_num_dims,
    is_image,
    num_blocks,
    stage_starts,
    tensor_of,
    widening_blocks,
)

PATCH_STRIDE = (2, 4)  # frames, pixels
NUM_STAGES = 4
MLP_RATIO = 4
MAX_DISTANCES = 12_000_000  # of relative positions, counted as if every block had the first grid
# What shapes tell of a network for sure.
CERTAIN = (
    "num_frames",
    "crop_size",
    "depths",
    "embed_dim",
    "num_heads",
    "cls_token",
    "expand_dim_in",
    "num_classes",
    "head_depth",
)
QUERY = "head.pooler.query_tokens"  # of an attentive head


def infer_architecture(official: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer the fields of `MViTConfig`, except for rates, from an official state.

    Shapes do not determine whether a head takes the cls token or the mean; with a cls token it is
    "cls", but "mean" if channels double in the MLP (the MaskFeat fine-tunes). Raises `UserError` if
    required tensors are missing, or no MViTv2 has these shapes.
    """
    needed = ("patch_embed.proj.weight", "blocks.0.attn.pool_q.weight", "blocks.0.attn.rel_pos_h")
    if absent := [name for name in needed if name not in official]:
        raise UserError(f"its {', '.join(absent)} is missing, so that its architecture is unknown")
    check_num_dims(official, 4 if official[needed[0]].ndim == 4 else 5)
    starts = stage_starts(official)
    if len(starts) != NUM_STAGES:
        raise UserError(f"it has {len(starts)} stages; an MViTv2 has {NUM_STAGES}")
    ends = [*starts[1:], num_blocks(official)]
    depths = tuple(end - start for start, end in zip(starts, ends, strict=True))
    widens_in = {where for _, where in widening_blocks(official)}
    in_mlp = "mlp" in widens_in
    embed_dim = official["patch_embed.proj.weight"].shape[0]
    has_cls = "cls_token" in official
    rows = [len(tensor_of(official, f"blocks.{i}.attn.rel_pos_h")) for i in range(ends[-1])]
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
    if QUERY in official:
        names = [name for name in official if name.startswith("head.pooler.blocks.")]
        architecture["head"] = "attentive"
        architecture["head_depth"] = 1 + len({name.split(".")[3] for name in names})
    check_fields(architecture, CLASSIFIER, "its architecture", strict=True)
    return architecture


def check_architecture(architecture: Mapping[str, Any], official: Mapping[str, Tensor]) -> None:
    """Raise `UserError` unless these tensors are those of a network of this architecture.

    Called before the network is built: it then has about as many values as the file. Tensors that
    are missing, too many, or of other grids are for `load.py` to name.
    """
    found = infer_architecture(official)
    for name in CERTAIN:
        if name not in architecture or name not in found:
            continue
        said, is_list = architecture[name], name == "depths"
        if (tuple(said) if is_list else said) != found[name]:
            raise UserError(f"its card says {name} {said}, its tensors are of {found[name]}")
    has_attentive = found["head"] == "attentive"
    if (architecture.get("head") == "attentive") != has_attentive:
        has = "an" if has_attentive else "no"
        raise UserError(
            f"its card says head {architecture.get('head')}, it has {has} attentive one"
        )
    grid = (found["num_frames"] // PATCH_STRIDE[0], found["crop_size"] // PATCH_STRIDE[1])
    check_tables(sum(found["depths"]), grid)
    check_widths(official, found)


def check_tables(num_blocks: int, grid: tuple[int, int]) -> None:
    """Raise `UserError` for more pairs of positions on a grid (T, side) than a network looks up."""
    if num_blocks * (grid[0] ** 2 + 2 * grid[1] ** 2) > MAX_DISTANCES:
        raise UserError("its position tables are larger than those of any MViTv2")


def check_widths(official: Mapping[str, Tensor], found: Mapping[str, Any]) -> None:
    """Raise `UserError` unless the layers of every block with most of its values are as wide.

    `found` has depths, embed_dim and expand_dim_in.
    """
    if num_blocks(official) != sum(found["depths"]):
        raise UserError(f"its blocks are {num_blocks(official)}, expected {found['depths']}")
    i, dim = 0, found["embed_dim"]
    for stage, depth in enumerate(found["depths"]):
        dim_attn = found["embed_dim"] * 2**stage
        for position in range(depth):
            hidden = MLP_RATIO * dim_attn
            expected = {"attn.qkv": (3 * dim_attn, dim), "mlp.fc1": (hidden, dim_attn)}
            for part, shape in expected.items():
                name = f"blocks.{i}.{part}.weight"
                there = tuple(tensor_of(official, name).shape)
                if there != shape:
                    raise UserError(f"its {name} is of {there}, expected {shape}")
            is_last = position == depth - 1 and stage < NUM_STAGES - 1
            dim = 2 * dim_attn if is_last and found["expand_dim_in"] == "mlp" else dim_attn
            i += 1
    if found.get("head") == "attentive":  # a detector has none
        check_pooler(official, found["head_depth"], dim)


def check_pooler(official: Mapping[str, Tensor], depth: int, dim: int) -> None:
    """Raise `UserError` unless the layers with most values of an attentive head are as wide."""
    expected = {"cross_attention_block.mlp.fc1": (MLP_RATIO * dim, dim)}
    for i in range(depth - 1):
        expected |= {f"blocks.{i}.attn.qkv": (3 * dim, dim)}
        expected |= {f"blocks.{i}.mlp.fc1": (MLP_RATIO * dim, dim)}
    for part, shape in expected.items():
        name = f"head.pooler.{part}.weight"
        if (there := tuple(tensor_of(official, name).shape)) != shape:
            raise UserError(f"its {name} is of {there}, expected {shape}")


def _num_frames(official: Mapping[str, Tensor]) -> int:
    if is_image(official):
        return 1
    table = official.get("blocks.0.attn.rel_pos_t")
    if table is None:
        raise UserError(
            "its blocks.0.attn.rel_pos_t is missing, so that its frames are unknown; pass a file "
            "with all tensors"
        )
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
