"""Errors in a user's own code (augmentation, data set, model, loss, callback): where they happened.

Own is what is neither of this package, nor of Python, nor of an installed one.
"""

import functools
import os
import re
import site
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import video_mvit

ENTRY = re.compile(r'  File "(?P<path>.+)", line \d+(?:, in (?P<name>.*))?')  # of a traceback
CELLS = ("<stdin>", "<ipython-input", "<string>")  # code that is in no file
FROM_LOADER = re.compile(r"Caught \w+ in (DataLoader worker process|pin memory thread)")


def own_traceback(error: BaseException) -> str:
    """Return the traceback of an error with the frames of the user's own code, and the last one.

    Returns "" for an error that happened elsewhere.
    """
    if FROM_LOADER.match(str(error)):
        return _own_lines(str(error).rstrip("\n").split("\n"))
    summary = traceback.TracebackException.from_exception(error)
    parts = list(_chain(summary))
    is_syntax = isinstance(error, SyntaxError) and is_own(error.filename or "")
    if not is_syntax and not any(
        is_own_frame(each.filename, each.name) for part in parts for each in part.stack
    ):
        return ""
    for part in parts:
        last = len(part.stack) - 1
        own = [
            each
            for i, each in enumerate(part.stack)
            if i == last or is_own_frame(each.filename, each.name)
        ]
        part.stack = traceback.StackSummary.from_list(own)
    return "".join(summary.format()).rstrip("\n")


def is_own_frame(path: str, name: str) -> bool:
    """Return whether a frame is of the user's own code; methods that dataclasses make are not."""
    return is_own(path) and not (path == "<string>" and name.startswith("__"))


def is_own(path: str) -> bool:
    """Return whether code is the user's own, by the name of its file."""
    if path.startswith("<"):
        return path.startswith(CELLS)
    real = Path(os.path.realpath(path))
    return not any(real.is_relative_to(folder) for folder in _folders_of_others())


@functools.cache
def _folders_of_others() -> tuple[Path, ...]:
    """Return where this package, Python and the installed packages are."""
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    found = [*(sysconfig.get_path(kind) for kind in kinds), *site.getsitepackages()]
    found += [site.getusersitepackages(), os.path.dirname(video_mvit.__file__)]
    return tuple(dict.fromkeys(Path(os.path.realpath(each)) for each in found))


def _chain(summary: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    """Yield a summary, and those of the errors that it came from."""
    part: traceback.TracebackException | None = summary
    while part is not None:
        yield part
        part = part.__cause__ or part.__context__


def _own_lines(lines: Sequence[str]) -> str:
    """Do the same for the text of an error in a loader process, which has its traceback."""
    kept: list[str] = []
    entry: list[str] = []
    has_own = False
    for line in lines:
        match = ENTRY.match(line)
        if match or not line.startswith("  "):
            if entry and not match:  # the last of a traceback
                kept += entry
            entry = []
        if match and is_own_frame(match["path"], match["name"] or ""):
            has_own = True
            kept.append(line)
        elif match or entry:
            entry.append(line)
        else:
            kept.append(line)
    return "\n".join(kept) if has_own else ""
