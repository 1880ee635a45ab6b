"""A person's mistake, told in one sentence: what was wrong, and where."""

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
MISCONFIGURATION = "MisconfigurationException"  # Lightning's, which takes seconds to import
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End with one sentence and exit code 1 where the person, not the program, was wrong.

    `hydra.verbose=true` shows the traceback as well.
    """
    try:
        yield
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        logger.debug("where it happened", exc_info=True)
        sys.exit(f"error: {sentence}" if may_print(os.environ) else 1)


def _sentence(error: Exception) -> str | None:
    """What to tell a person, or None where the program is to blame."""
    if isinstance(error, HydraException):  # wraps what a constructor said
        cause = error.__cause__
        _, _, key = str(error).rpartition("full_key: ")
        if not isinstance(cause, (*USER_ERRORS, TypeError)) and _name(cause) != MISCONFIGURATION:
            return None
        return f"{cause}" + (f" (in {key})" if key else "")
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return f"{error.strerror}: {error.filename or 'a file of the run'}; make room and resume"
    is_user_error = isinstance(error, USER_ERRORS) or _name(error) == MISCONFIGURATION
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if lines[0].startswith("Caught ") and "DataLoader worker" in lines[0]:
        return lines[-1].partition(": ")[2] if VideoDecodeError.__name__ in lines[-1] else None
    return lines[0] if is_user_error else None


def may_print(environment: Mapping[str, str]) -> bool:
    """Whether this process should tell: all ranks see the same mistakes until they have met."""
    if is_first_process(environment):
        return True
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_initialized()


def _name(error: object) -> str:
    return type(error).__name__
