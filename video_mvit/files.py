"""Writing a file so that a crash or a full disk leaves the old one or the whole new one."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from video_mvit.errors import MissingFileError


@contextlib.contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yield a path in the same folder to write to; at the end of the block it becomes `path`.

    If the block or the disk fails, `path` stays as it was and the new file is removed. A replaced
    file hands its permissions on. Raises `FileNotFoundError` if there is no such folder.
    """
    if not path.parent.is_dir():
        raise MissingFileError(f"no folder {path.parent} to write {path.name} to")
    temporary = temporary_path(path)
    try:
        yield temporary
        move_into_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Return where `path` is written until it is complete; what a killed process left is reused."""
    return path.with_name(f"{path.name}.part")


def move_into_place(temporary: Path, path: Path) -> None:
    """Replace `path` by a complete file of the same file system, and make that last."""
    with contextlib.suppress(OSError):  # no old file, or a file system without permissions
        shutil.copymode(path, temporary)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Flush a renaming to the disk; systems that cannot open folders do without."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems refuse it
        pass
    finally:
        os.close(descriptor)
