"""Writing checkpoints so that a kill or a full disk at any moment leaves the previous one usable.

What is in a checkpoint is decided elsewhere (the trainer, `classifier.py`, `ema.py`).
"""

import copy
import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor

from video_mvit.errors import UserError
from video_mvit.files import replace_atomically
from video_mvit.training.old_checkpoints import translate_checkpoint

logger = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old file, flushes to the disk, then renames.

    A checkpoint that cannot be written (a full disk) does not end a run: the previous file stays as
    it is, and `problems` says what is wrong, by path, until that file is written again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.problems: dict[str, str] = {}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        try:
            save_atomically(checkpoint, Path(path))
        except OSError as error:
            kept = "the previous one is kept" if Path(path).exists() else "there is none yet"
            problem = f"cannot write {path}: {error.strerror or error}; {kept}"
            logger.warning("%s; training goes on, the next one is tried in its turn", problem)
            self.problems[str(path)] = problem
            return
        if self.problems.pop(str(path), None):
            logger.info("%s is written again", path)

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Load as Lightning does, under today's names."""
        return translate_checkpoint(super().load_checkpoint(path, *arguments, **options))

    def raise_problem(self) -> None:
        """Raise `ValueError` where the newest version of a checkpoint could not be written."""
        for problem in self.problems.values():
            raise UserError(f"{problem}; make room and resume from what is there")


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy to shard weights (FSDP2), which reads checkpoints by itself."""

    def load_checkpoint(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Load as Lightning does, under today's names."""
        return translate_checkpoint(super().load_checkpoint(*arguments, **options))


def checkpoint_io_of(trainer: pl.Trainer) -> AtomicCheckpointIO:
    """What writes the checkpoints of a trainer that was given one of these."""
    writer = trainer.strategy.checkpoint_io
    assert isinstance(writer, AtomicCheckpointIO)
    return writer


def save_atomically(content: dict[str, Any], path: Path) -> None:
    """`torch.save` that leaves the old file or the whole new one; raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(path) as temporary, temporary.open("wb") as file:
        _save(content, file)


def _save(content: dict[str, Any], file: Any) -> None:
    """Save with the complaint of the disk as it was; torch's own writer hides it."""
    try:
        torch.save(content, file)
    except RuntimeError as error:  # raised by the closing writer while an OSError passes
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


class CheckpointNotWritten(Exception):  # noqa: N818
    """A checkpoint could not be written; all processes of the run are told."""


class Checkpoint(ModelCheckpoint):
    """Lightning's, that takes a checkpoint for saved only if it was written.

    Otherwise nothing is removed for it, and the best stays what the file on the disk holds.
    """

    def _save_topk_checkpoint(
        self, trainer: pl.Trainer, monitor_candidates: dict[str, Tensor]
    ) -> None:
        before = {name: copy.copy(value) for name, value in vars(self).items()}
        try:
            super()._save_topk_checkpoint(trainer, monitor_candidates)
        except CheckpointNotWritten:
            vars(self).update(before)

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if trainer.strategy.broadcast(str(filepath) in checkpoint_io_of(trainer).problems):
            raise CheckpointNotWritten


class StepCheckpoint(Checkpoint):
    """Saves at whole optimizer steps only, and before every validation.

    Between two accumulated batches the gradients of the first would be lost; validation can take
    longer than a machine waits before it takes itself away.
    """

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if not is_whole_step(trainer, batch_idx):
            return
        if validation_follows(trainer, batch_idx):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
            return
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def is_saved(self, trainer: pl.Trainer) -> bool:
        """Whether the file on the disk is of the latest step."""
        return bool(self._last_global_step_saved == trainer.global_step)


class MissedValidation(pl.Callback):
    """Validates what a run was trained for, but ended before it could validate it.

    Such a run goes on after the last batch, and its trainer would begin the next epoch. Stands
    before the callbacks that save.
    """

    def __init__(self) -> None:
        self._is_due = False

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._is_due = checkpoint["validation_is_due"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["validation_is_due"] = self._is_due

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._is_due = validation_follows(trainer, batch_idx)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._is_due = self._is_due and trainer.sanity_checking

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._is_due:
            return
        logger.info("validating what the run before this one did not")
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.run()
        trainer.training = True
        for saves in trainer.checkpoint_callbacks:
            if getattr(saves, "monitor", None):
                saves.on_train_epoch_end(trainer, pl_module)


def is_whole_step(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether the optimizer has made its step with this batch."""
    is_last = batch_idx + 1 == trainer.num_training_batches
    return is_last or (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def validation_follows(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether the trainer validates after this batch: the last one, or one of an interval."""
    is_last = batch_idx + 1 == trainer.num_training_batches
    interval = trainer.val_check_batch
    return is_last or (interval is not None and (batch_idx + 1) % interval == 0)
