"""Writing a file so that a crash or a full disk leaves the old one or the whole new one."""

import contextlib
import errno
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from video_mvit.errors import MissingFileError

UNFINISHED = (".part", ".new")  # of this version, of version 0.1
logger = logging.getLogger(__name__)


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
        with naming(path):
            temporary.unlink(missing_ok=True)  # of a killed process, or a link
            yield temporary
            move_into_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name a file in an `OSError` of the block that names none, as that of a full disk does."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def check_room(folder: Path, num_bytes: int) -> None:
    """Raise `OSError` on too full a disk; for writers that hide this error, or end the process."""
    if shutil.disk_usage(folder).free < num_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def temporary_path(path: Path) -> Path:
    """Return where `path` is written until it is complete."""
    return path.with_name(path.name + UNFINISHED[0])


def is_plain_file(path: Path) -> bool:
    """Return whether a path is a regular file, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):  # ValueError: no name of a file
        return False


def clear_leftovers(folder: Path, pattern: str) -> None:
    """Remove unfinished files directly in a folder that is no link, as killed processes leave them.

    `pattern` matches their final names. The folder must be locked for this process.
    """
    if folder.is_symlink():
        return
    for suffix in UNFINISHED:
        for path in filter(is_plain_file, folder.glob(pattern + suffix)):
            path.unlink()
            logger.info("removed %s, which a killed process left", path)


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
