"""Report user errors in one sentence, errors in a user's own code by file and line."""

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Iterator, Mapping

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from video_mvit.cli.lost_processes import lost_process
from video_mvit.cli.own_code import own_traceback
from video_mvit.cli.run_folder import is_first_process
from video_mvit.cli.run_log import RunLog
from video_mvit.data.reading.open import VideoDecodeError
from video_mvit.errors import UserError
from video_mvit.text import fitted, printable, printable_lines

FILE_ERRORS = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
)
USER_ERRORS = (UserError, VideoDecodeError, OmegaConfBaseException)
OWN_NAMES = ("UserError", "MissingFileError", "VideoDecodeError")  # seen in worker processes
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MISCONFIGURATION = "MisconfigurationException"  # of Lightning, which takes seconds to import
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Exit with code 1 on an error of the user's; other exceptions propagate.

    A mistake in settings or data is one sentence. An error in the user's own code is a traceback of
    that code, whose whole is in the log file of the run. `hydra.verbose=true` logs the whole
    traceback of either.
    """
    try:
        yield
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            cause = error.__cause__
            if isinstance(error, HydraException) and isinstance(cause, Exception):
                # Hydra would show a sentence of its own instead of where a constructor failed.
                log_traceback(cause)
                _exit_on_own_code(cause)
                raise cause from cause.__cause__
            log_traceback(error)
            _exit_on_own_code(error)
            raise
        logger.debug("traceback", exc_info=True)
        told = fitted(f"error: {printable(sentence)}", sys.stderr)
        sys.exit(told if may_print(os.environ) else 1)


@contextlib.contextmanager
def raised_to_caller() -> Iterator[None]:
    """Let errors reach a caller in Python: mistakes as `UserError`, all others as they were raised.

    An error in the user's own code is in the log file of the run as well.
    """
    try:
        yield
    except (UserError, VideoDecodeError):
        raise
    except Exception as error:
        if sentence := _sentence(error):
            raise UserError(sentence) from error
        cause = error.__cause__
        if isinstance(error, HydraException) and isinstance(cause, Exception):
            log_traceback(cause)
            raise cause from cause.__cause__
        log_traceback(error)
        raise


def _exit_on_own_code(error: Exception) -> None:
    """Exit with the traceback of the user's own code, where the error happened in it."""
    text = own_traceback(error)
    if not text:
        return
    logger.debug("traceback", exc_info=error)
    handlers = logging.getLogger().handlers
    logs = [each.baseFilename for each in handlers if isinstance(each, RunLog)]
    whole = f"is in {os.path.relpath(logs[0])}" if logs else "is shown by hydra.verbose=true"
    end = f"{text}\n(calls outside of your code are left out; the whole traceback {whole})"
    sys.exit(printable_lines(end) if may_print(os.environ) else 1)


def _sentence(error: Exception) -> str | None:
    """Return the message for a user error; None for a bug of the program, or of own code."""
    if isinstance(error, HydraException):  # wraps the exception of a constructor
        cause = error.__cause__
        if not isinstance(cause, Exception):
            return str(error)
        _, _, key = str(error).rpartition("full_key: ")
        sentence = str(cause) if _has_wrong_arguments(cause) else _sentence(cause)
        return sentence and f"{sentence}" + (f" (in {key})" if key else "")
    if isinstance(error, OSError) and error.errno in (*FULL_DISK, errno.EROFS):
        file = error.filename or "a file of the run"
        advice = "make it writable" if error.errno == errno.EROFS else "free some space"
        return f"{error.strerror}: {file}; {advice} and try again"
    if lost := lost_process(error):
        return lost
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if lines[0].startswith("Caught ") and "DataLoader worker" in lines[0]:
        name, _, sentence = lines[-1].partition(": ")
        return sentence if name.rpartition(".")[2] in OWN_NAMES else None
    is_file_error = isinstance(error, FILE_ERRORS) and error.filename is not None
    is_user_error = isinstance(error, USER_ERRORS) or type(error).__name__ == MISCONFIGURATION
    if isinstance(error, UserError | VideoDecodeError):
        return str(error)  # one sentence; names in it may hold line ends
    if not is_user_error and not is_file_error:
        return None
    is_of_settings = isinstance(error, OmegaConfBaseException)
    return None if not is_of_settings and own_traceback(error) else lines[0]


def _has_wrong_arguments(error: Exception) -> bool:
    """Return whether a call refused its arguments, so that nothing ran below the call."""
    traceback = error.__traceback__
    return isinstance(error, TypeError) and traceback is not None and traceback.tb_next is None


def log_traceback(error: Exception) -> None:
    """Write an exception to the log files of the run; the terminal shows it anyway."""
    about = (type(error), error, error.__traceback__)
    record = logger.makeRecord(
        logger.name, logging.ERROR, __file__, 0, "stopped by an error", (), about
    )
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def may_print(environment: Mapping[str, str]) -> bool:
    """Return whether this rank should print: until ranks are connected, all see the same errors."""
    if is_first_process(environment):
        return True
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_initialized()
