"""LightningModule of a classifier whose clips have any number of classes each."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat

from video_mvit.evaluation.multilabel_metrics import mean_average_precision
from video_mvit.evaluation.view_scores import CombineViews, Scoring
from video_mvit.training.classifier import VideoClassifier
from video_mvit.training.losses import focal_binary_cross_entropy


class MeanAveragePrecision(Metric):
    """Mean average precision of all scores of an epoch, of all ranks; 0 where no class has any.

    What is kept has one dimension, as the nothing of a rank without videos.
    """

    scores: list[Tensor]
    truth: list[Tensor]
    full_state_update = False
    higher_is_better = True

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.num_classes = num_classes
        self.add_state("scores", default=[], dist_reduce_fx="cat")
        self.add_state("truth", default=[], dist_reduce_fx="cat")

    def update(self, scores: Tensor, truth: Tensor) -> None:
        """Add videos: scores (B, K), sets of classes (B, K) bool."""
        self.scores.append(scores.flatten())
        self.truth.append(truth.to(scores.dtype).flatten())

    def compute(self) -> Tensor:
        """Return the mean over classes that have videos."""
        scores, truth = (
            dim_zero_cat(parts).view(-1, self.num_classes).cpu()
            for parts in (self.scores, self.truth)
        )
        found = mean_average_precision(scores.double().numpy(), truth.bool().numpy())
        return torch.tensor(found or 0.0, device=self.device)


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
        """Return the loss of each video by its scores: (B, K), (B, K) -> (B,)."""
        return F.binary_cross_entropy(scores, label.float(), reduction="none").mean(dim=1)
