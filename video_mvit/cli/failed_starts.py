"""A start that is refused leaves nothing behind."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from omegaconf.errors import OmegaConfBaseException

from video_mvit.cli.own_code import own_traceback
from video_mvit.cli.run_folder import LOCK, is_first_process
from video_mvit.cli.run_log import close_logs
from video_mvit.errors import UserError

REFUSALS = (UserError, OSError, OmegaConfBaseException, KeyboardInterrupt)


@contextlib.contextmanager
def leaving_nothing(folder: Path, but: Path | None = None) -> Iterator[None]:
    """Empty a folder that held nothing before, where a mistake of the user's ends the block.

    The mistake is told in one sentence. Any other error, and any in code of the user's own, leaves
    the folder, with its traceback in the log. This process must hold the folder alone. A path
    that is `but`, or contains it, stays.
    """
    if not is_first_process():
        yield
        return
    is_new = not any(path.name != LOCK for path in folder.iterdir())
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        is_refused = isinstance(error, REFUSALS) or isinstance(error.__cause__, UserError)
        is_mistake = isinstance(error, UserError | KeyboardInterrupt) or not own_traceback(error)
        if is_new and is_refused and is_mistake:
            close_logs(folder)
            for path in folder.iterdir():
                if but is not None and but.resolve().is_relative_to(path.resolve()):
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != LOCK:
                    path.unlink()
        raise
