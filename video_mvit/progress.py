"""One log line at the end of every epoch, for terminals, files and people who look in tomorrow."""

import logging
import time

import pytorch_lightning as pl

logger = logging.getLogger(__name__)


class EpochSummary(pl.Callback):
    """Says loss, validation accuracy, learning rate, training clips per second and time."""

    def __init__(self) -> None:
        self._start = self._trained = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = self._trained = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trained = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.perf_counter()
        training_s = (self._trained if self._trained > self._start else now) - self._start
        batch_size = getattr(trainer.train_dataloader, "batch_size", None) or 1
        num_clips = trainer.num_training_batches * batch_size * trainer.world_size
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        parts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"]
        parts += [f"loss {metrics[name]:.3f}" for name in ("train/loss",) if name in metrics]
        parts += [
            f"{name} {100 * metrics[name]:.1f} %"
            for name in ("val/top1", "val/top5")
            if name in metrics
        ]
        parts += [
            f"lr {metrics['train/lr']:.2g}",
            f"{num_clips / training_s:.0f} clips/s",
            f"{now - self._start:.0f} s",
        ]
        logger.info("  ".join(parts))
