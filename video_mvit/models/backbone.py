"""MViTv2 as the backbone of a detector: feature maps of four strides from an image of any size.

The blocks are those of the classifier (`mvit.py`), on the grid of the image at hand: most attend
inside windows, the last block of each later stage attends everywhere (paper, section 4.2). Names of
parameters, outputs and rules are those of detectron2 (`modeling/backbone/mvit.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_mvit.errors import UserError
from video_mvit.kernels import Grid, LayerNorm
from video_mvit.models.config import (
    PATCH_STRIDE_HW,
    BlockSpec,
    Checkpointing,
    MViTConfig,
    block_schedule,
    variant_config,
)
from video_mvit.models.mvit import NORM_EPS, MultiScaleBlock, TokenPool

STRIDES_KV = (4, 8, 2, 1)  # the published one first
SIZES = ("t", "s", "b", "l", "h")


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """What a backbone is built from; the defaults are MViTv2-T.

    Attributes:
        pretrain_crop_size: side of the images of pre-training in pixels, which decides the rows of
            the position tables.
        window: side of the windows of the first stage in tokens; 0 lets every block attend
            everywhere (paper, table 4).
        stride_kv: stride of K and V in the first stage. It halves with each stage, and doubles in
            the last blocks of the two middle stages.
        relative_positions, absolute_positions: paper, table 6.
        pretrain_cls_token: whether the table of absolute positions has a first row for cls.
        residual_pooling: paper, table 7.
        drop_path_rate, activation_checkpointing: as in `MViTConfig`.
    """

    depths: Sequence[int] = (1, 2, 5, 2)
    embed_dim: int = 96
    num_heads: int = 1
    pretrain_crop_size: int = 224
    window: int = 56
    stride_kv: int = 4
    relative_positions: bool = True
    absolute_positions: bool = False
    pretrain_cls_token: bool = True
    residual_pooling: bool = True
    drop_path_rate: float = 0.0
    activation_checkpointing: Checkpointing = "none"

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", tuple(self.depths))
        if self.window < 0 or self.window % 8:
            raise UserError(f"window {self.window} is neither 0 nor a multiple of 8")
        if self.stride_kv not in STRIDES_KV:
            raise UserError(f"stride_kv {self.stride_kv} is none of {STRIDES_KV}")
        self.image_model()  # checks the rest

    def image_model(self) -> MViTConfig:
        """Return the image classifier whose weights the backbone starts from."""
        return MViTConfig(
            num_frames=1,
            crop_size=self.pretrain_crop_size,
            depths=self.depths,
            embed_dim=self.embed_dim,
            num_heads=self.num_heads,
            stride_kv=(1, self.stride_kv, self.stride_kv),
            cls_token=False,
            head="mean",
            drop_path_rate=self.drop_path_rate,
            activation_checkpointing=self.activation_checkpointing,
        )


def backbone_config(size: str, **fields: Any) -> BackboneConfig:
    """Return the backbone of a published size, "t" to "h", some fields replaced."""
    if size not in SIZES:
        raise UserError(f"unknown backbone size {size!r}; choose one of {', '.join(SIZES)}")
    image = variant_config(f"mvitv2_image_{size}")
    known: dict[str, Any] = {
        "depths": image.depths,
        "embed_dim": image.embed_dim,
        "num_heads": image.num_heads,
    }
    return BackboneConfig(**(known | fields))


def backbone_schedule(config: BackboneConfig) -> list[BlockSpec]:
    """Unroll stages into blocks, with windows, for an image as large as those of pre-training."""
    specs = iter(block_schedule(config.image_model()))
    schedule = []
    for stage, depth in enumerate(config.depths):
        for i in range(depth):
            spec = next(specs)
            # The last block of a later stage attends everywhere: to fewer keys in the middle ones.
            is_global = stage > 0 and i == depth - 1
            stride_kv = spec.stride_kv[1] * (2 if is_global and stage < 3 else 1)
            # A window covers the same pixels in all stages; the first block gets the finer grid.
            grid = stage - 1 if stage > 0 and i == 0 else stage
            schedule.append(
                replace(
                    spec,
                    stride_kv=(1, stride_kv, stride_kv),
                    window=0 if is_global else config.window >> grid,
                    relative_positions=config.relative_positions,
                    residual_pooling=config.residual_pooling,
                    flat_pool_weights=True,
                )
            )
    return schedule


class ImagePatchEmbed(nn.Module):
    """Cut an image into overlapping patches: (B, 3, H, W) -> (B, C, H/4, W/4), rounded up."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=7, stride=PATCH_STRIDE_HW, padding=3)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image)  # type: ignore[no-any-return]


class Backbone(nn.Module):
    """Feature maps of an image: (B, 3, H, W) normalized -> "scale2" to "scale5".

    Their strides are 4, 8, 16 and 32, their channels `embed_dim` times 1, 2, 4 and 8; each is
    normalized by its own layer. H and W are free.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = backbone_schedule(config)
        self.patch_embed = ImagePatchEmbed(config.embed_dim)
        if config.absolute_positions:
            num_rows = self.pretrain_side**2 + config.pretrain_cls_token
            self.pos_embed = nn.Parameter(torch.empty(1, num_rows, config.embed_dim))
        mode = config.activation_checkpointing
        self.blocks = nn.ModuleList(MultiScaleBlock(spec, mode) for spec in self.schedule)
        self.outputs = {}  # block -> name of the map behind it
        for stage in range(4):
            name, block = f"scale{stage + 2}", sum(config.depths[: stage + 1]) - 1
            self.outputs[block] = name
            norm = LayerNorm(self.schedule[block].dim_out, eps=NORM_EPS)
            self.add_module(f"{name}_norm", norm)
        self.init_weights()

    @property
    def pretrain_side(self) -> int:
        return self.config.pretrain_crop_size // PATCH_STRIDE_HW

    def init_weights(self) -> None:
        """Initialize as detectron2 does: position tables start at 0, and biases, unlike SlowFast.

        Convolutions keep PyTorch's own initialization.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, TokenPool):
                nn.init.kaiming_uniform_(module.weight, a=5**0.5)
        for name, parameter in self.named_parameters():
            if "rel_pos" in name:
                nn.init.zeros_(parameter)
            elif name == "pos_embed":
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        maps = {}
        x = self.patch_embed(image)  # (B, C, H, W)
        thw: Grid = (1, x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)  # (B, N, C)
        if self.config.absolute_positions:
            x = x + self.positions(thw)
        for i, (block, nominal) in enumerate(zip(self.blocks, self.schedule, strict=True)):
            spec = replace(nominal, thw=thw)  # on the grid of this image
            x, thw = block(x, spec), spec.q_thw
            if name := self.outputs.get(i):
                # The normalized map goes out, the next block gets the raw one.
                normed = self.get_submodule(f"{name}_norm")(x)
                maps[name] = normed.transpose(1, 2).reshape(
                    x.shape[0], -1, *thw[1:]
                )  # (B, C, H, W)
        return maps

    def positions(self, thw: Grid) -> Tensor:
        """Return absolute positions for a grid: -> (1, H*W, C)."""
        side = self.pretrain_side
        x: Tensor = self.pos_embed[:, -(side**2) :].transpose(1, 2).reshape(1, -1, side, side)
        if x.shape[2:] != thw[1:]:
            x = F.interpolate(x.float(), thw[1:], mode="bicubic")
        return x.flatten(2).transpose(1, 2)
