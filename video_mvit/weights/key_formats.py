"""Key formats: names and layouts of MViTv2 tensors in other libraries, one key table each.

"Official" names are SlowFast's and ours; official kernels are always 5-D here, those of images with
one frame. A table maps each official tensor; both directions are derived from it. Unknown names are
kept, so that loading reports them as unexpected.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from video_mvit.errors import UserError
from video_mvit.weights.other_networks import describe_other_network, describe_packed
from video_mvit.weights.pickle_limits import quoted

# {i} block, {p} weight or bias, {a} q, k or v, {x} an axis t, h or w.
OFFICIAL = (
    "cls_token",
    "patch_embed.proj.{p}",
    "blocks.{i}.norm1.{p}",
    "blocks.{i}.attn.qkv.{p}",
    "blocks.{i}.attn.proj.{p}",
    "blocks.{i}.attn.pool_{a}.weight",
    "blocks.{i}.attn.norm_{a}.{p}",
    "blocks.{i}.attn.rel_pos_{x}",
    "blocks.{i}.norm2.{p}",
    "blocks.{i}.mlp.fc1.{p}",
    "blocks.{i}.mlp.fc2.{p}",
    "blocks.{i}.proj.{p}",
    "norm.{p}",
    "head.projection.{p}",
)
FIELDS = {
    "i": r"(?P<i>0|[1-9][0-9]{0,3})",
    "p": r"(?P<p>weight|bias)",
    "a": r"(?P<a>[qkv])",
    "x": r"(?P<x>[thw])",
    "s": r"(?P<s>[0-9])",  # timm: stage
    "j": r"(?P<j>0|[1-9][0-9]{0,3})",  # timm: block in its stage
    "w": r"(?P<w>attn|mlp)",  # timm: where channels double
}
SIGNATURES = ("blocks.{i}.attn.pool_{a}.weight", "blocks.{i}.attn.rel_pos_{x}")
SEPARATE_QKV = re.compile(r"(?P<block>blocks\.[0-9]+\.attn)\.q\.(?P<p>weight|bias)")
State = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class KeyFormat:
    """Names of one library.

    Attributes:
        changes: official template -> theirs, where it differs; None where they have no such tensor.
        prefix: before each name but those in `changes` that start with "/".
        holds: kinds of networks of the library.
        image_kernels: dimensions of the patch and pooling kernels of an image model.
        extras: prefixes of names that are not part of the network and stay unused.
    """

    name: str
    changes: Mapping[str, str | None]
    prefix: str = ""
    holds: tuple[Literal["image", "video"], ...] = ("image", "video")
    image_kernels: tuple[int, int] = (5, 5)
    extras: tuple[str, ...] = ()

    def table(self) -> dict[str, str]:
        """Return the official template -> theirs."""
        table = {}
        for ours in OFFICIAL:
            theirs = self.changes.get(ours, ours)
            if theirs is not None:
                table[ours] = theirs[1:] if theirs.startswith("/") else self.prefix + theirs
        return table


TORCHVISION = {
    "cls_token": "pos_encoding.class_token",
    "patch_embed.proj.{p}": "conv_proj.{p}",
    "blocks.{i}.attn.proj.{p}": "blocks.{i}.attn.project.0.{p}",
    "blocks.{i}.attn.pool_{a}.weight": "blocks.{i}.attn.pool_{a}.pool.weight",
    "blocks.{i}.attn.norm_{a}.{p}": "blocks.{i}.attn.pool_{a}.norm_act.0.{p}",
    "blocks.{i}.mlp.fc1.{p}": "blocks.{i}.mlp.0.{p}",
    "blocks.{i}.mlp.fc2.{p}": "blocks.{i}.mlp.3.{p}",
    "blocks.{i}.proj.{p}": "blocks.{i}.project.{p}",
    "head.projection.{p}": "head.1.{p}",
}
MMACTION2 = {
    "patch_embed.proj.{p}": "patch_embed.projection.{p}",
    "norm.{p}": "norm3.{p}",
    "head.projection.{p}": "/cls_head.fc_cls.{p}",
}
TIMM = {
    **{name: name.replace("blocks.{i}", "stages.{s}.blocks.{j}") for name in OFFICIAL},
    "blocks.{i}.proj.{p}": "stages.{s}.blocks.{j}.shortcut_proj_{w}.{p}",
    "head.projection.{p}": "head.fc.{p}",
}
DETECTRON2 = {"cls_token": None, "norm.{p}": None, "head.projection.{p}": None}

KEY_FORMATS: Mapping[str, KeyFormat] = {
    key_format.name: key_format
    for key_format in (
        KeyFormat(name="video_mvit", changes={}),
        KeyFormat(
            name="slowfast",
            changes={},
            image_kernels=(4, 5),
            extras=("mask_token", "pred_head.", "hogs."),  # of MaskFeat pre-training
        ),
        KeyFormat(name="mvit", changes={}, holds=("image",), image_kernels=(4, 4)),
        KeyFormat(name="torchvision", changes=TORCHVISION, holds=("video",)),
        KeyFormat(name="timm", changes=TIMM, holds=("image",), image_kernels=(4, 4)),
        KeyFormat(
            name="mmaction2",
            changes=MMACTION2,
            prefix="backbone.",
            holds=("video",),
            extras=("data_preprocessor.",),
        ),
        KeyFormat(
            name="detectron2",
            changes=DETECTRON2,
            prefix="backbone.bottom_up.",
            holds=("image",),
            image_kernels=(4, 4),
            extras=(
                "backbone.bottom_up.scale",
                "backbone.fpn_",
                "backbone.top_block.",
                "proposal_generator.",
                "roi_heads.",
                "pixel_",
            ),
        ),
    )
}


def detect_format(state: State) -> KeyFormat:
    """Detect the key format of a state; raises `UserError` that says what it is instead."""
    if problem := describe_packed(state):
        raise UserError(problem)
    for name in ("torchvision", "timm", "detectron2", "mmaction2", "slowfast"):
        table = KEY_FORMATS[name].table()
        found = [any(matches(table[ours], names=state)) for ours in SIGNATURES]
        if not all(found):
            continue
        if name == "slowfast" and not any(key.endswith("rel_pos_t") for key in state):
            return KEY_FORMATS["mvit"]
        return KEY_FORMATS[name]
    names = ", ".join(name for name in KEY_FORMATS if name != "video_mvit")
    raise UserError(describe_other_network(state, names))


def has_official_names(names: Mapping[str, Any]) -> bool:
    """Return whether a model with these tensor names is an MViTv2 of ours."""
    return all(any(matches(template, names=names)) for template in SIGNATURES)


def to_official(state: State, key_format: KeyFormat) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Convert to official names and layouts; -> also the names of unused tensors.

    Separate projections of q, k and v are joined; 4-D kernels get a frame axis of one.
    """
    state = _with_joined_qkv(state)
    unused = tuple(name for name in state if name.startswith(key_format.extras or ("\0",)))
    stages = [int(m["s"]) for m in map(re.compile(r"stages\.(?P<s>[0-9])\.").match, state) if m]
    starts = _stage_starts(state) if stages else []
    official = {name: tensor for name, tensor in state.items() if name not in unused}
    for ours, theirs in key_format.table().items():
        for name, fields in matches(theirs, names=state):
            if "s" in fields:
                if int(fields["s"]) >= len(starts):
                    continue  # of no stage: reported as unexpected
                fields["i"] = str(starts[int(fields["s"])] + int(fields["j"]))
            tensor, new = official.pop(name), ours.format(**fields)
            if new in official:
                raise UserError(f"two of its tensors are {new}")
            if not tensor.numel():
                raise UserError(
                    f"its {quoted(name)} is empty, as in a part of a sharded checkpoint "
                    "(DeepSpeed, FSDP), whose parts are joined first"
                )
            official[new] = _official_layout(ours, tensor)
    return official, unused


def to_key_format(
    official: State, key_format: KeyFormat
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Convert an official state to a key format; -> also the names that it does not have.

    Raises `UserError` if the library has no such network.
    """
    kind: Literal["image", "video"] = "image" if is_image(official) else "video"
    if kind not in key_format.holds:
        raise UserError(
            f"{key_format.name} has no {kind} MViTv2, only {key_format.holds[0]} models"
        )
    widenings = dict(widening_blocks(official))
    starts = stage_starts(official)
    table = key_format.table()
    theirs: dict[str, Tensor] = {}
    for ours in OFFICIAL:
        for name, fields in matches(ours, names=official):
            if ours not in table:
                continue
            if "i" in fields:
                i = int(fields["i"])
                stage = max(s for s, start in enumerate(starts) if start <= i)
                fields.update(s=str(stage), j=str(i - starts[stage]), w=widenings.get(i, ""))
            tensor = _their_layout(ours, official[name], key_format, kind)
            theirs[table[ours].format(**fields)] = tensor
    known = {name for ours in table for name, _ in matches(ours, names=official)}
    return theirs, tuple(name for name in official if name not in known)


def is_image(official: State) -> bool:
    """Return whether kernels have no time axis, or one of a single frame."""
    kernel = official.get("patch_embed.proj.weight")
    if kernel is None:
        return not any(name.endswith("rel_pos_t") for name in official)
    return kernel.ndim == 4 or kernel.shape[2] == 1


def widening_blocks(official: State) -> Iterator[tuple[int, Literal["attn", "mlp"]]]:
    """Yield each block that doubles channels, and where in the block it does."""
    for i in range(num_blocks(official)):
        weight = official.get(f"blocks.{i}.proj.weight")
        if weight is not None:
            dim_attn = tensor_of(official, f"blocks.{i}.attn.qkv.weight").shape[0] // 3
            yield i, "attn" if dim_attn == weight.shape[0] else "mlp"


def tensor_of(official: State, name: str) -> Tensor:
    """Return a tensor that every MViTv2 has; raises `UserError` if it is missing."""
    if name not in official:
        raise UserError(f"its {name} is missing")
    return official[name]


def stage_starts(official: State) -> list[int]:
    """Return the index of the first block of each stage."""
    return [0, *(i if where == "attn" else i + 1 for i, where in widening_blocks(official))]


def num_blocks(official: State) -> int:
    """Return the number of blocks; raises `UserError` if one in between is missing."""
    numbers = {int(fields["i"]) for _, fields in matches(SIGNATURES[0], names=official)}
    if numbers != set(range(len(numbers))):
        raise UserError(f"its {len(numbers)} blocks are not numbered from 0 on")
    return len(numbers)


def matches(template: str, names: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the names that match a template, with the values of its fields."""
    pattern = re.escape(template).replace(r"\{", "{").replace(r"\}", "}")
    compiled = re.compile(re.sub(r"\{(\w)\}", lambda field: FIELDS[field[1]], pattern))
    for name in list(names):
        if match := compiled.fullmatch(name):
            yield name, match.groupdict()


def check_num_dims(official: State, kernel_dims: int = 5) -> None:
    """Raise `UserError` for a tensor with more or fewer axes than that of an MViTv2 has."""
    for template in OFFICIAL:
        is_kernel = template == "patch_embed.proj.{p}" or ".pool_" in template
        for name, _ in matches(template, names=official):
            num_dims = kernel_dims if is_kernel else 3 if name == "cls_token" else 2
            if "norm" in template or name.endswith(".bias"):
                num_dims = 1
            shape = tuple(official[name].shape)
            if len(shape) != num_dims or 0 in shape:
                raise UserError(f"its {name} has the shape {shape}, expected {num_dims} axes")


def _official_layout(ours: str, tensor: Tensor) -> Tensor:
    if ours == "cls_token":
        return tensor.reshape(1, 1, -1)
    is_kernel = ours == "patch_embed.proj.{p}" or ".pool_" in ours
    return tensor.unsqueeze(2) if is_kernel and tensor.ndim == 4 else tensor


def _their_layout(ours: str, tensor: Tensor, key_format: KeyFormat, kind: str) -> Tensor:
    if ours == "cls_token" and key_format.name == "torchvision":
        return tensor.reshape(-1)
    if kind == "image" and tensor.ndim == 5:
        patch, pool = key_format.image_kernels
        if (patch if ours.startswith("patch_embed") else pool) == 4:
            return tensor.squeeze(2)
    return tensor


def _stage_starts(state: State) -> list[int]:
    """Return the first block of each stage, from timm's names."""
    table = "stages.{s}.blocks.{j}.attn.pool_{a}.weight"
    depths: dict[int, int] = {}
    for _, fields in matches(table, names=state):
        stage, j = int(fields["s"]), int(fields["j"])
        depths[stage] = max(depths.get(stage, 0), j + 1)
    if set(depths) != set(range(len(depths))):
        raise UserError(f"its {len(depths)} stages are not numbered from 0 on")
    starts = [0]
    for stage in range(len(depths)):
        starts.append(starts[-1] + depths[stage])
    return starts


def _with_joined_qkv(state: State) -> dict[str, Tensor]:
    """Join q, k and v of SlowFast's option SEPARATE_QKV into one tensor."""
    joined = dict(state)
    for name in state:
        if match := SEPARATE_QKV.fullmatch(name):
            parts = [f"{match['block']}.{part}.{match['p']}" for part in "qkv"]
            shapes = {joined[part].shape for part in parts if part in joined}
            if all(part in joined for part in parts) and len(shapes) == 1:
                tensors = [joined.pop(part) for part in parts]
                joined[f"{match['block']}.qkv.{match['p']}"] = torch.cat(tensors)
    return joined
