"""Temporal ablations: clips with their motion removed, reversed or shuffled.

Each maps clips (..., T, C, H, W) to clips of the same shape, deterministically.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def freeze(clips: Tensor) -> Tensor:
    """Repeat the middle frame: a static clip."""
    middle = clips.shape[-4] // 2
    return clips[..., middle : middle + 1, :, :, :].expand_as(clips)


def reverse(clips: Tensor) -> Tensor:
    """Reverse the frames: the opposite motion."""
    return clips.flip(-4)


def shuffle(clips: Tensor) -> Tensor:
    """Permute the frames in one fixed random order: no continuous motion."""
    order = torch.randperm(clips.shape[-4], generator=torch.Generator().manual_seed(0))
    return clips.index_select(clips.ndim - 4, order.to(clips.device))


MOTION_TESTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "frozen": freeze,
    "reversed": reverse,
    "shuffled": shuffle,
}
MEANING = {
    "frozen": "middle frame repeated: static clip",
    "reversed": "frames reversed: opposite motion",
    "shuffled": "frames in random order: no continuous motion",
}
