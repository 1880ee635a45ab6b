"""RandAugment on the device: one draw per clip, the same for all of its frames.

From a policy string as in SlowFast and timm, `rand-m7-n4-mstd0.5-inc1`. All draws are made on the
host, without synchronization; the operations are in `operations.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from video_mvit.data.transforms.grouped_augment import augment_together
from video_mvit.data.transforms.image_ops import Colour
from video_mvit.data.transforms.operations import GREY, MAX_MAGNITUDE, NAMES, Draw, apply
from video_mvit.errors import UserError

RATE = 0.5  # probability of each drawn operation


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Number, strength and variation of the operations.

    Attributes:
        magnitude: 0 to 10.
        num_ops: drawn with replacement; each is applied with probability one half.
        magnitude_std: std of the normal distribution of each magnitude, clipped to 0..10.
    """

    magnitude: float
    num_ops: int = 2
    magnitude_std: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.magnitude <= MAX_MAGNITUDE:
            raise UserError(f"magnitude {self.magnitude:g} is outside [0, 10]")
        if self.num_ops < 1:
            raise UserError(f"number of operations {self.num_ops} must be positive")
        if self.magnitude_std < 0:
            raise UserError(f"mstd {self.magnitude_std:g} must not be negative")


def parse_policy(text: str) -> Policy:
    """Parse `rand-m7-n4-mstd0.5-inc1`: magnitude, number of operations, std of magnitudes.

    Only the increasing set of operations is supported, so `inc` is required. Raises `UserError`.
    """
    expected = f"RandAugment policy {text!r}, expected such as rand-m7-n4-mstd0.5-inc1"
    name, *parts = text.split("-")
    numbers: dict[str, float] = {}
    for part in parts:
        key = part.rstrip("0123456789.")
        try:
            numbers[key] = float(part[len(key) :])
        except ValueError:
            raise UserError(f"{expected} ({part!r} is not a setting)") from None
    if unknown := numbers.keys() - {"m", "n", "mstd", "inc"}:
        raise UserError(f"{expected} (unknown: {', '.join(sorted(unknown))})")
    if name != "rand" or "m" not in numbers or numbers.get("inc") != 1:
        raise UserError(f"{expected} (rand, m and inc1 are required)")
    if numbers.get("n", 2) % 1:
        raise UserError(f"{expected} (n must be an integer)")
    return Policy(
        magnitude=numbers["m"],
        num_ops=int(numbers.get("n", 2)),
        magnitude_std=numbers.get("mstd", 0.0),
    )


def draw_operations(policy: Policy, generator: np.random.Generator) -> list[Draw]:
    """Draw the operations of one clip, in order, without those that are not applied."""
    draws = []
    for index in generator.integers(len(NAMES), size=policy.num_ops).tolist():
        happens = generator.random() < RATE
        magnitude = float(generator.normal(policy.magnitude, policy.magnitude_std))
        sign = 1 if generator.random() < 0.5 else -1
        if happens:
            draws.append(Draw(NAMES[index], min(max(magnitude, 0.0), MAX_MAGNITUDE), sign))
    return draws


def rand_augment(
    clips: Tensor, policy: Policy, generator: np.random.Generator, fill: Colour = GREY
) -> Tensor:
    """Augment each clip of a uint8 batch (B, T, C, H, W) with its own draws: -> a new batch."""
    draws = [draw_operations(policy, generator) for _ in clips]
    augment = augment_in_turn if clips.device.type == "cpu" else augment_together
    return augment(clips, draws, fill)


def augment_in_turn(clips: Tensor, draws: Sequence[Sequence[Draw]], fill: Colour) -> Tensor:
    """Apply the operations of each clip of a uint8 batch (B, T, C, H, W), in order: -> a copy."""
    augmented = []
    for clip, of_clip in zip(clips, draws, strict=True):
        for draw in of_clip:
            clip = apply(clip, draw, fill)
        augmented.append(clip)
    return torch.stack(augmented)
