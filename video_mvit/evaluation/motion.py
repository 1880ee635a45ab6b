"""Clips with their motion taken away: what is still classified rightly needs no motion."""

from torch import Tensor, nn


class FreezeFrames(nn.Module):
    """Repeat the middle frame: (..., T, C, H, W) -> (..., T, C, H, W)."""

    def forward(self, clip: Tensor) -> Tensor:
        middle = clip.shape[-4] // 2
        return clip[..., middle : middle + 1, :, :, :].expand_as(clip)
