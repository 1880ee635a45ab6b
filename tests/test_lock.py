"""One writer: the second is refused and told who writes, and a killed one is in nobody's way."""

import errno
import fcntl
import os
from pathlib import Path

import pytest
from support.locks import held_by_another

from video_mvit.lock import only_writer


def test_second_writer_is_told_who_writes_until_that_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / ".lock"
    with held_by_another(path) as process:
        whom = rf"the folder is in use by process {process.pid} on .* since 2.*; wait$"
        with pytest.raises(ValueError, match=whom), only_writer(path, "the folder", "wait"):
            pytest.fail("two writers")
        assert path.exists()
        process.kill()  # its worker lives on
        process.wait()
        with only_writer(path, "the folder", "wait"):
            assert f"was in use by process {process.pid} on " in caplog.text
            assert "which ended without releasing it" in caplog.text
    assert not path.exists()


def test_lock_is_free_again_after_an_error_in_the_block(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        with pytest.raises(OSError, match="full"), only_writer(tmp_path / ".lock", "it", "wait"):
            raise OSError("full")
    assert not list(tmp_path.iterdir())
    assert not caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 1000,
        b"[" * 100_000,
        b'{"host": "\\u001b[31mred", "pid": 1, "since": "now"}',
        b'{"host": "a", "pid": 1e999, "since": "now"}',
        b'{"host": {}, "pid": "\\ud800", "since": []}',
    ],
)
def test_content_of_a_lock_file_is_not_trusted(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / ".lock"
    path.write_bytes(content)
    with only_writer(path, "it", "wait"):
        assert b'"pid"' in path.read_bytes()
    assert "red" not in caplog.text


def test_link_in_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    target, path = tmp_path / "precious", tmp_path / ".lock"
    target.write_text("data")
    path.symlink_to(target)
    with pytest.raises(ValueError, match="cannot write to "), only_writer(path, "it", "wait"):
        pytest.fail("followed")
    assert target.read_text() == "data"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="not a regular file"), only_writer(path, "it", "wait"):
        pytest.fail("written to a pipe")


def test_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with only_writer(tmp_path / ".lock", "the run", "wait"):
        assert "has no locks; make sure that nothing else writes to the run" in caplog.text
