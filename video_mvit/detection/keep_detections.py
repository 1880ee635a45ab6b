"""Save the detections of an evaluation as they come, so that it resumes after a kill."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
from torch import Tensor

from video_mvit.detection.coco_ap import GroundTruth, coco_rows
from video_mvit.detection.instances import Detections
from video_mvit.detection.output_folder import read_resumed_detections
from video_mvit.detection.results import RowsOfImages
from video_mvit.errors import UserError
from video_mvit.evaluation.output_folder import (
    log_resumed,
    new_partial_path,
    next_partial_number,
)
from video_mvit.evaluation.predictions import PartialFile
from video_mvit.training.distributed import gather_over_ranks


@dataclass(frozen=True, kw_only=True)
class BatchDetections:
    """What a test step returns: (B,) indices of images in the list, and what was found in each."""

    image_index: Tensor
    detections: Sequence[Detections]


class TestImages(Protocol):
    """The part of a data module that is used here: indices of images that are not tested again."""

    already_tested: Set[int]


class KeepDetections(pl.Callback):
    """Save the rows of every evaluated image at once, and skip those saved by an earlier run.

    Every rank writes a file of its own into the output folder, which all of them share; nothing
    stays in memory.
    """

    def __init__(
        self,
        output: Path,
        identity: Mapping[str, Any],
        ground_truth: GroundTruth,
        data: TestImages,
    ) -> None:
        self._folder, self._identity, self._data = output, identity, data
        self._ground_truth = ground_truth
        self._image_ids = [image["id"] for image in ground_truth["images"]]
        self._category_ids = sorted(category["id"] for category in ground_truth["categories"])
        self.num_resumed = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Read on rank 0 which images an earlier run has finished, and share them."""
        read = None
        if trainer.is_global_zero:
            resumed = read_resumed_detections(self._folder, self._identity, self._ground_truth)
            finished = {index for index, i in enumerate(self._image_ids) if i in resumed}
            read = finished, next_partial_number(self._folder)
        finished, first_number = gather_over_ranks(read)[0]
        self.num_resumed = len(finished)
        self._is_first = trainer.is_global_zero
        self._data.already_tested = finished
        log_resumed(len(finished), len(self._image_ids), "images")
        path = new_partial_path(self._folder, first_number + trainer.global_rank)
        self._partial = PartialFile(path, self._identity)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        *_: object,
    ) -> None:
        found: BatchDetections | None = outputs
        if found is None:
            return
        for index, each in zip(found.image_index.tolist(), found.detections, strict=True):
            image_id = self._image_ids[index]
            if not each.scores.isfinite().all():
                raise UserError(
                    f"image {image_id}: the model gives NaN or Inf scores; its weights are "
                    "damaged, or trainer.precision is too low"
                )
            self._partial.write([image_id, coco_rows(each, image_id, self._category_ids)])

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._partial.close()

    def collect(self) -> RowsOfImages:
        """Return the rows of all images, of all ranks and runs; call it on every rank.

        The first rank waits for the others before it reads; the others get nothing.
        """
        gather_over_ranks(None)
        if not self._is_first:
            return {}
        return read_resumed_detections(self._folder, self._identity, self._ground_truth)
