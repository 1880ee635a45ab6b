"""A logger that fails is said once and ends no run; the CSV loses no row to a full disk."""

import csv
import logging
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import DummyLogger
from support.training import Clips, Data, classifier, trainer

from video_mvit.training import loggers
from video_mvit.training.loggers import CsvLogger, LoggerGuard, LoggerGuards, problems_of_loggers


@contextmanager
def full_disk(num_bytes: int = 0) -> Iterator[None]:
    """No file of this process may be larger."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def rows(log: CsvLogger) -> list[dict[str, str]]:
    with Path(log.log_dir, "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def add(log: CsvLogger, step: int, **values: float) -> None:
    log.log_metrics(values, step)
    log.save()


@pytest.mark.parametrize("new", [{}, {"val/top1": 0.5}])
@pytest.mark.parametrize("num_bytes", [0, 1, 10])
def test_rows_wait_in_memory_while_the_disk_is_full(
    tmp_path: Path, num_bytes: int, new: dict[str, float]
) -> None:
    log = CsvLogger(tmp_path, name="metrics")
    add(log, 0, loss=0.25)
    path = Path(log.log_dir, "metrics.csv")
    before = path.read_bytes()
    for step in (1, 2):
        with full_disk(len(before) + num_bytes - 1), pytest.raises(OSError, match="too large"):
            add(log, step, loss=0.123456789012345678, **new)
        assert path.read_bytes().startswith(before)
        assert len(rows(log)) >= 1
    add(log, 3, loss=0.5)
    found = [int(row["step"]) for row in rows(log)]
    assert found == sorted(found)
    assert set(found) == {0, 1, 2, 3}
    assert os.listdir(log.log_dir) == ["metrics.csv"]


def test_csv_is_that_of_lightning(tmp_path: Path) -> None:
    contents = []
    for kind in (CsvLogger, CsvLogger.__base__):
        log = kind(tmp_path / kind.__name__, name="metrics")
        for step in range(3):
            add(log, step, **{f"loss{step % 2}": 1 / 3, "b": step})
        contents.append(Path(log.log_dir, "metrics.csv").read_bytes())
    assert contents[0] == contents[1]


class Failing(DummyLogger):
    """Fails between two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def log_metrics(self, *_: Any, **__: Any) -> None:
        self.calls.append("log")
        raise ConnectionError("the server is gone\nfor ever")

    def finalize(self, status: str) -> None:
        self.calls.append("finalize")


def test_training_outlives_a_logger_that_fails(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Failing()
    fitted = trainer(LoggerGuards([log]), logger=[log], log_every_n_steps=1)
    with caplog.at_level(logging.INFO):
        fitted.fit(classifier(), Data(Clips(4)))
    assert fitted.global_step == 4
    assert log.calls == ["log", "finalize"]  # tried again after a minute only
    assert caplog.text.count("the server is gone") == 1
    assert problems_of_loggers(fitted) == ["Failing could not log everything: the server is gone"]
    monkeypatch.setattr(loggers, "RETRY_S", 0.0)
    log.log_metrics({})
    log.log_metrics({})
    assert log.calls.count("log") == 3
    assert caplog.text.count("the server is gone") == 1


def test_csv_is_complete_once_there_is_space(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = CsvLogger(tmp_path, name="metrics")
    guard = LoggerGuard(log)
    add(log, 0, loss=1.0)
    with full_disk():
        add(log, 1, loss=1.0)
        add(log, 2, loss=1.0)
    assert guard.problem == "CsvLogger could not log everything: File too large"
    assert caplog.text.count("training continues") == 1
    add(log, 3, loss=1.0)
    assert not guard.problem
    assert [row["step"] for row in rows(log)] == list("0123")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_tensorboard_goes_on_in_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "RETRY_S", 0.0)
    log = TensorBoardLogger(tmp_path, name="tensorboard", version="")
    guard = LoggerGuard(log)
    log.log_metrics({"loss": 1.0}, 0)
    log.save()
    (first,) = Path(log.log_dir).glob("events*")
    with full_disk(10):
        log.log_metrics({"loss": 1.0}, 1)
        log.save()
    assert guard.problem.startswith("TensorBoardLogger could not log everything: ")
    log.log_metrics({"loss": 1.0}, 2)
    log.finalize("success")
    others = set(Path(log.log_dir).glob("events*")) - {first}
    assert sum(path.stat().st_size > 100 for path in others) == 1


def test_metrics_of_other_folders_do_not_end_the_curves(tmp_path: Path) -> None:
    from video_mvit.training.curves import read_rows

    for name in ("version_0", "version_x", "version_"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text("step,train/loss\n0,1.5\n")
    assert len(read_rows(tmp_path)) == 1


def test_loggers_are_guarded_in_every_trainer(tmp_path: Path) -> None:
    guards = LoggerGuards([DummyLogger(), CsvLogger(tmp_path)])
    assert isinstance(guards, pl.Callback)
    assert [guard.problem for guard in guards.guards] == ["", ""]
