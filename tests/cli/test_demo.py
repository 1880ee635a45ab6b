"""`make demo`, with few videos: the three steps run and the summary says what was measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import run_command

from video_mvit.cli import demo


def run_forked(command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
    """Stand for `subprocess.run`, sooner."""
    assert command[:3] == [sys.executable, "-m", "video_mvit"]
    assert not check
    result = run_command(*command[3:], cwd=Path.cwd())
    print(result.stdout, result.stderr, flush=True)  # noqa: T201
    return result


@pytest.mark.slow
def test_demo_writes_trains_evaluates_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo.subprocess, "run", run_forked)
    monkeypatch.setattr(demo, "NUM_VIDEOS", {"train": 32, "val": 8, "test": 16})
    monkeypatch.setattr("sys.argv", ["video-mvit demo", "--seed", "5"])
    demo.main()
    result = json.loads((tmp_path / "runs/demo_5/evaluation/results.json").read_text())
    printed = capfd.readouterr().out
    assert result["num_videos"] == 16
    assert f"top-1 {100 * result['top1']:.1f} %" in printed
    assert f"top-1 {100 * result['motion']['frozen']:.1f} %" in printed
    assert (tmp_path / "runs/demo_5/checkpoints/last.ckpt").exists()
    page = (tmp_path / "runs/demo_5/evaluation/report.html").read_text()
    assert f"{100 * result['top1']:.1f} %" in page
    assert "'motion=[frozen,reversed,shuffled]'" in printed
    assert "report       runs/demo_5/evaluation/report.html" in printed


def test_videos_of_other_classes_are_neither_used_nor_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of an earlier version had the motions alone as classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["video-mvit demo"])
    root = Path("datasets", "demo_0")
    (root / "test" / "moving left").mkdir(parents=True)
    (root / "test.csv").touch()
    with pytest.raises(SystemExit, match=r"datasets/demo_0 holds other videos .* --seed"):
        demo.main()
