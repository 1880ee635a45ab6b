"""Print the differences of two evaluations: metrics, flipped predictions, significance."""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from rich.markup import escape
from rich.table import Table

from video_mvit.class_heads import ALL
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.multilabel_comparison_table import compare_multilabel_folders
from video_mvit.cli.regression_comparison_table import compare_regression_folders
from video_mvit.cli.tables import wide_console
from video_mvit.errors import UserError
from video_mvit.evaluation.comparison import SIGNIFICANT, Comparison, Flip, compare
from video_mvit.evaluation.intervals import Interval
from video_mvit.evaluation.listed_results import task_in
from video_mvit.evaluation.metrics import NUM_BINS
from video_mvit.evaluation.multihead_comparison import compare_heads
from video_mvit.evaluation.multihead_results import MultiHeadResult, read_multihead_folder
from video_mvit.evaluation.output_folder import read_folder
from video_mvit.evaluation.results import Result, differences
from video_mvit.evaluation.view_scores import Task
from video_mvit.files import replace_atomically
from video_mvit.prediction.writers import shown_name
from video_mvit.text import csv_cell, percent, printable

TITLES = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_class_accuracy": "mean class accuracy",
    "calibration_error": f"ECE ({NUM_BINS} bins)",
}
NUM_SHOWN = 10  # videos that flipped, each way
console = wide_console()


def show_numbers(first: Result, second: Result) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("", "before", "after", "difference"):
        table.add_column(column, justify="right" if column else "left")
    a, b = first.accuracies, second.accuracies
    for name, title in TITLES.items():
        before, after = getattr(a, name), getattr(b, name)
        texts = (
            f"{percent(share)}{_span(result.intervals.get(name))}"
            for share, result in ((before, first), (after, second))
        )
        table.add_row(title, *texts, f"{100 * (after - before):+.1f}")
    for test in a.motion:
        if test in b.motion:
            before, after = a.motion[test], b.motion[test]
            change = f"{100 * (after - before):+.1f}"
            table.add_row(f"top-1 {test}", percent(before), percent(after), change)
    table.add_row("videos", f"{first.num_videos:,}", f"{second.num_videos:,}", "")
    console.print(table)


def _span(interval: Interval | None) -> str:
    """Return a 95 % interval in percent, with a space before it; "" where it is not known."""
    return "" if interval is None else f" {100 * interval.low:.1f}\u2013{100 * interval.high:.1f}"


def show_comparison(
    first: Result | MultiHeadResult, second: Result | MultiHeadResult, comparison: Comparison
) -> None:
    found = differences(first.origin.identity, second.origin.identity)
    console.print(f"\n'after' used {', '.join(found) or 'the same list, weights and views'}")
    if comparison.num_only_one:
        console.print(
            f"{comparison.num_only_one:,} videos were evaluated in one of them only and are "
            "excluded below"
        )
    change, (low, high) = comparison.difference, comparison.interval
    console.print(
        f"top-1 over the same {comparison.num_videos:,} videos: {100 * change:+.2f} (95 % "
        f"interval {100 * low:+.2f} to {100 * high:+.2f}); {len(comparison.fixed):,} fixed, "
        f"{len(comparison.broken):,} broken"
    )
    change, (low, high) = comparison.calibration_difference
    console.print(
        f"ECE over the same videos: {100 * change:+.2f} (95 % interval {100 * low:+.2f} to "
        f"{100 * high:+.2f})"
    )
    p_value = f"p = {comparison.p_value:.2g}, exact McNemar test"
    if not comparison.fixed and not comparison.broken:
        console.print("no prediction flipped")
    elif comparison.p_value < SIGNIFICANT:
        console.print(f"significant ({p_value})")
    else:
        console.print(f"not significant ({p_value})")
    show_flips("broken (correct before, wrong after)", comparison.broken, wrong_in="after")
    show_flips("fixed (wrong before, correct after)", comparison.fixed, wrong_in="before")


def show_flips(title: str, flips: tuple[Flip, ...], wrong_in: Literal["before", "after"]) -> None:
    """Print some flipped videos with the wrong class that they were predicted as."""
    if not flips:
        return
    console.print(f"\n{title}: {len(flips):,}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("video", "label", f"predicted as, {wrong_in}"):
        table.add_column(column, no_wrap=True)
    for flip in flips[:NUM_SHOWN]:
        shown = (shown_name(flip.video), flip.label, getattr(flip, wrong_in))
        table.add_row(*(escape(printable(each)) for each in shown))
    console.print(table)
    if len(flips) > NUM_SHOWN:
        console.print(f"and {len(flips) - NUM_SHOWN:,} more")


def compare_multihead_folders(before: Path, after: Path, flips: Path | None) -> None:
    """Compare two evaluations of the same videos with several heads: each, and all together."""
    with exit_on_user_error():
        (first, old), (second, new) = map(read_multihead_folder, (before, after))
        comparisons = compare_heads((first, old), (second, new))
        if flips:
            write_flips(flips, comparisons[ALL])
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("top-1", "before", "after", "difference", "95 % interval", "p"):
        table.add_column(column, justify="left" if column == "top-1" else "right")
    for head, found in comparisons.items():
        low, high = (100 * limit for limit in found.interval)
        table.add_row(
            "all heads" if head == ALL else escape(printable(head)),
            *(percent(number / found.num_videos) for number in found.num_right),
            f"{100 * found.difference:+.2f}",
            f"{low:+.2f} to {high:+.2f}",
            f"{found.p_value:.2g}",
        )
    console.print(f"over the same {comparisons[ALL].num_videos:,} videos")
    console.print(table)
    console.print("\nall heads together")
    show_comparison(first, second, comparisons[ALL])
    if flips:
        console.print(f"\nall flips: {printable(shown_name(str(flips)))}", markup=False)


# Task -> what its evaluations are, and the function that compares two of them.
COMPARE_TASK: Mapping[Task, tuple[str, Callable[[Path, Path, Path | None], None]]] = {
    "multi_label": ("with several labels", compare_multilabel_folders),
    "multi_head": ("with several heads", compare_multihead_folders),
    "regression": ("of numbers", compare_regression_folders),
}


def can_flip(folder: Path) -> bool:
    """Return whether a prediction of an evaluation is right or wrong, so that it can flip."""
    return task_in(folder) not in ("multi_label", "regression")


def compare_folders(before_folder: Path, after_folder: Path, flips: Path | None) -> None:
    """Compare two evaluations of the same videos; optionally write all flips to a CSV file."""
    tasks = {folder: task_in(folder) for folder in (before_folder, after_folder)}
    for task, (what, compare_task) in COMPARE_TASK.items():
        if task in tasks.values():
            with exit_on_user_error():
                for folder, found in tasks.items():
                    if found != task:
                        raise UserError(
                            f"{folder} holds no evaluation {what}; compare two of the same kind"
                        )
            compare_task(before_folder, after_folder, flips)
            return
    with exit_on_user_error():
        (first, before), (second, after) = (
            read_folder(folder) for folder in (before_folder, after_folder)
        )
        names = (first.origin.class_names, second.origin.class_names)
        comparison = compare(before, after, names)
        if flips:
            write_flips(flips, comparison)
    show_numbers(first, second)
    show_comparison(first, second, comparison)
    if flips:
        console.print(f"\nall flips: {printable(shown_name(str(flips)))}", markup=False)


def write_flips(path: Path, comparison: Comparison) -> None:
    with (
        replace_atomically(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["video", "label", "before", "after", "change"])
        for change, flips in (("fixed", comparison.fixed), ("broken", comparison.broken)):
            names = ((f.video, f.label, f.before, f.after) for f in flips)
            table.writerows([*map(csv_cell, each), change] for each in names)
