"""Data loaders of detection; nothing is read before `setup`."""

import logging
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from video_mvit.data.datamodule import LoaderConfig, ResumableDataModule
from video_mvit.data.dataset import Unreadable
from video_mvit.data.reading.reader import VideoDecodeError
from video_mvit.data.sanity_check import NUM_PROBED
from video_mvit.detection.data.annotations import Annotations, Categories
from video_mvit.detection.data.dataset import (
    DetectionDataset,
    TrainDetectionDataset,
    collate,
    collate_training,
    read_sample,
)
from video_mvit.detection.data.sampling import GroupedSampler, TrainingImages
from video_mvit.detection.data.sources import AnnotationSource
from video_mvit.detection.data.transforms import Transform
from video_mvit.detection.instances import DetectionBatch
from video_mvit.errors import UserError

logger = logging.getLogger(__name__)

NOT_ON_DISK = "not on disk"


@dataclass(frozen=True, kw_only=True)
class DetectionSplit:
    """Where the annotations of a split are, and how its images become batches.

    With `repeat_threshold`, an epoch of training repeats images of the classes that are in a
    smaller share of the images (LVIS: 0.001).
    """

    source: AnnotationSource
    transform: Transform
    batch_size: int
    repeat_threshold: float | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch_size {self.batch_size} must be positive")
        if self.repeat_threshold is not None and not 0 < self.repeat_threshold <= 1:
            raise UserError(f"repeat_threshold {self.repeat_threshold} is outside (0, 1]")


class DetectionDataModule(ResumableDataModule):
    """Loaders of `DetectionBatch`: training images with their objects, evaluation images alone.

    The training annotations decide the categories of both splits; `categories` can be set before
    `setup` instead. Testing reads the split `val`. Every unreadable image is logged once; training
    stops if they exceed `loader.max_unreadable_fraction` of its images.
    """

    def __init__(
        self,
        *,
        train: DetectionSplit,
        val: DetectionSplit,
        num_classes: int | None,
        loader: LoaderConfig,
    ) -> None:
        super().__init__(loader)
        self.splits = {"train": train, "val": val}
        self.num_classes = num_classes
        self.categories: Categories | None = None
        self.unreadable: dict[str, dict[int, str]] = {"train": {}, "val": {}}
        self.already_tested: Set[int] = frozenset()  # image indices, skipped in testing
        self._annotations: dict[str, Annotations] = {}
        self._train_images: NDArray[np.int64] = np.empty(0, np.int64)

    @property
    def class_names(self) -> list[str]:
        """Return the names of the classes in the order of labels; empty before `setup`."""
        return list(self.categories.names) if self.categories else []

    @property
    def category_ids(self) -> list[int]:
        """Return the category ids of the files in the order of labels; empty before `setup`."""
        return list(self.categories.ids) if self.categories else []

    @property
    def train_batch_size(self) -> int:
        return self.splits["train"].batch_size

    def annotations(self, split: str) -> Annotations:
        """Return the annotations of a split that `setup` has read."""
        return self._annotations[split]

    def setup(self, stage: str) -> None:
        """Read the annotations of a stage; raises `UserError` if the number of classes differs."""
        for name in ["train", "val"] if stage == "fit" else ["val"]:
            if name not in self._annotations:
                found = self.splits[name].source.read(self.categories)
                self._annotations[name], self.categories = found, found.categories
        if self.num_classes not in (None, len(self.class_names)):
            raise UserError(
                f"data.num_classes is {self.num_classes}, but {self._any().path} has "
                f"{len(self.class_names)} categories; null takes as many"
            )
        if stage == "fit":
            self._choose_training_images()

    def _any(self) -> Annotations:
        return next(iter(self._annotations.values()))

    def _choose_training_images(self) -> None:
        """Leave out images without objects, and those that are not on disk."""
        annotations = self.annotations("train")
        if not annotations.has_masks:
            raise UserError(
                f"{annotations.path} has boxes without masks, from which only evaluation is "
                "possible; add masks to train"
            )
        num_missing, num_images = len(annotations.missing), len(annotations)
        if num_missing:
            self._check_share(num_missing, int(annotations.missing[0]), NOT_ON_DISK)
        has_objects = annotations.num_targets > 0
        is_there = np.ones(num_images, np.bool_)
        is_there[annotations.missing] = False
        self._train_images = np.flatnonzero(has_objects & is_there)
        if num_empty := int((~has_objects).sum()):
            logger.info(
                "%d of %d training images have no objects and are left out", num_empty, num_images
            )

    def sanity_check(self) -> None:
        """Read some training images before a long run; raises `UserError` if none is readable."""
        annotations, images = self.annotations("train"), self._train_images
        chosen = np.linspace(0, len(images) - 1, min(NUM_PROBED, len(images))).astype(np.int64)
        problems = {}
        for index in images[chosen].tolist():
            try:
                read_sample(annotations, index, annotations.targets_of(index))
            except VideoDecodeError as error:
                problems[index] = error.reason
                self._note("train", Unreadable(index, error.reason))
        if len(problems) == len(chosen):
            first, reason = next(iter(problems.items()))
            raise UserError(
                f"none of {len(chosen)} training images can be read; "
                f"{annotations.image_path(first)}: {reason}"
            )
        logger.info(
            "checked %d of %s training images: %d readable; %s objects of %d classes",
            len(chosen),
            f"{len(images):,}",
            len(chosen) - len(problems),
            f"{int(annotations.num_targets.sum()):,}",
            len(self.class_names),
        )

    def train_image_path(self, image_index: int) -> str:
        """Return the path of a training image."""
        return self.annotations("train").image_path(image_index)

    def check_shares(self, stage: str, num_ranks: int) -> None:
        """Raise `UserError` if a device would get no training batch or no evaluation image."""
        on_each = f" on each of {num_ranks} devices" if num_ranks > 1 else ""
        if stage == "fit":
            size, num_batches = self.train_batch_size, self.loader.batches_per_step
            if len(self._train_images) < size * num_batches * num_ranks:
                batch = f"one batch of {size}" if num_batches == 1 else f"{num_batches} of {size}"
                raise UserError(
                    f"{len(self._train_images)} training images do not fill {batch}{on_each}; "
                    "lower data.train_batch_size"
                )
        if len(self.annotations("val")) < num_ranks:
            raise UserError(
                f"{self.annotations('val').path} has {len(self.annotations('val'))} images, fewer "
                f"than one for each of {num_ranks} devices"
            )

    def train_dataloader(self) -> DataLoader[DetectionBatch]:
        split, (rank, num_ranks) = self.splits["train"], self._rank()
        annotations, images = self.annotations("train"), self._train_images
        self.check_shares("fit", num_ranks)
        sampler = GroupedSampler(
            TrainingImages.of(annotations, images, split.repeat_threshold),
            batch_size=split.batch_size,
            batches_per_step=self.loader.batches_per_step,
            seed=self.loader.seed,
            rank=rank,
            num_ranks=num_ranks,
        )
        self._resume(sampler, of="images")
        dataset = TrainDetectionDataset(annotations, images, split.transform, self.loader.seed)
        return self._loader(
            dataset, split.batch_size, collate_training, sampler=sampler, drop_last=True
        )

    def val_dataloader(self) -> DataLoader[DetectionBatch]:
        return self._evaluation_loader(done=())

    def test_dataloader(self) -> DataLoader[DetectionBatch]:
        return self._evaluation_loader(done=self.already_tested)

    def _evaluation_loader(self, done: Sequence[int] | Set[int]) -> DataLoader[DetectionBatch]:
        split, annotations, (rank, num_ranks) = (
            self.splits["val"],
            self.annotations("val"),
            self._rank(),
        )
        missing = dict.fromkeys(annotations.missing.tolist(), NOT_ON_DISK)
        dataset = DetectionDataset(annotations, split.transform, missing)
        left = [i for i in range(len(dataset)) if i not in done]
        return self._loader(dataset, split.batch_size, collate, sampler=left[rank::num_ranks])

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Record the images that the loader could not read."""
        assert self.trainer is not None
        for bad in batch.unreadable:
            self._note("train" if self.trainer.training else "val", bad)
        return batch._replace(unreadable=())

    def _note(self, name: str, bad: Unreadable) -> None:
        seen, annotations = self.unreadable[name], self.annotations(name)
        if bad.video_index in seen:
            return
        seen[bad.video_index] = bad.reason
        effect = "replaced by another image" if name == "train" else "excluded from the result"
        if bad.reason != NOT_ON_DISK:  # of these, the log has the number already
            path = annotations.image_path(bad.video_index)
            logger.warning("cannot read %s: %s; %s", path, bad.reason, effect)
        first = next(iter(seen))
        if name == "train":
            num_bad = len(annotations.missing) + self._rank()[1] * len(seen)  # over all ranks
            self._check_share(num_bad, first, seen[first])
        elif len(seen) == len(annotations):
            raise UserError(
                f"none of the {len(annotations)} images of {annotations.path} can be read; the "
                f"first is {annotations.image_path(first)}: {seen[first]}"
            )

    def _check_share(self, num_bad: int, first: int, reason: str) -> None:
        """Raise `UserError` if more training images are unreadable than tolerated."""
        share, annotations = self.loader.max_unreadable_fraction, self.annotations("train")
        if num_bad > share * len(annotations):
            raise UserError(
                f"{num_bad} of {len(annotations)} training images are unreadable so far, more than "
                f"data.max_unreadable_fraction={share:g}; the first is "
                f"{annotations.image_path(first)}: {reason}"
            )
