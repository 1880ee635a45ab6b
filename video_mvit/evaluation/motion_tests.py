"""Clips with their motion changed: what is still classified rightly does not need it.

Each maps clips (..., T, C, H, W) to clips of that shape, the same way whenever it is asked.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def freeze(clips: Tensor) -> Tensor:
    """Repeat the middle frame: no motion at all."""
    middle = clips.shape[-4] // 2
    return clips[..., middle : middle + 1, :, :, :].expand_as(clips)


def reverse(clips: Tensor) -> Tensor:
    """Play backwards: the same frames, the opposite motion."""
    return clips.flip(-4)


def shuffle(clips: Tensor) -> Tensor:
    """Put the frames into one fixed random order: the same frames, no continuous motion."""
    order = torch.randperm(clips.shape[-4], generator=torch.Generator().manual_seed(0))
    return clips.index_select(clips.ndim - 4, order.to(clips.device))


MOTION_TESTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "frozen": freeze,
    "reversed": reverse,
    "shuffled": shuffle,
}
MEANING = {
    "frozen": "one frame repeated: no motion",
    "reversed": "played backwards: the opposite motion",
    "shuffled": "frames in random order: no continuous motion",
}
