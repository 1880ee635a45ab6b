"""End a training whose validation metric has stopped improving."""

import logging
import math
from typing import Any, Literal

import pytorch_lightning as pl

from video_mvit.errors import UserError

logger = logging.getLogger(__name__)


class EarlyStopping(pl.Callback):
    """End training after `patience` epochs without a better value of `monitor`.

    Epochs count, however often or seldom they are validated; of several validations in an epoch,
    the last one does. A metric that validation does not give, and one that is NaN or infinite, end
    the run with a `UserError`. What was seen so far is in every checkpoint, so that a resumed run
    ends where an uninterrupted one would, and one that has ended does not go on.
    """

    def __init__(self, *, patience: int, monitor: str, mode: Literal["max", "min"]) -> None:
        self.patience, self.monitor, self.sign = patience, monitor, 1 if mode == "max" else -1
        self.best: float | None = None
        self.best_epoch = self.epoch = 0  # of the best value, and of the latest one, from 0
        self._value: float | None = None  # of the latest validation, if its epoch has not ended

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "epoch": self.epoch,
            "value": self._value,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self._value = state_dict["best"], state_dict["value"]
        self.best_epoch, self.epoch = state_dict["best_epoch"], state_dict["epoch"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.enable_validation:
            raise UserError(
                f"early_stopping={self.patience} needs a validation after epochs, and there is "
                "none; remove it, or trainer.limit_val_batches=0"
            )
        if self._is_over():
            trainer.should_stop = True  # and not a step is done
            logger.info("this run ended early before: %s", self._describe())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            known = ", ".join(sorted(name for name in metrics if name.startswith("val/")))
            raise UserError(
                f"early_stopping watches {self.monitor}, which validation does not give; set "
                f"callbacks.best.monitor to one of {known}"
            )
        self._value = float(metrics[self.monitor])
        if not math.isfinite(self._value):
            raise UserError(
                f"early_stopping watches {self.monitor}, which is {self._value} in epoch "
                f"{trainer.current_epoch + 1}; try a lower optim.lr"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        value, self._value = self._value, None
        if value is None:  # not validated
            return
        self.epoch = trainer.current_epoch
        if self.best is None or self.sign * value > self.sign * self.best:
            self.best, self.best_epoch = value, self.epoch
        # The metric is the same on all ranks; the decision must be.
        if trainer.strategy.reduce_boolean_decision(self._is_over(), all=False):
            trainer.should_stop = True
            logger.info("early stopping: %s", self._describe())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.best is None:
            logger.warning("early_stopping had no effect: no epoch was validated")

    def _is_over(self) -> bool:
        return self.best is not None and self.epoch - self.best_epoch >= self.patience

    def _describe(self) -> str:
        number = self.epoch - self.best_epoch
        return (
            f"{self.monitor} was best in epoch {self.best_epoch + 1} ({self.best:.4g}), "
            f"{number} epoch{'s' * (number > 1)} ago"
        )
