"""Optimizer and learning rate schedule of the published recipes.

The learning rate is a pure function of the fractional epoch, so that there is no scheduler state to
drift on resume.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from video_mvit.errors import UserError

BLOCK = re.compile(r"blocks\.(\d+)\.")
LAYERS = ("patch_embed", "cls_token", "blocks", "norm", "head")  # of an MViTv2, from the bottom up


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """ "adamw" (betas 0.9, 0.999) or "sgd" (Nesterov momentum 0.9), scheduled by epoch.

    Learning rates refer to `reference_clips` clips per step; None: to the actual number. With
    `layer_decay`, each layer has that fraction of the learning rate of the layer above it (1 and
    None: the same). Parts of the network named in `freeze` are not trained, those in
    `freeze_epochs` only after as many epochs, then at the rate of the schedule (see `freezing.py`).
    """

    name: Literal["adamw", "sgd"]
    lr: float
    start_lr: float
    end_lr: float
    num_epochs: int
    warmup_epochs: float
    weight_decay: float
    reference_clips: int | None = None
    layer_decay: float | None = 1.0
    freeze: Sequence[str] = ()
    freeze_epochs: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if self.name not in ("adamw", "sgd"):
            raise UserError(f"optimizer name {self.name!r} is none of 'adamw', 'sgd'")
        for name in ("lr", "start_lr", "end_lr", "weight_decay"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} {getattr(self, name)} must not be negative")
        if self.reference_clips is not None and self.reference_clips < 1:
            raise UserError(f"reference_clips {self.reference_clips} must be positive, or null")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise UserError(f"layer_decay {self.layer_decay} is outside (0, 1]")
        for name, num_epochs in (self.freeze_epochs or {}).items():
            if type(num_epochs) is not int or not 0 < num_epochs < self.num_epochs:
                raise UserError(
                    f"optim.freeze_epochs freezes {name} in {num_epochs} epochs, expected a number "
                    f"from 1 to {self.num_epochs - 1}; optim.freeze=[{name}] never trains it"
                )
        if not 0 <= self.warmup_epochs < self.num_epochs:
            raise UserError(
                f"warmup_epochs {self.warmup_epochs} must be less than num_epochs {self.num_epochs}"
            )


def scale_learning_rates(config: OptimConfig, num_clips: int) -> OptimConfig:
    """Scale the schedule to the clips per step, over all devices and accumulated batches.

    Linear scaling (Goyal et al. 2017), as the published configurations scale with machines.
    """
    if config.reference_clips is None:
        return config
    scale = num_clips / config.reference_clips
    rates = {name: getattr(config, name) * scale for name in ("lr", "start_lr", "end_lr")}
    return replace(config, reference_clips=None, **rates)


def learning_rate(config: OptimConfig, epoch: float) -> float:
    """Return the learning rate at a fractional epoch, such as 2.5.

    As SlowFast `lr_policy.py`: linear warm-up from `start_lr` to `lr`, then cosine decay to
    `end_lr` at the last epoch, constant from there.
    """
    if epoch < config.warmup_epochs:
        return config.start_lr + (config.lr - config.start_lr) * epoch / config.warmup_epochs
    progress = (epoch - config.warmup_epochs) / (config.num_epochs - config.warmup_epochs)
    progress = min(progress, 1.0)
    return config.end_lr + (config.lr - config.end_lr) * (math.cos(math.pi * progress) + 1) / 2


def parameter_groups(
    model: nn.Module, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Split parameters into optimizer groups with `weight_decay` and `lr_scale`.

    Those without gradients are left out. One-dimensional ones have no weight decay; relative
    positions and cls do, as officially.
    Layers count from the patch embedding (0) over the blocks to the head (SlowFast `optimizer.py`,
    `get_layer_decay_groups`). Raises `UserError` for layer decay of a model with other layers.
    """
    # Layers of an MViTv2 are recognized by name.
    parameters = list(model.named_parameters())
    depth = 1 + max(
        (int(match[1]) for name, _ in parameters if (match := BLOCK.match(name))), default=-1
    )
    parts = {name.partition(".")[0] for name, _ in parameters}
    if layer_decay < 1 and not {"patch_embed", "blocks", "head"} <= parts <= set(LAYERS):
        raise UserError(
            f"layer_decay needs a model of {', '.join(LAYERS)}, which this one is not; set "
            "optim.layer_decay=1"
        )
    # One group for each pair of learning rate and weight decay.
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        lr_scale = layer_decay ** (depth + 1 - _layer(name, depth))
        decay = weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((lr_scale, decay), []).append(parameter)
    return [
        {"params": group, "weight_decay": decay, "lr_scale": lr_scale}
        for (lr_scale, decay), group in sorted(
            groups.items(), key=lambda item: item[0], reverse=True
        )
    ]


def _layer(name: str, depth: int) -> int:
    """Return the layer of a parameter: 0 embedding, 1 to depth blocks, depth + 1 norm and head."""
    if match := BLOCK.match(name):
        return int(match[1]) + 1
    return 0 if name.startswith(("patch_embed.", "cls_token")) else depth + 1


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Build the optimizer of a model."""
    groups = parameter_groups(model, config.weight_decay, config.layer_decay or 1.0)
    lr = learning_rate(config, 0)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
    optimizer = torch.optim.AdamW(groups, lr=lr, fused=True)  # one pass over memory, not 14
    # A fused optimizer offers to undo the scale of float16 gradients itself; Lightning then refuses
    # to clip them, in bfloat16 too.
    optimizer._step_supports_amp_scaling = False
    return optimizer
