"""Inflate an image MViTv2 to a video MViTv2: 2-D kernels become 3-D, temporal tables are zero.

Two published rules for a kernel of T frames: `center`, the 2-D kernel in the middle tap and zeros
elsewhere (the paper; exact on a static clip, clip borders included), and `average`, the 2-D kernel
divided by T in every tap (I3D; a static clip loses a tap at its borders).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from video_mvit.errors import UserError
from video_mvit.weights.key_formats import is_image, num_blocks, widening_blocks
from video_mvit.weights.load import Source, fit, is_part, new_row, unused_row
from video_mvit.weights.load_plan import Plan, Row, Shape

Rule = Literal["center", "average"]
RULES: tuple[Rule, ...] = ("center", "average")


def plan_inflation(
    source: Source,
    shapes: Mapping[str, Shape],
    rule: Rule = "center",
    head: Literal["new", "keep"] = "new",
) -> Plan:
    """Plan every tensor of the video model: inflated, or new with zero temporal tables.

    A cls token is copied if the image model has one, else it stays as initialized.

    Args:
        shapes: names and shapes of the video model's tensors.
        head: "keep" keeps the classes of the image model.

    Raises:
        UserError: if the source is not an image model of the same depth and widths.
    """
    for name, value, known in (("rule", rule, RULES), ("head", head, ("new", "keep"))):
        if value not in known:
            raise UserError(f"{name} is {value!r}, expected one of {', '.join(known)}")
    _check_same_network(source, shapes)
    in_time = [name for name in shapes if name.endswith("rel_pos_t")]
    new = [name for name in shapes if name.startswith("head.") and head == "new"]
    if "cls_token" not in source.state:
        new += [name for name in shapes if name == "cls_token"]
    unused = [
        name
        for name in source.state
        if (is_part(name, "head") and head == "new")
        or (name == "cls_token" and "cls_token" not in shapes)
    ]
    inflated = {
        name: inflate_kernel(tensor, shapes[name][2], rule)
        for name, tensor in source.state.items()
        if name in shapes and tensor.ndim == 5 and tensor.shape[2] == 1 < shapes[name][2]
    }
    as_video = replace(source, state={**source.state, **inflated})
    state, rows = fit(as_video, shapes, skipped={*in_time, *new, *unused})
    rows = [_as_inflated(row, source, rule) if row.name in inflated else row for row in rows]
    rows += [new_row(source, name, shapes[name], "zeros") for name in in_time]
    rows += [new_row(source, name, shapes[name], "initialised") for name in new]
    rows += [unused_row(source, name, "image model only") for name in unused if name not in new]
    rows += [unused_row(source, name, "not of the network") for name in source.unused]
    zeros = {name: torch.zeros(shapes[name]) for name in in_time}
    return Plan(rows=tuple(rows), state={**state, **zeros}, path=source.path)


def inflate_kernel(kernel: Tensor, num_frames: int, rule: Rule) -> Tensor:
    """Inflate a kernel: (C', C, 1, kh, kw) -> (C', C, T, kh, kw)."""
    if rule == "average":
        return kernel.expand(-1, -1, num_frames, -1, -1) / num_frames
    inflated = kernel.new_zeros(*kernel.shape[:2], num_frames, *kernel.shape[3:])
    inflated[:, :, num_frames // 2] = kernel[:, :, 0]
    return inflated


def _check_same_network(source: Source, shapes: Mapping[str, Shape]) -> None:
    """Raise `UserError` with the reason why this source cannot be inflated to the model."""
    if not is_image(source.state):
        raise UserError(f"{source.path} is already a video model; use init=weights")
    blueprint = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    if is_image(blueprint):
        raise UserError("the model to inflate into has one frame; choose a video model")
    theirs, ours = (_describe(state) for state in (source.state, blueprint))
    if theirs[:2] != ours[:2]:
        raise UserError(
            f"{source.path} has {theirs[0]} blocks that start with {theirs[1]} channels, the model "
            f"has {ours[0]} that start with {ours[1]}; both must be of one size (T, S, B, L)"
        )
    if theirs[2] != ours[2]:
        names = {"attn": "attention", "mlp": "mlp"}
        raise UserError(
            f"{source.path} doubles its channels in the {names[theirs[2]]}, the model in the "
            f"{names[ours[2]]}, so that their layers differ (ImageNet-1K L is the one with the mlp)"
            f"; the video model with expand_dim_in={names[theirs[2]]} matches"
        )


def _describe(state: Mapping[str, Tensor]) -> tuple[int, int, str]:
    """Return number of blocks, first width, and where channels double."""
    first = state.get("blocks.0.norm1.weight")
    where = next((where for _, where in widening_blocks(state)), "")
    return num_blocks(state), 0 if first is None else len(first), where


def _as_inflated(row: Row, source: Source, rule: Rule) -> Row:
    before: Shape = tuple(source.state[row.name].shape)
    assert row.target is not None
    place = "middle tap of" if rule == "center" else "averaged over"
    note = f"{place} {row.target[2]}"
    return replace(row, action="inflated", source=before, note=note)
