"""Temporal ablations: clips with their motion removed, reversed or shuffled.

Each maps clips (..., T, C, H, W) to clips of the same shape, deterministically and one by one.
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
    """Permute the frames of each clip in a random order of its own: no continuous motion.

    One order for all clips would measure that order: the demo's accuracy is 6 % with some orders of
    its eight frames and 91 % with others. The pixels of a clip alone decide its order, so that it
    is the same in any batch and on any device.
    """
    flat = clips.reshape(-1, *clips.shape[-4:])  # (N, T, C, H, W)
    shuffled = [clip[_random_order(clip).to(clip.device)] for clip in flat]
    return torch.stack(shuffled).reshape(clips.shape)


def _random_order(clip: Tensor) -> Tensor:
    """Draw an order of the frames of a clip, (T, C, H, W) -> (T,), seeded by its pixels."""
    seed = int(clip.sum(dtype=torch.int64))
    return torch.randperm(len(clip), generator=torch.Generator().manual_seed(seed))


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
