"""Score clips: uint8 pixels through normalization and network, a few clips per pass."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from video_mvit.data.transforms.augment import Normalize
from video_mvit.errors import UserError
from video_mvit.evaluation.view_scores import ClipPasses, clips_at_once
from video_mvit.prediction.input_spec import InputSpec


class Scorer:
    """Softmax scores of clips, on the device of the model."""

    def __init__(self, model: nn.Module, spec: InputSpec) -> None:
        self.model, self.spec = model, spec
        parameter = next(model.parameters())
        self.device, self._dtype = parameter.device, parameter.dtype
        self._normalize = Normalize(mean=spec.mean, std=spec.std).to(self.device)
        thw = (spec.num_frames, spec.crop_size, spec.crop_size)
        self.passes = ClipPasses(clips_at_once(thw, self.device))

    @property
    def clips_per_pass(self) -> int:
        assert self.passes.clips_per_pass is not None
        return self.passes.clips_per_pass

    def score(self, clips: Tensor) -> Tensor:
        """Compute the softmax of raw clips: (N, T, C, H, W) uint8 -> (N, K) float32 on the host.

        Raises `UserError` if a single clip does not fit into memory, or a score is NaN or Inf.
        """
        with torch.inference_mode(), _in_evaluation(self.model):
            return self.passes.run(self._score_pass, clips, self.device)

    def _score_pass(self, clips: Tensor) -> Tensor:
        clip = self._normalize(clips.to(self.device)).to(self._dtype)
        logits: Tensor = self.model(clip)
        return check_finite(logits.float().softmax(dim=-1).cpu(), "scores")


def check_finite(values: Tensor, name: str) -> Tensor:
    """Return the values; raises `UserError` if one is NaN or Inf."""
    if values.isfinite().all():
        return values
    raise UserError(f"the model gives NaN or Inf {name}; its weights are damaged")


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
