"""Probes of libraries: right ones, wrong ones, and ones that end the process."""

from pathlib import Path

import pytest
from support.broken import cut
from support.videos import write_numbered_video

from video_mvit.data.reading.open import READERS
from video_mvit.data.reading.pyav_reader import PyAVReader
from video_mvit.doctor import probes
from video_mvit.doctor.run_probe import ask


class NextFrame(PyAVReader):
    """A reader that gives the frame after each one it is asked for."""

    def read(self, indices):  # type: ignore[no-untyped-def]
        return super().read([min(i + 1, self.num_frames - 1) for i in indices])


class MissesLastFrame(PyAVReader):
    @property
    def num_frames(self) -> int:
        return super().num_frames - 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("raise ImportError('libcudart.so.13: cannot open')", "ImportError: libcudart.so.13"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashes: Segmentation fault"),
        ("import os; os._exit(3)", "exit code 3"),
    ],
)
def test_library_that_ends_the_process_is_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, words: str
) -> None:
    (tmp_path / "torch.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert words in ask("torch_facts")["failure"]


def test_library_that_hangs_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert ask("torch_facts", timeout_s=0.5)["failure"] == "no answer after 0.5 s"


def test_module_in_the_current_folder_hides_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "av.py").write_text("raise ImportError('not PyAV')")
    monkeypatch.chdir(tmp_path)
    assert ask("read_numbered", "pyav") == {}


def test_wrong_frames_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(READERS, "next", NextFrame)
    failure = probes.read_numbered("next")["failure"]
    assert (
        failure == "gives frames [38, 6, 59, 23, 23, 1, 59] instead of [37, 5, 58, 22, 22, 0, 59]"
    )


def test_readers_are_compared_on_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(READERS, "next", NextFrame)
    monkeypatch.setitem(READERS, "short", MissesLastFrame)
    path = str(write_numbered_video(tmp_path / "a.mp4", 30))
    assert probes.compare_readers(path, "pyav", "pyav") == {}
    assert "other frames" in probes.compare_readers(path, "pyav", "next")["failure"]
    assert "29 frames" in probes.compare_readers(path, "pyav", "short")["failure"]


def test_truncated_video_is_unreadable_and_a_whole_one_is_described(tmp_path: Path) -> None:
    whole = write_numbered_video(tmp_path / "whole.mp4", 40)
    facts = probes.examine_video(str(whole))
    assert (facts["num_frames"], facts["size"], facts["codec"]) == (40, (64, 64), "h264")
    broken = cut(whole, tmp_path / "broken.mp4", 0.6)
    failure = ask("examine_video", str(broken))["failure"]
    assert "cut off" in failure
    assert str(broken) not in failure  # the finding names it already
