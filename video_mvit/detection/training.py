"""LightningModule of a detector: losses, learning rate, COCO AP of the validation images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from video_mvit.detection.coco_ap import (
    GroundTruth,
    coco_ap,
    coco_rows,
    has_masks,
    only_images,
)
from video_mvit.detection.detector import Detector
from video_mvit.detection.instances import DetectionBatch, Detections
from video_mvit.detection.keep_detections import BatchDetections
from video_mvit.detection.optim import DetectionOptimConfig, build_optimizer, learning_rate
from video_mvit.detection.results import KINDS
from video_mvit.errors import UserError
from video_mvit.training.distributed import gather_over_ranks
from video_mvit.training.module import TrainedModule

Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The annotated validation images: COCO ground truth, and the category id of each class."""

    ground_truth: GroundTruth
    category_ids: Sequence[int]


class DetectorModule(TrainedModule):
    """Train and evaluate a detector.

    A training step sums the losses of the detector. Validation computes the AP of boxes, and of
    masks if there are any, over all ranks, of the weights and of their EMA. Testing needs neither
    `optim` nor `validation`.
    """

    unit = "images"
    shown = ("val/box_ap", "val/mask_ap", "val/ema_box_ap")

    def __init__(  # noqa: PLR0913
        self,
        model: Detector,
        *,
        optim: DetectionOptimConfig | None,
        validation: Validation | None = None,
        seed: int = 0,
        class_names: Sequence[str] = (),
        card: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            model,
            seed=seed,
            class_names=class_names,
            card=card,
            settings=settings,
            freeze=optim.freeze if optim else (),
        )
        self.optim, self.validation = optim, validation
        self._rows: dict[str, Rows] = {}  # of this rank: metric prefix -> rows
        self._image_ids: list[int] = []

    def blocks(self) -> Iterable[nn.Module]:
        return self.model.backbone.bottom_up.blocks  # type: ignore[return-value, union-attr]

    def num_samples(self, batch: DetectionBatch) -> int:
        return len(batch.images)

    def batch_content(self, batch: DetectionBatch) -> dict[str, Any]:
        return {
            "images": [image.cpu() for image in batch.images],
            "boxes": [target.boxes.cpu() for target in batch.targets],
            "labels": [target.labels.cpu() for target in batch.targets],
        }

    def batch_files(self, batch: DetectionBatch, data: Any) -> list[str]:
        return list(dict.fromkeys(map(data.train_image_path, batch.image_index.tolist())))

    def training_step(self, batch: DetectionBatch, batch_idx: int) -> Tensor:
        generator = self.generator_of_step(batch_idx)
        torch.manual_seed(int(generator.integers(2**63)))  # for drop path and sampled boxes
        losses: dict[str, Tensor] = self.model(batch.images, batch.targets)
        loss = torch.stack([each.float() for each in losses.values()]).sum()
        size = len(batch.images)
        self.log_loss(loss, batch_size=size)
        self.log_dict({f"train/{name}": each for name, each in losses.items()}, batch_size=size)
        return loss

    def validation_step(self, batch: DetectionBatch, batch_idx: int) -> None:
        assert self.validation is not None
        images = self.validation.ground_truth["images"]
        image_ids = [images[index]["id"] for index in batch.image_index.tolist()]
        self._image_ids += image_ids
        named = [("val/", self.model), *(("val/ema_", ema) for ema in self._ema_model)]
        for prefix, model in named:
            rows = self._rows.setdefault(prefix, [])
            found = zip(self.detect(model, batch), image_ids, strict=True)
            for each, image_id in found:
                if not each.scores.isfinite().all():
                    raise UserError(f"image {image_id}: the detector gives NaN or Inf scores")
                rows += coco_rows(each, image_id, self.validation.category_ids)

    def on_validation_epoch_end(self) -> None:
        """Compute AP from the rows of all ranks, and log it on each."""
        assert self.validation is not None
        prefixes = sorted(self._rows) or ["val/"]
        gathered = gather_over_ranks((self._image_ids, self._rows))
        self._rows, self._image_ids = {}, []
        values: dict[str, float] = {}
        if self.global_rank == 0:
            image_ids = {image_id for ids, _ in gathered for image_id in ids}
            truth = only_images(self.validation.ground_truth, image_ids)
            names = ("box", "mask") if has_masks(self.validation.ground_truth) else ("box",)
            for prefix in prefixes:
                rows = [row for _, parts in gathered for row in parts.get(prefix, ())]
                for name in names:
                    numbers = coco_ap(truth, rows, KINDS[name]).numbers
                    values[f"{prefix}{name}_ap"] = numbers.ap or 0.0
                    values[f"{prefix}{name}_ap50"] = numbers.ap50 or 0.0
        shared = gather_over_ranks(values)[0]
        self.log_dict({name: torch.tensor(value) for name, value in shared.items()})

    def test_step(  # type: ignore[override]
        self, batch: DetectionBatch, batch_idx: int
    ) -> BatchDetections | None:
        """Detect in the images of a batch; None for an empty batch."""
        if not batch.images:
            return None
        return BatchDetections(
            image_index=batch.image_index, detections=self.detect(self.model, batch)
        )

    def detect(self, model: nn.Module, batch: DetectionBatch) -> list[Detections]:
        """Detect in each image, at the size of its file."""
        if not batch.images:
            return []
        return model(batch.images, output_sizes=batch.original_sizes)  # type: ignore[no-any-return]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert self.optim is not None
        return build_optimizer(self.model, self.optim)

    def on_train_batch_start(self, batch: DetectionBatch, batch_idx: int) -> None:
        assert self.optim is not None
        lr = learning_rate(self.optim, self.global_step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = lr
        self.log_learning_rate(lr, batch_size=len(batch.images))
