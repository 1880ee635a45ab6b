"""The stopwatch of `target=train`: a callback in a training of `video-mvit train`."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import nn

from benchmarks.step_count import StepCount, count_step
from video_mvit.files import replace_atomically
from video_mvit.models.mvit import MViT
from video_mvit.training.data_wait import DataWaitTimer, Timestamp, timestamp_type
from video_mvit.training.module import TrainedModule
from video_mvit.training.throughput import PeakMemory, count_flops, matmul_rate, on_meta

NUM_COUNTED = 3  # steps whose operators are counted, of which at most one writes to the logs


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A training: `num_clips` clips in `num_steps` steps, and what each of later steps did.

    Attributes:
        time_s: of all steps, until the device was done.
        host_s: that the host spent in a step without its wait for data, median.
        data_wait_s: of all steps.
        lead_s: by how much the host was ahead of a GPU at the end of a step, at least.
        operators, launches, waits: of a step, see `StepCount`; medians.
        peak: bytes of the process, or of a GPU.
        flops: of the published network for a clip of a step; None where it is another one's.
        matmul_rate: FLOP/s of the device.
    """

    num_clips: int
    num_steps: int
    time_s: float
    host_s: float
    data_wait_s: float
    lead_s: float | None
    operators: int | None
    launches: int | None
    waits: int | None
    peak: int | None
    flops: int | None
    matmul_rate: float


class StepEnd(NamedTuple):
    """When the host was done with a step, and when the device was."""

    host_s: float
    device: Timestamp


def least_lead_s(start: StepEnd, ends: Sequence[StepEnd]) -> float:
    """Return by how much the host was ahead of the device, at least.

    Of a device that is done, and that had nothing to do at the `start`.
    """
    leads_s = []
    for end in ends:
        device_s = start.device.until_s(end.device)
        assert device_s is not None
        leads_s.append(device_s - (end.host_s - start.host_s))
    return min(leads_s)


class TrainProbe(pl.Callback):
    """Measure `num_steps` steps after `num_warmups`, then count what `NUM_COUNTED` steps do.

    Writes a `Measured` as JSON to `output` when the training ends with the last one.
    """

    def __init__(self, *, output: str, num_warmups: int, num_steps: int, is_compiled: bool) -> None:
        self._output, self._is_compiled = Path(output), is_compiled
        self._first, self._end = num_warmups, num_warmups + num_steps
        self._step = self._num_clips = 0
        self._batch_start_s = 0.0
        self._host_s: list[float] = []
        self._ends: list[StepEnd] = []
        self._counts: list[StepCount] = []
        self._times: dict[str, Any] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._device = pl_module.device
        self._peak = PeakMemory(self._device)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._first <= self._step < self._end:
            self._clock.batch_start()
        self._batch_start_s = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert isinstance(pl_module, TrainedModule)
        if self._first <= self._step < self._end:
            self._host_s.append(time.perf_counter() - self._batch_start_s)
            self._ends.append(StepEnd(time.perf_counter(), timestamp_type(self._device)()))
            self._num_clips += pl_module.num_samples(batch)
            self._clock.batch_end()
        self._step += 1
        if self._step == self._first:
            self._begin()
        elif self._step == self._end:
            self._finish()
            self._count_from_now_on(trainer)

    def _begin(self) -> None:
        _synchronize(self._device)
        self._peak.reset()
        self._clock = DataWaitTimer(timestamp_type(self._device))
        self._start = StepEnd(time.perf_counter(), timestamp_type(self._device)())

    def _finish(self) -> None:
        """Wait for the device, and keep what the measured steps took."""
        _synchronize(self._device)
        end_s, waits = time.perf_counter(), self._clock.read()
        self._times = {
            "num_clips": self._num_clips,
            "num_steps": self._end - self._first,
            "time_s": end_s - self._start.host_s,
            "host_s": statistics.median(self._host_s),
            "data_wait_s": waits.first_wait_s + waits.later_waits_s,
            "lead_s": least_lead_s(self._start, self._ends)
            if self._device.type == "cuda"
            else None,
            "peak": self._peak.read(),
        }

    def _count_from_now_on(self, trainer: pl.Trainer) -> None:
        """Count all that happens from batch to batch: copies, hooks, both passes, logging."""
        loop: Any = trainer.fit_loop.epoch_loop
        advance: Callable[..., object] = loop.advance

        def counted(*args: Any) -> None:
            run = partial(advance, *args)
            self._counts.append(count_step(run, self._device, is_compiled=self._is_compiled))

        loop.advance = counted

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if len(self._counts) == NUM_COUNTED:
            self._write(pl_module, str(trainer.precision))

    def _write(self, module: pl.LightningModule, precision: str) -> None:
        assert isinstance(module, TrainedModule)
        measured = Measured(
            **self._times,
            operators=_median([each.operators for each in self._counts]),
            launches=_median([each.launches for each in self._counts]),
            waits=_median([each.waits for each in self._counts]),
            flops=flops_of(module.model),
            matmul_rate=matmul_rate(self._device, precision),
        )
        with replace_atomically(self._output) as temporary:
            temporary.write_text(json.dumps(asdict(measured)))


def flops_of(network: nn.Module) -> int | None:
    """Count the FLOPs of a training step of our network for a clip; None for other networks."""
    if not isinstance(network, MViT):
        return None
    config = network.config
    clip = torch.empty(1, 3, config.num_frames, config.crop_size, config.crop_size)
    return count_flops(on_meta(MViT(config)), clip)


def _median(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return int(statistics.median(known)) if known else None


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
