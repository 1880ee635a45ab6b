"""Being asked to stop: the step is finished, a checkpoint saved, and the process ends.

SIGTERM (a machine is taken away), SIGUSR1 (a job's time is nearly up), SIGUSR2 (the same, from
submitit) and Ctrl-C ask. A second Ctrl-C ends at once.
"""

import logging
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl

from video_mvit.training.checkpoints import StepCheckpoint, checkpoint_io_of, is_whole_step
from video_mvit.training.distributed import HostAllReduce

EXIT_PREEMPTED = 75  # exit code of a run that was saved and goes on with resume_from=last
EXIT_INTERRUPTED = 130  # the same after Ctrl-C
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
logger = logging.getLogger(__name__)


class GracefulShutdown(pl.Callback):
    """Saves `<folder>/last.ckpt` after the step during which a signal came, and exits.

    All processes of a run stop after the same step. In validation nothing needs saving, where
    `StepCheckpoint` has written that file before. Under SLURM, SIGUSR1 also puts the job into the
    queue again; SIGTERM does not: SLURM itself requeues what it preempts, and a cancelled job shall
    stay so. Whoever waited for SIGUSR2 before, submitit for one, is told of it once all is saved.
    """

    def __init__(self, folder: str) -> None:
        self.path = Path(folder, "last.ckpt")
        self._asked = 0  # number of a signal
        self._handlers: dict[int, Any] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._all_reduce = HostAllReduce()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for number in SIGNALS:  # now, after the trainer has set its own
            self._handlers[number] = signal.signal(number, self._note)

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
        if number := self._all_reduce.max(self._asked):
            trainer.save_checkpoint(self.path)
            checkpoint_io_of(trainer).raise_problem()
            self._stop(trainer, number)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        saves = [each for each in trainer.checkpoint_callbacks if isinstance(each, StepCheckpoint)]
        if self._asked and any(each.is_saved(trainer) for each in saves):
            self._stop(trainer, self._asked)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._asked:
            raise KeyboardInterrupt
        self._asked = number

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _stop(self, trainer: pl.Trainer, number: int) -> None:
        requeued = ""
        if number == signal.SIGUSR1 and trainer.is_global_zero:
            requeued = requeue(os.environ)
        logger.info(
            "asked to stop (%s): saved after step %d as %s; resume_from=last goes on from there%s",
            signal.Signals(number).name,
            trainer.global_step,
            self.path,
            requeued,
        )
        waiting = self._handlers.get(signal.SIGUSR2)
        if number == signal.SIGUSR2 and callable(waiting):
            waiting(number, None)  # queues the job again, and ends it
        raise SystemExit(EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_PREEMPTED)


def requeue(environment: Mapping[str, str]) -> str:
    """Put this SLURM job into the queue again, if it is one; says what came of it."""
    array, task = (environment.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
    job = f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID", "")
    if not re.fullmatch(r"[0-9_]+", job):
        return ""
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("job %s could not be put into the queue again: %s", job, error)
        return ""
    return f"; job {job} is in the queue again"
