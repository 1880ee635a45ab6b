"""Writing checkpoints so that a kill or a full disk at any moment leaves the previous one usable.

What is in a checkpoint is decided elsewhere (the trainer, `classifier.py`, `average.py`).
"""

import logging
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

logger = logging.getLogger(__name__)


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes beside the old file, flushes to the disk, then renames.

    A checkpoint that cannot be written (a full disk) does not end a run: `problem` says what is
    wrong until one is written again, the previous file stays as it is.
    """

    problem: str | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        try:
            write_safely(checkpoint, Path(path))
        except OSError as error:
            kept = "the previous one is kept" if Path(path).exists() else "there is none yet"
            self.problem = f"cannot write {path}: {error.strerror or error}; {kept}"
            logger.warning("%s; training goes on, the next one is tried in its turn", self.problem)
            return
        if self.problem:
            logger.info("%s is written; checkpoints are whole again", path)
        self.problem = None

    def raise_problem(self) -> None:
        """Raise `ValueError` where the last checkpoint could not be written."""
        if self.problem:
            raise ValueError(f"{self.problem}; make room and resume from what is there")


def write_safely(content: dict[str, Any], path: Path) -> None:
    """`torch.save` that leaves the old file or the whole new one; raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            _save(content, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _save(content: dict[str, Any], file: Any) -> None:
    """Save with the complaint of the disk as it was; torch's own writer hides it."""
    try:
        torch.save(content, file)
    except RuntimeError as error:  # raised by the closing writer while an OSError passes
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _flush_folder(folder: Path) -> None:
    """Make a renaming last; systems that cannot open folders do without."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems refuse it
        pass
    finally:
        os.close(descriptor)


class StepCheckpoint(ModelCheckpoint):
    """Saves at whole optimizer steps only, and after the last batch of an epoch.

    Between two accumulated batches the gradients of the first would be lost; validation after the
    last batch can take longer than a machine waits before it takes itself away.
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
        if batch_idx + 1 == trainer.num_training_batches:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
            return
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


def is_whole_step(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether the optimizer has made its step with this batch."""
    is_last = batch_idx + 1 == trainer.num_training_batches
    return is_last or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
