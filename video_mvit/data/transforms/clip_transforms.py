"""Transforms of the user's own, of one training clip each: any callable, such as torchvision's v2.

A transform maps a clip (T, C, H, W) to one of the same shape: uint8 of 0 to 255, or floats of 0 to
1. The random numbers of torch, numpy and `random` are seeded for each clip, and are as before after
the batch.
"""

import contextlib
import functools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from video_mvit.errors import UserError

Transform = Callable[[Tensor], Tensor]
# A transform that acts at random may do nothing on one clip; floats may leave 0 to 1 a little.
NUM_TRIED = 4
LOWEST, HIGHEST = -0.5, 1.5
EXPECTED = "expected a clip of the same shape (T, C, H, W): uint8 of 0 to 255, or floats of 0 to 1"


class ClipTransforms(nn.Module):
    """Apply transforms, one after the other, to each clip of a batch.

    A transform gets uint8 on the device of the batch, or what the one before it returned.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        super().__init__()
        for number, transform in enumerate(transforms):
            if not callable(transform):
                raise UserError(
                    f"augment.transforms[{number}] is {transform!r}, expected something callable: "
                    "settings with a _target_ (and _partial_: true for a function)"
                )
        self.transforms = list(transforms)
        # Those that are modules move to the device of the network.
        modules = (each for each in transforms if isinstance(each, nn.Module))
        self.on_device = nn.ModuleList(modules)
        for parameter in self.on_device.parameters():
            parameter.requires_grad = False

    def __len__(self) -> int:
        return len(self.transforms)

    @torch.no_grad()
    def forward(self, clips: Tensor, generator: np.random.Generator) -> Tensor:
        """Transform uint8 clips: (B, T, C, H, W) -> (B, T, C, H, W).

        Raises `UserError` for a transform that returns anything but such a clip.
        """
        seeds = generator.integers(2**63, size=len(clips)).tolist()
        results = []
        device_type = clips.device.type
        with own_random_numbers(clips.device), torch.autocast(device_type, enabled=False):
            for clip, seed in zip(clips, seeds, strict=True):
                seed_all(seed, clips.device)
                results.append(to_bytes(self._transform(clip.clone())))
        return torch.stack(results)

    def check(self, num_frames: int, side: int) -> None:
        """Try the transforms on made-up clips (T, 3, side, side); raises `UserError`."""
        generator, host = np.random.default_rng(0), torch.device("cpu")
        for seed in range(NUM_TRIED if self.transforms else 0):
            values = generator.integers(0, 256, (num_frames, 3, side, side), dtype=np.uint8)
            with torch.no_grad(), own_random_numbers(host):
                seed_all(seed, host)
                self._transform(torch.from_numpy(values), check_range)

    def _transform(
        self, clip: Tensor, check_result: Callable[[Tensor], str] | None = None
    ) -> Tensor:
        for number, transform in enumerate(self.transforms):
            result = transform(clip)
            problem = _problem_of(result, clip) or (check_result(result) if check_result else "")
            if problem:
                raise UserError(
                    f"augment.transforms[{number}], {name_of(transform)}, returned {problem} "
                    f"for {_describe(clip)}; {EXPECTED}"
                )
            clip = result
        return clip


def check_range(clip: Tensor) -> str:
    """Say what is wrong with the values of a clip; "" where nothing is."""
    if not clip.is_floating_point():
        return ""
    low, high = clip.min().item(), clip.max().item()
    if low >= LOWEST and high <= HIGHEST:  # False for NaN
        return ""
    normalized = " (the normalization comes later)" if low < LOWEST else ""
    return f"floats of {low:.3g} to {high:.3g}{normalized}"


def to_bytes(clip: Tensor) -> Tensor:
    """Return a clip as uint8; floats are of 0 to 1, and are clipped."""
    if clip.dtype == torch.uint8:
        return clip
    return (clip.float() * 255).round().clamp(0, 255).to(torch.uint8)


def name_of(transform: Any) -> str:
    """Return the Python path of a function, or of the class of an object."""
    if isinstance(transform, functools.partial):
        return name_of(transform.func)
    named = transform if hasattr(transform, "__qualname__") else type(transform)
    return f"{named.__module__}.{named.__qualname__}"


def seed_all(seed: int, device: torch.device) -> None:
    """Seed torch, for the host and a device, numpy and `random`."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 0.1 ms, for all devices
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextlib.contextmanager
def own_random_numbers(device: torch.device) -> Iterator[None]:
    """Restore the random state of torch, numpy and `random` after the block."""
    of_numpy, of_python = np.random.get_state(), random.getstate()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            np.random.set_state(of_numpy)
            random.setstate(of_python)


def _problem_of(result: object, clip: Tensor) -> str:
    """Describe what a transform returned, if it is no clip like the one that it got; else ""."""
    if not isinstance(result, Tensor):
        return "None" if result is None else f"a {type(result).__name__}"
    is_clip = result.dtype == torch.uint8 or result.is_floating_point()
    if is_clip and result.shape == clip.shape and result.device == clip.device:
        return ""
    return _describe(result)


def _describe(clip: Tensor) -> str:
    dtype = str(clip.dtype).removeprefix("torch.")
    place = "" if clip.device.type == "cpu" else f" on {clip.device}"
    return f"{dtype} {tuple(clip.shape)}{place}"
