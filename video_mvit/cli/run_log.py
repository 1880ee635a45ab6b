"""The log file of a run, which outlives a full disk."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from video_mvit.errors import UserError

logger = logging.getLogger(__name__)


class RunLog(logging.FileHandler):
    """Append to a log file; where that fails, say so once and go on.

    Attributes:
        problem: why the latest line is not in the file; "" where it is.
    """

    def __init__(self, path: Path) -> None:
        self.problem = ""
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))

    def _open(self) -> IO[Any]:  # type: ignore[override]
        """Open the file, which must not be a link to another one."""
        return open(
            self.baseFilename, "a", encoding=self.encoding, errors=self.errors, opener=_no_link
        )

    def emit(self, record: logging.LogRecord) -> None:
        before, self.problem = self.problem, ""
        super().emit(record)
        if self.problem and not before:
            logger.warning("%s; the run continues", self.problem)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self.problem = f"cannot write {self.baseFilename}: {error.strerror or error}"
        else:
            super().handleError(record)


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def close_logs(folder: Path) -> None:
    """Close the log files of this process in a folder."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, RunLog) and Path(handler.baseFilename).parent == folder.absolute():
            root.removeHandler(handler)
            handler.close()


def problems_of_logs() -> list[str]:
    """Return why log files of this process lack lines."""
    handlers = logging.getLogger().handlers
    return [each.problem for each in handlers if isinstance(each, RunLog) and each.problem]


def refuse_incomplete(problems: Sequence[str]) -> None:
    """Raise `UserError` for what was not written, though all else is done."""
    if problems:
        raise UserError(f"all is done, but {'; '.join(problems)}")
