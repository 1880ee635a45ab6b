"""A file that is written again is the old one or the whole new one, whatever goes wrong."""

import os
import signal
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from support.processes import TIMEOUT_S

from video_mvit.files import naming, replace_atomically


def write(path: Path, text: str) -> None:
    with replace_atomically(path) as temporary:
        temporary.write_text(text)


def test_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write(path, "old")
    write(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def write_half(path: Path, error: type[BaseException]) -> None:
    with replace_atomically(path) as temporary:
        temporary.write_text("half of the n")
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_keeps_the_old_file_and_leaves_no_temporary(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    write(path, "old")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("writes", [replace_atomically, naming])
def test_full_disk_is_told_with_the_name_of_the_file(tmp_path: Path, writes: Any) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(OSError, match="No space left") as error, writes(path):
        Path("/dev/full").write_text("x")
    assert error.value.filename == str(path)


def write_and_die(path: Path) -> None:
    with replace_atomically(path) as temporary:
        temporary.write_text("half of the n")
        os.kill(os.getpid(), signal.SIGKILL)


def test_kill_keeps_the_old_file_and_the_next_writer_clears_up(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write(path, "old")
    process = get_context("spawn").Process(target=write_and_die, args=(path,))
    process.start()
    process.join(TIMEOUT_S)
    assert process.exitcode == -signal.SIGKILL
    assert path.read_text() == "old"
    write(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_the_replaced_file_or_the_usual_ones(tmp_path: Path) -> None:
    path, usual = tmp_path / "a.txt", tmp_path / "usual.txt"
    usual.touch()
    write(path, "old")
    assert path.stat().st_mode == usual.stat().st_mode
    path.chmod(0o640)
    write(path, "new")
    assert path.stat().st_mode & 0o777 == 0o640


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*x to write a\.txt to"):
        write(tmp_path / "x" / "a.txt", "text")
