"""Stop a run, or skip the step, on a NaN or Inf loss before it reaches the weights.

The device itself leaves out a bad step, and the host reads a step late that it did.
"""

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from video_mvit.errors import UserError
from video_mvit.training.deferred import DeferredScalar
from video_mvit.training.module import TrainedModule

NUM_NAMED = 8  # files in the message; the saved batch lists all
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A batch whose loss the host has not read yet."""

    loss: DeferredScalar
    batch: Any
    batch_idx: int
    epoch: int
    lr: float


class NonFiniteLossGuard(pl.Callback):
    """Leave out a step with a NaN or Inf loss, save its batch, and raise `UserError`.

    Up to `max_skipped` such steps of a run are skipped on all ranks without an error; weights and
    optimizer state stay as they are. Files go to `folder`. Expects the loss as a `DeferredScalar`
    in the module's `deferred_loss`.

    A fused optimizer skips the step on the device: the host reads what happened before the next
    step, before a checkpoint and at the end. Before the step of any other, the host waits.
    """

    def __init__(self, folder: str, max_skipped: int = 0) -> None:
        if max_skipped < 0:
            raise UserError(f"max_skipped {max_skipped} must not be negative")
        self.folder, self.max_skipped, self.num_skipped = Path(folder), max_skipped, 0
        self._trainer: pl.Trainer | None = None
        self._trained: Trained | None = None
        self._is_bad: Tensor | None = None  # 1.0 on the device, where a loss of the step is bad
        self._is_skipped: DeferredScalar | None = None  # the last step, on all ranks
        self._complaint: str | None = None  # of this rank, about the last step
        self._batch: tuple[Any, int] = (None, 0)

    def state_dict(self) -> dict[str, Any]:
        self._catch_up()  # before anything is saved
        return {"num_skipped": self.num_skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_skipped = state_dict["num_skipped"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trainer = trainer

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch = batch, batch_idx

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        is_bad = (~loss.detach().isfinite()).float()
        self._is_bad = is_bad if self._is_bad is None else torch.maximum(self._is_bad, is_bad)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._catch_up()  # on the batch before, which the device has trained by now
        assert isinstance(pl_module, TrainedModule)
        batch, batch_idx = self._batch
        self._trained = Trained(
            loss=pl_module.deferred_loss,
            batch=batch,
            batch_idx=batch_idx,
            epoch=trainer.current_epoch,
            lr=trainer.optimizers[0].param_groups[0]["lr"],
        )

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        assert self._is_bad is not None
        if trainer.world_size > 1:
            dist.all_reduce(self._is_bad, dist.ReduceOp.MAX)  # on the device
        self._is_skipped = DeferredScalar(self._is_bad)
        if all(group.get("fused") for group in optimizer.param_groups):
            optimizer.found_inf = self._is_bad  # type: ignore[attr-defined]
        else:
            self._leave_out(optimizer)
        self._is_bad = None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._catch_up()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._catch_up()

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

    def _leave_out(self, optimizer: Optimizer) -> None:
        """Leave out the step of an optimizer that cannot do it itself; the host waits."""
        assert self._is_skipped is not None
        if not self._is_skipped.read():
            return
        self._catch_up()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None  # optimizers skip parameters without a gradient

    def _catch_up(self) -> None:
        """Read what the device has done so far."""
        self._judge()
        self._settle()

    def _judge(self) -> None:
        """Read the loss of the last batch."""
        trained, self._trained = self._trained, None
        if trained is None:
            return
        loss = trained.loss.read()
        if self._complaint is None and not math.isfinite(loss):
            self._complaint = self._describe(trained, loss)

    def _settle(self) -> None:
        """Count the last step if it was skipped, and raise `UserError` if it is one too many."""
        is_skipped, self._is_skipped = self._is_skipped, None
        if is_skipped is None or not is_skipped.read():
            return
        complaint, self._complaint = self._complaint, None
        self.num_skipped += 1
        if self.num_skipped > self.max_skipped:
            skipped = f"; {self.max_skipped} such steps were skipped" * bool(self.max_skipped)
            raise UserError(
                f"{complaint or 'the loss of another rank is NaN or Inf'}{skipped}; no "
                "checkpoint contains it; try a lower optim.lr or set trainer.gradient_clip_val"
            )
        if complaint:
            logger.warning(
                "%s; step skipped (%d of at most %d)", complaint, self.num_skipped, self.max_skipped
            )

    def _describe(self, trained: Trained, loss: float) -> str:
        """Describe a bad batch, and save it."""
        assert self._trainer is not None
        module = self._trainer.lightning_module
        assert isinstance(module, TrainedModule)
        path = self.folder / f"bad_batch_rank{self._trainer.global_rank}.pt"
        files = module.batch_files(trained.batch, self._trainer.datamodule)  # type: ignore[attr-defined]
        content = {**module.batch_content(trained.batch), "files": files}
        try:
            torch.save({**content, "epoch": trained.epoch, "batch_idx": trained.batch_idx}, path)
            saved = f"is saved as {path}"
        except (OSError, RuntimeError) as error:
            saved = f"cannot be saved as {path} ({error})"
        more = f" and {len(files) - NUM_NAMED} more" if len(files) > NUM_NAMED else ""
        return (
            f"the loss is {loss} in epoch {trained.epoch + 1}, batch {trained.batch_idx + 1}, at a "
            f"learning rate of {trained.lr:.3g}; the batch {saved}; files: "
            f"{', '.join(files[:NUM_NAMED])}{more}"
        )
