"""Scores of clips: uint8 pixels through normalisation and network, a few clips at a time."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from video_mvit.data.transforms.augment import Normalize
from video_mvit.prediction.input_spec import InputSpec

# Pixels of a pass, by device: more clips at once need memory and save no time.
CPU_PASS, GPU_PASS = 8 * 16 * 224 * 224, 64 * 16 * 224 * 224
MAX_CLIPS = 256  # of small clips, so that results come soon


class Scorer:
    """Gives the softmax of clips; the model is used where it lies, and left as it was."""

    def __init__(self, model: nn.Module, spec: InputSpec) -> None:
        self.model, self.spec = model, spec
        parameter = next(model.parameters())
        self.device, self._dtype = parameter.device, parameter.dtype
        self._normalize = Normalize(mean=spec.mean, std=spec.std).to(self.device)
        pixels = CPU_PASS if self.device.type == "cpu" else GPU_PASS
        clip_pixels = math.prod((spec.num_frames, spec.crop_size, spec.crop_size))
        self.clips_per_pass = min(MAX_CLIPS, max(1, pixels // clip_pixels))

    def score(self, clips: Tensor) -> Tensor:
        """Softmax of raw clips: (N, T, C, H, W) uint8 -> (N, K) float32 on the host.

        Raises `ValueError` where a single clip does not fit into the memory of the device, or where
        a score is no number.
        """
        with torch.inference_mode(), _in_evaluation(self.model):
            while True:
                try:
                    passes = torch.split(clips, self.clips_per_pass)
                    return torch.cat([self._score_pass(each) for each in passes])
                except torch.OutOfMemoryError as error:
                    if self.clips_per_pass == 1:
                        raise ValueError(
                            f"one clip does not fit into the memory of {self.device}: {error}"
                        ) from None
                self.clips_per_pass //= 2
                torch.cuda.empty_cache()

    def _score_pass(self, clips: Tensor) -> Tensor:
        clip = self._normalize(clips.to(self.device)).to(self._dtype)
        logits: Tensor = self.model(clip)
        return only_numbers(logits.float().softmax(dim=-1).cpu(), "scores")


def only_numbers(values: Tensor, name: str) -> Tensor:
    """The values of that name, as they are; raises `ValueError` where one is no number."""
    if values.isfinite().all():
        return values
    raise ValueError(f"the model gives {name} that are no numbers; its weights are damaged")


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
