"""The operations that RandAugment draws from, by name, and how strong they are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from torch import Tensor

from video_mvit.data.transforms import image_ops as ops

MAX_MAGNITUDE = 10.0
GREY = (128, 128, 128)  # fill of moved frames (SlowFast `rand_augment.py`)


@dataclass(frozen=True)
class Draw:
    """One operation of a clip: name, magnitude (0 to 10), and sign, 1 or -1."""

    name: str
    magnitude: float
    sign: int


class Operation(NamedTuple):
    """A function of a clip and one number, computed from a level (0 to 1) of the magnitude.

    The level of a signed operation is negated half of the time. Without `level`, the function has
    no number. That of a move returns its matrix, from the number and the frame size.
    """

    function: Callable[..., Any]
    level: Callable[[float], float] | None = None
    is_signed: bool = False
    is_move: bool = False

    def number(self, draw: "Draw") -> float | None:
        """Return the number for a draw, None where the function has none."""
        share = draw.magnitude / MAX_MAGNITUDE
        return self.level and self.level(draw.sign * share if self.is_signed else share)


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


NAMES = tuple(OPERATIONS)


def matrix_of(draw: Draw, size: ops.Size) -> ops.Matrix:
    """Return the matrix of a move of frames of this size."""
    operation = OPERATIONS[draw.name]
    return cast(ops.Matrix, operation.function(operation.number(draw), size))


def apply(clip: Tensor, draw: Draw, fill: ops.Colour = GREY) -> Tensor:
    """Apply one operation to a uint8 clip (T, C, H, W) with a fill colour: -> a new one."""
    operation = OPERATIONS[draw.name]
    if operation.is_move:
        return ops.move(clip, matrix_of(draw, (clip.shape[2], clip.shape[3])), fill)
    number = operation.number(draw)
    changed = operation.function(clip) if number is None else operation.function(clip, number)
    return cast(Tensor, changed)
