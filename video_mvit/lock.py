"""One writer per folder or file: a lock that the system releases when its process ends.

It is a POSIX record lock on a small file that says who holds it. Worker processes do not inherit
it, and it ends with its process, however that ends: what a killed run leaves is taken over at once.
Between hosts it holds where the file system passes such locks on, as NFS does; where a file system
has no locks, a warning says so.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from video_mvit.errors import UserError

HELD = (errno.EACCES, errno.EAGAIN)  # by another process
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
MAX_BYTES = 500  # of a lock file
MAX_TRIES = 20  # each of them lost to a holder that has just ended
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def only_writer(path: Path, what: str, advice: str) -> Iterator[None]:
    """Hold the lock file `path` during the block; at the end it is removed.

    Raises `UserError` that says who writes to `what`, and advises; or that nothing can be written.
    """
    descriptor = _open_locked(path, what, advice)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _open_locked(path: Path, what: str, advice: str) -> int:
    """Return the descriptor of the locked file, which now names this process."""
    for _ in range(MAX_TRIES):
        descriptor = _open(path)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _read_holder(descriptor)
            if error.errno in HELD:
                os.close(descriptor)
                raise UserError(
                    f"{what} is in use by {holder or 'another process'}; {advice}"
                ) from None
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            logger.warning(
                "the file system of %s has no locks; make sure that nothing else writes to %s",
                path.parent,
                what,
            )
        if _is_at(descriptor, path):
            break
        os.close(descriptor)  # its holder has just removed it
    else:
        raise UserError(f"{path} cannot be locked; {advice}")
    if holder := _read_holder(descriptor):
        logger.warning(
            "%s was in use by %s, which ended without releasing it; taking it over", what, holder
        )
    _write_holder(descriptor)
    return descriptor


def _open(path: Path) -> int:
    """Open a lock file, a regular one and no link."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror or error}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"cannot write to {path.parent}: {path.name} there is not a regular file")
    return descriptor


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether the path still names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


def _write_holder(descriptor: int) -> None:
    about = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now().astimezone().isoformat(" ", "seconds"),
    }
    with contextlib.suppress(OSError):  # a full disk: the lock holds without words
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(about).encode(), 0)


def _read_holder(descriptor: int) -> str:
    """Describe the process that the file names; "" where it names none."""
    try:
        about = json.loads(os.pread(descriptor, MAX_BYTES, 0))
        host, pid, since = str(about["host"]), int(about["pid"]), str(about["since"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return ""
    is_printable = (host + since).isprintable() and len(host) < 100 and len(since) < 40
    return f"process {pid} on {host} since {since}" if is_printable else ""
