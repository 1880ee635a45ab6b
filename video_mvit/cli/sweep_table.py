"""The end of a sweep: a table of its runs, what differs between them, and the best."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from video_mvit.cli.run_summary import RunSummary


class SweepTable(Callback):
    """Print the table when Hydra has run all jobs of a sweep, wherever they ran."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        print_sweep(Path(config.hydra.sweep.dir))


def print_sweep(folder: Path) -> None:
    """Print what the runs of a sweep reached, each with its own options, and name the best."""
    from rich.markup import escape

    from video_mvit.cli.run_summary import in_words, percent, read_summary
    from video_mvit.cli.tables import table_of, wide_console

    runs = sorted((path for path in folder.iterdir() if path.name.isdecimal()), key=_number)
    found = {run: summary for run in runs if (summary := read_summary(run))}
    if not found:
        return
    words = {run: options_of_run(run) for run in found}
    varied = varied_keys(list(words.values()))
    best = best_run(found)
    metric = next(iter(found.values())).metric
    console = wide_console()
    table = table_of("run", *varied, metric, "epoch", "time")
    for run, summary in found.items():
        cells = [run.name, *(words[run].get(key, "") for key in varied)]
        cells += ["" if summary.best is None else percent(summary.best), str(summary.epoch or "")]
        style = "bold" if run == best else None
        table.add_row(*map(escape, [*cells, in_words(summary.time_s)]), style=style)
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
    pairs = (str(row).lstrip("+").partition("=") for row in rows)
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
