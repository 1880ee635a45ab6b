"""Print the differences of two regressions: errors of the targets, and videos that changed."""

from pathlib import Path

from rich.markup import escape

from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.multilabel_comparison_table import console, plain_table, tell_setups
from video_mvit.errors import UserError
from video_mvit.evaluation.regression_comparison import (
    RegressionComparison,
    compare_regressions,
)
from video_mvit.evaluation.regression_results import (
    RegressionResult,
    read_regression_folder,
)
from video_mvit.prediction.writers import shown_name
from video_mvit.text import printable

NUM_SHOWN = 10  # videos that changed, each way


def compare_regression_folders(before: Path, after: Path, flips: Path | None) -> None:
    """Compare two evaluations of the same videos; raises `UserError` where one has classes."""
    with exit_on_user_error():
        if flips:
            raise UserError("--flips is for one class a video, or one in each head; leave it out")
        (first, old), (second, new) = map(read_regression_folder, (before, after))
        names = (first.origin.class_names, second.origin.class_names)
        comparison = compare_regressions(old, new, names)
    _show_numbers(first, second)
    tell_setups(first, second, comparison.num_only_one)
    _show_targets(comparison)
    _show_videos(comparison, "worse", "better")


def _show_numbers(first: RegressionResult, second: RegressionResult) -> None:
    table = plain_table("", "before", "after", "difference")
    later = second.by_name
    for name, one in first.by_name.items():
        two, shown = later[name], escape(printable(name))
        change = f"{two.mae - one.mae:+.4g}"
        table.add_row(f"MAE {shown}", f"{one.mae:.4g}", f"{two.mae:.4g}", change)
        if one.r2 is not None and two.r2 is not None:
            change = f"{two.r2 - one.r2:+.3f}"
            table.add_row(f"R2 {shown}", f"{one.r2:.3f}", f"{two.r2:.3f}", change)
    table.add_row("videos", f"{first.num_videos:,}", f"{second.num_videos:,}", "")
    console.print(table)


def _show_targets(comparison: RegressionComparison) -> None:
    for each in comparison.targets:
        low, high = each.interval
        console.print(
            f"MAE {printable(each.name)} over the same {comparison.num_videos:,} videos: "
            f"{each.after - each.before:+.4g} (95 % interval {low:+.4g} to {high:+.4g}, over "
            f"resampled videos): {'significant' if each.is_significant else 'not significant'}",
            markup=False,
        )


def _show_videos(comparison: RegressionComparison, *titles: str) -> None:
    worse = [each for each in comparison.videos if each.after > each.before]
    better = [each for each in reversed(comparison.videos) if each.after < each.before]
    unit = "" if len(comparison.targets) == 1 else ", by error in standard deviations"
    for title, changes in zip(titles, (worse, better), strict=True):
        if not changes:
            continue
        console.print(f"\n{title}: {len(changes):,} videos{unit}")
        table = plain_table("video", "error before", "after", "difference")
        for video, one, two in changes[:NUM_SHOWN]:
            name = escape(printable(shown_name(video)))
            table.add_row(name, f"{one:.4g}", f"{two:.4g}", f"{two - one:+.4g}")
        console.print(table)
        if len(changes) > NUM_SHOWN:
            console.print(f"and {len(changes) - NUM_SHOWN:,} more")
