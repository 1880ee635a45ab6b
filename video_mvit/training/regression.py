"""LightningModule of a network that predicts numbers of a clip."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MetricCollection

from video_mvit.errors import UserError
from video_mvit.evaluation.regression_metrics import mean_absolute_error, mean_r2
from video_mvit.evaluation.view_scores import Scoring
from video_mvit.training.classifier import VideoClassifier
from video_mvit.training.epoch_metrics import OfEpoch


class MeanR2(OfEpoch):
    """Coefficient of determination, averaged over the targets that differ between videos."""

    def measure(self, scores: NDArray[np.float64], truth: NDArray[np.float64]) -> float | None:
        return mean_r2(scores, truth)


class MeanAbsoluteError(OfEpoch):
    """Absolute error in the units of the targets, averaged over videos and targets."""

    higher_is_better = False

    def measure(self, scores: NDArray[np.float64], truth: NDArray[np.float64]) -> float | None:
        return mean_absolute_error(scores, truth)


class VideoRegressor(VideoClassifier):
    """Train and evaluate a model that maps clips to standardized values (B, K).

    Labels are values (B, K) in their own units, `target_mean` and `target_std` those of the
    training list, each (K,). The loss is the squared error of standardized values, averaged; with
    `huber_delta`, errors beyond so many standard deviations count by their size. MixUp and CutMix
    mix the values in the proportion of the clips. The values of a video are the mean of its views'.
    """

    shown = ("val/r2", "val/mae", "val/ema_r2")
    target_mean: Tensor
    target_std: Tensor

    def __init__(
        self,
        *arguments: Any,
        target_mean: Sequence[float] | None = None,
        target_std: Sequence[float] | None = None,
        huber_delta: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        if huber_delta is not None and not 0 < huber_delta < 1000:
            raise UserError(f"data.huber_delta {huber_delta} must be above 0 and below 1000")
        self.huber_delta = huber_delta
        self.scoring = Scoring(
            task="regression",
            target_mean=tuple(target_mean or [0.0] * self.num_classes),
            target_std=tuple(target_std or [1.0] * self.num_classes),
        )
        for name in ("target_mean", "target_std"):
            values = torch.tensor(getattr(self.scoring, name), dtype=torch.float64)
            self.register_buffer(name, values, persistent=False)

    def new_metrics(self) -> MetricCollection:
        measured = {"r2": MeanR2(self.num_classes), "mae": MeanAbsoluteError(self.num_classes)}
        return MetricCollection(measured)  # type: ignore[arg-type]

    def example_labels(self, num_clips: int) -> Tensor:
        return torch.zeros(num_clips, self.num_classes, dtype=torch.float64)

    def targets_of(self, label: Tensor) -> Tensor:
        """Standardize values: (B, K) float64 -> (B, K) float32."""
        return ((label.double() - self.target_mean) / self.target_std).float()

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of standardized values: (B, K), (B, K) -> ()."""
        return self._losses(logits.float(), target).mean()

    def losses_of_scores(self, scores: Tensor, label: Tensor) -> Tensor:
        """Return the loss of each video by its values: (B, K), (B, K) -> (B,)."""
        return self._losses(self.targets_of(scores), self.targets_of(label)).mean(dim=1)

    def _losses(self, outputs: Tensor, target: Tensor) -> Tensor:
        if self.huber_delta is None:
            return F.mse_loss(outputs, target, reduction="none")
        return F.huber_loss(outputs, target, reduction="none", delta=self.huber_delta)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        card = checkpoint.get("card") or {}
        for name in ("target_mean", "target_std"):
            before, now = card.get(name), getattr(self.scoring, name)
            if before is not None and tuple(before) != now:
                raise UserError(
                    f"the run to resume has {name} {list(before)}, and the training list now gives "
                    f"{list(now)}: its videos or values have changed; start a new run, with "
                    "init=weights init.source=... from its weights"
                )
        super().on_load_checkpoint(checkpoint)
