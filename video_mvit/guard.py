"""Stops a run at its first loss that is no number, before a checkpoint holds what came of it."""

import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

NUM_NAMED = 8  # videos named in the message; the saved batch has all


class HostCopy:
    """A number on its way from the device: waits for that number only, not for later work."""

    def __init__(self, value: Tensor) -> None:
        self._value = value.detach().to("cpu", non_blocking=True)
        self._is_there: torch.cuda.Event | None = None
        if value.is_cuda:
            self._is_there = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._is_there.record()

    def read(self) -> float:
        if self._is_there:
            self._is_there.synchronize()
        return float(self._value)


class FiniteLoss(pl.Callback):
    """Raises `ValueError` where a loss is NaN or infinite, and saves its batch in `folder`.

    The optimizer has made its step by then, but no checkpoint is written after it: `last.ckpt` is
    of an earlier step. Expects the loss as `HostCopy` in the module's `loss_on_host`.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        loss = pl_module.loss_on_host.read()  # type: ignore[operator, union-attr]
        if math.isfinite(loss):
            return
        path = self.folder / f"bad_batch_rank{trainer.global_rank}.pt"
        indices = batch.video_index.tolist()
        videos = list(dict.fromkeys(map(trainer.datamodule.train_video_path, indices)))  # type: ignore[attr-defined]
        content = {"clip": batch.clip.cpu(), "label": batch.label.cpu(), "videos": videos}
        torch.save({**content, "epoch": trainer.current_epoch, "batch_idx": batch_idx}, path)
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        more = f" and {len(videos) - NUM_NAMED} more" if len(videos) > NUM_NAMED else ""
        raise ValueError(
            f"the loss is {loss} in epoch {trainer.current_epoch + 1}, batch {batch_idx + 1}, at a "
            f"learning rate of {lr:.3g}; the batch is saved as {path}, its videos are "
            f"{', '.join(videos[:NUM_NAMED])}{more}; checkpoints are of earlier steps; a lower "
            "optim.lr or a trainer.gradient_clip_val may help"
        )
