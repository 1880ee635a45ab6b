"""RandAugment on the device: one draw per clip, the same for all of its frames.

From a policy string as in SlowFast and timm, `rand-m7-n4-mstd0.5-inc1`. All draws are made on the
host, without synchronization; the operations are in `image_ops.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from video_mvit.data.transforms import image_ops as ops
from video_mvit.errors import UserError

MAX_MAGNITUDE = 10.0
RATE = 0.5  # probability of each drawn operation
GREY = (128, 128, 128)  # fill of moved frames (SlowFast `rand_augment.py`)


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


@dataclass(frozen=True)
class Draw:
    """One operation of a clip: name, magnitude (0 to 10), and sign, 1 or -1."""

    name: str
    magnitude: float
    sign: int


class Operation(NamedTuple):
    """A function of a clip and one number, computed from a level (0 to 1) of the magnitude.

    The level of a signed operation is negated half of the time. Without `level`, the function has
    no number. One that moves pixels also takes the fill colour.
    """

    function: Callable[..., Tensor]
    level: Callable[[float], float] | None = None
    is_signed: bool = False
    is_move: bool = False


def _around_one(share: float) -> float:
    return 1 + 0.9 * share


def _shear(share: float) -> float:
    return 0.3 * share


def _translate(share: float) -> float:
    return 0.45 * share


# The 15 operations in their "increasing" form (SlowFast `rand_augment.py`).
OPERATIONS: Mapping[str, Operation] = {
    "auto_contrast": Operation(ops.auto_contrast),
    "equalize": Operation(ops.equalize),
    "invert": Operation(ops.invert),
    "rotate": Operation(ops.rotate, lambda share: 30 * share, is_signed=True, is_move=True),
    "posterize": Operation(ops.posterize, lambda share: 4 - int(4 * share)),
    "solarize": Operation(ops.solarize, lambda share: 256 - int(256 * share)),
    "solarize_add": Operation(ops.solarize_add, lambda share: int(110 * share)),
    "color": Operation(ops.color, _around_one, is_signed=True),
    "contrast": Operation(ops.contrast, _around_one, is_signed=True),
    "brightness": Operation(ops.brightness, _around_one, is_signed=True),
    "sharpness": Operation(ops.sharpness, _around_one, is_signed=True),
    "shear_x": Operation(ops.shear_x, _shear, is_signed=True, is_move=True),
    "shear_y": Operation(ops.shear_y, _shear, is_signed=True, is_move=True),
    "translate_x": Operation(ops.translate_x, _translate, is_signed=True, is_move=True),
    "translate_y": Operation(ops.translate_y, _translate, is_signed=True, is_move=True),
}


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
    for name in generator.choice(list(OPERATIONS), policy.num_ops):
        happens = generator.random() < RATE
        magnitude = float(generator.normal(policy.magnitude, policy.magnitude_std))
        sign = 1 if generator.random() < 0.5 else -1
        if happens:
            draws.append(Draw(str(name), min(max(magnitude, 0.0), MAX_MAGNITUDE), sign))
    return draws


def apply(clip: Tensor, draw: Draw, fill: ops.Colour = GREY) -> Tensor:
    """Apply one operation to a uint8 clip (T, C, H, W) with a fill colour: -> a new one."""
    operation, share = OPERATIONS[draw.name], draw.magnitude / MAX_MAGNITUDE
    if operation.level is None:
        return operation.function(clip)
    level = operation.level(draw.sign * share if operation.is_signed else share)
    return operation.function(clip, level, *((fill,) if operation.is_move else ()))


def rand_augment(
    clips: Tensor, policy: Policy, generator: np.random.Generator, fill: ops.Colour = GREY
) -> Tensor:
    """Augment each clip of a uint8 batch (B, T, C, H, W) with its own draws: -> a new batch."""
    augmented = []
    for clip in clips:
        for draw in draw_operations(policy, generator):
            clip = apply(clip, draw, fill)
        augmented.append(clip)
    return torch.stack(augmented)
