"""Optimizer and schedule of the recipes (detectron2 `projects/MViTv2`, `projects/ViTDet`)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from video_mvit.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DetectionOptimConfig:
    """AdamW (betas 0.9, 0.999), scheduled by step: warm-up, then a tenth of the rate per drop.

    Attributes:
        lr: for `reference_images` images a step; None: for the actual number.
        num_steps: of the whole training, as `drops` at reference size: with fewer images a step,
            there are more steps.
        warmup_steps: over which the rate rises linearly from `warmup_factor` of it.
        decay_positions: whether weight decay acts on relative positions. It never acts on
            normalization layers and absolute positions, but does on biases of other layers.
        freeze: parts of the network that are not trained (see `training/freezing.py`).
    """

    lr: float
    num_steps: int
    drops: Sequence[int]
    reference_images: int | None = 64
    warmup_steps: int = 250
    warmup_factor: float = 0.001
    weight_decay: float = 0.1
    decay_positions: bool = False
    freeze: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "drops", tuple(self.drops))
        for name in ("lr", "weight_decay", "warmup_steps"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} {getattr(self, name)} must not be negative")
        for name in ("num_steps", "reference_images"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} must be positive")
        if not 0 < self.warmup_factor <= 1:
            raise UserError(f"warmup_factor {self.warmup_factor} is outside (0, 1]")
        if list(self.drops) != sorted(self.drops):
            raise UserError(f"drops {list(self.drops)} are not in ascending order")


def scale_to_images(config: DetectionOptimConfig, num_images: int) -> DetectionOptimConfig:
    """Scale rate and steps to the images per step, over all devices and accumulated batches.

    Linearly: the same number of images is seen (Goyal et al. 2017). Warm-up keeps its steps.
    """
    if config.reference_images is None:
        return config
    scale = num_images / config.reference_images
    return replace(
        config,
        reference_images=None,
        lr=config.lr * scale,
        num_steps=max(1, round(config.num_steps / scale)),
        drops=[round(step / scale) for step in config.drops],
    )


def learning_rate(config: DetectionOptimConfig, step: int) -> float:
    """Return the learning rate of an optimizer step, counted from 0."""
    rate = config.lr * 0.1 ** sum(step >= drop for drop in config.drops)
    if step < config.warmup_steps:
        done = step / config.warmup_steps
        rate *= config.warmup_factor * (1 - done) + done
    return rate


def build_optimizer(model: nn.Module, config: DetectionOptimConfig) -> torch.optim.Optimizer:
    """Build AdamW with two groups of parameters, with and without weight decay.

    The channel norm of pyramids and heads with layer norm is decayed as any weight: the reference
    does not know it as a norm (detectron2 `solver/build.py`).
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    norms = (nn.LayerNorm, nn.GroupNorm, _BatchNorm)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_position = name == "pos_embed" or (
                name.startswith("rel_pos") and not config.decay_positions
            )
            group = others if isinstance(module, norms) or is_position else decayed
            group.append(parameter)
    groups = [
        {"params": [p for p in group if p.requires_grad], "weight_decay": decay}
        for group, decay in ((decayed, config.weight_decay), (others, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate(config, 0), fused=True)
    optimizer._step_supports_amp_scaling = False  # as in `training/optim.py`
    return optimizer
