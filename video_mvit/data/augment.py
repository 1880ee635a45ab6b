"""What happens to clips on the device, in one batch, after they left the worker as uint8."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """uint8 clips (..., T, C, H, W) to floats (..., C, T, H, W): (x / 255 - mean) / std."""

    mean: Tensor
    std: Tensor

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(
                f"mean {list(mean)} and std {list(std)} must be three numbers each, std positive"
            )
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1, 1), persistent=False)

    def forward(self, clip: Tensor) -> Tensor:
        clip = clip.transpose(-4, -3)  # (..., C, T, H, W)
        clip = clip.to(self.mean.dtype, memory_format=torch.contiguous_format)
        return (clip / 255 - self.mean) / self.std
