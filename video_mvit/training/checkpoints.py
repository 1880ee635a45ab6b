"""Atomic checkpoint files: a kill or a full disk at any moment leaves the previous one usable.

What a checkpoint contains is decided elsewhere (the trainer, `classifier.py`, `ema.py`).
"""

import copy
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor

from video_mvit.errors import UserError
from video_mvit.files import is_plain_file, replace_atomically
from video_mvit.training.distributed import HostAllReduce, gather_over_ranks, rank_timeout
from video_mvit.training.old_checkpoints import translate_checkpoint
from video_mvit.weights.torch_files import read_torch_file

RETRY_S = 60.0  # after which a checkpoint of a time interval that was not written is tried again
logger = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the old file, flush to disk, then rename.

    A checkpoint that cannot be written (full disk) does not end a run: the previous file stays, and
    `problems` holds the reason by path until that file is written again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.problems: dict[str, str] = {}

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint, and never a folder or what a link leads to."""
        if not is_plain_file(Path(path)):
            return
        try:
            Path(path).unlink()
        except OSError as error:
            logger.warning("cannot remove %s: %s", path, error.strerror or error)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        try:
            save_atomically(checkpoint, Path(path))
        except OSError as error:
            kept = (
                "the previous checkpoint is kept"
                if Path(path).exists()
                else "there is no earlier one"
            )
            problem = f"cannot write {path}: {error.strerror or error}; {kept}"
            logger.warning(
                "%s; training continues, the next checkpoint is tried as scheduled", problem
            )
            self.problems[str(path)] = problem
            return
        if self.problems.pop(str(path), None):
            logger.info("%s is written again", path)

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Load a checkpoint on the CPU, verified, and translate names of version 0.1."""
        return translate_checkpoint(read_torch_file(Path(path)))

    def raise_problem(self, others: Sequence[str] = ()) -> None:
        """Raise `UserError` if the latest version of a checkpoint could not be written.

        `others` are problems to tell as well.
        """
        if self.problems:
            told = "; ".join([*self.problems.values(), *others])
            way_on = (
                "resume" if any(Path(path).exists() for path in self.problems) else "train again"
            )
            raise UserError(f"{told}; free some space and {way_on}")


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's FSDP2 strategy, which loads checkpoints without the checkpoint IO plugin."""

    def load_checkpoint(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Load a checkpoint and translate names of version 0.1."""
        return translate_checkpoint(super().load_checkpoint(*arguments, **options))


def checkpoint_io_of(trainer: pl.Trainer) -> AtomicCheckpointIO:
    """Return the checkpoint IO plugin of a trainer, which must be an `AtomicCheckpointIO`."""
    writer = trainer.strategy.checkpoint_io
    assert isinstance(writer, AtomicCheckpointIO)
    return writer


def save_atomically(content: dict[str, Any], path: Path) -> None:
    """Save like `torch.save`, leaving either the old file or the complete new one.

    Raises `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(path) as temporary, temporary.open("wb") as file:
        _save(content, file)


def _save(content: dict[str, Any], file: Any) -> None:
    """Save, and raise the original `OSError`, which torch's writer replaces by a `RuntimeError`."""
    try:
        torch.save(content, file)
    except RuntimeError as error:  # raised while the writer closes, during an OSError
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


class CheckpointNotWritten(Exception):  # noqa: N818
    """Raised on all ranks where a checkpoint could not be written."""


class Checkpoint(ModelCheckpoint):
    """Lightning's `ModelCheckpoint` that counts a checkpoint as saved only once it is on disk.

    Otherwise no older file is removed, and the best score stays that of the file on disk. The
    folder is that of the configuration: of the paths in a saved state only the names of files count
    which are there, so that a run folder may be moved, and nothing outside of it is removed.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the scores of the files that are in the folder; all ranks as the first."""
        prefix = (self.filename or "").partition("{")[0]
        saved = state_dict.get("best_k_models")
        models = {
            self._present(path, prefix): score
            for path, score in (saved.items() if isinstance(saved, dict) else ())
            if is_score(score)
        }
        best = self._present(state_dict.get("best_model_path"), prefix)
        last = self._present(state_dict.get("last_model_path"), self.CHECKPOINT_NAME_LAST)
        models, best, last = gather_over_ranks((models, best, last))[0]
        models.pop("", None)
        self.best_model_path, self.last_model_path = best, last
        if not models or 0 < self.save_top_k < len(models):
            return
        first, end = (max, min) if self.mode == "max" else (min, max)
        self.best_k_models = models
        self.best_model_path = first(models, key=lambda path: float(models[path]))
        self.best_model_score = models[self.best_model_path]
        if self.save_top_k in (-1, len(models)):
            self.kth_best_model_path = end(models, key=lambda path: float(models[path]))
            self.kth_value = models[self.kth_best_model_path]

    def _present(self, saved: Any, prefix: str) -> str:
        """Return the path in the folder of the file that a saved path names; "" without one."""
        name = PurePath(saved).name if isinstance(saved, str) else ""
        path = Path(self.dirpath or "", name)
        is_ours = name.startswith(prefix) and name.endswith(self.FILE_EXTENSION)
        return str(path) if self.dirpath and is_ours and is_plain_file(path) else ""

    def _remove_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        folder = Path(self.dirpath or "").resolve()
        if self.dirpath and Path(filepath).resolve().is_relative_to(folder):
            super()._remove_checkpoint(trainer, filepath)

    def _save_topk_checkpoint(
        self, trainer: pl.Trainer, monitor_candidates: dict[str, Tensor]
    ) -> None:
        before = {name: copy.copy(value) for name, value in vars(self).items()}
        try:
            super()._save_topk_checkpoint(trainer, monitor_candidates)
        except CheckpointNotWritten:
            vars(self).update(before)
            if self._train_time_interval is not None:  # try again soon
                interval_s = self._train_time_interval.total_seconds()
                self._last_time_checked = time.monotonic() - max(0.0, interval_s - RETRY_S)

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if trainer.strategy.broadcast(str(filepath) in checkpoint_io_of(trainer).problems):
            raise CheckpointNotWritten


def is_score(value: Any) -> bool:
    """Return whether a value is one real number in a tensor, as checkpoints are ranked by."""
    if not isinstance(value, Tensor) or value.shape != () or value.device.type == "meta":
        return False
    return not value.is_complex() and not bool(value.isnan())


class StepCheckpoint(Checkpoint):
    """Save after complete optimizer steps only, and before every validation.

    A checkpoint between accumulated batches would lose their gradients; validation can take longer
    than the grace period of a preempted machine. Ranks agree on whether a time interval is over
    while the next step runs.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._all_reduce = HostAllReduce(rank_timeout(trainer))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        self._all_reduce.finish()

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
        if validation_follows(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
            return
        if self._train_time_interval is not None and trainer.world_size > 1:
            # Lightning would ask the first rank after each batch, and wait for its device.
            if not self._all_reduce.max_late(self._interval_is_over()):
                return
            self._last_time_checked = -math.inf  # over on all ranks
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _interval_is_over(self) -> bool:
        assert self._train_time_interval is not None
        assert self._last_time_checked is not None
        passed_s = time.monotonic() - self._last_time_checked
        return passed_s >= self._train_time_interval.total_seconds()

    def is_saved(self, trainer: pl.Trainer) -> bool:
        """Return whether the file on disk is of the latest step."""
        return bool(self._last_global_step_saved == trainer.global_step)


class MissedValidation(pl.Callback):
    """Note in checkpoints whether a validation is due, so that a resumed run runs it first.

    Also lets the last step be validated where the trainer would end training within an epoch. Must
    precede the callbacks that save checkpoints.
    """

    def __init__(self) -> None:
        self._is_due = False

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._is_due = bool(checkpoint.get("validation_is_due"))

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
        if is_last_step(trainer):
            trainer.should_stop = True  # the trainer then validates before it ends
        self._is_due = validation_follows(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._is_due = self._is_due and trainer.sanity_checking


def is_whole_step(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Return whether the optimizer steps after this batch."""
    is_last = batch_idx + 1 == trainer.num_training_batches
    return is_last or (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def is_last_step(trainer: pl.Trainer) -> bool:
    """Return whether all of `max_steps` are done."""
    return 0 <= trainer.max_steps <= trainer.global_step


def validation_follows(trainer: pl.Trainer) -> bool:
    """Return whether the trainer validates after the batch that ends now."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
