"""Learning curves: series of a resumed run, and the picture."""

import logging
from pathlib import Path

import pytest
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.loggers import CSVLogger
from support.training import Clips, Data, classifier

from video_mvit.evaluation.learning_curves import Point, draw_curves, learning_rate, smooth
from video_mvit.training.curves import LearningCurves, read_rows, series


def write(folder: Path, version: int, text: str) -> None:
    path = folder / f"version_{version}" / "metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_resumed_run_replaces_what_it_did_again(tmp_path: Path) -> None:
    header = "epoch,step,train/loss,train/epoch_loss,val/top1\n"
    write(tmp_path, 2, header + "0,2,2.0,,\n0,3,1.9,,\n0,3,,2.5,\n0,3,,,0.5\n1,7,,1.0,\n")
    write(tmp_path, 0, header + "0,0,4.0,,\n0,1,3.0,,\n0,2,9.0,,\n0,3,,,0.9\n1,5,9.0,,\n")
    write(tmp_path, 10, "epoch,step,val/top1\n1,7,0.75\n")
    found = series(read_rows(tmp_path))
    assert found["train/loss"] == [(0.25, 4.0), (0.5, 3.0), (0.75, 2.0), (1.0, 1.9)]
    assert found["val/top1"] == [(1.0, 0.5), (2.0, 0.75)]


def test_smoothing_keeps_straight_lines_and_ends() -> None:
    points = [Point(i, 2.0 * i) for i in range(50)]
    assert [p.value for p in smooth(points)] == pytest.approx([p.value for p in points])
    zigzag = [Point(i, i % 2) for i in range(100)]
    assert all(0.3 < p.value < 0.7 for p in smooth(zigzag)[5:-5])
    assert smooth([]) == []


def fit(tmp_path: Path, *callbacks: pl.Callback, interval: int = 1) -> None:
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[LearningCurves(str(tmp_path)), *callbacks],
        logger=CSVLogger(tmp_path, name="metrics"),
        log_every_n_steps=interval,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(classifier(), datamodule=Data(Clips(4), Clips(1, views=1)))


@pytest.mark.slow
def test_training_that_ends_leaves_a_picture(tmp_path: Path) -> None:
    fit(tmp_path, interval=100)
    curves = series(read_rows(tmp_path / "metrics"))
    assert "train/lr" not in curves
    assert len(learning_rate(curves)) == 3
    with Image.open(tmp_path / "curves.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1080, 1020))
        colours = picture.convert("RGB").getcolors(2**20)
    assert max(colours)[1] == (255, 255, 255)  # the background
    assert {(31, 119, 180), (255, 127, 14)} <= {colour for _, colour in colours}


def test_run_shorter_than_the_logging_interval_shows_its_learning_rate() -> None:
    steps = [Point(0.1 * i, i) for i in range(12)]
    ends = [Point(1.0, 10.0), Point(2.0, 5.0)]
    assert learning_rate({"train/epoch_lr": ends}) == ends
    assert learning_rate({"train/lr": steps[:1], "train/epoch_lr": ends}) == ends
    assert learning_rate({"train/lr": steps, "train/epoch_lr": ends}) == steps
    assert learning_rate({"train/lr": steps[:3]}) == steps[:3]  # of a run that has no others
    assert learning_rate({}) == ()
    assert "Learning rate" in draw_curves({"train/epoch_lr": ends})


class Stop(pl.Callback):
    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step == 6:
            raise ZeroDivisionError


def test_training_that_stops_leaves_a_picture_of_what_was_done(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path, Stop())
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert len(series(read_rows(tmp_path / "metrics"))["train/loss"]) == 5


def test_picture_that_cannot_be_drawn_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "curves.png").mkdir()
    fit(tmp_path)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [text for text in warnings if text.startswith("cannot draw")] != []
    assert len([text for text in warnings if "curves.png" in text]) == 1
