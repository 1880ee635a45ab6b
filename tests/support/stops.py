"""A small training that can be stopped at named places, and started again where it stopped.

All that can go wrong in a resumed run is there: a learning rate that moves, noise in each step, an
order of batches that changes with the epoch, an average of the weights, metrics of validations.
"""

import logging
import os
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from support.training import NUM_CLASSES, Batch, Clips, MeanColour
from video_mvit.data.datamodule import LoaderConfig, ResumableDataModule
from video_mvit.data.dataset import TrainSampler
from video_mvit.training.checkpoints import (
    AtomicCheckpointIO,
    Checkpoint,
    MissedValidation,
    StepCheckpoint,
)
from video_mvit.training.classifier import VideoClassifier
from video_mvit.training.curves import read_rows
from video_mvit.training.ema import EmaWeights
from video_mvit.training.nonfinite import NonFiniteLossGuard
from video_mvit.training.optim import OptimConfig
from video_mvit.training.preemption import GracefulShutdown

NUM_TRAIN, NUM_VAL, NUM_EPOCHS = 6, 4, 3  # batches, batches, epochs
PLACES = (
    "batch",  # in a step
    "after_batch",  # once the step is done
    "writing",  # a checkpoint, before there is a file
    "written",  # on rank 0
    "validation",
    "after_validation",
    "epoch_end",
    "epoch_start",
)
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1)


class Killed(BaseException):
    """What a SIGKILL is to a process: it does nothing after that."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A signal when the run comes to a place for the nth time since its start."""

    number: signal.Signals
    place: str
    nth: int


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What kind of training it is."""

    accumulated: int = 1
    by_steps: int | None = None  # instead of epochs
    ema: bool = True
    val_check_interval: float | int = 1.0
    save_every: int | None = 2  # steps; null: before validations and after epochs alone
    sanity_steps: int = 0


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What a training has come to, however often it was stopped."""

    weights: dict[str, Tensor]
    rows: dict[tuple[int, str], float]
    codes: list[int | str]  # of the starts before the last one


class Noise(nn.Module):
    """An augmentation that draws from the generator of the step."""

    def forward(
        self, clip: Tensor, label: Tensor, *, generator: np.random.Generator, **_: Any
    ) -> tuple[Tensor, Tensor]:
        noise = generator.standard_normal(clip.shape).astype(np.float32)
        return clip + torch.from_numpy(noise), nn.functional.one_hot(label, NUM_CLASSES).float()


class OneByOne(Sampler[int]):
    """A `TrainSampler` of batches."""

    def __init__(self, sampler: TrainSampler) -> None:
        self._sampler = sampler
        self.set_epoch, self.skip_once = sampler.set_epoch, sampler.skip_once

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Any:
        return (key.video_index for key in self._sampler)


class Batches(ResumableDataModule):
    """Whole batches in an order that changes with the epoch."""

    def __init__(self, batches_per_step: int) -> None:
        super().__init__(LoaderConfig(num_workers=0, batches_per_step=batches_per_step))

    @property
    def train_batch_size(self) -> int:
        return 1

    def train_dataloader(self) -> DataLoader[Batch]:
        rank, num_ranks = self._rank()
        sampler = OneByOne(
            TrainSampler(
                NUM_TRAIN * num_ranks,
                seed=0,
                rank=rank,
                num_ranks=num_ranks,
                num_together=self.loader.batches_per_step,
            )
        )
        self._resume(sampler, of="batches")
        return DataLoader(Clips(NUM_TRAIN * num_ranks), batch_size=None, sampler=sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        rank, num_ranks = self._rank()
        mine = list(range(NUM_VAL))[rank::num_ranks]
        return DataLoader(Clips(NUM_VAL, views=1), batch_size=None, sampler=mine)

    def train_video_path(self, index: int) -> str:
        return f"/videos/{index}.mp4"


class Stopper(pl.Callback):
    """Stops this process at a place."""

    def __init__(self, stop: Stop | None) -> None:
        self.stop, self.seen = stop, 0

    def reached(self, place: str) -> None:
        if self.stop is None or place != self.stop.place:
            return
        self.seen += 1
        if self.seen != self.stop.nth:
            return
        if self.stop.number == signal.SIGKILL:
            raise Killed
        os.kill(os.getpid(), self.stop.number)

    def on_train_epoch_start(self, *_: object) -> None:
        self.reached("epoch_start")

    def on_train_batch_start(self, *_: object) -> None:
        self.reached("batch")

    def on_train_batch_end(self, *_: object) -> None:
        self.reached("after_batch")

    def on_validation_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        if not trainer.sanity_checking:
            self.reached("validation")

    def on_validation_end(self, trainer: pl.Trainer, *_: object) -> None:
        if not trainer.sanity_checking:
            self.reached("after_validation")

    def on_train_epoch_end(self, *_: object) -> None:
        self.reached("epoch_end")

    def on_save_checkpoint(self, *_: object) -> None:
        self.reached("writing")


class Writer(AtomicCheckpointIO):
    """Can be stopped just after it has written."""

    def __init__(self, stopper: Stopper) -> None:
        super().__init__()
        self.stopper = stopper

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        super().save_checkpoint(checkpoint, path, storage_options)
        self.stopper.reached("written")


def start(folder: Path, recipe: Recipe, stop: Stop | None) -> VideoClassifier:
    """Start a training in a folder, from its last checkpoint if there is one, to its end."""
    stopper, checkpoints = Stopper(stop), folder / "checkpoints"
    options: dict[str, Any] = {"dirpath": checkpoints, "enable_version_counter": False}
    best = Checkpoint(
        filename="best", monitor="val/top1", mode="max", save_on_train_epoch_end=True, **options
    )
    last = Checkpoint(filename="last", save_on_train_epoch_end=True, **options)
    recent = StepCheckpoint(
        filename="last", every_n_train_steps=recipe.save_every or 10**6, **options
    )
    callbacks: list[pl.Callback] = [MissedValidation(), best, last, recent]
    callbacks += [NonFiniteLossGuard(str(folder)), stopper]
    callbacks += [EmaWeights(decay=0.9)] if recipe.ema else []
    callbacks += [GracefulShutdown(str(checkpoints))]
    torch.manual_seed(0)
    optim = OptimConfig(
        name="sgd",
        lr=0.3,
        start_lr=0.01,
        end_lr=0.01,
        num_epochs=NUM_EPOCHS,
        warmup_epochs=1,
        weight_decay=0.01,
    )
    module = VideoClassifier(
        MeanColour(),
        num_classes=NUM_CLASSES,
        preprocess=nn.Identity(),
        optim=optim,
        augment=Noise(),
    )
    num_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    by_steps = {"max_steps": recipe.by_steps, "max_epochs": -1}
    trainer = pl.Trainer(
        **(by_steps if recipe.by_steps else {"max_epochs": NUM_EPOCHS}),
        accelerator="cpu",
        devices=num_ranks,
        strategy="ddp" if num_ranks > 1 else "auto",
        callbacks=callbacks,
        plugins=[Writer(stopper)],
        logger=CSVLogger(str(folder), name="metrics"),
        log_every_n_steps=1,
        accumulate_grad_batches=recipe.accumulated,
        val_check_interval=recipe.val_check_interval,
        num_sanity_val_steps=recipe.sanity_steps,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    path = checkpoints / "last.ckpt"
    trainer.fit(
        module,
        datamodule=Batches(recipe.accumulated),
        ckpt_path=path if path.exists() else None,
        weights_only=True,
    )
    return module


def run(folder: Path, recipe: Recipe, stops: Sequence[Stop] = ()) -> Ending:
    """Train to the end, started again after each stop."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    codes: list[int | str] = []
    for stop in [*stops, None]:
        try:
            module = start(folder, recipe, stop)
            break
        except Killed:
            codes.append("killed")
        except SystemExit as end:
            codes.append(end.code or 0)
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    weights = {name: each.clone() for name, each in module.state_dict().items()}
    weights |= {f"saved {name}": each for name, each in content["state_dict"].items()}
    weights |= {f"ema {name}": each for name, each in content.get("ema", {}).items()}
    rows = rows_of(folder) if module.global_rank == 0 else {}
    return Ending(weights=weights, rows=rows, codes=codes)


def rows_of(folder: Path) -> dict[tuple[int, str], float]:
    """All that was logged by step and name; nothing is logged twice."""
    found: dict[tuple[int, str], float] = {}
    for row in read_rows(folder / "metrics"):
        for name, value in row.values.items():
            assert (row.step, name) not in found, (row.step, name)
            found[row.step, name] = value
    return found


def assert_same(found: Ending, expected: Ending, told: object) -> None:
    """All numbers are equal to the last bit."""
    assert found.weights.keys() == expected.weights.keys(), told
    for name, tensor in expected.weights.items():
        assert torch.equal(found.weights[name], tensor), f"{name}: {told}"
    assert found.rows == expected.rows, told


def random_stops(rng: random.Random) -> list[Stop]:
    """One to three stops anywhere."""
    return [
        Stop(number=rng.choice(SIGNALS), place=rng.choice(PLACES), nth=rng.randint(1, 7))
        for _ in range(rng.randint(1, 3))
    ]


def random_recipe(rng: random.Random) -> Recipe:
    """Any combination of what changes the course of a training."""
    accumulated = rng.choice([1, 1, 2])
    return Recipe(
        accumulated=accumulated,
        by_steps=rng.choice([None, None, 7, NUM_EPOCHS * NUM_TRAIN // accumulated]),
        ema=rng.random() < 0.5,
        val_check_interval=rng.choice([1.0, 1.0, 0.5, 2, 4]),
        save_every=rng.choice([None, 1, 2]),
        sanity_steps=rng.choice([0, 2]),
    )
