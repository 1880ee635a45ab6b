"""LightningModule of a clip classifier: loss, metrics, view averaging, learning rate.

Model and data are passed in.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from video_mvit.errors import UserError
from video_mvit.evaluation.view_scores import SOFTMAX, ClipPasses, Scoring, score_videos
from video_mvit.training.losses import buffer_of, log_of, single_label_loss
from video_mvit.training.module import TrainedModule
from video_mvit.training.optim import OptimConfig, build_optimizer, learning_rate


class Batch(NamedTuple):
    """Raw clips (B, T, C, H, W) or views (B, V, T, C, H, W); class indices (B,), or sets (B, K).

    Of several heads, labels are class indices in each (B, H), of a regression values (B, K). An
    evaluation batch is empty where none of its videos could be read.
    """

    clip: Tensor
    label: Tensor
    video_index: Tensor


class VideoScores(NamedTuple):
    """Index in the list, label and mean softmax (N, K) of N evaluated videos.

    `motion` holds the scores under each of the classifier's `motion_tests`.
    """

    video_index: Tensor
    label: Tensor
    scores: Tensor
    motion: Mapping[str, Tensor]


class VideoClassifier(TrainedModule):
    """Train and evaluate any model that maps clips (B, C, T, H, W) to logits (B, K).

    `preprocess` maps uint8 clips (B, T, C, H, W) of the loader to model inputs, on the device; in
    training, `augment` replaces it where given and also returns soft labels (see
    `data/transforms/augment.py`). Evaluation averages the softmax over all views of a video
    (SlowFast `meters.py`), `clips_per_pass` clips at a time (None: chosen by device), and again
    after each of `motion_tests`, temporal ablations of raw views. `class_weights` multiply the
    training loss of each class, `focal_gamma` makes it a focal loss, and `logit_shift` is added to
    the logits in training alone (see `losses.py`).
    """

    shown: tuple[str, ...] = ("val/top1", "val/top5", "val/ema_top1")
    scoring: Scoring = SOFTMAX
    class_weights: Tensor | None
    logit_shift: Tensor | None

    def __init__(  # noqa: PLR0913
        self,
        model: nn.Module,
        *,
        num_classes: int,
        preprocess: nn.Module,
        optim: OptimConfig,
        augment: nn.Module | None = None,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        focal_gamma: float | None = None,
        logit_shift: Sequence[float] | None = None,
        seed: int = 0,
        class_names: Sequence[str] = (),
        card: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        clips_per_pass: int | None = None,
        motion_tests: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    ) -> None:
        super().__init__(
            model,
            seed=seed,
            class_names=class_names,
            card=card,
            settings=settings,
            freeze=optim.freeze,
            freeze_epochs=optim.freeze_epochs,
        )
        if not 0 <= label_smoothing < 1:
            raise UserError(f"label_smoothing {label_smoothing} is outside [0, 1)")
        self.preprocess, self.augment = preprocess, augment
        self.num_classes = num_classes
        if focal_gamma is not None and not 0 < focal_gamma < 100:
            raise UserError(f"focal_gamma {focal_gamma} must be above 0 and below 100, or null")
        self.focal_gamma = focal_gamma
        self.register_buffer("class_weights", buffer_of(class_weights), persistent=False)
        self.register_buffer("logit_shift", buffer_of(logit_shift), persistent=False)
        self.optim, self.label_smoothing = optim, label_smoothing
        self.passes = ClipPasses(clips_per_pass)
        self.motion_tests = dict(motion_tests or {})
        metrics = self.new_metrics()
        self.val_loss = MeanMetric(nan_strategy="disable")
        self.val_metrics = metrics.clone(prefix="val/")
        self.ema_metrics = metrics.clone(prefix="val/ema_")

    def new_metrics(self) -> MetricCollection:
        """Return what is measured on the validation list."""
        return MetricCollection(
            {
                f"top{k}": MulticlassAccuracy(
                    self.num_classes,
                    top_k=min(k, self.num_classes),
                    average="micro",
                    validate_args=False,  # reads all values back
                )
                for k in (1, 5)
            }
        )

    def example_labels(self, num_clips: int) -> Tensor:
        """Return labels as a batch of so many clips has them, of any class."""
        return torch.arange(num_clips) % self.num_classes

    def targets_of(self, label: Tensor) -> Tensor:
        """Return what the network is trained to say of labels, as `augment` takes it."""
        return label

    def num_samples(self, batch: Batch) -> int:
        return len(batch.label)  # including repeated samples

    def network_to_count(self) -> nn.Module:
        return nn.Sequential(self.preprocess, self.model)

    def example_input(self, batch: Batch) -> Tensor:
        return batch.clip[:1]

    def batch_content(self, batch: Batch) -> dict[str, Any]:
        return {"clip": batch.clip.cpu(), "label": batch.label.cpu()}

    def batch_files(self, batch: Batch, data: Any) -> list[str]:
        return list(dict.fromkeys(map(data.train_video_path, batch.video_index.tolist())))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        # Preprocess, with augmentation and soft labels where configured.
        generator = self.generator_of_step(batch_idx)
        if self.augment:
            clip, target = self.augment(
                batch.clip,
                self.targets_of(batch.label),
                normalize=self.preprocess,
                num_classes=self.num_classes,
                generator=generator,
            )
        else:
            clip, target = self.preprocess(batch.clip), self.targets_of(batch.label)
        # Forward pass and loss.
        torch.manual_seed(int(generator.integers(2**63)))  # for dropout and drop path
        logits = self.model(clip)
        if logits.shape != (len(batch.label), self.num_classes):
            raise UserError(
                f"the network returned {tuple(logits.shape)} for {len(batch.label)} clips, "
                f"expected ({len(batch.label)}, {self.num_classes}): a logit for each class"
            )
        loss = self.loss(logits, target)
        self.log_loss(loss, batch_size=len(batch.label))
        return loss

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss: (B, K), class indices (B,) or probabilities (B, K) -> ()."""
        if self.logit_shift is not None:
            logits = logits + self.logit_shift
        return single_label_loss(
            logits,
            target,
            label_smoothing=self.label_smoothing,
            focal_gamma=self.focal_gamma,
            weight=self.class_weights,
        )

    def losses_of_scores(self, scores: Tensor, label: Tensor) -> Tensor:
        """Return the loss of each video by its scores: (B, K), (B,) -> (B,)."""
        return F.nll_loss(log_of(scores), label, reduction="none")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        if len(batch.label):
            scores = self.score(self.model, batch.clip)
            self.val_metrics.update(scores, batch.label)
            self.val_loss.update(self.losses_of_scores(scores, batch.label))
            for ema_model in self._ema_model:
                self.ema_metrics.update(self.score(ema_model, batch.clip), batch.label)
        self.log("val/loss", self.val_loss)
        self.log_dict(self.val_metrics, prog_bar=True)
        if self._ema_model:
            self.log_dict(self.ema_metrics)

    def test_step(  # type: ignore[override]
        self, batch: Batch, batch_idx: int
    ) -> VideoScores | None:
        """Score the videos of a batch; None for an empty batch."""
        if not len(batch.label):
            return None
        return VideoScores(
            video_index=batch.video_index,
            label=batch.label,
            scores=self.score(self.model, batch.clip),
            motion={
                name: self.score(self.model, change(batch.clip))
                for name, change in self.motion_tests.items()
            },
        )

    def score(self, model: nn.Module, views: Tensor) -> Tensor:
        """Score videos by all of their views: (B, V, T, C, H, W) -> (B, K).

        Raises `UserError` where a single clip does not fit into the memory of the device.
        """
        return score_videos(model, views, self.preprocess, self.passes, self.scoring)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        with self.freezing.thawed():
            return build_optimizer(self.model, self.optim)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        lr = learning_rate(
            self.optim, self.current_epoch + batch_idx / self.trainer.num_training_batches
        )
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = lr * group["lr_scale"]
        self.log_learning_rate(lr, batch_size=len(batch.label))
