"""Early stopping: when, on which metric, and the same however often the run was stopped."""

import logging
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from support.commands import composed
from support.processes import run_ranks
from support.training import Clips, Data, classifier, trainer

from video_mvit.cli.auto_hardware import resolve_hardware
from video_mvit.cli.build import build_trainer
from video_mvit.cli.callbacks import build_early_stopping
from video_mvit.errors import UserError
from video_mvit.training.checkpoints import Checkpoint, MissedValidation, StepCheckpoint
from video_mvit.training.early_stopping import EarlyStopping

VALUES = [0.2, 0.5, 0.4, 0.5, 0.4, 0.9]  # of the epochs: the best for long is that of the second


class Scored(pl.Callback):
    """Logs the value of the epoch as the metric of a validation."""

    def __init__(self, values: list[float], *, dies_in: int = -1) -> None:
        self.values, self.dies_in, self.epochs = values, dies_in, 0

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        value = self.values[trainer.current_epoch]
        pl_module.log("val/score", torch.tensor(value), sync_dist=True)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.dies_in:
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs += 1


def stopping(**overrides: Any) -> EarlyStopping:
    return EarlyStopping(**{"patience": 2, "monitor": "val/score", "mode": "max", **overrides})


def epochs(values: list[float], *, num_ranks: int = 1, **overrides: Any) -> int:
    """Number of epochs until training ended."""
    fitted = trainer(
        Scored(values),
        stopping(**overrides),
        max_epochs=len(values),
        devices=num_ranks,
        strategy="ddp" if num_ranks > 1 else "auto",
    )
    fitted.fit(classifier(), Data(Clips(2), Clips(2, views=1)))
    return int(fitted.current_epoch)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [({}, 4), ({"patience": 1}, 3), ({"patience": 4}, 6), ({"mode": "min"}, 3)],
)
def test_training_ends_after_epochs_without_a_better_value(
    overrides: dict[str, Any], expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert epochs(VALUES, **overrides) == expected
    assert ("early stopping: val/score was best in epoch" in caplog.text) is (expected < 6)


@pytest.mark.slow
def test_ranks_end_together() -> None:
    assert run_ranks(epochs_of_two, 2) == [4, 4]


def epochs_of_two() -> int:
    return epochs(VALUES, num_ranks=2)


def test_epochs_count_and_not_validations() -> None:
    for options in ({"check_val_every_n_epoch": 2}, {"val_check_interval": 0.5}):
        scored = Scored([0.5] * 9)
        fitted = trainer(scored, stopping(patience=4), max_epochs=9, **options)
        fitted.fit(classifier(), Data(Clips(2), Clips(2, views=1)))
        assert scored.epochs == (6 if "check_val_every_n_epoch" in options else 5)


@pytest.mark.parametrize(
    ("values", "overrides", "message"),
    [
        ([0.1, float("nan")], {}, "val/score, which is nan in epoch 2"),
        ([float("inf")], {}, "val/score, which is inf in epoch 1"),
        ([0.1], {"monitor": "val/top2"}, "does not give; .* one of val/loss, val/score, val/top1"),
    ],
)
def test_metric_that_says_nothing_ends_the_run(
    values: list[float], overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        epochs(values, **overrides)


def test_run_without_validation_is_refused_or_told(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="needs a validation"):
        trainer(stopping(), limit_val_batches=0).fit(
            classifier(), Data(Clips(2), Clips(2, views=1))
        )
    seldom = trainer(stopping(), max_epochs=1, check_val_every_n_epoch=5)
    seldom.fit(classifier(), Data(Clips(2), Clips(2, views=1)))
    assert "no epoch was validated" in caplog.text


def test_settings_name_the_metric_of_the_best_checkpoint(tmp_path: Path) -> None:
    words = ("experiment=demo", "data.root=/data", "trainer=cpu", f"run_dir={tmp_path}")
    cfg = composed("config", *words, "early_stopping=3", "callbacks=ema")
    resolve_hardware(cfg)
    (found,) = [
        each
        for each in build_trainer(cfg, logger=False).callbacks
        if isinstance(each, EarlyStopping)
    ]
    assert (found.patience, found.monitor, found.sign) == (3, "val/ema_top1", 1)
    cfg = composed("config", *words, "early_stopping=3", "~callbacks.best")
    with pytest.raises(UserError, match="watches the metric of callbacks"):
        build_early_stopping(cfg)


def started(folder: Path, *, patience: int = 2, dies_in: int = -1) -> Scored:
    """One start of a run, from its last checkpoint if there is one."""
    options: dict[str, Any] = {"dirpath": str(folder), "enable_version_counter": False}
    scored = Scored(VALUES, dies_in=dies_in)
    callbacks = [
        MissedValidation(),
        Checkpoint(filename="last", save_on_train_epoch_end=True, **options),
        StepCheckpoint(filename="last", every_n_train_steps=1, **options),
        scored,
        stopping(patience=patience),
    ]
    path = folder / "last.ckpt"
    fitted = trainer(*callbacks, max_epochs=6, enable_checkpointing=True)
    fitted.fit(
        classifier(),
        Data(Clips(2), Clips(2, views=1)),
        ckpt_path=path if path.exists() else None,
        weights_only=True,
    )
    scored.total = fitted.current_epoch
    return scored


@pytest.mark.parametrize("dies_in", range(4))
def test_resumed_run_ends_in_the_same_epoch_and_then_stays_at_its_end(
    tmp_path: Path, dies_in: int
) -> None:
    """It is killed before a validation, which is missed and made up for."""
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        started(tmp_path, dies_in=dies_in)
    assert started(tmp_path).total == 4
    before = (tmp_path / "last.ckpt").read_bytes()
    again = started(tmp_path)
    assert again.epochs == 0
    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert started(tmp_path, patience=4).total == 6  # more patience goes on
