"""What a training made, told at its end and kept for the table of a sweep."""

import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from video_mvit.cli.runs import CHECKPOINTS, best_of, checkpoints_of
from video_mvit.files import replace_atomically
from video_mvit.text import metric_text
from video_mvit.training.curves import read_rows

SUMMARY = "summary.json"  # in a run folder
MAX_BYTES = 10_000  # of it
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The best epoch of a run, counted from 1, by the metric that its best checkpoint is kept by.

    `best` and `epoch` are None where nothing was validated; `time_s` is of this start.
    """

    metric: str
    is_max: bool
    best: float | None
    epoch: int | None
    num_epochs: int | None
    time_s: float

    def lines(self, folder: Path) -> list[str]:
        """Return the closing lines: the best epoch, the checkpoint, and the next command."""
        done, here = f"done in {in_words(self.time_s)}", Path.cwd()
        folder = folder.relative_to(here) if folder.is_relative_to(here) else folder
        run = shlex.quote(str(folder))
        if not checkpoints_of(folder):
            return [done]
        checkpoint = f"{folder / CHECKPOINTS / best_of(folder)}.ckpt"
        if self.best is None or self.epoch is None:
            return [f"{done}  {checkpoint}", f"next: video-mvit evaluate {run}"]
        of = f"/{self.num_epochs}" if self.num_epochs else ""
        best = f"best {self.metric} {metric_text(self.metric, self.best)} in epoch {self.epoch}{of}"
        return [f"{done}  {best}  {checkpoint}", f"next: video-mvit evaluate {run}"]


def close_run(trainer: pl.Trainer, folder: Path, time_s: float) -> None:
    """Write the summary of a run, and log its closing lines; on the first of several processes."""
    if not trainer.is_global_zero:
        return
    summary = summarize_run(trainer, folder, time_s)
    with replace_atomically(folder / SUMMARY) as temporary:
        temporary.write_text(json.dumps(asdict(summary)) + "\n", encoding="utf-8")
    for line in summary.lines(folder):
        logger.info("%s", line)


def summarize_run(trainer: pl.Trainer, folder: Path, time_s: float) -> RunSummary:
    """Find the best epoch in the metrics that the run has logged, its earlier starts included."""
    saves = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
    watched = [(each.monitor, each.mode) for each in saves if each.monitor not in (None, "step")]
    metric, mode = watched[0] if watched else ("", "max")
    try:
        rows = read_rows(folder / "metrics")
    except (OSError, ValueError):
        rows = []
    values = {row.epoch + 1: row.values[str(metric)] for row in rows if metric in row.values}
    choose = max if mode == "max" else min
    epoch = choose(values, key=lambda number: values[number]) if values else None
    return RunSummary(
        metric=str(metric),
        is_max=mode == "max",
        best=values[epoch] if epoch else None,
        epoch=epoch,
        num_epochs=trainer.max_epochs if trainer.max_epochs != -1 else None,
        time_s=round(time_s, 1),
    )


def read_summary(folder: Path) -> RunSummary | None:
    """Read the summary of a run; None where there is none, or none that can be read."""
    try:
        with (folder / SUMMARY).open("rb") as file:
            content: Any = json.loads(file.read(MAX_BYTES))
        return RunSummary(**content) if _is_summary(content) else None
    except (OSError, ValueError, RecursionError):
        return None


def _is_summary(content: object) -> bool:
    number = (int, float, type(None))
    kinds: Mapping[str, Any] = {
        **{"metric": str, "is_max": bool, "best": number},
        **{"epoch": (int, type(None)), "num_epochs": (int, type(None)), "time_s": (int, float)},
    }
    return (
        isinstance(content, dict)
        and content.keys() == kinds.keys()
        and all(isinstance(content[name], kind) for name, kind in kinds.items())
    )


def in_words(seconds: float) -> str:
    """Return a time in its two largest units: "2 min 9 s"."""
    units: Sequence[tuple[str, int]] = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    left, found = round(seconds), list[str]()
    for name, size in units:
        number, left = divmod(left, size)
        if number or (name == "s" and not found):
            found.append(f"{number} {name}")
    return " ".join(found[:2])
