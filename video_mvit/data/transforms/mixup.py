"""MixUp and CutMix of clips in a batch, with soft labels.

As SlowFast `datasets/mixup.py`: one draw per batch; the partner of a clip is the one at the same
position from the end. Letters: B clips, K classes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from video_mvit.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How often and how strongly batches are mixed.

    Attributes:
        mixup_alpha, cutmix_alpha: of the beta distributions of lam; 0: disabled.
        prob: probability that a batch is mixed at all.
        switch_to_cutmix_prob: of CutMix instead of MixUp, where both are enabled.
    """

    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    prob: float = 1.0
    switch_to_cutmix_prob: float = 0.5

    def __post_init__(self) -> None:
        for name in ("mixup_alpha", "cutmix_alpha"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} {getattr(self, name)} must not be negative")
        for name in ("prob", "switch_to_cutmix_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} {getattr(self, name)} is outside [0, 1]")

    @property
    def is_enabled(self) -> bool:
        """Return whether any batch is mixed."""
        return self.prob > 0 and max(self.mixup_alpha, self.cutmix_alpha) > 0


class Box(NamedTuple):
    """Rows and columns, half open."""

    top: int
    bottom: int
    left: int
    right: int


class Mix(NamedTuple):
    """One draw: weight `lam` of the clip itself, and the box that CutMix replaces (None: MixUp)."""

    lam: float
    box: Box | None


def draw_mix(mixing: Mixing, height: int, width: int, generator: np.random.Generator) -> Mix:
    """Draw lam and box for a batch of clips of this size."""
    if not mixing.is_enabled or generator.random() >= mixing.prob:
        return Mix(1.0, None)
    prob = mixing.switch_to_cutmix_prob if mixing.mixup_alpha > 0 else 1.0
    if mixing.cutmix_alpha > 0 and generator.random() < prob:
        return cut(
            generator.beta(mixing.cutmix_alpha, mixing.cutmix_alpha), (height, width), generator
        )
    return Mix(float(generator.beta(mixing.mixup_alpha, mixing.mixup_alpha)), None)


def cut(lam: float, size: tuple[int, int], generator: np.random.Generator) -> Mix:
    """Draw a box of about 1 - lam of the area around a uniform centre, clipped at the borders.

    lam is corrected to the remaining area of the clip.
    """
    bounds = []
    for length in size:
        half = int(length * np.sqrt(1 - lam)) // 2
        centre = int(generator.integers(length))
        bounds += [max(centre - half, 0), min(centre + half, length)]
    box = Box(*bounds)
    area = (box.bottom - box.top) * (box.right - box.left)
    return Mix(1 - area / (size[0] * size[1]), box)


def mix(clips: Tensor, soft_labels: Tensor, draw: Mix) -> tuple[Tensor, Tensor]:
    """Mix clips (B, C, T, H, W) and soft labels (B, K): -> new ones."""
    if draw.lam == 1:
        return clips, soft_labels
    partners = clips.flip(0)
    if draw.box is None:
        clips = torch.lerp(partners, clips, draw.lam)
    else:
        top, bottom, left, right = draw.box
        clips = clips.clone()
        clips[..., top:bottom, left:right] = partners[..., top:bottom, left:right]
    return clips, torch.lerp(soft_labels.flip(0), soft_labels, draw.lam)


def one_hot_labels(label: Tensor, num_classes: int) -> Tensor:
    """Encode class indices (B,), or sets of classes (B, K), as soft labels (B, K) float32."""
    if label.ndim == 2:
        return label.float()
    soft_labels = torch.zeros(len(label), num_classes, device=label.device)
    return soft_labels.scatter_(1, label.unsqueeze(1), 1.0)
