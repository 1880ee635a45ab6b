"""How a run shows itself: a bar on terminals, and one log line for every epoch."""

import logging
import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from rich import get_console

logger = logging.getLogger(__name__)


class TerminalHandler(logging.Handler):
    """Prints log lines above a progress bar instead of into it."""

    def emit(self, record: logging.LogRecord) -> None:
        get_console().print(self.format(record), soft_wrap=True, highlight=False, markup=False)


class ProgressBar(RichProgressBar):
    """Lightning's bar, on terminals only."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=5)
        if not sys.stdout.isatty():
            self.disable()

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Any:
        return {k: v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}


class EpochSummary(pl.Callback):
    """Says loss, validation accuracy, learning rate, training clips per second and time."""

    def __init__(self) -> None:
        self._start = self._trained = 0.0
        self._num_clips = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin()  # also of an epoch that another run began: no hook tells its start

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin()

    def _begin(self) -> None:
        self._start = self._trained = time.perf_counter()
        self._num_clips = 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._num_clips += len(batch.label)  # repeated samples count

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trained = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.perf_counter()
        training_s = (self._trained if self._trained > self._start else now) - self._start
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        parts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"]
        parts += [f"loss {metrics[name]:.3f}" for name in ("train/epoch_loss",) if name in metrics]
        parts += [
            f"{name} {100 * metrics[name]:.1f} %"
            for name in ("val/top1", "val/top5")
            if name in metrics
        ]
        parts += [
            f"lr {metrics['train/lr']:.2g}",
            f"{self._num_clips * trainer.world_size / training_s:.0f} clips/s",
            f"{now - self._start:.0f} s",
        ]
        if trainer.is_global_zero:
            logger.info("  ".join(parts))
