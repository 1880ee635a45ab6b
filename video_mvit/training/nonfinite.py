"""Stop a run, or skip the step, on a NaN or Inf loss before it reaches the weights."""

import logging
import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from video_mvit.errors import UserError
from video_mvit.training.distributed import HostAllReduce, rank_timeout
from video_mvit.training.module import TrainedModule

NUM_NAMED = 8  # files in the message; the saved batch lists all
logger = logging.getLogger(__name__)


class DeferredScalar:
    """A scalar copied from the device asynchronously; reading waits for it alone."""

    def __init__(self, value: Tensor) -> None:
        self._value = value.detach().to("cpu", non_blocking=value.is_cuda)
        self._is_there: torch.cuda.Event | None = None
        if value.is_cuda:
            self._is_there = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._is_there.record()

    def read(self) -> float:
        if self._is_there:
            self._is_there.synchronize()
        return float(self._value)


class NonFiniteLossGuard(pl.Callback):
    """Raise `UserError` before a step with a NaN or Inf loss, and save its batch.

    Up to `max_skipped` such steps of a run are skipped on all ranks instead; weights and optimizer
    state stay as they are. Files go to `folder`. Expects the loss as a `DeferredScalar` in the
    module's `deferred_loss`.
    """

    def __init__(self, folder: str, max_skipped: int = 0) -> None:
        if max_skipped < 0:
            raise UserError(f"max_skipped {max_skipped} must not be negative")
        self.folder, self.max_skipped, self.num_skipped = Path(folder), max_skipped, 0
        self._batch: Any = None
        self._batch_idx = 0
        self._complaint: str | None = None  # of this rank, since the last step

    def state_dict(self) -> dict[str, Any]:
        return {"num_skipped": self.num_skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_skipped = state_dict["num_skipped"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._all_reduce = HostAllReduce(rank_timeout(trainer))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch, self._batch_idx = batch, batch_idx

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loss = pl_module.deferred_loss.read()  # type: ignore[operator, union-attr]
        if self._complaint is None and not math.isfinite(loss):
            self._complaint = self._describe(trainer, pl_module, loss)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        complaint, self._complaint = self._complaint, None
        if not self._all_reduce.max(complaint is not None):
            return
        self.num_skipped += 1
        if self.num_skipped > self.max_skipped:
            skipped = f"; {self.max_skipped} such steps were skipped" * bool(self.max_skipped)
            raise UserError(
                f"{complaint or 'the loss of another rank is NaN or Inf'}{skipped}; no "
                "checkpoint contains it; try a lower optim.lr or set trainer.gradient_clip_val"
            )
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None  # optimizers skip parameters without a gradient
        if complaint:
            logger.warning(
                "%s; step skipped (%d of at most %d)", complaint, self.num_skipped, self.max_skipped
            )

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse to write a checkpoint with NaN or Inf weights."""
        for name, tensor in checkpoint["state_dict"].items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise UserError(
                    f"{name} has NaN or Inf values after step {trainer.global_step}; no checkpoint "
                    "is written; resume from the previous one with a lower optim.lr"
                )

    def _describe(self, trainer: pl.Trainer, module: pl.LightningModule, loss: float) -> str:
        """Describe the bad step, and save its batch."""
        assert isinstance(module, TrainedModule)
        batch, epoch = self._batch, trainer.current_epoch
        path = self.folder / f"bad_batch_rank{trainer.global_rank}.pt"
        files = module.batch_files(batch, trainer.datamodule)  # type: ignore[attr-defined]
        content = {**module.batch_content(batch), "files": files}
        try:
            torch.save({**content, "epoch": epoch, "batch_idx": self._batch_idx}, path)
            saved = f"is saved as {path}"
        except (OSError, RuntimeError) as error:
            saved = f"cannot be saved as {path} ({error})"
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        more = f" and {len(files) - NUM_NAMED} more" if len(files) > NUM_NAMED else ""
        return (
            f"the loss is {loss} in epoch {epoch + 1}, batch {self._batch_idx + 1}, at a "
            f"learning rate of {lr:.3g}; the batch {saved}; files: "
            f"{', '.join(files[:NUM_NAMED])}{more}"
        )
