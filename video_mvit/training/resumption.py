"""Resume a training exactly: the saved progress of the trainer's loops is brought into two forms.

Lightning's loops can be saved in many states, and go on from some of them one batch or one epoch
off. Here they only ever go on between two epochs, or after a step within one. What the stopped run
had not done at that step, a validation or the end of its epoch, is done before the next step.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl

logger = logging.getLogger(__name__)

BATCHES = "epoch_loop.batch_progress"
VALIDATION_BATCHES = "epoch_loop.val_loop.batch_progress"
EPOCHS = "epoch_progress"
EPOCH_LOOP = "epoch_loop.state_dict"
LOGGED_STEPS = "_batches_that_stepped"


@dataclass(frozen=True, kw_only=True)
class Position:
    """A place between two epochs (`num_batches` 0), or after a step of an epoch.

    Attributes:
        num_epochs: complete ones.
        num_batches: done in the epoch that is not complete.
        total_batches: of all epochs.
        logged_steps: the step that loggers see next; within an epoch, that of the latest batch.
        is_last_batch: whether that batch is the last one of the epoch.
        is_cut: whether the run ended there, within an epoch.
    """

    num_epochs: int
    num_batches: int
    total_batches: int
    logged_steps: int
    is_last_batch: bool
    is_cut: bool


def read_position(loops: Mapping[str, Any]) -> Position:
    """Return the position that the saved state of the fit loop means."""
    epoch, batch = loops[EPOCHS]["current"], loops[BATCHES]["current"]
    num_epochs, num_batches = epoch["processed"], batch["processed"]
    logged_steps = loops[EPOCH_LOOP][LOGGED_STEPS]
    is_last = loops[BATCHES]["is_last_batch"] and batch["processed"] == batch["ready"]
    has_ended = epoch["processed"] == epoch["ready"] and batch["completed"] == batch["ready"]
    is_cut = has_ended and num_batches > 0 and not is_last
    if epoch["started"] < epoch["ready"] or (has_ended and not is_cut):
        num_batches, is_last = 0, False
    if is_cut:
        num_epochs -= 1
    if num_batches and (is_cut or batch["ready"] > batch["processed"]):  # the step is counted
        logged_steps -= 1
    return Position(
        num_epochs=num_epochs,
        num_batches=num_batches,
        total_batches=loops[BATCHES]["total"]["processed"],
        logged_steps=logged_steps,
        is_last_batch=is_last,
        is_cut=is_cut,
    )


def write_position(loops: dict[str, Any], position: Position) -> None:
    """Write a position into the saved state of the fit loop, in a form that it goes on from.

    Within an epoch, this is the state in which `on_train_batch_end` is called, but for the mark of
    a last batch, from which the loop would count the epoch without ending it.
    """
    is_within = int(position.num_batches > 0)
    epochs = _counts(position.num_epochs + is_within, position.num_epochs, position.num_epochs)
    loops[EPOCHS] = {"current": epochs, "total": dict(epochs)}
    loops[BATCHES] = {
        "current": _counts(position.num_batches, position.num_batches - is_within),
        "total": _counts(position.total_batches, position.total_batches - is_within),
        "is_last_batch": False,
    }
    loops[VALIDATION_BATCHES] = {
        "current": _counts(0, 0),
        "total": _counts(0, 0),
        "is_last_batch": False,
    }
    loops[EPOCH_LOOP] = {**loops[EPOCH_LOOP], LOGGED_STEPS: position.logged_steps}


def _counts(ready: int, completed: int, processed: int | None = None) -> dict[str, int]:
    return {
        "ready": ready,
        "started": ready,
        "processed": ready if processed is None else processed,
        "completed": completed,
    }


class Resumption:
    """A checkpoint that is being resumed: sets the loops, then does what was left at its step."""

    def __init__(self, trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
        loops = checkpoint["loops"]["fit_loop"]
        self.position = read_position(loops)
        write_position(loops, self.position)
        is_within = self.position.num_batches > 0
        is_last_step = 0 <= trainer.max_steps <= checkpoint["global_step"]
        self._validation_is_due = is_within and bool(checkpoint.get("validation_is_due"))
        self.end_is_due = is_within and (
            self.position.is_last_batch or (is_last_step and not self.position.is_cut)
        )
        if unlogged := checkpoint.get("unlogged_metrics"):
            trainer._logger_connector.log_metrics(dict(unlogged["values"]), step=unlogged["step"])
        self._max_steps = trainer.max_steps
        if is_last_step and (self._validation_is_due or self.end_is_due):
            # The loop would not start at all after the last step.
            trainer.fit_loop.epoch_loop.max_steps = checkpoint["global_step"] + 1

    def catch_up(self, trainer: pl.Trainer) -> None:
        """Do what the stopped run had not done at its step; call this in `on_train_start`."""
        fit_loop, epoch_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
        epoch_loop.max_steps = self._max_steps
        if not self.position.num_batches:
            epoch_loop.on_iteration_done()  # the next epoch starts as any other
            return
        epoch_loop.batch_progress.is_last_batch = self.position.is_last_batch
        if self._validation_is_due:
            logger.info("running the validation that the interrupted run did not reach")
            trainer.validating = True
            epoch_loop.val_loop.run()
            trainer.training = True
        if self.end_is_due:
            # What the loops do after the last batch of an epoch.
            epoch_loop.batch_progress.increment_completed()
            epoch_loop._batches_that_stepped += 1
            fit_loop.on_advance_end()
            # The next epoch starts as any other.
            fit_loop.reset_restart_stage()
            epoch_loop.on_iteration_done()


def unlogged_metrics(trainer: pl.Trainer) -> dict[str, Any]:
    """Return what the trainer logs next, with its step, if a step or an epoch ends just now.

    Callbacks save in `on_train_batch_end` and `on_train_epoch_end`, before the trainer logs. A
    resumed run logs these metrics again; who reads the logs takes the later ones.
    """
    loop, connector = trainer.fit_loop.epoch_loop, trainer._logger_connector
    batch: Any = loop.batch_progress.current
    epoch: Any = trainer.fit_loop.epoch_progress.current
    if not trainer.training:
        return {}
    if epoch.completed < epoch.processed == epoch.ready:
        step = loop._batches_that_stepped - 1
    elif batch.completed < batch.processed == batch.ready and connector.should_update_logs:
        step = loop._batches_that_stepped
    else:
        return {}
    values = {name: float(value) for name, value in connector.metrics["log"].items()}
    return {"step": step, "values": {**values, "epoch": trainer.current_epoch}}
