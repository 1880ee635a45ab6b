"""LightningModule of a classifier whose clips have any number of classes each."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MetricCollection

from video_mvit.evaluation.multilabel_metrics import mean_average_precision
from video_mvit.evaluation.view_scores import CombineViews, Scoring
from video_mvit.training.classifier import VideoClassifier
from video_mvit.training.epoch_metrics import OfEpoch
from video_mvit.training.losses import focal_binary_cross_entropy, log_of


class MeanAveragePrecision(OfEpoch):
    """Mean average precision over the classes that have videos; 0 where none has."""

    kept_dtype = torch.float32  # of scores; of an epoch with many classes, memory counts

    def measure(self, scores: NDArray[np.float64], truth: NDArray[np.float64]) -> float | None:
        return mean_average_precision(scores, truth > 0)


class MultiLabelClassifier(VideoClassifier):
    """Train and evaluate a model on clips with any number of classes, by binary cross-entropy.

    Labels are sets of classes (B, K) bool. MixUp and CutMix mix them in the proportion of the
    clips; `label_smoothing` moves each of them towards 1/2 by this share; `class_weights` multiply
    the loss of each class. The scores of a video are its views' sigmoid, averaged, or the highest
    of each class (`combine_views`).
    """

    shown = ("val/map", "val/ema_map")

    def __init__(
        self, *arguments: Any, combine_views: CombineViews = "mean", **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.scoring = Scoring(task="multi_label", combine_views=combine_views)

    def new_metrics(self) -> MetricCollection:
        return MetricCollection({"map": MeanAveragePrecision(self.num_classes)})

    def example_labels(self, num_clips: int) -> Tensor:
        return torch.zeros(num_clips, self.num_classes, dtype=torch.bool)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss over clips and classes: (B, K), sets or shares (B, K) -> ()."""
        target = target.float() * (1 - self.label_smoothing) + self.label_smoothing / 2
        if self.focal_gamma is not None:
            return focal_binary_cross_entropy(logits, target, self.focal_gamma, self.class_weights)
        return F.binary_cross_entropy_with_logits(logits.float(), target, weight=self.class_weights)

    def losses_of_scores(self, scores: Tensor, label: Tensor) -> Tensor:
        """Return the loss of each video by its scores: (B, K), (B, K) -> (B,).

        It is `F.binary_cross_entropy`, which autocast on CUDA refuses.
        """
        label = label.float()
        present, absent = log_of(scores), (-scores).log1p().clamp(min=-100)
        return -(label * present + (1 - label) * absent).mean(dim=1)
