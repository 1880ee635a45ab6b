"""Print the differences of two evaluations with several labels: mAP, and classes that changed."""

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.tables import wide_console
from video_mvit.errors import UserError
from video_mvit.evaluation.listed_results import ListedResult
from video_mvit.evaluation.multilabel_comparison import MapComparison, compare_multilabel
from video_mvit.evaluation.multilabel_results import (
    MultiLabelResult,
    read_multilabel_folder,
)
from video_mvit.evaluation.results import differences
from video_mvit.text import percent, printable

NUM_SHOWN = 10  # classes that changed, each way
console = wide_console()


def compare_multilabel_folders(before: Path, after: Path, flips: Path | None) -> None:
    """Compare two evaluations of the same videos; raises `UserError` where one has one label."""
    with exit_on_user_error():
        if flips:
            raise UserError("--flips is for one class a video, or one in each head; leave it out")
        (first, old), (second, new) = map(read_multilabel_folder, (before, after))
        names = (first.origin.class_names, second.origin.class_names)
        comparison = compare_multilabel(old, new, names)
    _show_numbers(first, second)
    _show_comparison(first, second, comparison)


def _show_numbers(first: MultiLabelResult, second: MultiLabelResult) -> None:
    table = plain_table("", "before", "after", "difference")
    shown = {"map": "mAP", "map_weighted": "mAP, by videos", "f1_micro": "F1 micro"}
    shown |= {"f1_macro": "F1 macro", "exact": "all classes right"}
    for field, name in shown.items():
        one, two = getattr(first.numbers, field), getattr(second.numbers, field)
        table.add_row(name, percent(one), percent(two), f"{100 * (two - one):+.1f}")
    table.add_row("videos", f"{first.num_videos:,}", f"{second.num_videos:,}", "")
    console.print(table)


def _show_comparison(
    first: MultiLabelResult, second: MultiLabelResult, comparison: MapComparison
) -> None:
    tell_setups(first, second, comparison.num_only_one)
    change, (low, high) = comparison.after - comparison.before, comparison.interval
    console.print(
        f"mAP over the same {comparison.num_videos:,} videos: {100 * change:+.2f} (95 % interval "
        f"{100 * low:+.2f} to {100 * high:+.2f}, over resampled videos): "
        f"{'significant' if comparison.is_significant else 'not significant'}"
    )
    worse = [each for each in comparison.changes if each[2] < each[1]]
    better = [each for each in reversed(comparison.changes) if each[2] > each[1]]
    for title, changes in (("worse", worse), ("better", better)):
        if not changes:
            continue
        console.print(f"\n{title}: {len(changes):,} classes")
        table = plain_table("class", "AP before", "after", "difference")
        for name, one, two in changes[:NUM_SHOWN]:
            difference = f"{100 * (two - one):+.1f}"
            table.add_row(escape(printable(name)), percent(one), percent(two), difference)
        console.print(table)
        if len(changes) > NUM_SHOWN:
            console.print(f"and {len(changes) - NUM_SHOWN:,} more")


def tell_setups(first: ListedResult, second: ListedResult, num_only_one: int) -> None:
    """Print how two evaluations differ, and how many videos only one of them has."""
    found = differences(first.origin.identity, second.origin.identity)
    console.print(f"\n'after' used {', '.join(found) or 'the same list, weights and views'}")
    if num_only_one:
        console.print(
            f"{num_only_one:,} videos were evaluated in one of them only and are excluded below"
        )


def plain_table(*columns: str) -> Table:
    """Return a table without lines, its first column of text and the others of numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    return table
