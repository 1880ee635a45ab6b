"""The end of a sweep: a table of its runs, what differs between them, and the best."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from video_mvit.cli.run_summary import RunSummary


class SweepTable(Callback):
    """Print the table when Hydra has run all jobs of a sweep, wherever they ran."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        failed, folder = dict(FAILED), Path(config.hydra.sweep.dir)
        FAILED.clear()
        print_sweep(folder, failed)
        if failed:
            num = len(failed)
            sys.exit(f"error: {num} job{'s' * (num > 1)} of the sweep ended by an error, see above")


FAILED: dict[int, list[str]] = {}  # jobs of this process: number -> the words of its own


@contextlib.contextmanager
def failed_jobs_kept() -> Iterator[None]:
    """Print the error that ends a job of a sweep, and keep the job, so that the others run."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    try:
        yield
    except SystemExit as end:
        hydra = HydraConfig.get()
        if hydra.mode != RunMode.MULTIRUN or not isinstance(end.code, str):
            raise
        words: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
        FAILED[int(hydra.job.num)] = words
        sys.stderr.write(f"{end.code}\n")


def print_sweep(folder: Path, failed: Mapping[int, Sequence[str]]) -> None:
    """Print what the runs of a sweep reached, each with its own options, and name the best.

    `failed` are the words of the jobs that ended by an error.
    """
    from rich.markup import escape

    from video_mvit.cli.run_summary import in_words, read_summary
    from video_mvit.cli.tables import table_of, wide_console
    from video_mvit.text import metric_text

    folders = folder.iterdir() if folder.is_dir() else ()
    runs = sorted((path for path in folders if path.name.isdecimal()), key=_number)
    found = {run: summary for run in runs if (summary := read_summary(run))}
    found = {run: each for run, each in found.items() if _number(run) not in failed}
    lost = {folder / str(number): _as_options(each) for number, each in failed.items()}
    if not found and not lost:
        return
    words = {run: options_of_run(run) for run in found} | lost
    varied = varied_keys(list(words.values()))
    best = best_run(found)
    metric = next((each.metric for each in found.values()), "")
    console = wide_console()
    table = table_of("run", *varied, metric, "epoch", "time")
    for run in sorted(words, key=_number):
        cells, summary = [run.name, *(words[run].get(key, "") for key in varied)], found.get(run)
        if summary is None:
            cells += ["failed", "", ""]
        else:
            value = "" if summary.best is None else metric_text(metric, summary.best)
            cells += [value, str(summary.epoch or ""), in_words(summary.time_s)]
        table.add_row(*map(escape, cells), style="bold" if run == best else None)
    console.print(table)
    if best:
        console.print(f"best: {best}  next: video-mvit evaluate {shlex.quote(str(best))}")


def _number(path: Path) -> int:
    return int(path.name)


def options_of_run(run: Path) -> dict[str, str]:
    """Return the options that a job of a sweep was started with, as texts."""
    from video_mvit.cli.run_words import OVERRIDES
    from video_mvit.cli.saved_settings import read_rows
    from video_mvit.errors import UserError

    try:
        rows = read_rows(run / OVERRIDES)
    except (OSError, UserError):
        return {}
    return _as_options(map(str, rows))


def _as_options(words: Iterable[str]) -> dict[str, str]:
    pairs = (word.lstrip("+").partition("=") for word in words)
    return {key: value for key, _, value in pairs}


def varied_keys(options: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the keys whose values differ between runs."""
    keys = dict.fromkeys(key for each in options for key in each)
    return [key for key in keys if len({each.get(key) for each in options}) > 1]


def best_run(found: Mapping[Path, RunSummary]) -> Path | None:
    """Return the run with the best value; None where none was validated."""
    scored = {run: each.best for run, each in found.items() if each.best is not None}
    is_max = all(each.is_max for each in found.values())
    choose = max if is_max else min
    return choose(scored, key=lambda run: scored[run]) if scored else None
