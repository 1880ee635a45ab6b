"""Augment and normalize batches on the device, from uint8 clips of the loader.

Training: the user's own transforms, RandAugment, normalization, random erasing, MixUp or CutMix, in
this order. One draw per clip (per batch for mixing), the same for all frames. All draws use one
generator on the host, so that a step is reproducible and never waits for the device.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from video_mvit.data.transforms.clip_transforms import ClipTransforms, Transform
from video_mvit.data.transforms.grouped_augment import upload
from video_mvit.data.transforms.mixup import Box, Mixing, draw_mix, mix, one_hot_labels
from video_mvit.data.transforms.operations import GREY
from video_mvit.data.transforms.rand_augment import parse_policy, rand_augment
from video_mvit.errors import UserError

# Of an erased box (SlowFast `random_erasing.py`).
ERASED_AREA = (0.02, 1 / 3)
ERASED_LOG_RATIO = (math.log(0.3), -math.log(0.3))  # height to width
MAX_TRIES = 100


class Augmented(NamedTuple):
    """Model inputs (B, C, T, H, W) and soft labels (B, K)."""

    clip: Tensor
    soft_labels: Tensor


class Normalize(nn.Module):
    """Map uint8 clips (..., T, C, H, W) to floats (..., C, T, H, W): (x / 255 - mean) / std."""

    mean: Tensor
    std: Tensor

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise UserError(
                f"mean {list(mean)} and std {list(std)} must be three numbers each, std positive"
            )
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1, 1), persistent=False)

    def forward(self, clip: Tensor) -> Tensor:
        clip = clip.transpose(-4, -3)  # (..., C, T, H, W)
        clip = clip.to(self.mean.dtype, memory_format=torch.contiguous_format)
        return (clip / 255 - self.mean) / self.std


class Augment(nn.Module):
    """Training augmentation of a batch, on its device.

    Args:
        policy: RandAugment, such as rand-m7-n4-mstd0.5-inc1; None: none.
        erase_prob: probability that a clip gets an erased box.
        mixing: MixUp and CutMix; None: none.
        fill: red, green and blue (0 to 255) of pixels that RandAugment leaves empty.
        transforms: of single clips, applied before all others (see `clip_transforms`); None: none.
    """

    def __init__(
        self,
        *,
        policy: str | None,
        erase_prob: float = 0.0,
        mixing: Mixing | None = None,
        fill: Sequence[int] = GREY,
        transforms: Sequence[Transform] | None = None,
    ) -> None:
        super().__init__()
        if len(fill) != 3 or not all(0 <= value <= 255 for value in fill):
            raise UserError(f"fill {list(fill)} must be three numbers of 0 to 255")
        red, green, blue = fill
        self.fill = (red, green, blue)
        if not 0 <= erase_prob <= 1:
            raise UserError(f"erase_prob {erase_prob} is outside [0, 1]")
        self.policy = parse_policy(policy) if policy else None
        self.erase_prob, self.mixing = erase_prob, mixing
        self.transforms = ClipTransforms(transforms or ())

    @property
    def min_clips(self) -> int:
        """Return the smallest batch: mixing needs two clips."""
        return 2 if self.mixing and self.mixing.is_enabled else 1

    def check_num_clips(self, num_clips: int) -> None:
        """Raise `UserError` if a batch of this many clips cannot be mixed."""
        if num_clips < self.min_clips:
            raise UserError(
                "MixUp/CutMix needs at least two clips per step and device; raise "
                "data.train_batch_size or data.num_samples, or set augment.mixing=null"
            )

    def forward(
        self,
        clips: Tensor,
        label: Tensor,
        *,
        normalize: nn.Module,
        num_classes: int,
        generator: np.random.Generator,
    ) -> Augmented:
        """Augment uint8 clips (B, T, C, H, W) with labels (B,) or (B, K) -> floats and soft labels.

        Raises `UserError` if a single clip would be mixed.
        """
        self.check_num_clips(len(clips))
        # Own transforms and RandAugment work on uint8, the rest on normalized floats.
        if self.transforms:
            clips = self.transforms(clips, generator)
        if self.policy:
            clips = rand_augment(clips, self.policy, generator, self.fill)
        clips = normalize(clips)  # (B, C, T, H, W)
        # Random erasing.
        boxes = [draw_erased(clips.shape[-2:], self.erase_prob, generator) for _ in clips]
        clips = erase(clips, boxes, generator)
        # MixUp or CutMix, with soft labels.
        soft_labels = one_hot_labels(label, num_classes)
        if self.mixing is None:
            return Augmented(clips, soft_labels)
        return Augmented(
            *mix(
                clips,
                soft_labels,
                draw_mix(self.mixing, clips.shape[-2], clips.shape[-1], generator),
            )
        )


def draw_erased(size: Sequence[int], rate: float, generator: np.random.Generator) -> Box | None:
    """Draw the erased box of a clip, smaller than H x W, or None (SlowFast `random_erasing.py`)."""
    if generator.random() >= rate:
        return None
    H, W = size
    for _ in range(MAX_TRIES):
        area = generator.uniform(*ERASED_AREA) * H * W
        ratio = math.exp(generator.uniform(*ERASED_LOG_RATIO))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if h < H and w < W:
            top, left = int(generator.integers(H - h + 1)), int(generator.integers(W - w + 1))
            return Box(top, top + h, left, left + w)
    return None


def erase(clips: Tensor, boxes: Sequence[Box | None], generator: np.random.Generator) -> Tensor:
    """Fill one box in all frames of a clip (B, C, T, H, W) with normal noise: -> new clips.

    The noise of every pixel and frame is independent.
    """
    if not any(boxes):
        return clips
    noise = torch.Generator(clips.device).manual_seed(int(generator.integers(2**63)))
    if clips.device.type != "cpu":
        return erase_together(clips, boxes, noise)
    clips = clips.clone()
    for clip, box in zip(clips, boxes, strict=True):
        if box:
            part = clip[..., box.top : box.bottom, box.left : box.right]
            part.normal_(generator=noise)
    return clips


def erase_together(clips: Tensor, boxes: Sequence[Box | None], noise: torch.Generator) -> Tensor:
    """Erase with operators whose number does not grow with the batch; draws noise everywhere."""
    B, H, W = len(clips), *clips.shape[-2:]
    rows, columns = np.zeros((B, H), np.bool_), np.zeros((B, W), np.bool_)
    for number, box in enumerate(boxes):
        if box:
            rows[number, box.top : box.bottom] = columns[number, box.left : box.right] = True
    is_row, is_column = upload([rows.ravel(), columns.ravel()], clips.device)
    is_erased = is_row.view(B, 1, 1, H, 1) & is_column.view(B, 1, 1, 1, W)
    return torch.where(is_erased, torch.empty_like(clips).normal_(generator=noise), clips)
