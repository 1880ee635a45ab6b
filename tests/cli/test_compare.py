"""video-mvit compare as a person runs it: what flipped, also where names are no UTF-8 or markup."""

import csv
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.evaluations import origin, prediction, summary

from video_mvit.cli import compare
from video_mvit.evaluation.multilabel_predictions import (
    MultiLabelVideo,
    write_multilabel_predictions,
)
from video_mvit.evaluation.multilabel_results import summarize_multilabel
from video_mvit.evaluation.output_folder import PREDICTIONS, RESULTS
from video_mvit.evaluation.predictions import write_predictions
from video_mvit.evaluation.regression_predictions import (
    RegressionVideo,
    write_regression_predictions,
)
from video_mvit.evaluation.regression_results import summarize_regression
from video_mvit.text import csv_text

NAMES = ("[red]jump[/red]", "run\\")
VIDEO = os.fsdecode(b"[bold]caf\xe9.mp4")


def write(folder: Path, best: int) -> Path:
    rows = [prediction(VIDEO, 0, (best, 1 - best)), prediction("b.mp4", 1, (1, 0))]
    folder.mkdir()
    summary(rows, NAMES).write(folder / RESULTS)
    write_predictions(folder / PREDICTIONS, rows, NAMES)
    return folder


def test_flips_are_shown_and_written_whatever_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(write(tmp_path / name, best)) for name, best in (("a", 0), ("b", 1))]
    flips = tmp_path / "flips[red].csv"
    monkeypatch.setattr(sys, "argv", ["compare.py", *folders, "--flips", str(flips)])
    compare.main()
    shown = capsys.readouterr().out
    assert "[bold]caf\ufffd.mp4  [red]jump[/red]  run\\" in shown
    assert "flips[red].csv" in shown
    monkeypatch.setattr(sys, "argv", ["compare.py", *folders])
    compare.main()
    assert "next: video-mvit compare" in capsys.readouterr().out
    assert re.search(r"top-1 +100.0 % 34.2.100.0 +50.0 % 9.5.90.5 +-50.0", shown)
    assert re.search(r"ECE \(15 bins\) +40.0 % \d.* +10.0 % ", shown)
    assert re.search(r"ECE over the same videos: -30.00 \(95 % interval -\d", shown)
    with flips.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert list(map(csv_text, list(csv.reader(file))[1])) == [
            VIDEO,
            *NAMES[:1],
            *NAMES,
            "broken",
        ]


@pytest.mark.parametrize(
    ("task", "what"),
    [
        ("multi_label", "with several labels"),
        ("multi_head", "with several heads"),
        ("regression", "of numbers"),
    ],
)
def test_evaluations_of_two_kinds_are_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, what: str
) -> None:
    one, other = write(tmp_path / "one", 0), tmp_path / "other"
    other.mkdir()
    (other / RESULTS).write_text(f'{{"task": "{task}"}}')
    for folders in ((one, other), (other, one)):
        monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, folders)])
        with pytest.raises(SystemExit) as stopped:
            compare.main()
        sentence = f"{one} holds no evaluation {what}; compare two of the same kind"
        assert str(stopped.value) == f"error: {sentence}"


def write_sets(folder: Path) -> Path:
    rows = [MultiLabelVideo(video="b.mp4", labels=(0,), scores=(0.5, 0.25))]
    folder.mkdir()
    found = summarize_multilabel(rows, origin(NAMES), time_s=1, num_clips=1, num_resumed=0)
    found.write(folder / RESULTS)
    write_multilabel_predictions(folder / PREDICTIONS, rows, NAMES)
    return folder


def write_values(folder: Path) -> Path:
    rows = [RegressionVideo(video="b.mp4", truth=(0.5, 1.0), values=(0.5, 2.0))]
    folder.mkdir()
    found = summarize_regression(
        rows, origin(NAMES), target_mean=(0, 0), time_s=1, num_clips=1, num_resumed=0
    )
    found.write(folder / RESULTS)
    write_regression_predictions(folder / PREDICTIONS, rows, NAMES)
    return folder


@pytest.mark.parametrize("write_folder", [write_sets, write_values])
def test_flips_are_not_advised_where_nothing_can_flip(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    write_folder: Callable[[Path], Path],
) -> None:
    folders = [str(write_folder(tmp_path / name)) for name in "ab"]
    monkeypatch.setattr(sys, "argv", ["compare.py", *folders])
    compare.main()
    assert "--flips" not in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["compare.py", *folders, "--flips", "flips.csv"])
    with pytest.raises(SystemExit, match="--flips is for one class a video, or one in each head"):
        compare.main()
