"""Draw the figures of the report as SVG that follows the light or dark theme of the page.

Each has its natural size on a narrow screen, with letters as large as those of the page.
"""

import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from video_mvit.evaluation.intervals import wilson
from video_mvit.evaluation.metrics import Bin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES = (5.0, 3.1)
# Matplotlib wants colours, the page wants variables: these colours stand for those variables.
INK, FAINT, GRID, ACCENT, WRONG = "#010101", "#010102", "#010103", "#010104", "#010105"
VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    GRID: "var(--line)",
    ACCENT: "var(--accent)",
    WRONG: "var(--wrong)",
}
STYLE = {
    "svg.fonttype": "none",
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}


def draw_calibration(bins: Sequence[Bin]) -> str:
    """Draw a reliability diagram above a histogram of the scores."""
    return draw_figure("calibration", partial(_calibration, bins=bins))


def _calibration(figure: "Figure", bins: Sequence[Bin]) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure.set_size_inches(INCHES[0], 4.4)
    top, bottom = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    filled = [b for b in bins if b.num_videos]
    lows, widths = [b.low for b in filled], [b.high - b.low for b in filled]
    bars = {"width": widths, "align": "edge", "linewidth": 0}
    shares = [b.accuracy for b in filled]
    top.bar(lows, shares, color=ACCENT, alpha=0.55, label="accuracy", **bars)
    intervals = [wilson(round(b.accuracy * b.num_videos), b.num_videos) for b in filled]
    reach = [
        [max(share - limit.low, 0) for share, limit in zip(shares, intervals, strict=True)],
        [max(limit.high - share, 0) for share, limit in zip(shares, intervals, strict=True)],
    ]
    middles = [(b.low + b.high) / 2 for b in filled]
    top.errorbar(middles, shares, reach, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
    scores, highs = [b.confidence for b in filled], [b.high for b in filled]
    top.hlines(scores, lows, highs, color=WRONG, linewidth=2.5, label="mean score")
    top.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1, label="calibrated")
    bottom.bar(lows, [b.num_videos for b in filled], color=FAINT, **bars)
    for axes in (top, bottom):
        axes.grid(visible=False, axis="x")
    top.set(ylabel="accuracy", ylim=(0, 1.02))
    top.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    bottom.set(ylabel="videos", xlabel="score of the best class", xlim=(0, 1))
    bottom.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    bottom.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
    figure.align_ylabels()
    add_legend(top)


def add_legend(axes: "Axes") -> None:
    """Place the legend above the panel, not over the data."""
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, columnspacing=1.2
    )


def draw_figure(name: str, fill: Callable[["Figure"], None]) -> str:
    """Return the SVG of a figure that a function fills; `name` seeds the ids inside it."""
    from matplotlib import style  # slow to import
    from matplotlib.figure import Figure

    file = io.StringIO()
    with style.context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=INCHES, layout="constrained")
        fill(figure)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return _for_page(file.getvalue())


def _for_page(svg: str) -> str:
    """Strip what the page defines itself (font, size, global style) or would load (DTD)."""
    _, tag, svg = svg.partition("<svg")
    svg = re.sub(r" (xmlns(:xlink)?|version|width|height)=\"[^\"]*\"", "", tag + svg, count=5)
    svg = re.sub(r"<defs>\s*<style.*?</defs>\s*", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r" id=\"(?![mp][0-9a-f]{10}\")[^\"]*\"", "", svg)  # the same in every figure
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    svg = svg.replace("xlink:href", "href")
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, variable)
    return svg.replace("<svg", '<svg aria-hidden="true"', 1)
