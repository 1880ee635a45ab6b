"""The command as a user runs it: installed, in a bare checkout, with an unsupported Python."""

import ast
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.broken import cut
from support.paths import ROOT
from support.videos import write_numbered_video

from video_mvit.doctor import examine
from video_mvit.doctor.finding import Finding

PACKAGE = ROOT / "video_mvit"


def run_doctor(
    folder: Path, *command: str, python_path: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": python_path},
        check=False,
    )


@pytest.mark.slow
def test_installed_command_checks_all_from_any_folder(tmp_path: Path) -> None:
    """A broken torch, which is quick to import, keeps nothing else from being checked."""
    videos, libraries, empty = (tmp_path / name for name in ("videos", "libraries", "empty"))
    for folder in (videos, libraries, empty):
        folder.mkdir()
    (libraries / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open')")
    whole = write_numbered_video(videos / "a.mp4", 40)
    cut(whole, videos / "b.mp4", 0.6)
    command = ["-m", "video_mvit", "doctor", "--json", "--video", str(videos)]
    result = run_doctor(empty, *command, python_path=f"{libraries}{os.pathsep}{ROOT}")
    assert result.returncode == 1
    assert not result.stderr
    answer = json.loads(result.stdout)
    found = [Finding(**each) for each in answer["findings"]]
    status = {each.subject: each.status for each in found}
    texts = {each.subject: each.text for each in found}
    assert answer["pass"] is False
    assert status["Python"] == status["pyav"] == "ok"
    assert status["torch"] == "problem"
    assert "libcudart.so.13" in texts["torch"]
    assert str(empty / "runs") in texts["run folder"]
    assert [each.status for each in found if each.subject == "video"] == ["ok", "problem"]
    assert "speed" not in status
    assert {"packages", "cores", "open files", "decord", "torchcodec"} <= set(status)
    assert not list(empty.iterdir())


@pytest.fixture
def bare_checkout(tmp_path: Path) -> Path:
    """A checkout without any metadata of an installation."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "doctor.py", tmp_path / "scripts")
    (tmp_path / "video_mvit").symlink_to(PACKAGE)
    return tmp_path


@pytest.mark.parametrize("missing", ["video-mvit", "packaging"])
def test_bare_checkout_says_what_to_install(bare_checkout: Path, missing: str) -> None:
    """-S: no installed package can be imported, and none is found."""
    if missing == "packaging":
        info = bare_checkout / "video_mvit-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Name: video-mvit\nVersion: 1\nRequires-Dist: torch\n")
    result = run_doctor(bare_checkout, "-S", "scripts/doctor.py")
    assert result.returncode == 1, result.stderr
    assert not result.stderr
    lines = result.stdout.splitlines()
    assert lines[1].startswith("problem  packages")
    assert f"{missing} is not installed" in lines[1]
    assert "make setup" in lines[2]
    assert sum(line.startswith("problem") for line in lines) == 1
    assert any(line.split()[1:2] == ["cores"] for line in lines)
    assert lines[-1].startswith("fail: 1 problem")


def test_unsupported_python_is_the_only_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.8.18")
    (finding,) = examine.examine(None, "mvitv2_s")
    assert finding.status == "problem"
    assert "3.11 to 3.13 is needed" in finding.text
    assert "make setup" in str(finding.fix)


@pytest.mark.parametrize(
    "path",
    [
        ROOT / "scripts" / "doctor.py",
        PACKAGE / "__init__.py",
        PACKAGE / "cli" / "__init__.py",
        PACKAGE / "cli" / "doctor.py",
        *sorted(PACKAGE.glob("doctor/*.py")),
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_old_python_can_import_the_doctor(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    has_annotations = any(
        isinstance(node, ast.AnnAssign)
        or (isinstance(node, ast.FunctionDef) and node.returns is not None)
        for node in ast.walk(tree)
    )
    postponed = [node.names[0].name for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert not has_annotations or "annotations" in postponed


def test_videos_are_taken_all_over_a_folder(tmp_path: Path) -> None:
    assert examine.find_videos(tmp_path / "none") == examine.find_videos(tmp_path) == []
    (tmp_path / "class").mkdir()
    for i in range(8):
        (tmp_path / "class" / f"{i}.MP4").touch()
    (tmp_path / "notes.txt").touch()
    found = examine.find_videos(tmp_path)
    assert [Path(path).stem for path in found] == ["0", "2", "4", "6"]
    assert examine.find_videos(Path(found[1])) == [found[1]]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for name in ("bad.mp4", "good.mp4"):
        (tmp_path / name).touch()
    return tmp_path


def healthy(name: str, *arguments: str, **_: float) -> dict[str, Any]:
    """Answer as probes do where all but torchcodec works; one of two videos is unreadable."""
    torch = {"version": "2.13", "cuda": None, "gpus": [], "complaint": "", "driver": None}
    video = {"num_frames": 9, "num_key_frames": 1, "size": (2, 2), "codec": "h264"}
    video |= {"fps": 30, "is_variable": False}
    return {
        "torch_facts": {**torch, "visible": None},
        "read_numbered": {"failure": "broken"} if arguments == ("torchcodec",) else {},
        "examine_video": {"failure": "cut off"} if "bad.mp4" in str(arguments) else video,
        "compare_readers": {"failure": "differs"},
        "measure_speed": {"loader": len(arguments), "device": 1},
    }.get(name, {})


def test_working_readers_and_the_speed_are_tried_on_readable_videos(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examine, "ask", healthy)
    monkeypatch.setattr(examine.software, "read_ranges", lambda: ({}, {}))
    monkeypatch.setattr(examine.software, "read_extras", dict)
    monkeypatch.setattr(examine.software, "version_of", lambda _: "1")
    *findings, speed = examine.examine(videos, "mvitv2_s")
    compared = [(each.subject, each.text) for each in findings if "differs" in each.text]
    assert compared == [("decord", f"{videos / 'good.mp4'}: differs")]
    assert "gives 2 clips/s" in speed.text  # its arguments: the model and one video


def test_nothing_is_tried_with_a_broken_installation(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examine, "ask", lambda *_: {"failure": "broken"})
    subjects = [finding.subject for finding in examine.examine(videos, "mvitv2_s")]
    assert "torch" in subjects
    assert not {"speed", "video"} & set(subjects)
