"""How a run shows itself: a bar on terminals, and one log line for every epoch."""

import logging
import sys
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import RichProgressBar
from rich import get_console
from torch import Tensor, nn

from video_mvit.host import num_usable_cores
from video_mvit.training.data_wait import (
    CpuTimestamp,
    DataWaitTimer,
    EpochTimes,
    LoaderAdvice,
    LoaderStats,
    advise,
    timestamp_type,
)
from video_mvit.training.throughput import PeakMemory, count_flops, matmul_rate, on_meta

logger = logging.getLogger(__name__)


class TerminalHandler(logging.Handler):
    """Prints log lines above a progress bar instead of into it."""

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record).encode("utf-8", "backslashreplace").decode()  # of file names
        get_console().print(text, soft_wrap=True, highlight=False, markup=False)


class ProgressBar(RichProgressBar):
    """Lightning's bar, on terminals only."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=5)
        if not sys.stdout.isatty():
            self.disable()

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Any:
        return {k: v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}


class EpochSummary(pl.Callback):
    """One line for every epoch: what was learnt, and how fast.

    Says loss, validation accuracy, learning rate, clips per second of training, time, the share of
    training spent waiting for data, peak memory and FLOP/s of the network beside the device's
    matmul rate; logs the speeds as `speed/...`. Where waiting is worth it, one more line says what
    would help. Stays behind other callbacks: what they do after a batch is no waiting.
    """

    def __init__(self) -> None:
        self._device = torch.device("cpu")
        self._start_s = time.perf_counter()
        self._clock = DataWaitTimer(CpuTimestamp)
        self._peak_memory = PeakMemory(self._device)
        self._num_clips = self._num_batches = 0
        self._matmul_rate = 0.0  # FLOP/s of one device
        self._network: nn.Module | None = None  # without values, to count its FLOPs once
        self._clip: Tensor | None = None  # one, without values
        self._flops: int | None = None  # of a training step for each clip
        self._advised: LoaderAdvice | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        network = nn.Sequential(pl_module.preprocess, pl_module.model)  # type: ignore[arg-type]
        self._network = on_meta(network)  # now, before it may be spread over devices

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._device = pl_module.device
        self._peak_memory = PeakMemory(self._device)
        self._matmul_rate = matmul_rate(self._device, str(trainer.precision))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin()  # also of an epoch that another run began: no hook tells its start

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin()

    def _begin(self) -> None:
        self._start_s = time.perf_counter()
        self._clock = DataWaitTimer(timestamp_type(self._device))
        self._num_clips = self._num_batches = 0
        self._peak_memory.reset()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._clock.batch_start()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._clip is None:
            self._clip = torch.empty_like(batch.clip[:1], device="meta")
        self._num_clips += len(batch.label)  # repeated samples count
        self._num_batches += 1
        self._clock.batch_end()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._clock.skip_gap()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clock.pause()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        total_s = time.perf_counter() - self._start_s
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        parts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"]
        parts += [f"loss {metrics[name]:.3f}" for name in ("train/epoch_loss",) if name in metrics]
        parts += [
            f"{name} {100 * metrics[name]:.1f} %"
            for name in ("val/top1", "val/top5", "val/ema_top1")
            if name in metrics
        ]
        parts.append(f"lr {metrics['train/lr']:.2g}")
        times, advice = self._clock.read(), None
        if self._num_batches:
            speeds = self._speeds(times, trainer.world_size)
            pl_module.log_dict(speeds, sync_dist=True)
            parts += self._told(speeds, total_s)
            advice = self._advice(times, trainer)
        if trainer.is_global_zero:
            logger.info("  ".join(parts))
            if advice and not advice.is_same_as(self._advised):
                logger.info(advice.sentence)
                self._advised = advice

    def _speeds(self, times: EpochTimes, num_devices: int) -> dict[str, float]:
        """What loggers are told of an epoch, as far as it is known."""
        if self._network is not None and self._clip is not None:
            self._flops, self._network = count_flops(self._network, self._clip), None
        speeds = {
            "speed/clips_per_s": self._num_clips * num_devices / times.training_s,
            "speed/data_wait_fraction": times.data_wait_fraction,
        }
        if (peak_bytes := self._peak_memory.read()) is not None:
            speeds["speed/peak_memory_gb"] = peak_bytes / 1e9
        if self._flops is not None:
            flops = self._flops * self._num_clips / times.training_s  # of this device
            speeds["speed/mfu"] = flops / self._matmul_rate
        return speeds

    def _told(self, speeds: dict[str, float], total_s: float) -> list[str]:
        clips_per_s, share = speeds["speed/clips_per_s"], speeds["speed/data_wait_fraction"]
        parts = [f"{clips_per_s:.0f} clips/s", f"{total_s:.0f} s", f"waiting {100 * share:.0f} %"]
        if (peak := speeds.get("speed/peak_memory_gb")) is not None:
            parts.append(f"peak {peak:.1f} GB")
        if self._flops is not None:
            flops, of_matmul = self._flops * clips_per_s, speeds["speed/mfu"]
            parts.append(f"{_flops_per_s(flops)} ({100 * of_matmul:.0f} % of matmul)")
        return parts

    def _advice(self, times: EpochTimes, trainer: pl.Trainer) -> LoaderAdvice | None:
        num_workers = getattr(trainer.train_dataloader, "num_workers", None)
        if num_workers is None:
            return None
        stats = LoaderStats(
            num_workers=num_workers,
            num_cores=num_usable_cores() // trainer.num_devices,
            num_batches=self._num_batches,
            clips_per_s=self._num_clips / (times.training_s - times.first_wait_s),
            data_wait_fraction=times.steady_wait_fraction,
        )
        return advise(stats)


def _flops_per_s(flops: float) -> str:
    """Such as 61 GFLOP/s, with three digits at most before the unit."""
    scales = {"T": 1e12, "G": 1e9, "M": 1e6}
    unit = next((unit for unit, scale in scales.items() if flops >= scale), "M")
    value = flops / scales[unit]
    return f"{value:.0f} {unit}FLOP/s" if value >= 10 else f"{value:.1f} {unit}FLOP/s"
