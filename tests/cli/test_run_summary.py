"""What a run tells at its end, alone and in a sweep, on narrow and wide terminals."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from pytorch_lightning.callbacks.progress.rich_progress import CustomProgress
from rich.console import Console
from support.commands import run_command
from support.training import Clips, Data, classifier, trainer

from video_mvit.cli.run_summary import SUMMARY, RunSummary, close_run, in_words, read_summary
from video_mvit.cli.sweep_table import print_sweep
from video_mvit.data.preparation.demo import write_demo_dataset
from video_mvit.training import progress
from video_mvit.training.checkpoints import Checkpoint
from video_mvit.training.loggers import CsvLogger
from video_mvit.training.progress import ProgressBar, TimeLeft, duration

BEST = RunSummary(metric="val/top1", is_max=True, best=0.9944, epoch=3, num_epochs=4, time_s=129.4)


def write_run(folder: Path, summary: RunSummary | None, *words: str) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best.ckpt").touch()
    (folder / "config").mkdir()
    (folder / "config" / "overrides.yaml").write_text("".join(f"- {word}\n" for word in words))
    if summary:
        (folder / SUMMARY).write_text(json.dumps(vars(summary)))
    return folder


def test_run_ends_with_its_best_epoch_its_checkpoint_and_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = write_run(Path("runs/a b"), BEST)
    checkpoint = "runs/a b/checkpoints/best.ckpt"
    following = "next: video-mvit evaluate 'runs/a b'"
    best = f"done in 2 min 9 s  best val/top1 99.4 % in epoch 3/4  {checkpoint}"
    assert BEST.lines(run) == BEST.lines(run.absolute()) == [best, following]
    unknown = replace(BEST, best=None, epoch=None)
    assert unknown.lines(run) == [f"done in 2 min 9 s  {checkpoint}", following]
    assert BEST.lines(tmp_path / "nothing") == ["done in 2 min 9 s"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.6, "1 min"), (129, "2 min 9 s"), (3605, "1 h 5 s"), (90_061, "1 d 1 h")],
)
def test_times_have_their_two_largest_units(seconds: float, text: str) -> None:
    assert in_words(seconds) == text


def test_best_epoch_is_that_of_the_metric_of_the_best_checkpoint(tmp_path: Path) -> None:
    saves = Checkpoint(str(tmp_path / "checkpoints"), "best", monitor="val/loss", mode="min")
    log = CsvLogger(tmp_path, name="metrics")
    run = trainer(saves, max_epochs=3, logger=log, enable_checkpointing=True)
    run.fit(classifier(), Data(Clips(2), Clips(2, views=1)))
    close_run(run, tmp_path, 7.0)
    found = read_summary(tmp_path)
    assert found is not None
    assert (found.metric, found.is_max, found.num_epochs) == ("val/loss", False, 3)
    assert found.best == pytest.approx(float(saves.best_model_score or 0), rel=1e-4)
    assert found.epoch in (1, 2, 3)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "nan", '{"metric": 1}', "[" * 5000, json.dumps({"best": 1})]
)
def test_summary_that_is_none_is_not_used(tmp_path: Path, content: str) -> None:
    (tmp_path / SUMMARY).write_text(content)
    assert read_summary(tmp_path) is None


@pytest.mark.parametrize("columns", ["80", "120"])
def test_sweep_ends_in_a_table_of_what_differs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    columns: str,
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.chdir(tmp_path)
    for number, best in (("0", 0.5), ("10", 0.25), ("2", 0.75)):
        summary = replace(BEST, best=best)
        words = ("experiment=demo", f"optim.lr=1e-{number}", f"+model.drop_path_rate=0.{number}")
        write_run(Path("sweep", number), summary, *words)
    write_run(Path("sweep", "3"), None, "experiment=demo")  # was stopped
    print_sweep(Path("sweep"), {4: ["experiment=demo", "optim.lr=-1"]})
    told = capsys.readouterr().out
    rows = [line.split() for line in told.splitlines()]
    assert ["run", "optim.lr", "model.drop_path_rate", "val/top1", "epoch", "time"] in rows
    assert ["2", "1e-2", "0.2", "75.0", "%", "3", "2", "min", "9", "s"] in rows
    assert [row[0] for row in rows if row[-1:] == ["s"]] == ["0", "2", "10"]
    assert ["4", "-1", "failed"] in rows
    assert "best: sweep/2  next: video-mvit evaluate sweep/2" in told
    assert all(len(line) <= int(columns) for line in told.splitlines())


# The progress bar


def test_time_left_is_of_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    left = TimeLeft(first_step=10, num_steps=50)
    assert left.seconds is None
    now[0] = 120.0
    left.step(20)  # ten steps in 20 s, validation and all
    assert left.seconds == pytest.approx(60)
    left.step(50)
    assert left.seconds == 0
    endless = TimeLeft()
    endless.step(5)
    assert endless.seconds is None
    assert [duration(seconds) for seconds in (0.4, 59.6, 183_723)] == [
        *("0:00:00", "0:01:00", "51:02:03"),
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_bar_fits_the_terminal_with_large_numbers(width: int) -> None:
    bar = ProgressBar()
    run = trainer(max_epochs=1000, enable_progress_bar=True, callbacks=[bar])
    run.fit_loop.epoch_progress.current.processed = 999
    bar._trainer = run
    console = Console(width=width, force_terminal=True, color_system=None)
    columns = bar.configure_columns(run)
    shown = CustomProgress(*columns, console=console)
    task = shown.add_task(bar._get_train_description(999), total=25_000, completed=24_999)
    bar.train_progress_bar_id = task
    bar._estimate.seconds = 99 * 3600.0
    with console.capture() as capture:
        console.print(shown)
    (line,) = capture.get().rstrip("\n").splitlines()
    assert "epoch 1000/1000" in line
    assert "24999/25000" in line
    assert "99:00:00 left" in line
    assert len(line.rstrip()) <= width - 13  # for the loss


@pytest.mark.slow
def test_lines_of_a_training_fit_the_terminal(tmp_path: Path) -> None:
    write_demo_dataset(tmp_path / "d", {"train": 8, "val": 8, "test": 0}, 0, lambda _: None)
    words = ["experiment=demo", "data.root=d", "run_dir=r", "optim.num_epochs=1"]
    words += ["data.train_batch_size=4", "data.num_workers=0"]
    result = run_command("train", *words, cwd=tmp_path, environment={"COLUMNS": "80"})
    assert result.returncode == 0, result.stderr
    told = (result.stdout + result.stderr).splitlines()
    assert all(len(line) <= 80 for line in told), told
    text = " ".join(" ".join(told).split())
    assert re.search(r"epoch 1/1 loss [\d.]+ .* data wait \d+ % peak [\d.]+ GB MFU \d+ %", text)
    assert "best val/top1" in text
    assert told[-1].endswith("next: video-mvit evaluate r")
    whole = (tmp_path / "r" / "train.log").read_text()
    assert re.search(r"epoch 1/1 .* MFU \d+ %\n", whole)  # one line in the file
