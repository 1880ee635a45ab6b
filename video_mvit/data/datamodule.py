"""Data loaders for training, validation and testing; nothing is read before `setup`."""

import logging
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset

from video_mvit.data.balanced_order import BalancedOrder, check_order
from video_mvit.data.dataset import (
    Batch,
    ClipPipeline,
    EvaluationDataset,
    NearbyOrder,
    TrainDataset,
    TrainSampler,
    Unreadable,
    collate_train,
    collate_views,
)
from video_mvit.data.lists.manifest import EMPTY, SHARD_PLACE, Manifest, ManifestSource
from video_mvit.data.loader_processes import ShareOrPickle, outlive_signals, reserve_open_files
from video_mvit.data.preparation.scan import known_bad, with_fingerprints
from video_mvit.data.preparation.scan_report import find_scan_report, read_scan_report
from video_mvit.data.sanity_check import NUM_PROBED, sanity_check_videos
from video_mvit.errors import UserError
from video_mvit.host import default_num_workers
from video_mvit.text import some_of

logger = logging.getLogger(__name__)

BatchT = TypeVar("BatchT")


@dataclass(frozen=True, kw_only=True)
class Split:
    """Where the videos of a split are listed, and how they become clips.

    `scan_report` is the file that `video-mvit prepare mode=scan` wrote, used if it exists.
    `num_videos` limits the videos, evenly spread over the list.
    """

    source: ManifestSource
    pipeline: ClipPipeline
    batch_size: int
    scan_report: str | None = None
    num_videos: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch_size {self.batch_size} must be positive")
        if self.num_videos is not None and self.num_videos < 1:
            raise UserError(f"num_videos {self.num_videos} must be positive, or null for all")

    def read(self, class_names: tuple[str, ...] | None) -> Manifest:
        """Read the list of the split."""
        manifest = self.source.read(class_names)
        if self.num_videos is None or self.num_videos >= len(manifest):
            return manifest
        some = manifest.take(np.arange(self.num_videos) * len(manifest) // self.num_videos)
        return replace(some, missing=EMPTY)

    def apply_scan_report(
        self, manifest: Manifest, max_fraction: float
    ) -> tuple[Manifest, dict[int, str]]:
        """Return the list with what a scan report knows, and its unreadable videos with the reason.

        No video is excluded if they are more than `max_fraction` of the list.
        """
        if self.scan_report is None:
            return manifest, {}
        path = find_scan_report(Path(self.scan_report))
        if not path.exists():
            return manifest, {}
        scan_report = read_scan_report(path)
        logger.info("%s: %s", path.name, "; ".join(scan_report.summary()[:2]))
        bad = known_bad(manifest, scan_report, max_fraction)
        return with_fingerprints(manifest, scan_report), bad


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """Worker processes, seed of order and clips, and tolerance of unreadable videos."""

    num_workers: int | Literal["auto"] = "auto"
    seed: int = 0
    max_unreadable_fraction: float = 0.01
    batches_per_step: int = 1  # accumulated batches; an epoch has complete steps only
    shuffle_buffer: int | None = None  # videos of shards; None: any order
    timeout_s: float = 600.0  # without a batch from the processes; 0: no limit

    def __post_init__(self) -> None:
        if self.num_workers == "auto":
            object.__setattr__(self, "num_workers", default_num_workers())
        if self.num_processes < 0:
            raise UserError(f"num_workers {self.num_workers} must be 0 or more")
        if self.batches_per_step < 1:
            raise UserError(f"batches_per_step {self.batches_per_step} must be positive")
        if self.shuffle_buffer is not None and self.shuffle_buffer < 1:
            raise UserError(f"shuffle_buffer {self.shuffle_buffer} must be positive, or null")
        if not 0 <= self.timeout_s < float("inf"):
            raise UserError(f"timeout_s {self.timeout_s} must be 0 (no limit) or more")
        if not 0 <= self.max_unreadable_fraction <= 1:
            raise UserError(
                f"max_unreadable_fraction {self.max_unreadable_fraction} is outside [0, 1]"
            )

    @property
    def num_processes(self) -> int:
        """Loader processes as a number."""
        return int(self.num_workers)


class DataProgress(NamedTuple):
    """Progress of a run: next epoch and batch, batches of all runs, videos per global batch."""

    epoch: int = 0
    batch: int = 0
    num_batches: int = 0
    videos_of_batch: int = 0


class ResumableSampler(Protocol):
    """A sampler of training samples that can go on in mid-epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch."""

    def skip_once(self, num_samples: int, /) -> None:
        """Skip the first samples of the next pass."""


class ResumableDataModule(pl.LightningDataModule):
    """What data modules share: ranks, worker processes, and resuming in mid-epoch.

    Counted in batches: the trainer's own epoch counter lags after the last batch of an epoch.
    """

    def __init__(self, loader: LoaderConfig) -> None:
        super().__init__()
        self.loader = loader
        self._before = DataProgress()  # of the runs that this one resumes

    @property
    def train_batch_size(self) -> int:
        """Return the samples of a training batch on one rank."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and batch to resume at."""
        assert self.trainer is not None
        total: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        before, now = self._before, int(total.processed)
        done = before.batch + now - before.num_batches
        num_epochs, batch = divmod(done, int(self.trainer.num_training_batches))
        return DataProgress(
            epoch=before.epoch + num_epochs,
            batch=batch,
            num_batches=now,
            videos_of_batch=self.train_batch_size * self._rank()[1],
        )._asdict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = DataProgress(**state_dict)

    def _resume(self, sampler: ResumableSampler, of: str) -> None:
        """Let a training sampler go on where the run stopped; `of` names its samples.

        Raises `UserError` if batches have another size than in the epoch that goes on.
        """
        before, num_together = self._before, self.train_batch_size * self._rank()[1]
        if before.batch and before.videos_of_batch != num_together:
            raise UserError(
                "the run stopped in mid-epoch with batches of "
                f"{before.videos_of_batch} {of} on all devices; now they have "
                f"{num_together}, which may change between epochs only"
            )
        sampler.set_epoch(before.epoch)  # the first pass starts before the trainer sets the epoch
        sampler.skip_once(before.batch * self.train_batch_size)

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _is_on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _loader(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        collate: Callable[[list[Any]], BatchT],
        **options: Any,
    ) -> DataLoader[BatchT]:
        if num_workers := self.loader.num_processes:
            reserve_open_files(num_workers)
        return DataLoader(
            dataset,
            batch_size,
            collate_fn=ShareOrPickle(collate),
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=self._is_on_gpu(),  # the trainer then copies while the device computes
            worker_init_fn=outlive_signals,
            timeout=self.loader.timeout_s if num_workers else 0,
            **options,
        )


class VideoDataModule(ResumableDataModule):
    """Loaders of `Batch`: training clips (B, T, C, H, W), test views (B, V, T, C, H, W).

    The training list decides the class order of all splits; `class_names` can be set before `setup`
    instead. Every unreadable video is logged once; training stops if they exceed
    `loader.max_unreadable_fraction` of its list. With `balanced`, an epoch of training has as many
    samples of each class.
    """

    def __init__(
        self,
        *,
        train: Split,
        val: Split,
        test: Split,
        num_classes: int | None,
        loader: LoaderConfig,
        balanced: bool | None = None,
    ) -> None:
        super().__init__(loader)
        check_order(balanced=bool(balanced), shuffle_buffer=loader.shuffle_buffer)
        self.balanced = bool(balanced)
        self.splits = {"train": train, "val": val, "test": test}
        self.num_classes = num_classes
        self.class_names: tuple[str, ...] = ()
        self.manifests: dict[str, Manifest] = {}
        self.known_bad: dict[str, dict[int, str]] = {}
        self.unreadable: dict[str, dict[int, str]] = {"train": {}, "val": {}, "test": {}}
        self.already_tested: Set[int] = frozenset()  # indices in the list, skipped

    @property
    def train_batch_size(self) -> int:
        return self.splits["train"].batch_size

    def setup(self, stage: str) -> None:
        """Read the lists of a stage; raises `UserError` if the number of classes differs."""
        needed = {"fit": ["train", "val"], "validate": ["val"], "test": ["test"]}[stage]
        whose = "the model" if self.class_names and not self.manifests else "the training list"
        for name in needed if self.class_names else ["train", *needed]:
            if name not in self.manifests:
                self._read(name)
                if name == "train" and stage == "fit" and self.balanced:
                    balanced = BalancedOrder(labels=self.manifests[name].labels)
                    logger.info("data.balanced: %s", balanced.summary(self.class_names))
        if self.num_classes not in (None, len(self.class_names)):
            raise UserError(
                f"data.num_classes is {self.num_classes}, but {whose} has "
                f"{len(self.class_names)} classes; null takes as many"
            )

    def _read(self, name: str) -> None:
        manifest = self.splits[name].read(self.class_names or None)
        self.class_names = self.class_names or manifest.class_names
        logger.info("%s list: %s", name, manifest.summary())
        # Too many unreadable ones stop a training, and are tried again in an evaluation.
        max_fraction = 1.0 if name == "train" else self.loader.max_unreadable_fraction
        manifest, bad = self.splits[name].apply_scan_report(manifest, max_fraction)
        if name == "train" and bad:
            logger.info(
                "%d videos are excluded from training: unreadable in the scan report", len(bad)
            )
            first = next(iter(bad))
            self._check_share(len(bad), len(manifest), manifest.path(first), bad[first])
            before = set(manifest.classes_without_videos())
            manifest = manifest.take(sorted(set(range(len(manifest))) - bad.keys()))
            if lost := [name for name in manifest.classes_without_videos() if name not in before]:
                logger.warning("no readable video is left of %s", some_of(lost))
        self.manifests[name], self.known_bad[name] = manifest, bad

    def sanity_check(self) -> None:
        """Read some videos before a long run, and log their properties.

        Raises `UserError` if none is readable.
        """
        manifest = self.manifests["train"]
        look = sanity_check_videos(
            manifest, self.splits["train"].pipeline, num_videos=NUM_PROBED, seed=self.loader.seed
        )
        logger.info(look.summary())
        for bad in look.unreadable:
            self._note("train", bad)
        if not look.probed:
            bad = look.unreadable[0]
            raise UserError(
                f"none of {len(look.unreadable)} training videos can be read; "
                f"{manifest.path(bad.video_index)}: {bad.reason}"
            )

    def check_shares(self, stage: str, num_ranks: int) -> None:
        """Raise `UserError` if a device would get no training batch or no test video."""
        on_each = f" on each of {num_ranks} devices" if num_ranks > 1 else ""
        if stage == "fit":
            size, num_batches = self.splits["train"].batch_size, self.loader.batches_per_step
            num_videos = len(self.manifests["train"])
            if num_videos // num_ranks < size * num_batches:
                batch = f"one batch of {size}" if num_batches == 1 else f"{num_batches} of {size}"
                raise UserError(
                    f"{num_videos} training videos do not fill {batch}{on_each}; lower "
                    "data.train_batch_size"
                )
        name = {"fit": "val"}.get(stage, stage)
        if len(self.manifests[name]) < num_ranks:
            raise UserError(
                f"the {name} list has {len(self.manifests[name])} videos, fewer than one "
                f"for each of {num_ranks} devices"
            )

    def test_names(self) -> Sequence[str]:
        """Return the names of the listed test videos, in their order."""
        return self.manifests["test"].names

    def test_labels(self) -> Sequence[int]:
        """Return the labels of the listed test videos, in their order."""
        return self.manifests["test"].labels.tolist()  # type: ignore[no-any-return]

    def test_classes(self) -> Sequence[tuple[int, ...]]:
        """Return the classes of each listed test video, among all, where it has several."""
        manifest = self.manifests["test"]
        return [tuple(manifest.classes_of(i)) for i in range(len(manifest))]

    def test_values(self) -> Sequence[tuple[float, ...]]:
        """Return the values of each listed test video, of lists with numbers."""
        manifest = self.manifests["test"]
        return [tuple(np.asarray(manifest.target(i)).tolist()) for i in range(len(manifest))]

    def train_labels(self) -> Sequence[int]:
        """Return the labels of the training videos, of each all that it has."""
        return self.manifests["train"].each_label().tolist()  # type: ignore[no-any-return]

    def train_video_path(self, video_index: int) -> str:
        """Return the path of a training video."""
        return self.manifests["train"].path(video_index)

    def train_dataloader(self) -> DataLoader[Batch]:
        split, rank, num_ranks = self.splits["train"], *self._rank()
        dataset = TrainDataset(self.manifests["train"], split.pipeline, self.loader.seed)
        self.check_shares("fit", num_ranks)
        sampler = TrainSampler(
            len(dataset),
            seed=self.loader.seed,
            rank=rank,
            num_ranks=num_ranks,
            num_together=split.batch_size * self.loader.batches_per_step,
            order=self._order(),
        )
        self._resume(sampler, of="videos")
        return self._loader(
            dataset, split.batch_size, collate_train, sampler=sampler, drop_last=True
        )

    def _order(self) -> NearbyOrder | BalancedOrder | None:
        """Return the order of an epoch, None for any; raises `UserError` without shards."""
        if self.balanced:
            return BalancedOrder(labels=self.manifests["train"].labels)
        if self.loader.shuffle_buffer is None:
            return None
        names = self.manifests["train"].names
        if not all(map(SHARD_PLACE.match, names)):
            raise UserError(
                "data.shuffle_buffer is for videos in shards; set data.shards, or leave it out"
            )
        shards = np.unique([name.partition("!")[0] for name in names], return_inverse=True)[1]
        return NearbyOrder(shards=shards, num_buffered=self.loader.shuffle_buffer)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation_loader("test")

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Record the videos that the loader could not read."""
        trainer = self.trainer
        assert trainer is not None
        name = "train" if trainer.training else "test" if trainer.testing else "val"
        for bad in batch.unreadable:
            self._note(name, bad)
        return batch._replace(unreadable=())

    def _note(self, name: str, bad: Unreadable) -> None:
        seen, manifest = self.unreadable[name], self.manifests[name]
        if bad.video_index in seen:
            return
        seen[bad.video_index] = bad.reason
        effect = "replaced by another sample" if name == "train" else "excluded from the result"
        logger.warning(
            "cannot decode %s: %s; %s", manifest.path(bad.video_index), bad.reason, effect
        )
        first = next(iter(seen))
        if name == "train":
            num_known, (_, num_ranks) = len(self.known_bad[name]), self._rank()
            num_bad = num_known + num_ranks * len(seen)  # estimated for the other ranks
            num_listed = num_known + len(manifest)
            self._check_share(num_bad, num_listed, manifest.path(first), seen[first])
        elif len(seen) == len(manifest):
            raise UserError(
                f"none of the {len(manifest)} videos of the {name} list can be read; the first is "
                f"{manifest.path(first)}: {seen[first]}"
            )

    def _check_share(self, num_bad: int, num_listed: int, path: str, reason: str) -> None:
        """Raise `UserError` if more training videos are unreadable than tolerated."""
        share = self.loader.max_unreadable_fraction
        if num_bad > share * num_listed:
            raise UserError(
                f"{num_bad} of {num_listed} training videos are unreadable so far, more than "
                f"data.max_unreadable_fraction={share:g}; the first is {path}: {reason}; "
                "video-mvit prepare mode=scan reads them again and lists them"
            )

    def _evaluation_loader(self, name: str) -> DataLoader[Batch]:
        split, rank, num_ranks = self.splits[name], *self._rank()
        dataset = EvaluationDataset(self.manifests[name], split.pipeline, self.known_bad[name])
        done = self.already_tested if name == "test" else ()
        mine = [i for i in range(len(dataset)) if i not in done][
            rank::num_ranks
        ]  # each video on one rank
        return self._loader(dataset, split.batch_size, collate_views, sampler=mine)
