"""Profile a few training steps: a trace, and a table of where the time goes and what to change."""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from video_mvit.files import replace_atomically
from video_mvit.host import num_usable_cores
from video_mvit.training.data_wait import MIN_ADVISED_WAIT
from video_mvit.training.module import TrainedModule

NUM_WARM = 4  # steps before the measured ones: kernels are tried, memory is allocated
NUM_OPERATORS, MAX_NAME = 12, 48  # in the table, characters of a name
LARGE_OPTIMIZER = 0.15  # share of a step from which fewer optimizer steps are advised
DATA, FORWARD, BACKWARD, OPTIMIZER = "data wait, logs", "forward", "backward", "optimizer"
PARTS = (DATA, FORWARD, BACKWARD, OPTIMIZER)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What the advice depends on besides the times; `num_workers` are loader processes."""

    on_gpu: bool
    precision: str
    num_workers: int
    num_cores: int
    is_compiled: bool
    checkpointing: str
    transcode: str | None = None  # the command that copies the videos


class StepProfile(pl.Callback):
    """Measure the parts of the training steps after the first four, on the first rank.

    Writes `<folder>/trace.json.gz`, for ui.perfetto.dev or chrome://tracing, and
    `<folder>/table.txt`, which is logged as well. Between the parts the device is waited for, so
    that a step takes a little longer than without. `transcode` is the command that copies the
    videos, for a remedy.
    """

    def __init__(self, folder: str, transcode: str | None = None) -> None:
        self._transcode = transcode
        self.folder = Path(folder)
        self.times_s = dict.fromkeys(PARTS, 0.0)
        self.num_steps = -NUM_WARM  # measured ones
        self.num_samples = 0
        self._last_s = 0.0
        self._profile: profile | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.num_steps or not trainer.is_global_zero:
            self._add(DATA, pl_module)
            return
        activities = [ProfilerActivity.CPU]
        activities += [ProfilerActivity.CUDA] if pl_module.device.type == "cuda" else []
        self._profile = profile(activities=activities)
        self._profile.start()
        self.times_s, self._last_s = dict.fromkeys(PARTS, 0.0), time.perf_counter()

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        self._add(FORWARD, pl_module)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._add(BACKWARD, pl_module)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._add(OPTIMIZER, pl_module)
        self.num_steps += 1
        assert isinstance(pl_module, TrainedModule)
        self.num_samples = pl_module.num_samples(batch)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._profile is None:
            if trainer.is_global_zero:
                logger.warning(
                    "debug=profile: fewer than %d steps, nothing was measured; raise "
                    "optim.num_epochs",
                    NUM_WARM + 1,
                )
            return
        self._profile.stop()
        config = getattr(pl_module.model, "config", None)
        calls = (getattr(each, "_compiled_call_impl", None) for each in pl_module.modules())
        facts = StepFacts(
            on_gpu=pl_module.device.type == "cuda",
            precision=str(trainer.precision),
            num_workers=getattr(trainer.train_dataloader, "num_workers", 0),
            num_cores=num_usable_cores() // trainer.num_devices,
            is_compiled=any(calls),
            checkpointing=getattr(config, "activation_checkpointing", "none"),
            transcode=self._transcode,
        )
        rows = [*self._rows(facts), "", *_operators(self._profile, self.num_steps)]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._profile.export_chrome_trace(str(self.folder / "trace.json.gz"))
        with replace_atomically(self.folder / "table.txt") as temporary:
            temporary.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
        for row in rows:
            logger.info("%s", row)
        logger.info("written to %s: table.txt, trace.json.gz", self.folder)

    def _add(self, part: str, module: pl.LightningModule) -> None:
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        now_s = time.perf_counter()
        self.times_s[part] += now_s - self._last_s
        self._last_s = now_s

    def _rows(self, facts: StepFacts) -> Iterator[str]:
        total_s = sum(self.times_s.values())
        shares = {part: time_s / total_s for part, time_s in self.times_s.items()}
        advice = advise_step(shares, facts)
        step_s = total_s / self.num_steps
        yield f"{self.num_steps} steps of {self.num_samples}, {1000 * step_s:.0f} ms each"
        yield f"{'part':<15}{'ms':>7}{'share':>7}  what would change it"
        for part, share in shares.items():
            shown = f"{1000 * share * step_s:>7.0f}{100 * share:>5.0f} %"
            yield f"{part:<15}{shown}  {advice.get(part, '')}".rstrip()
        if "copies" in advice.get(DATA, ""):
            yield f"copies: {facts.transcode}"


def advise_step(shares: Mapping[str, float], facts: StepFacts) -> dict[str, str]:
    """Return for parts of a step, by their shares of its time, the settings to try."""
    advice: dict[str, str] = {}
    if shares[DATA] > MIN_ADVISED_WAIT:
        more = min(max(2 * facts.num_workers, 2), facts.num_cores)
        if more > facts.num_workers:
            advice[DATA] = f"data.num_workers={more}"
        elif facts.transcode:
            advice[DATA] = "copies that decode faster, see below"
    if facts.precision.startswith("32"):
        advice[FORWARD] = "trainer.precision=bf16-mixed"
        if not facts.on_gpu:
            advice[FORWARD] += " if it can"
    elif not facts.is_compiled:
        advice[FORWARD] = "compile=blocks"
    if facts.checkpointing != "none":
        advice[BACKWARD] = "model.activation_checkpointing=none"
    if shares[OPTIMIZER] > LARGE_OPTIMIZER:
        advice[OPTIMIZER] = "trainer.accumulate_grad_batches=2"
    return advice


def _operators(measured: profile, num_steps: int) -> Iterator[str]:
    """Yield the operators that take most time themselves, in milliseconds of a step."""
    rows = [
        (each.self_device_time_total or 0.0, each.self_cpu_time_total, each.count, each.key)
        for each in measured.key_averages()
    ]
    on_device = any(device for device, *_ in rows)
    rows.sort(key=lambda row: -(row[0] if on_device else row[1]))
    yield f"{'operator':<{MAX_NAME}}{'ms':>8}{'calls':>8}"
    for device_us, host_us, count, name in rows[:NUM_OPERATORS]:
        time_us = device_us if on_device else host_us
        yield (
            f"{name[: MAX_NAME - 1]:<{MAX_NAME}}{time_us / 1000 / num_steps:>8.1f}"
            f"{count / num_steps:>8.0f}"
        )
