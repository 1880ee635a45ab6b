"""Scores of clips: uint8 pixels through normalization and network, a few clips at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from video_mvit.data.transforms.augment import Normalize
from video_mvit.errors import UserError
from video_mvit.evaluation.view_scores import ClipPasses, clips_at_once
from video_mvit.prediction.input_spec import InputSpec


class Scorer:
    """Gives the softmax of clips; the model is used where it lies, and left as it was."""

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
        """Softmax of raw clips: (N, T, C, H, W) uint8 -> (N, K) float32 on the host.

        Raises `UserError` where a single clip does not fit into the memory of the device, or where
        a score is no number.
        """
        with torch.inference_mode(), _in_evaluation(self.model):
            return self.passes.run(self._score_pass, clips, self.device)

    def _score_pass(self, clips: Tensor) -> Tensor:
        clip = self._normalize(clips.to(self.device)).to(self._dtype)
        logits: Tensor = self.model(clip)
        return only_numbers(logits.float().softmax(dim=-1).cpu(), "scores")


def only_numbers(values: Tensor, name: str) -> Tensor:
    """The values of that name, as they are; raises `UserError` where one is no number."""
    if values.isfinite().all():
        return values
    raise UserError(f"the model gives {name} that are no numbers; its weights are damaged")


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
