"""A training step between two loggings waits for nothing and sends no number to the device."""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from support.training import NUM_CLASSES, OPTIM, Batch, Clips, Data, MeanColour, trainer
from support.waits import Waits, Watched, meta_strategy
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from video_mvit.data.transforms.augment import Augment
from video_mvit.detection.instances import DetectionBatch, Instances
from video_mvit.detection.optim import DetectionOptimConfig
from video_mvit.detection.training import DetectorModule
from video_mvit.models.config import MViTConfig
from video_mvit.models.mvit import MViT
from video_mvit.training import progress
from video_mvit.training.checkpoints import AtomicCheckpointIO, MissedValidation, StepCheckpoint
from video_mvit.training.classifier import VideoClassifier
from video_mvit.training.ema import EmaWeights
from video_mvit.training.nonfinite import NonFiniteLossGuard
from video_mvit.training.preemption import GracefulShutdown
from video_mvit.training.progress import EpochSummary, ProgressBar

INTERVAL = 4  # steps between two loggings
TINY = MViTConfig(
    num_classes=NUM_CLASSES, num_frames=2, crop_size=32, depths=(1, 1, 1, 1), embed_dim=16
)


class Frames(Clips):
    """Batches of two uint8 clips, as the loader gives them."""

    def __init__(self, num_batches: int) -> None:
        super().__init__(num_batches)
        self.clips = torch.zeros(num_batches, 2, 2, 3, 32, 32, dtype=torch.uint8)


class Normalize(nn.Module):
    def forward(self, clips: Tensor) -> Tensor:
        return (clips.float() / 255).transpose(1, 2)


class Bad(pl.Callback):
    """Does something at the end of each batch."""

    def __init__(self, deed: Callable[[pl.LightningModule, Tensor], object]) -> None:
        self._deed = deed

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self._deed(pl_module, batch.clip)


@pytest.fixture(autouse=True)
def _meta_is_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what asks for a device of its own take meta for one."""
    kinds = ["cpu", "cuda", "meta"]
    optimizer = sys.modules["torch.optim.optimizer"]
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: kinds)
    monkeypatch.setattr(progress, "matmul_rate", lambda *_: 1.0)


def train(
    folder: Path,
    *callbacks: pl.Callback,
    model: nn.Module | None = None,
    accumulated: int = 1,
    logged: bool = False,
) -> Waits:
    """Train with all that watches a run; return the waits of steps that are logged, or are not."""
    optim = replace(OPTIM, name="adamw")
    module = VideoClassifier(
        model or MeanColour(), num_classes=NUM_CLASSES, preprocess=Normalize(), optim=optim
    )
    checkpoints = StepCheckpoint(
        dirpath=folder, filename="last", train_time_interval=timedelta(hours=1)
    )
    last = INTERVAL * accumulated  # batches
    first = last - accumulated if logged else accumulated
    waits, bar = Waits(), ProgressBar()
    bar.enable()
    run = pl.Trainer(
        max_epochs=1,
        strategy=meta_strategy(),
        callbacks=[
            Watched(waits, first, last if logged else last - accumulated),
            MissedValidation(),
            checkpoints,
            NonFiniteLossGuard(str(folder)),
            bar,
            EmaWeights(),
            *callbacks,
            EpochSummary(),
            GracefulShutdown(str(folder)),
        ],
        plugins=[AtomicCheckpointIO()],
        logger=CSVLogger(str(folder)),
        log_every_n_steps=INTERVAL,
        accumulate_grad_batches=accumulated,
        gradient_clip_val=1.0,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    with waits:
        run.fit(module, datamodule=Data(Frames(last + 1)))
    return waits


@pytest.mark.slow
def test_step_of_a_network_waits_for_nothing(tmp_path: Path) -> None:
    assert not train(tmp_path, model=MViT(TINY)).places


def test_accumulated_batches_wait_for_nothing(tmp_path: Path) -> None:
    assert not train(tmp_path, accumulated=2).places


class Losses(nn.Module):
    """As a detector in training; the boxes it samples are its own affair."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, images: list[Tensor], targets: list[Instances]) -> dict[str, Tensor]:
        boxes, classes = self.linear(images[0].float().mean((1, 2)))
        return {"box": boxes.square() + targets[0].boxes.sum(), "class": classes.square()}


class Images(pl.LightningDataModule):
    def train_dataloader(self) -> DataLoader[DetectionBatch]:
        target = Instances(boxes=torch.ones(1, 4), labels=torch.ones(1).long(), masks=())
        image = torch.zeros(3, 8, 8, dtype=torch.uint8)
        batch = DetectionBatch([image], [target], torch.tensor([0]), [(8, 8)])
        return DataLoader([batch] * (INTERVAL + 1), batch_size=None)


def test_step_around_a_detector_waits_for_nothing(tmp_path: Path) -> None:
    optim = DetectionOptimConfig(
        lr=1e-3, num_steps=3, drops=[], reference_images=None, warmup_steps=0, weight_decay=0
    )
    module, waits = DetectorModule(Losses(), optim=optim), Waits()
    run = trainer(
        Watched(waits, 1, INTERVAL - 1),
        NonFiniteLossGuard(str(tmp_path)),
        EmaWeights(),
        GracefulShutdown(str(tmp_path)),
        accelerator="auto",
        strategy=meta_strategy(),
        logger=CSVLogger(str(tmp_path)),
        log_every_n_steps=INTERVAL,
        limit_val_batches=0,
    )
    with waits:
        run.fit(module, datamodule=Images())
    assert not waits.places


def test_logged_step_reads_what_it_logs(tmp_path: Path) -> None:
    assert train(tmp_path, logged=True).kinds.keys() == {"read"}


WAITS: list[tuple[str, Callable[[pl.LightningModule, Tensor], object]]] = [
    ("read", lambda _, clip: clip.sum().item()),
    ("read", lambda _, clip: bool((clip > 0).any())),
    ("read", lambda module, clip: module.log("bad", clip.float().mean(), prog_bar=True)),
    ("copy from the device", lambda _, clip: clip.cpu()),
    ("copy from the device", lambda _, clip: clip.tolist()),
    ("copy to the device", lambda _, clip: torch.zeros(2).to(clip.device)),
    ("copy to the device", lambda _, clip: clip[torch.tensor([1, 0])]),
    ("copy to the device", lambda _, clip: clip.copy_(torch.zeros(clip.shape))),
    ("sized by values", lambda _, clip: clip.nonzero()),
    ("sized by values", lambda _, clip: clip[clip > 0]),
    ("sized by values", lambda _, clip: clip.unique()),
    ("built from host data", lambda _, clip: torch.tensor(1.0, device=clip.device)),
    ("built from host data", lambda module, _: module.log("bad", 1.0)),
    ("built from host data", lambda _, clip: MeanMetric().to(clip.device).update(clip, 1.0)),
]


@pytest.mark.parametrize("number", range(len(WAITS)))
def test_each_kind_of_wait_is_seen(tmp_path: Path, number: int) -> None:
    kind, deed = WAITS[number]
    waits = train(tmp_path, Bad(lambda *both: _quietly(deed, *both)))
    assert waits.kinds[kind] >= 1, waits.places


def _quietly(deed: Callable[..., object], *arguments: Any) -> None:
    with contextlib.suppress(NotImplementedError):  # no size without values
        deed(*arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_step_of_a_gpu_waits_for_nothing(tmp_path: Path) -> None:
    """As PyTorch itself sees it."""

    class Strict(pl.Callback):
        def on_train_batch_start(self, *arguments: Any) -> None:
            is_watched = 0 < arguments[-1] < INTERVAL - 1
            torch.cuda.set_sync_debug_mode("error" if is_watched else "default")

    optim = replace(OPTIM, name="adamw")
    module = VideoClassifier(
        MViT(TINY),
        num_classes=NUM_CLASSES,
        preprocess=Normalize(),
        optim=optim,
        augment=Augment(policy="rand-m7-n4-mstd0.5-inc1", erase_prob=0.25),
    )
    run = trainer(
        Strict(),
        NonFiniteLossGuard(str(tmp_path)),
        EmaWeights(),
        GracefulShutdown(str(tmp_path)),
        accelerator="gpu",
        devices=1,
        precision="bf16-mixed",
        log_every_n_steps=INTERVAL,
    )
    try:
        run.fit(module, datamodule=Data(Frames(INTERVAL)))
    finally:
        torch.cuda.set_sync_debug_mode("default")
