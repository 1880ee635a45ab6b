"""Loggers that do not end a run: what they cannot write is said once, and training goes on."""

import csv
import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from video_mvit.files import replace_atomically

METHODS = (
    "log_metrics",
    "log_hyperparams",
    "log_graph",
    "save",
    "finalize",
    "after_save_checkpoint",
)
RETRY_S = 60.0  # after which a logger that failed is tried again
logger = logging.getLogger(__name__)


class LoggerGuard:
    """Keep a logger from ending the run; what it raises becomes one warning.

    Attributes:
        problem: what is not logged, and why; "" where nothing is missing.
    """

    def __init__(self, log: Logger) -> None:
        self.problem = ""
        self._log, self._failed_at = log, -RETRY_S
        # Rows wait in memory until they can be written.
        self._keeps_rows = isinstance(log, CSVLogger)
        for name in METHODS:
            setattr(log, name, partial(self._call, name, getattr(log, name)))

    def write(self, write: Callable[[Logger], None]) -> None:
        """Let the logger write something, as guarded as its own methods."""
        self._call("write", write, self._log)

    def _call(self, name: str, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        is_waiting = time.monotonic() - self._failed_at < RETRY_S
        if is_waiting and not self._keeps_rows and name != "finalize":
            return None
        try:
            result = method(*arguments, **options)
        except Exception as error:  # whatever a logger does, the run is worth more
            self._note(error)
            return None
        if self._keeps_rows and self.problem and name == "save":
            logger.info("%s is written again", self.problem.partition(": ")[0])
            self.problem = ""
        return result

    def _note(self, error: Exception) -> None:
        self._failed_at = time.monotonic()
        if isinstance(self._log, TensorBoardLogger):
            self._log._experiment = None  # its writer never works again: the next one is new
        if self.problem:
            return
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        self.problem = f"{type(self._log).__name__} could not log everything: {reason}"
        logger.warning("%s; training continues, and it is tried again", self.problem)
        logger.debug("traceback", exc_info=error)


class LoggerGuards(pl.Callback):
    """Guard the loggers of a trainer, and keep what they could not log."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.guards = [LoggerGuard(each) for each in loggers]


def problems_of_loggers(trainer: pl.Trainer) -> list[str]:
    """Return what the loggers of a trainer could not log."""
    found = [each for each in trainer.callbacks if isinstance(each, LoggerGuards)]  # type: ignore[attr-defined]
    return [guard.problem for each in found for guard in each.guards if guard.problem]


def quiet_writer_threads() -> None:
    """Print no traceback of a thread of TensorBoard, whose errors reach the logger anyway."""
    before = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if type(arguments.thread).__name__ != "_AsyncWriterThread":
            before(arguments)

    threading.excepthook = hook


class CsvLogger(CSVLogger):
    """Lightning's `CSVLogger`, which loses no row to a full disk or a kill."""

    @property
    @rank_zero_experiment
    def experiment(self) -> "CsvWriter":
        if self._experiment is None:
            self._fs.makedirs(self.root_dir, exist_ok=True)
            self._experiment = CsvWriter(log_dir=self.log_dir)
        assert isinstance(self._experiment, CsvWriter)
        return self._experiment


class CsvWriter(ExperimentWriter):
    """Append rows to `metrics.csv`; rows that cannot be written wait for the next time.

    New columns replace the file as a whole, so that there is a complete one at any moment.
    """

    def save(self) -> None:
        if not self.metrics:
            return
        path = Path(self.metrics_file_path)
        keys = sorted({*self.metrics_keys, *(key for row in self.metrics for key in row)})
        if keys == self.metrics_keys and path.is_file():
            self._append(path, keys)
        else:
            self._rewrite(path, keys)
        self.metrics_keys, self.metrics = keys, []

    def _append(self, path: Path, keys: Sequence[str]) -> None:
        size = path.stat().st_size
        try:
            with path.open("a", newline="") as file:
                csv.DictWriter(file, keys).writerows(self.metrics)
        except OSError:
            with path.open("r+b") as file:  # no half rows
                file.truncate(size)
            raise

    def _rewrite(self, path: Path, keys: Sequence[str]) -> None:
        rows: list[dict[str, Any]] = []
        if path.is_file():
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        with replace_atomically(path) as temporary, temporary.open("w", newline="") as file:
            table = csv.DictWriter(file, keys)
            table.writeheader()
            table.writerows([*rows, *self.metrics])
