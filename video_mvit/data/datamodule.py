"""Loaders for training, validation and testing on one data set; nothing is read before `setup`."""

import logging
from dataclasses import dataclass

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from video_mvit.data.dataset import EvaluationDataset, Sample, TrainDataset, Views
from video_mvit.data.manifest import Manifest, ManifestSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Where the videos of a split are listed and how they become clips.

    `num_videos` takes that many, spread over the list.
    """

    source: ManifestSource
    views: Views
    batch_size: int
    num_videos: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} must be positive")
        if self.num_videos is not None and self.num_videos < 1:
            raise ValueError(f"num_videos {self.num_videos} must be positive, or null for all")

    def read(self, class_names: tuple[str, ...] | None) -> Manifest:
        manifest = self.source.read(class_names)
        if self.num_videos is None or self.num_videos >= len(manifest):
            return manifest
        chosen = [i * len(manifest) // self.num_videos for i in range(self.num_videos)]
        return Manifest(
            paths=tuple(manifest.paths[i] for i in chosen),
            labels=tuple(manifest.labels[i] for i in chosen),
            class_names=manifest.class_names,
            missing=manifest.missing,
        )


class VideoDataModule(pl.LightningDataModule):
    """Batches of `Sample`: clips (B, C, T, H, W) to train on, views (B, V, C, T, H, W) to test on.

    The training list decides the order of classes, so that all splits agree.
    """

    def __init__(
        self, *, train: Split, val: Split, test: Split, num_classes: int, num_workers: int = 8
    ) -> None:
        super().__init__()
        if num_workers < 0:
            raise ValueError(f"num_workers {num_workers} must be 0 or more")
        self.splits = {"train": train, "val": val, "test": test}
        self.num_classes, self.num_workers = num_classes, num_workers
        self.manifests: dict[str, Manifest] = {}

    def setup(self, stage: str) -> None:
        """Read the lists of a stage; raises `ValueError` where `num_classes` is another."""
        needed = {"fit": ("train", "val"), "validate": ("train", "val"), "test": ("train", "test")}[
            stage
        ]
        for name in needed:
            if name not in self.manifests:
                class_names = self.manifests["train"].class_names if name != "train" else None
                self.manifests[name] = self.splits[name].read(class_names)
        found = len(self.class_names)
        if found != self.num_classes:
            raise ValueError(
                f"data.num_classes is {self.num_classes}, but the training list has {found} classes"
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of labels, once `setup` has run."""
        return self.manifests["train"].class_names

    def train_dataloader(self) -> DataLoader[Sample]:
        split = self.splits["train"]
        dataset = TrainDataset(self.manifests["train"], split.views)
        if len(dataset) < split.batch_size:
            raise ValueError(
                f"{len(dataset)} training videos do not fill one batch of {split.batch_size}; "
                "lower the batch size"
            )
        return self._loader(dataset, split.batch_size, is_train=True)

    def val_dataloader(self) -> DataLoader[Sample]:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Sample]:
        return self._evaluation_loader("test")

    def _evaluation_loader(self, name: str) -> DataLoader[Sample]:
        split = self.splits[name]
        return self._loader(
            EvaluationDataset(self.manifests[name], split.views), split.batch_size, is_train=False
        )

    def _loader(
        self, dataset: TrainDataset, batch_size: int, *, is_train: bool
    ) -> DataLoader[Sample]:
        return DataLoader(
            dataset,
            batch_size,
            shuffle=is_train,
            drop_last=is_train,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )
