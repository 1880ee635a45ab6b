"""The page of ablations: tables and pictures from finished sweeps, beside the paper's numbers.

PYTHONPATH=scripts python -m ablations page runs/ablations --costs costs.json --machine "..."
"""

import argparse
import json
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from ablations.tables import TABLES, Table
from video_mvit.cli.sweep_table import options_of_run
from video_mvit.training.curves import read_rows

METRICS = {"top-1": "val/top1", "box AP": "val/box_ap"}
# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom.
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
PAGE, PICTURES = Path("docs/ablations.md"), Path("docs/_static")


class Mean(NamedTuple):
    """Mean over runs in percent, half its 95 % interval (None of one run), number of runs."""

    value: float
    half: float | None
    number: int

    def __str__(self) -> str:
        return f"{self.value:.1f}" + ("" if self.half is None else f" ± {self.half:.1f}")


def main(words: Sequence[str]) -> None:
    """Write the page and its pictures."""
    parser = argparse.ArgumentParser("ablations page", description=__doc__)
    parser.add_argument("runs", type=Path, help="folder with a folder of runs for each table")
    parser.add_argument("--costs", type=Path, nargs="*", default=[], help="that `cost` wrote")
    parser.add_argument("--machine", default="", help="on which the costs were measured")
    arguments = parser.parse_args(words)
    costs: dict[str, Any] = {}
    for path in arguments.costs:
        costs |= json.loads(path.read_text())["costs"]
    parts = [PAGE.read_text().partition("<!-- tables -->")[0] + "<!-- tables -->\n"]
    for table in TABLES:
        found = accuracies(arguments.runs / table.name, table)
        if found:
            draw(table, found, PICTURES / f"ablation_{table.name}.png")
        if found or table.name in costs:
            parts.append(section(table, found, costs.get(table.name, {}), arguments.machine))
    PAGE.write_text("\n".join(parts) + "\n")


def accuracies(folder: Path, table: Table) -> dict[str, Mean]:
    """Return the mean of each variant's last validation over the finished runs of a sweep.

    A run that ended before another one did not finish, and is left out with a line that says so.
    """
    values: dict[str, list[float]] = defaultdict(list)
    words, metric = table.variants(), METRICS[table.measure]
    ended: dict[Path, tuple[int, str, float]] = {}
    for run in folder.glob("*/metrics"):
        options = options_of_run(run.parent)
        variant = tuple((name, options.get(name, "").lower()) for name in table.options())
        rows = [row for row in read_rows(run) if metric in row.values]
        if rows and variant in words:
            ended[run.parent] = (rows[-1].step, words[variant], 100 * rows[-1].values[metric])
    num_steps = max((step for step, _, _ in ended.values()), default=0)
    for run, (step, name, value) in ended.items():
        if step == num_steps:
            values[name].append(value)
        else:
            sys.stderr.write(f"{run}: {step} of {num_steps} steps, left out\n")
    return {name: mean_of(values[name]) for name in table.labels if name in values}


def mean_of(values: Sequence[float]) -> Mean:
    """Return the mean and half its 95 % interval by Student's t."""
    n, half = len(values), None
    if n > 1:
        half = T95[min(n - 2, len(T95) - 1)] * statistics.stdev(values) / math.sqrt(n)
    return Mean(statistics.mean(values), half, n)


def section(table: Table, found: Mapping[str, Mean], costs: Mapping[str, Any], machine: str) -> str:
    """Return the section of a table in Markdown."""
    head = [f"\n## {table.title}\n", table.about, ""]
    measured = {name for size in costs.values() for name in size}
    names = [name for name in table.labels if name in found or name in measured]
    columns = ["", f"{table.measure} here, %"] if found else [""]
    for size in costs:
        columns += [f"a step, {size}", "memory"]
    columns += [f"{column}, paper" for column in table.columns] if table.paper else []
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for name in names:
        cells = [name]
        if found:
            cells.append(str(found.get(name, "")))
        for of_size in costs.values():
            cost = of_size.get(name)
            time_s = cost and cost["step_s"]
            cells.append(f"{time_s:.2f} s" if time_s else "")
            cells.append(f"{cost['peak_mb']:,} MB" if cost else "")
        if table.paper:
            cells += [str(value) for value in table.paper.get(name, ("",) * len(table.columns))]
        lines.append("| " + " | ".join(cells) + " |")
    tail = [""]
    if found:
        tail.append(comparison(table, found))
        tail.append(f"\n![{table.title}: {table.measure}](_static/ablation_{table.name}.png)")
    if costs and machine:
        network = "backbone and pyramid of Mask R-CNN with S" if is_detector(table) else "S"
        tail.append(
            f"\nA step: forward and backward pass of {network}, one item in float32, {machine}; "
            "memory is the peak of the process."
        )
    return "\n".join([*head, *lines, *tail])


def is_detector(table: Table) -> bool:
    """Return whether a table is of detectors."""
    return any("mask_rcnn" in str(options["name"]) for options in table.published.values())


def comparison(table: Table, found: Mapping[str, Mean]) -> str:
    """Say which order here is that of the paper, of pairs whose intervals do not overlap."""
    runs = max(each.number for each in found.values())
    text = f"Mean of {runs} runs with their 95 % interval (Student's t), last validation."
    if runs < 2:
        return "One run each, without an interval: differences may be chance. Last validation."
    if not table.paper:
        return text
    decided, same = [], 0
    for a, b in combinations(found, 2):
        gap = found[a].value - found[b].value
        reach = (found[a].half or 0) + (found[b].half or 0)
        there = (table.paper[a][0] or 0) - (table.paper[b][0] or 0)
        if abs(gap) > reach and there:
            decided.append((a, b))
            same += (gap > 0) == (there > 0)
    if not decided:
        return f"{text} No two variants differ by more than their intervals."
    return (
        f"{text} Pairs that differ by more than their intervals, and in the paper's "
        f"{table.columns[0]}: {len(decided)}; in the paper's order: {same}."
    )


def draw(table: Table, found: Mapping[str, Mean], path: Path) -> None:
    """Write a picture: the mean of each variant with its interval, and the paper's first column."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(7, 0.5 + 0.42 * len(found)), dpi=120, layout="constrained")
    names = list(found)[::-1]
    panels = figure.subplots(1, 2 if table.paper else 1, sharey=True, squeeze=False)[0]
    means = [found[name].value for name in names]
    panels[0].errorbar(means, names, xerr=[found[n].half or 0 for n in names], fmt="o", capsize=3)
    panels[0].set_xlabel(f"{table.measure} here, %")
    if table.paper:
        panels[1].plot([table.paper[name][0] for name in names], names, "o", color="tab:gray")
        panels[1].set_xlabel(f"{table.columns[0]}, paper, %")
    for panel in panels:
        panel.set_ylim(-0.5, len(names) - 0.5)
        panel.grid(axis="x", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
