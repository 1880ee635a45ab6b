"""Average the softmax over the views of each video."""

import math

import torch
from torch import Tensor, nn

PASS_PIXELS = 8 * 16 * 224 * 224  # per pass on a CPU: more need memory and save no time


def clips_at_once(views: Tensor) -> int:
    """Return how many clips go through the network at once: few on a CPU, all on other devices."""
    clips = views.flatten(0, 1)
    if views.device.type != "cpu":
        return len(clips)
    T, _, H, W = clips.shape[1:]
    return max(1, PASS_PIXELS // math.prod((T, H, W)))


def score_videos(
    model: nn.Module, views: Tensor, preprocess: nn.Module, clips_per_pass: int
) -> Tensor:
    """Average the softmax over views: raw (B, V, T, C, H, W) -> (B, K) float32."""
    passes = torch.split(views.flatten(0, 1), clips_per_pass)
    scores = [model(preprocess(clips)).float().softmax(dim=-1) for clips in passes]
    return torch.cat(scores).reshape(*views.shape[:2], -1).mean(dim=1)  # (B, K)
