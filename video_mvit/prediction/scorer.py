"""Score clips: uint8 pixels through normalization and network, a few clips per pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from video_mvit.data.transforms.augment import Normalize
from video_mvit.errors import UserError
from video_mvit.evaluation.view_scores import ClipPasses, clips_at_once
from video_mvit.prediction.input_spec import InputSpec


class FromPixels(nn.Module):
    """Compute what a network gives for raw clips: (N, T, C, H, W) uint8 -> its output."""

    def __init__(self, spec: InputSpec, network: nn.Module) -> None:
        super().__init__()
        parameter = next(network.parameters())
        self.normalize = Normalize(mean=spec.mean, std=spec.std).to(parameter.device)
        self.dtype, self.network = parameter.dtype, network

    def forward(self, clips: Tensor) -> Tensor:
        return self.network(self.normalize(clips).to(self.dtype))  # type: ignore[no-any-return]


class Scorer:
    """Scores of clips, on the device of the model: softmax, or sigmoid of several labels.

    Args:
        run: computes the logits of raw clips on the host, as `FromPixels(spec, model)` does, in
            another precision or by another engine.
    """

    def __init__(
        self, model: nn.Module, spec: InputSpec, run: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.model, self.spec = model, spec
        self.device = next(model.parameters()).device
        self._network = FromPixels(spec, model)
        self._run = run or self._run_model
        self.passes = ClipPasses(clips_at_once(spec.thw, self.device))

    @property
    def clips_per_pass(self) -> int:
        assert self.passes.clips_per_pass is not None
        return self.passes.clips_per_pass

    def score(self, clips: Tensor) -> Tensor:
        """Compute the scores of raw clips: (N, T, C, H, W) uint8 -> (N, K) float32 on the host.

        Raises `UserError` if a single clip does not fit into memory, or a score is NaN or Inf.
        """
        with torch.inference_mode(), _in_evaluation(self.model):
            return self.passes.run(self._score_pass, clips, self.device)

    def _score_pass(self, clips: Tensor) -> Tensor:
        return check_finite(self.spec.scoring.of_clips(self._run(clips)).cpu(), "scores")

    def _run_model(self, clips: Tensor) -> Tensor:
        return self._network(clips.to(self.device))  # type: ignore[no-any-return]


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
