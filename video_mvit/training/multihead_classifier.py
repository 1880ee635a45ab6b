"""LightningModule of a classifier with several heads: one class of a clip in each."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from video_mvit.class_heads import ALL, Heads, heads_of, parts_of
from video_mvit.evaluation.view_scores import Scoring
from video_mvit.training.classifier import VideoClassifier
from video_mvit.training.losses import log_of, single_label_loss


class HeadAccuracy(Metric):
    """Share of the videos of an epoch, of all ranks, whose class is right in one or all heads.

    `head` is the place of one; None: a video counts where all are right.
    """

    num_right: Tensor
    num_videos: Tensor
    full_state_update = False
    higher_is_better = True

    def __init__(self, heads: Heads, head: int | None, **options: Any) -> None:
        super().__init__(**options)
        self.heads, self.head = dict(heads), head
        for name in ("num_right", "num_videos"):
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, scores: Tensor, label: Tensor) -> None:
        """Add videos: scores (B, K), class indices in each head (B, H)."""
        right = predicted_classes(scores, self.heads) == label  # (B, H)
        is_right = right.all(dim=1) if self.head is None else right[:, self.head]
        self.num_right += is_right.sum()
        self.num_videos += len(is_right)

    def compute(self) -> Tensor:
        """Return the share."""
        return self.num_right.float() / self.num_videos.clamp(min=1)


def predicted_classes(scores: Tensor, heads: Heads) -> Tensor:
    """Return the class with the highest score in each head: (B, K) -> (B, H)."""
    return torch.stack([scores[:, part].argmax(dim=1) for part in parts_of(heads)], dim=1)


class MultiHeadClassifier(VideoClassifier):
    """Train and evaluate a model on clips with a class in each of several heads.

    The logits are those of all heads, one after the other. Labels are class indices in each head
    (B, H). The loss is the mean over heads of that of a single label: label smoothing, MixUp and
    CutMix, class weights, focal loss and logit adjustment apply to each. `class_names` tell the
    heads; without any, all classes are of one.
    """

    shown = ("val/all_top1", "val/ema_all_top1")
    head_starts: Tensor

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.scoring = Scoring(task="multi_head", heads=self.heads)
        # On the device, so that no step waits for a copy: where the classes of each head begin.
        starts = torch.tensor([part.start for part in parts_of(self.scoring.heads)])
        self.register_buffer("head_starts", starts, persistent=False)

    @property
    def heads(self) -> Heads:
        """Return the names of the heads and their numbers of classes."""
        return heads_of(self.class_names) or {"classes": self.num_classes}

    def new_metrics(self) -> MetricCollection:
        places = {head: place for place, head in enumerate(self.heads)}
        metrics: dict[str, Metric | MetricCollection] = {
            f"{name}_top1": HeadAccuracy(self.heads, place)
            for name, place in {ALL: None, **places}.items()
        }
        return MetricCollection(metrics, compute_groups=False)  # equal states mean nothing

    def example_labels(self, num_clips: int) -> Tensor:
        return torch.zeros(num_clips, len(self.heads), dtype=torch.int64)

    def targets_of(self, label: Tensor) -> Tensor:
        """Return class indices in each head (B, H) as sets of classes (B, K) bool."""
        sets = torch.zeros(len(label), self.num_classes, dtype=torch.bool, device=label.device)
        return sets.scatter_(1, label + self.head_starts, True)  # noqa: FBT003

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (B, K) and class indices (B, H), or sets or shares (B, K)."""
        if self.logit_shift is not None:
            logits = logits + self.logit_shift
        losses = [
            single_label_loss(
                logits[:, part],
                target[:, place] if target.dtype == torch.int64 else target[:, part].float(),
                label_smoothing=self.label_smoothing,
                focal_gamma=self.focal_gamma,
                weight=None if self.class_weights is None else self.class_weights[part],
            )
            for place, part in enumerate(parts_of(self.scoring.heads))
        ]
        return torch.stack(losses).mean()

    def losses_of_scores(self, scores: Tensor, label: Tensor) -> Tensor:
        """Return the mean loss over the heads of each video: (B, K), (B, H) -> (B,)."""
        right = scores.gather(1, label + self.head_starts)  # (B, H)
        return -log_of(right).mean(dim=1)
