"""Average softmax over the views of each video."""

import math

import torch
from torch import Tensor, nn

PASS_PIXELS = 8 * 16 * 224 * 224  # of a CPU's pass: more clips at once need memory, save no time


def clips_at_once(views: Tensor) -> int:
    """Clips to put through the network together: of a CPU few, of other devices all."""
    clips = views.flatten(0, 1)
    if views.device.type != "cpu":
        return len(clips)
    T, _, H, W = clips.shape[1:]
    return max(1, PASS_PIXELS // math.prod((T, H, W)))


def score_videos(
    model: nn.Module, views: Tensor, preprocess: nn.Module, clips_per_pass: int
) -> Tensor:
    """Mean softmax over the views of each video: raw (B, V, T, C, H, W) -> (B, K) float32."""
    passes = torch.split(views.flatten(0, 1), clips_per_pass)
    scores = [model(preprocess(clips)).float().softmax(dim=-1) for clips in passes]
    return torch.cat(scores).reshape(*views.shape[:2], -1).mean(dim=1)  # (B, K)
