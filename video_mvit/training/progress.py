"""Progress of a run: a bar on terminals, and one log line per epoch."""

import contextlib
import logging
import math
import sys
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.callbacks.progress.rich_progress import (
    BatchesProcessedColumn,
    CustomBarColumn,
    ProcessingSpeedColumn,
)
from rich import get_console
from rich.progress import ProgressColumn, Task, TextColumn
from rich.text import Text
from torch import Tensor, nn

from video_mvit.host import num_usable_cores
from video_mvit.text import fitted, metric_text
from video_mvit.training.data_wait import (
    CpuTimestamp,
    DataWaitTimer,
    EpochTimes,
    LoaderAdvice,
    LoaderStats,
    advise,
    timestamp_type,
)
from video_mvit.training.module import TrainedModule
from video_mvit.training.throughput import PeakMemory, count_flops, matmul_rate, on_meta

BAR_WIDTH = 16  # so that a line fits 80 columns
TIME_WIDTH = 10  # of the time in front of a line, "07:59:20  "
logger = logging.getLogger(__name__)


class TerminalHandler(logging.Handler):
    """Print log lines above a progress bar instead of into it."""

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record).encode("utf-8", "backslashreplace").decode()  # of file names
        text = fitted(text, get_console().file, TIME_WIDTH)
        with contextlib.suppress(OSError):  # written to a file on a full disk
            get_console().print(text, soft_wrap=True, highlight=False, markup=False)


class ProgressBar(RichProgressBar):
    """Lightning's progress bar, on terminals only: an epoch, and the time left of the whole run.

    Shows the training loss whenever it is logged: reading it in each step would wait for a GPU.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=5)
        self._loss: dict[str, float] = {}
        self._estimate = TimeLeft()
        if not sys.stdout.isatty():
            self.disable()

    def configure_columns(self, trainer: pl.Trainer) -> list[ProgressColumn]:
        bar = CustomBarColumn(
            complete_style=self.theme.progress_bar,
            finished_style=self.theme.progress_bar_finished,
            pulse_style=self.theme.progress_bar_pulse,
        )
        bar.bar_width = BAR_WIDTH
        return [
            TextColumn("[progress.description]{task.description}"),
            bar,
            BatchesProcessedColumn(style=self.theme.batch_progress),
            ProcessingSpeedColumn(style=self.theme.processing_speed),
            TimeLeftColumn(self),
        ]

    def _get_train_description(self, current_epoch: int) -> str:
        of = self.trainer.max_epochs
        number = f"{current_epoch + 1}" if of in (None, -1) else f"{current_epoch + 1}/{of}"
        return f"epoch {number}".ljust(len(self.validation_description))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._estimate = TimeLeft(trainer.global_step, trainer.estimated_stepping_batches)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *about: Any
    ) -> None:
        self._estimate.step(trainer.global_step)
        super().on_train_batch_end(trainer, pl_module, *about)

    def time_left(self, task: Task) -> float | None:
        """Return the seconds left of the run, or of a task that is not the training; or None."""
        is_training = self.train_progress_bar_id == task.id
        return self._estimate.seconds if is_training else task.time_remaining

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Any:
        """Return the loss alone; accuracies are in the line of each epoch."""
        if trainer.training and trainer._logger_connector.should_update_logs:
            loss = trainer.callback_metrics.get("train/loss")
            self._loss = {} if loss is None else {"loss": float(loss)}
        return self._loss


class TimeLeft:
    """Estimate of the time left of a run from the steps since its start, with all beside them."""

    def __init__(self, first_step: int = 0, num_steps: float = math.inf) -> None:
        self.seconds: float | None = None
        self._start_s, self._first, self._total = time.monotonic(), first_step, num_steps

    def step(self, number: int) -> None:
        """Note that a step is done."""
        done = number - self._first
        if done > 0 and math.isfinite(self._total):
            per_step_s = (time.monotonic() - self._start_s) / done
            self.seconds = per_step_s * max(0, self._total - number)


class TimeLeftColumn(ProgressColumn):
    """The time left, as in "1:02:03 left"."""

    max_refresh = 0.5  # seconds

    def __init__(self, bar: ProgressBar) -> None:
        super().__init__()
        self._bar = bar

    def render(self, task: Task) -> Text:
        seconds = self._bar.time_left(task)
        return Text("-:--:-- left" if seconds is None else f"{duration(seconds)} left")


def duration(seconds: float) -> str:
    """Return a time as hours, minutes and seconds: "51:02:03"."""
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


class EpochSummary(pl.Callback):
    """Log one line per epoch: metrics and speed.

    Loss, validation accuracy if the epoch was validated, learning rate, clips per second of
    training, time, data wait, peak memory and MFU; logs all speeds as `speed/...`. If the data wait
    is long, one more line suggests a remedy. Must run after other callbacks, so that their work is
    not counted as data wait. `transcode` is the command that copies the videos, for that remedy.
    """

    def __init__(self, transcode: str | None = None) -> None:
        self._transcode = transcode
        self._device = torch.device("cpu")
        self._start_s = time.perf_counter()
        self._clock = DataWaitTimer(CpuTimestamp)
        self._peak_memory = PeakMemory(self._device)
        self._num_clips = self._num_batches = 0
        self._is_validated = False  # since the last line
        self._matmul_rate = 0.0  # FLOP/s of one device
        self._network: nn.Module | None = None  # on the meta device, to count its FLOPs once
        self._clip: Tensor | None = None  # on the meta device
        self._flops: int | None = None  # of a training step per clip
        self._advised: LoaderAdvice | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        network = _trained(pl_module).network_to_count()
        self._network = network and on_meta(network)  # before it may be sharded

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._device = pl_module.device
        self._peak_memory = PeakMemory(self._device)
        self._matmul_rate = matmul_rate(self._device, str(trainer.precision))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin()  # also for a resumed epoch, which has no start hook

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
        module = _trained(pl_module)
        if self._network is not None and self._clip is None:
            example = module.example_input(batch)
            self._clip = None if example is None else torch.empty_like(example, device="meta")
        self._num_clips += module.num_samples(batch)
        self._num_batches += 1
        self._clock.batch_end()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._clock.skip_gap()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._clock.pause()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._is_validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Metrics.
        total_s = time.perf_counter() - self._start_s
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        by_steps = trainer.max_epochs in (None, -1)
        parts = [
            f"epoch {trainer.current_epoch + 1}, step {trainer.global_step:,}/{trainer.max_steps:,}"
            if by_steps
            else f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        ]
        parts += [f"loss {metrics[name]:.3f}" for name in ("train/epoch_loss",) if name in metrics]
        parts += [
            f"{name} {metric_text(name, metrics[name])}"
            for name in _trained(pl_module).shown
            if name in metrics and self._is_validated
        ]
        self._is_validated = False
        # A run that was stopped behind its last step has none left to log.
        parts += [f"lr {metrics[name]:.2g}" for name in ("train/lr",) if name in metrics]
        # Speed, with advice where the data wait is long.
        times, advice = self._clock.read(), None
        if self._num_batches:
            unit = _trained(pl_module).unit
            speeds = self._speeds(times, trainer.world_size, unit)
            pl_module.log_dict(speeds, sync_dist=True)
            parts += self._speed_parts(speeds, total_s, unit)
            advice = self._advice(times, trainer)
        if trainer.is_global_zero:
            logger.info("  ".join(parts))
            if advice and not advice.is_same_as(self._advised):
                logger.info(advice.sentence)
                self._advised = advice

    def _speeds(self, times: EpochTimes, num_devices: int, unit: str) -> dict[str, float]:
        """Return the speeds of an epoch for the loggers, as far as known."""
        if self._network is not None and self._clip is not None:
            self._flops, self._network = count_flops(self._network, self._clip), None
        speeds = {
            f"speed/{unit}_per_s": self._num_clips * num_devices / times.training_s,
            "speed/data_wait_fraction": times.data_wait_fraction,
        }
        if (peak_bytes := self._peak_memory.read()) is not None:
            speeds["speed/peak_memory_gb"] = peak_bytes / 1e9
        if self._flops is not None:
            flops_per_s = self._flops * self._num_clips / times.training_s  # of this device
            speeds["speed/tflops_per_s"] = flops_per_s * num_devices / 1e12
            # Relative to the device's measured matmul rate, not to its data sheet.
            speeds["speed/mfu"] = flops_per_s / self._matmul_rate
        return speeds

    def _speed_parts(self, speeds: dict[str, float], total_s: float, unit: str) -> list[str]:
        per_s, share = speeds[f"speed/{unit}_per_s"], speeds["speed/data_wait_fraction"]
        digits = 0 if per_s >= 10 else 1
        parts = [
            f"{per_s:.{digits}f} {unit}/s",
            f"{total_s:.0f} s",
            f"data wait {100 * share:.0f} %",
        ]
        if (peak := speeds.get("speed/peak_memory_gb")) is not None:
            parts.append(f"peak {peak:.1f} GB")
        if (mfu := speeds.get("speed/mfu")) is not None:
            parts.append(f"MFU {100 * mfu:.0f} %")
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
        return advise(stats, self._transcode)


def _trained(module: pl.LightningModule) -> TrainedModule:
    assert isinstance(module, TrainedModule)
    return module
