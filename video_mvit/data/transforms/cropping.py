"""Spatial crops, the same for all frames of a clip.

Bilinear without antialiasing and half-pixel centres, as SlowFast `datasets/transform.py`, or
bicubic with antialiasing, as Pillow; frames stay uint8.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from video_mvit.errors import UserError

Interpolation = Literal["bilinear", "bicubic"]
MAX_TRIES = 10


class Box(NamedTuple):
    """A window in pixels: rows [top, top + height), columns [left, left + width)."""

    top: int
    left: int
    height: int
    width: int


def crop_and_resize(
    frames: Tensor,
    box: Box,
    height: int,
    width: int,
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """Cut a window and resize it: (T, C, H, W) uint8, box -> (T, C, height, width) uint8."""
    window = frames[:, :, box.top : box.top + box.height, box.left : box.left + box.width]
    if (box.height, box.width) == (height, width):
        return window
    return F.interpolate(
        window,
        size=(height, width),
        mode=interpolation,
        align_corners=False,
        antialias=interpolation == "bicubic",
    )


def check_interpolation(interpolation: str) -> None:
    """Raise `UserError` for an unknown interpolation."""
    if interpolation not in get_args(Interpolation):
        raise UserError(f"interpolation {interpolation!r} is none of 'bilinear', 'bicubic'")


def random_resized_box(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: np.random.Generator,
) -> Box:
    """Draw a window of random area (share of the frame) and log-uniform aspect (width / height).

    Falls back to the largest central one after ten tries.
    """
    for _ in range(MAX_TRIES):
        area = height * width * generator.uniform(*scale)
        aspect = math.exp(generator.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(generator.integers(0, height - h, endpoint=True))
            left = int(generator.integers(0, width - w, endpoint=True))
            return Box(top, left, h, w)
    w = min(width, round(height * ratio[1]))
    h = min(height, round(width / ratio[0]))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return the size with the short side scaled to `short_side`, the long one rounded down."""
    if height <= width:
        return short_side, width * short_side // height
    return height * short_side // width, short_side


def uniform_boxes(height: int, width: int, size: int, num_crops: int) -> list[Box]:
    """Return square test windows: the centre, or three spread over the long side."""
    top, left = math.ceil((height - size) / 2), math.ceil((width - size) / 2)
    if num_crops == 1:
        return [Box(top, left, size, size)]
    if width >= height:
        return [Box(top, x, size, size) for x in (0, left, width - size)]
    return [Box(y, left, size, size) for y in (0, top, height - size)]


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """Training crop of Kinetics and ImageNet: random resized window, flipped with `flip_prob`.

    (T, C, H, W) -> [(T, C, size, size)]
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_prob: float = 0.5
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        check_interpolation(self.interpolation)
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high:
                raise UserError(f"{name} {(low, high)} is not a pair 0 < low <= high")
        if not 0 <= self.flip_prob <= 1:
            raise UserError(f"flip_prob {self.flip_prob} is outside [0, 1]")

    def __call__(self, frames: Tensor, generator: np.random.Generator) -> list[Tensor]:
        height, width = frames.shape[2:]
        box = random_resized_box(height, width, self.scale, self.ratio, generator)
        window = crop_and_resize(frames, box, self.size, self.size, self.interpolation)
        return [_maybe_flip(window, self.flip_prob, generator)]


@dataclass(frozen=True, kw_only=True)
class ShortSideCrop:
    """Training crop of Something-Something: inverse-uniform short side, random window."""

    size: int
    short_side: tuple[int, int] = (256, 320)
    flip_prob: float = 0.0

    def __post_init__(self) -> None:
        if not self.size <= self.short_side[0] <= self.short_side[1]:
            raise UserError(
                f"short_side {self.short_side} is not a pair low <= high, or smaller than the crop "
                f"of {self.size}"
            )

    def __call__(self, frames: Tensor, generator: np.random.Generator) -> list[Tensor]:
        low, high = self.short_side
        side = round(1 / generator.uniform(1 / high, 1 / low))
        height, width = short_side_size(frames.shape[2], frames.shape[3], side)
        frames = F.interpolate(frames, size=(height, width), mode="bilinear", align_corners=False)
        top = int(generator.integers(0, height - self.size, endpoint=True))
        left = int(generator.integers(0, width - self.size, endpoint=True))
        window = crop_and_resize(frames, Box(top, left, self.size, self.size), self.size, self.size)
        return [_maybe_flip(window, self.flip_prob, generator)]


@dataclass(frozen=True, kw_only=True)
class UniformCrops:
    """Test crops: short side scaled to `short_side`, then one central or three spread windows."""

    size: int
    short_side: int
    num_crops: int = 1
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        check_interpolation(self.interpolation)
        if self.num_crops not in (1, 3):
            raise UserError(f"num_crops {self.num_crops} is none of 1, 3")
        if self.short_side < self.size:
            raise UserError(f"short_side {self.short_side} is smaller than the crop of {self.size}")

    def __call__(self, frames: Tensor, generator: np.random.Generator) -> list[Tensor]:
        whole = Box(0, 0, frames.shape[2], frames.shape[3])
        height, width = short_side_size(whole.height, whole.width, self.short_side)
        frames = crop_and_resize(frames, whole, height, width, self.interpolation)
        return [
            crop_and_resize(frames, box, self.size, self.size)
            for box in uniform_boxes(height, width, self.size, self.num_crops)
        ]


def _maybe_flip(frames: Tensor, rate: float, generator: np.random.Generator) -> Tensor:
    return torch.flip(frames, (3,)) if generator.random() < rate else frames
