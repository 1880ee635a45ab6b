"""Score clips in passes that fit into memory, and combine the scores of views."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from video_mvit.class_heads import Heads
from video_mvit.errors import UserError

PASS_PIXELS = 8 * 16 * 224 * 224  # per pass on a CPU: more need memory and save no time
GPU_PASSES = 8  # a GPU takes as many pixels as so many passes of a CPU
MAX_CLIPS = 256  # of small clips, so that results come soon


Task = Literal["single_label", "multi_label", "multi_head", "regression"]
CombineViews = Literal["mean", "max"]


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How logits become the scores of a video.

    With a single label, classes exclude each other (softmax), and views are averaged. With several,
    each class has a probability of its own (sigmoid), and views are averaged, or the highest of
    each class counts. With several heads (`heads`), the classes of each exclude each other. In a
    regression, logits are standardized values: scores are the values, in the units of the targets,
    which have `target_mean` and `target_std`; views are averaged.
    """

    task: Task = "single_label"
    combine_views: CombineViews = "mean"
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()
    heads: Heads = field(default_factory=dict)

    def of_clips(self, logits: Tensor) -> Tensor:
        """Return scores in 0..1 as float32, or values as float64: (..., K) -> (..., K)."""
        if self.task == "regression":
            return logits.double() * logits.new_tensor(
                self.target_std, dtype=torch.float64
            ) + logits.new_tensor(self.target_mean, dtype=torch.float64)
        logits = logits.float()
        if self.task == "multi_label":
            return logits.sigmoid()
        if self.task == "single_label":
            return logits.softmax(dim=-1)
        parts = torch.split(logits, list(self.heads.values()), dim=-1)
        return torch.cat([part.softmax(dim=-1) for part in parts], dim=-1)

    def of_video(self, scores: Tensor) -> Tensor:
        """Combine the scores of views: (..., V, K) -> (..., K)."""
        return scores.mean(dim=-2) if self.combine_views == "mean" else scores.amax(dim=-2)


SOFTMAX = Scoring()


def clips_at_once(thw: Sequence[int], device: torch.device) -> int:
    """Return how many clips of T, H, W to put through a network together."""
    pixels = PASS_PIXELS if device.type == "cpu" else GPU_PASSES * PASS_PIXELS
    return min(MAX_CLIPS, max(1, pixels // math.prod(thw)))


class ClipPasses:
    """Put clips through a network a few at a time; fewer once they do not fit into memory.

    `clips_per_pass` is chosen from the first clips where it is None.
    """

    def __init__(self, clips_per_pass: int | None = None) -> None:
        self.clips_per_pass = clips_per_pass

    def run(
        self, network: Callable[[Tensor], Tensor], clips: Tensor, device: torch.device
    ) -> Tensor:
        """Concatenate what the network gives on a device: raw (N, T, C, H, W) -> (N, ...).

        Raises `UserError` where a single clip does not fit into the memory of the device.
        """
        T, _, H, W = clips.shape[1:]
        self.clips_per_pass = self.clips_per_pass or clips_at_once((T, H, W), device)
        while True:
            try:
                return torch.cat(
                    [network(some) for some in torch.split(clips, self.clips_per_pass)]
                )
            except torch.OutOfMemoryError as error:
                if self.clips_per_pass == 1:
                    raise UserError(
                        f"one clip does not fit into the memory of {device}: {error}"
                    ) from None
            self.clips_per_pass //= 2
            torch.cuda.empty_cache()


def score_videos(
    model: nn.Module,
    views: Tensor,
    preprocess: nn.Module,
    passes: ClipPasses,
    scoring: Scoring = SOFTMAX,
) -> Tensor:
    """Score videos by all of their views: raw (B, V, T, C, H, W) -> (B, K)."""

    def score(clips: Tensor) -> Tensor:
        return scoring.of_clips(model(preprocess(clips)))

    scores = passes.run(score, views.flatten(0, 1), views.device)  # (B * V, K)
    return scoring.of_video(scores.reshape(*views.shape[:2], -1))  # (B, K)
