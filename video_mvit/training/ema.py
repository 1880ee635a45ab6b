"""Exponential moving average (EMA) of the weights, validated beside the raw weights."""

import copy
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from video_mvit.errors import UserError
from video_mvit.training.checkpoints import is_whole_step
from video_mvit.training.module import TrainedModule


def ema_decay_at(decay: float, num_updates: int) -> float:
    """Return the decay of one update, which warms up from 0.1.

    (1 + n) / (10 + n) up to `decay`, as TensorFlow's ExponentialMovingAverage and timm's ModelEma.
    """
    return min(decay, (1 + num_updates) / (10 + num_updates))


class EmaWeights(pl.Callback):
    """Update an EMA of the module's `model` after every optimizer step.

    Validated beside the weights (`val/ema_top1`) from the first update on. Checkpoints hold the
    EMA under "ema", with the network's own names; resuming continues it.
    """

    def __init__(self, decay: float = 0.9999) -> None:
        if not 0 < decay < 1:
            raise UserError(f"decay {decay} is outside (0, 1)")
        self.decay, self.num_updates = decay, 0
        self._ema_model: nn.Module | None = None
        self._average: Average | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"num_updates": self.num_updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_updates = state_dict["num_updates"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and self._ema_model is None:
            ema_model = copy.deepcopy(_trained(pl_module).model).eval()
            self._ema_model = ema_model.requires_grad_(requires_grad=False)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Before training starts, since a missed validation may run first.
        assert self._ema_model is not None
        self._ema_model.to(pl_module.device)
        self._average = Average(self._ema_model, _trained(pl_module).model)
        if not self.num_updates:  # the weights may come from a checkpoint without an EMA
            self._average.update(decay=0.0)
        self._show(pl_module)

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
        assert self._average is not None
        self._average.update(ema_decay_at(self.decay, self.num_updates))
        self.num_updates += 1
        self._show(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _trained(pl_module).validate_ema(None)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._ema_model is not None and self.num_updates:
            checkpoint["ema"] = dict(self._ema_model.state_dict())

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._ema_model is not None and "ema" in checkpoint:
            self._ema_model.load_state_dict(checkpoint["ema"])

    def _show(self, pl_module: pl.LightningModule) -> None:
        if self.num_updates:
            _trained(pl_module).validate_ema(self._ema_model)


def _trained(module: pl.LightningModule) -> TrainedModule:
    assert isinstance(module, TrainedModule)
    return module


class Average:
    """An EMA of a model's floating-point parameters and buffers; the tensors are looked up once.

    Integer buffers (counters of batch normalization) are copied.
    """

    def __init__(self, ema_model: nn.Module, model: nn.Module) -> None:
        pairs = list(zip(_values(ema_model), _values(model), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._averages, self._values = [a for a, _ in floats], [value for _, value in floats]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move the average towards the model, in place."""
        torch._foreach_lerp_(self._averages, self._values, 1 - decay)
        for kept, now in self._counters:
            kept.copy_(now)


def _values(model: nn.Module) -> list[Tensor]:
    """Return the tensors of a model's state, in order."""
    return list(model.state_dict().values())
