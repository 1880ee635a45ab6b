"""Graceful shutdown on a signal: finish the step, save a checkpoint, exit.

SIGTERM (preemption), SIGUSR1 (time limit ahead), SIGUSR2 (the same, from submitit) and Ctrl-C shut
a run down. A second Ctrl-C ends it at once.
"""

import logging
import multiprocessing
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl

from video_mvit.host import slurm_job
from video_mvit.training.checkpoints import StepCheckpoint, checkpoint_io_of, is_whole_step
from video_mvit.training.distributed import HostAllReduce, rank_timeout

EXIT_PREEMPTED = 75  # exit code of a run that saved itself and can be resumed
EXIT_INTERRUPTED = 130  # the same after Ctrl-C
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
logger = logging.getLogger(__name__)


class GracefulShutdown(pl.Callback):
    """Save `<folder>/last.ckpt` after the step during which a signal arrived, and exit.

    All ranks stop after the same step: of several, one step later, since they agree while the next
    step runs. In a validation, and before the first step, a run ends after
    the batch in progress, or at once while it waits for data: nothing is lost, since
    `StepCheckpoint` has written that file before each validation. Where it has not, one process
    saves first; several, which validate different numbers of batches, go on to the next step. Under
    SLURM, SIGUSR1 also requeues the job; SIGTERM does not: SLURM itself requeues preempted jobs,
    and a cancelled job must not restart. An earlier handler of SIGUSR2, such as submitit's, is
    called once everything is saved.
    """

    def __init__(self, folder: str) -> None:
        self.path = Path(folder, "last.ckpt")
        self._asked = 0  # signal number
        self._handlers: dict[int, Any] = {}
        self._first_step = 0  # of this start
        self._waiting: pl.Trainer | None = None  # for data, with nothing unsaved

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._all_reduce = HostAllReduce(rank_timeout(trainer))
        # Signals are watched here: Lightning would ask the first rank before each batch, and wait.
        epoch_loop: Any = trainer.fit_loop.epoch_loop
        epoch_loop._broadcast_sigterm_tensor = lambda: None

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._watch(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._watch(trainer)
        if trainer.world_size == 1:  # several decide together, at the first batch
            self._waiting = trainer

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._waiting = None
        is_first = trainer.global_step == self._first_step
        if is_first and (number := self._all_reduce.max(self._asked)):
            self._stop(trainer, number)

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
        if number := self._all_reduce.max_late(self._asked):
            self._save(trainer)
            self._stop(trainer, number)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._wait_in_validation(trainer)

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._waiting = None
        self._stop_in_validation(trainer)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._wait_in_validation(trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._waiting = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._all_reduce.finish()
        self._restore()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._restore()
        end_loader_processes()

    def _watch(self, trainer: pl.Trainer) -> None:
        """Handle signals from now on, after the trainer has installed its own handlers."""
        if self._handlers:
            return
        self._first_step = trainer.global_step
        for number in SIGNALS:
            self._handlers[number] = signal.signal(number, self._note)
        if trainer.received_sigterm:  # before
            self._asked, trainer._signal_connector.received_sigterm = signal.SIGTERM, False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._asked:
            raise KeyboardInterrupt
        self._asked = number
        if self._waiting is not None:
            self._stop(self._waiting, number)

    def _wait_in_validation(self, trainer: pl.Trainer) -> None:
        self._stop_in_validation(trainer)
        if self._is_saved(trainer):
            self._waiting = trainer

    def _stop_in_validation(self, trainer: pl.Trainer) -> None:
        if not self._asked:
            return
        if not self._is_saved(trainer):
            if trainer.world_size > 1 or not is_whole_step(trainer, trainer.fit_loop.batch_idx):
                return
            self._save(trainer)
        self._stop(trainer, self._asked)

    def _is_saved(self, trainer: pl.Trainer) -> bool:
        saves = [each for each in trainer.checkpoint_callbacks if isinstance(each, StepCheckpoint)]
        is_unchanged = trainer.global_step == self._first_step
        return is_unchanged or any(each.is_saved(trainer) for each in saves)

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        checkpoint_io_of(trainer).raise_problem()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _stop(self, trainer: pl.Trainer, number: int) -> None:
        requeued = ""
        if number == signal.SIGUSR1 and trainer.is_global_zero:
            requeued = requeue(os.environ)
        name, step = signal.Signals(number).name, trainer.global_step
        if step == self._first_step:
            effect = "before the first step, there is nothing to save; start again in the same way"
        else:
            effect = f"checkpoint saved at step {step} to {self.path}; resume with resume_from=last"
        logger.info("interrupted (%s): %s%s", name, effect, requeued)
        waiting = self._handlers.get(signal.SIGUSR2)
        if number == signal.SIGUSR2 and callable(waiting):
            waiting(number, None)  # requeues the job and exits
        raise SystemExit(EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_PREEMPTED)


def end_loader_processes() -> None:
    """Kill the loader processes of this run, which ends: a busy one would delay that by 30 s."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # to torch, their end is a failure
    processes = [each for each in multiprocessing.active_children() if each.daemon]
    for process in processes:
        process.kill()
    for process in processes:
        process.join(timeout=5)
    signal.signal(signal.SIGCHLD, before)


def requeue(environment: Mapping[str, str]) -> str:
    """Requeue the SLURM job, if this is one; return what to append to the log message."""
    job = slurm_job(environment)
    if not job:
        return ""
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("job %s could not be requeued: %s", job, error)
        return ""
    return f"; job {job} is requeued"
