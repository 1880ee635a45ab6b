"""Report user errors in one sentence: what was wrong, and where."""

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Iterator, Mapping

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from video_mvit.cli.run_folder import is_first_process
from video_mvit.data.reading.open import VideoDecodeError

FILE_ERRORS = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
)
USER_ERRORS = (
    ValueError,
    VideoDecodeError,
    OmegaConfBaseException,
    *FILE_ERRORS,
)
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
MISCONFIGURATION = "MisconfigurationException"  # of Lightning, which takes seconds to import
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Exit with one sentence and code 1 on a user error; other exceptions propagate.

    `hydra.verbose=true` logs the traceback as well.
    """
    try:
        yield
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        logger.debug("traceback", exc_info=True)
        sys.exit(f"error: {sentence}" if may_print(os.environ) else 1)


def _sentence(error: Exception) -> str | None:
    """Return the message for a user error; None for a bug of the program."""
    if isinstance(error, HydraException):  # wraps the exception of a constructor
        cause = error.__cause__
        _, _, key = str(error).rpartition("full_key: ")
        if not isinstance(cause, (*USER_ERRORS, TypeError)) and _name(cause) != MISCONFIGURATION:
            return None
        return f"{cause}" + (f" (in {key})" if key else "")
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return (
            f"{error.strerror}: {error.filename or 'a file of the run'}; free some space and resume"
        )
    is_user_error = isinstance(error, USER_ERRORS) or _name(error) == MISCONFIGURATION
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if lines[0].startswith("Caught ") and "DataLoader worker" in lines[0]:
        return lines[-1].partition(": ")[2] if VideoDecodeError.__name__ in lines[-1] else None
    return lines[0] if is_user_error else None


def may_print(environment: Mapping[str, str]) -> bool:
    """Return whether this rank should print: until ranks are connected, all see the same errors."""
    if is_first_process(environment):
        return True
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_initialized()


def _name(error: object) -> str:
    """Return the name of an exception's class."""
    return type(error).__name__
