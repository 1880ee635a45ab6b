"""Progress over videos on a terminal, beside results."""

import contextlib
from collections.abc import Iterator
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


class ProgressDisplay:
    """Progress over videos, and over windows of the current one, if stderr is a terminal."""

    def __init__(self, num_videos: int, items: str = "videos") -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            redirect_stdout=False,
            transient=True,
        )
        self._videos = self._progress.add_task(items, total=num_videos)
        self._windows = self._progress.add_task("windows", visible=False)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the progress while results are written to the same terminal."""
        self._progress.stop()
        yield
        self._progress.start()

    def count_video(self) -> None:
        self._progress.advance(self._videos)
        self._progress.update(self._windows, visible=False)

    def show_windows(self, num_done: int, num_windows: int) -> None:
        self._progress.update(
            self._windows, completed=num_done, total=num_windows, visible=num_done < num_windows
        )
