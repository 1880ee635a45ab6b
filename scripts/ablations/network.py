"""Networks of the paper's ablations (arXiv 2112.01526, tables 4, 6, 7 and 9), of MViTv2's blocks.

Variants that no released code has: joint relative positions, absolute positions in a classifier,
windows in a classifier, shifted windows, blocks that do not pool Q, detectors without a pyramid.
They train like any other: `video-mvit train ablation=positions model.positions=joint`.

Shapes: as in `video_mvit.models.mvit`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_mvit import kernels
from video_mvit.detection.config import DetectorConfig, detector_config
from video_mvit.detection.detector import Detector
from video_mvit.detection.layers import NormedConv, init_caffe2
from video_mvit.errors import UserError
from video_mvit.kernels.plain import Grid, Grids
from video_mvit.kernels.windows import from_windows, num_windows, to_windows
from video_mvit.models.backbone import Backbone, BackboneConfig
from video_mvit.models.config import BlockSpec, MViTConfig, variant_config
from video_mvit.models.mvit import MultiScaleAttention, MultiScaleBlock, MViT
from video_mvit.models.relative_positions import joint_index, num_rows, relative_index

Positions = Literal["none", "absolute", "decomposed", "both", "joint"]
Attention = Literal["full", "hwin", "swin", "pooling", "pooling_hwin", "pooling_swin"]
QPooling = Literal["all", "strided"]


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What differs from MViTv2; the defaults are MViTv2.

    Attributes:
        positions: "both" are absolute and decomposed relative ones (table 6).
        attention: "pooling" pools K and V, "full" does not (table 4). "hwin" attends in windows but
            for the last block of each later stage, "swin" in windows alone, which every second
            block moves by half their side, where queries and keys both have such a half.
        window: side of the windows of the first stage in tokens, where there are any; those of a
            later stage cover the same pixels.
        q_pooling: "strided" pools Q where its stride is not 1, as MViTv1 (table 7).
        residual_pooling: add the pooled Q to the output of attention (table 7).
        pyramid: of a detector; without it, its heads see the last map alone (table 9).
    """

    positions: Positions = "decomposed"
    attention: Attention = "pooling"
    window: int = 0
    q_pooling: QPooling = "all"
    residual_pooling: bool = True
    pyramid: bool = True

    def __post_init__(self) -> None:
        choices = {"positions": Positions, "attention": Attention, "q_pooling": QPooling}
        for name, kind in choices.items():
            if getattr(self, name) not in get_args(kind):
                known = ", ".join(get_args(kind))
                raise UserError(f"{name} {getattr(self, name)!r} is none of {known}")
        if self.window % 8:
            raise UserError(f"window {self.window} is neither 0 nor a multiple of 8")
        if self.has_windows and self.window < 1:
            raise UserError(
                f"attention {self.attention!r} needs a window, the side of one in tokens"
            )

    @property
    def has_windows(self) -> bool:
        return self.attention.endswith("win")

    def window_of(self, stage: int, *, is_first: bool, is_last: bool) -> int:
        """Return the side of a block's windows on the grid that enters it; 0: none."""
        is_global = self.attention.endswith("hwin") and stage > 0 and is_last
        if is_global or not self.has_windows:
            return 0
        return self.window >> (stage - 1 if stage > 0 and is_first else stage)


class AblatedAttention(MultiScaleAttention):
    """Attention of a block, changed; with nothing changed, `MultiScaleAttention` itself."""

    def __init__(self, spec: BlockSpec, ablation: Ablation, *, is_shifted: bool) -> None:
        is_relative = ablation.positions in ("decomposed", "both")
        super().__init__(
            replace(
                spec,
                relative_positions=is_relative and spec.relative_positions,
                residual_pooling=ablation.residual_pooling,
            )
        )
        self.is_shifted = is_shifted
        sizes = self.axis_sizes(*spec.attended_thw)
        if is_relative and spec.window:
            self.sizes = sizes  # tables of a window, not of the grid
            for axis, size in zip(self.axes, sizes, strict=True):
                table = nn.Parameter(torch.empty(num_rows(*size), spec.head_dim))
                self.register_parameter(f"rel_pos_{axis}", table)
            self.register_buffer("index", joint_index(sizes), persistent=False)
        if ablation.positions == "joint":
            if spec.num_cls:
                raise UserError("joint positions need a network without a cls token")
            rows = prod(num_rows(*size) for size in sizes)
            self.rel_pos_joint = nn.Parameter(torch.empty(rows, spec.head_dim))
            self.joint: Tensor
            self.register_buffer("joint", joint_rows(sizes), persistent=False)
        if ablation.q_pooling == "strided" and max(spec.stride_q) == 1:
            self.pool_q, self.norm_q = Unpooled(), nn.Identity()  # type: ignore[assignment]

    def forward(self, x: Tensor, spec: BlockSpec | None = None) -> Tensor:
        is_joint = hasattr(self, "rel_pos_joint")
        if not (is_joint or self.is_shifted):
            return super().forward(x, self._changed(spec))
        spec = self._changed(spec) or self.spec
        q, k, v = self.pooled_qkv(x, spec)
        grids, windows = (spec.q_thw, spec.kv_thw), spec.attended_thw
        if is_joint:
            if len(self.joint) != q.shape[2]:
                raise UserError("joint positions are for images of the size they were built for")
            x = joint_attention(q, k, v, self.rel_pos_joint[self.joint])
        else:
            tables = self.tables(spec, q.dtype)
            x = shifted_window_attention(q, k, v, tables, grids, windows)
        q = q if spec.residual_pooling else torch.zeros_like(q)
        return self.proj(kernels.residual_merge(x, q, spec.num_cls))  # type: ignore[no-any-return]

    def _changed(self, spec: BlockSpec | None) -> BlockSpec | None:
        """Return this block on the grid of an image."""
        return spec and replace(self.spec, thw=spec.thw)


class Unpooled(nn.Module):
    """A token pool that leaves Q as it is: (B, N, C) -> (B, N, C)."""

    def forward(self, x: Tensor, thw: Grid | None = None) -> Tensor:
        return x


def joint_rows(sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Return the row of a joint table for each query and key of a grid: -> (N', Nkv)."""
    rows = torch.zeros(1, 1, dtype=torch.int64)
    for q_size, k_size in sizes:
        index = relative_index(q_size, k_size)
        rows = rows[:, None, :, None] * num_rows(q_size, k_size) + index[None, :, None, :]
        rows = rows.reshape(rows.shape[0] * q_size, -1)
    return rows


def joint_attention(q: Tensor, k: Tensor, v: Tensor, embedding: Tensor) -> Tensor:
    """Attend with a position embedding (N', Nkv, D) of each pair: (B, h, N', D) -> (B, h, N', D).

    Paper, section 4.1, before its decomposition: scores are q.k / sqrt(D) + q.R.
    """
    bias = torch.einsum("bhnd,nmd->bhnm", q, embedding.to(q.dtype))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def shifted_window_attention(
    q: Tensor, k: Tensor, v: Tensor, tables: Sequence[Tensor], grids: Grids, windows: Grids
) -> Tensor:
    """Attend in windows that are moved by half their side (Swin, arXiv 2103.14030, section 3.2).

    Arguments and result are those of `kernels.window_attention`. Grids are rolled, so that a window
    at the border holds tokens of opposite sides, which do not attend to each other.
    """
    (q_thw, kv_thw), (q_window, kv_window) = grids, windows
    rolled = to_windows(roll(q, q_thw, q_window), whole(q_thw, q_window), q_window)
    k = to_windows(roll(k, kv_thw, kv_window), whole(kv_thw, kv_window), kv_window)
    v = to_windows(roll(v, kv_thw, kv_window), whole(kv_thw, kv_window), kv_window)
    queries, keys = regions(q_thw, q_window), regions(kv_thw, kv_window)
    mask = (queries[:, :, None] == keys[:, None, :])[:, None].to(q.device)  # (windows, 1, Nq, Nk)
    folded_q, folded_k = kernels.fold(rolled, k, tables, windows, 0)
    mask = mask.repeat(len(rolled) // len(mask), 1, 1, 1)
    x = F.scaled_dot_product_attention(folded_q, folded_k, v, attn_mask=mask, scale=1.0)
    padded = whole(q_thw, q_window)
    x = from_windows(x, padded, q_window)
    x = x.view(*x.shape[:2], *padded[1:], -1)  # (B, h, H', W', D)
    x = x.roll((q_window[1] // 2, q_window[2] // 2), dims=(2, 3))
    return x[:, :, : q_thw[1], : q_thw[2]].flatten(2, 3)


def has_half(spec: BlockSpec) -> bool:
    """Return whether windows of queries and of keys can move by the same pixels, about a half."""
    (_, q_side, _), (_, kv_side, _) = spec.attended_thw
    return min(q_side, kv_side) > 1 and (q_side == kv_side or not (q_side % 2 or kv_side % 2))


def whole(thw: Grid, window: Grid) -> Grid:
    """Return a grid padded to whole windows."""
    rows, columns = num_windows(thw, window)
    return (1, rows * window[1], columns * window[2])


def roll(x: Tensor, thw: Grid, window: Grid) -> Tensor:
    """Pad a grid with zeros to whole windows and roll it by half a window: -> (B, h, H*W, D)."""
    (_, H, W), (_, padded_h, padded_w) = thw, whole(thw, window)
    x = F.pad(x.view(*x.shape[:2], H, W, -1), (0, 0, 0, padded_w - W, 0, padded_h - H))
    return x.roll((-(window[1] // 2), -(window[2] // 2)), dims=(2, 3)).flatten(2, 3)


def regions(thw: Grid, window: Grid) -> Tensor:
    """Number the parts of rolled windows that are neighbours in the grid: -> (windows, wh*ww)."""
    _, H, W = whole(thw, window)
    numbers = torch.zeros(1, 1, H, W, 1)
    for axis, side in ((2, window[1]), (3, window[2])):
        size, half = numbers.shape[axis], side // 2
        wrapped = (torch.arange(size) >= size - half).float()
        numbers = numbers * 2 + wrapped.view(-1, *[1] * (4 - axis))
    return to_windows(numbers.flatten(2, 3), (1, H, W), window)[:, 0, :, 0]


def ablated_blocks(
    schedule: Sequence[BlockSpec], config: MViTConfig | BackboneConfig, ablation: Ablation
) -> nn.ModuleList:
    """Return the blocks of a schedule, each with changed attention."""
    blocks: list[MultiScaleBlock] = []
    depths, checkpointing = config.depths, config.activation_checkpointing
    stages = [(stage, i) for stage, depth in enumerate(depths) for i in range(depth)]
    for (stage, i), spec in zip(stages, schedule, strict=True):
        window = ablation.window_of(stage, is_first=i == 0, is_last=i == depths[stage] - 1)
        stride_kv = spec.stride_kv if ablation.attention.startswith("pooling") else (1, 1, 1)
        spec = replace(spec, window=window, stride_kv=stride_kv)
        block = MultiScaleBlock(spec, checkpointing)
        is_shifted = ablation.attention.endswith("swin") and len(blocks) % 2 == 1 and has_half(spec)
        block.attn = AblatedAttention(spec, ablation, is_shifted=is_shifted)
        blocks.append(block)
    return nn.ModuleList(blocks)


class AblatedMViT(MViT):
    """A classifier with changed blocks, and absolute positions where asked for."""

    def __init__(self, name: str, ablation: Ablation, **overrides: Any) -> None:
        super().__init__(variant_config(name, **overrides))
        if ablation.has_windows and not self.config.is_image:
            raise UserError("windows are for images; model.attention=pooling is for videos")
        self.blocks = ablated_blocks(self.schedule, self.config, ablation)
        if ablation.positions in ("absolute", "both"):
            num_tokens = prod(self.config.patch_grid) + self.config.cls_token
            self.pos_embed = nn.Parameter(torch.empty(1, num_tokens, self.config.embed_dim))
        self.init_weights()
        if hasattr(self, "pos_embed"):
            nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def _embed(self, clip: Tensor) -> Tensor:
        x = super()._embed(clip)
        return x + self.pos_embed if hasattr(self, "pos_embed") else x


class LastMap(nn.Module):
    """In place of a pyramid, the last map of the backbone at every stride: -> "p2" to "p6".

    It takes no finer map. The paper's detectors without a pyramid have anchors and regions on this
    map alone; here it is repeated for the strides of the pyramid, so that the heads are the same.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.bottom_up = Backbone(config.backbone)
        dim = config.fpn_channels
        self.lateral = NormedConv(config.backbone.embed_dim * 8, dim, 1, "none")
        self.output = NormedConv(dim, dim, 3, "none")
        init_caffe2(self.lateral)
        init_caffe2(self.output)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.output(self.lateral(self.bottom_up(image)["scale5"]))
        pyramid = {f"p{5 - i}": F.interpolate(x, scale_factor=2.0**i) for i in range(4)}
        pyramid["p6"] = F.max_pool2d(x, kernel_size=1, stride=2)
        return dict(sorted(pyramid.items()))


def split(options: dict[str, Any]) -> tuple[Ablation, dict[str, Any]]:
    """Divide options into those of the ablation and those of the network."""
    known = {field.name for field in fields(Ablation)}
    ours = {name: options[name] for name in options if name in known}
    return Ablation(**ours), {name: options[name] for name in options if name not in known}


def create_model(name: str, **options: Any) -> AblatedMViT:
    """Build a classifier with fresh weights: fields of `Ablation` and of `MViTConfig`."""
    ablation, overrides = split(options)
    return AblatedMViT(name, ablation, **overrides)


def create_detector(name: str, **options: Any) -> Detector:
    """Build a detector with fresh weights: fields of `Ablation`, `DetectorConfig` and its backbone.

    Positions are options of the backbone itself, `absolute_positions` and `relative_positions`.
    """
    ablation, overrides = split(options)
    if ablation.positions != "decomposed":
        raise UserError(
            f"positions {ablation.positions!r} are of a classifier; a detector has "
            "absolute_positions and relative_positions, true or false"
        )
    detector = Detector(detector_config(name, **(overrides | {"window": 0})))
    config = detector.config
    if not ablation.pyramid:
        detector.backbone = LastMap(config)  # type: ignore[assignment]
    backbone = detector.backbone.bottom_up
    backbone.blocks = ablated_blocks(backbone.schedule, config.backbone, ablation)
    backbone.init_weights()
    return detector
