"""Draw the figures of the report as SVG that follows the light or dark theme of the page.

Each has its natural size on a narrow screen, with letters as large as those of the page.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from video_mvit.evaluation.metrics import Bin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]  # epoch, value
Curves = Mapping[str, Points]  # by the name under which a run logs them

INCHES = (5.0, 3.1)
MAX_POINTS = 120  # of a line; more are averaged
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


class Line(NamedTuple):
    metric: str
    label: str
    color: str
    dashes: str


PANELS = {
    "Loss": (
        Line("train/loss", "training", FAINT, "-"),
        Line("val/loss", "validation", ACCENT, "-"),
    ),
    "Accuracy on the validation list": (
        Line("val/top1", "top-1", ACCENT, "-"),
        Line("val/top5", "top-5", FAINT, "-"),
        Line("val/ema_top1", "top-1 of EMA weights", ACCENT, "--"),
    ),
    "Learning rate": (Line("train/lr", "learning rate", FAINT, "-"),),
}


def draw_curves(curves: Curves) -> dict[str, str]:
    """Draw the panels that a run has logged metrics for: -> title to SVG."""
    return {
        title: draw_figure(f"curves {title}", partial(_panel, lines=lines, curves=curves))
        for title, lines in PANELS.items()
        if any(curves.get(line.metric) for line in lines)
    }


def draw_calibration(bins: Sequence[Bin]) -> str:
    """Draw a reliability diagram above a histogram of the scores."""
    return draw_figure("calibration", partial(_calibration, bins=bins))


def thin(points: Points, at_most: int = MAX_POINTS) -> list[tuple[float, float]]:
    """Downsample a curve to at most so many points by averaging neighbours."""
    size = -(-len(points) // at_most)
    groups = [points[i : i + size] for i in range(0, len(points), size or 1)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]


def _panel(figure: "Figure", lines: Sequence[Line], curves: Curves) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes = figure.subplots()
    for line in lines:
        points = thin(curves.get(line.metric, ()))
        if points:
            axes.plot(
                [x for x, _ in points],
                [y for _, y in points],
                label=line.label,
                color=line.color,
                linestyle=line.dashes,
                marker="o" if len(points) <= 30 else "",
                markersize=3,
            )
    axes.set_xlabel("epoch")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    if lines[0].metric == "val/top1":
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    if len(lines) > 1:
        add_legend(axes)
    else:
        axes.ticklabel_format(axis="y", scilimits=(-3, 3))
        axes.set_ylim(bottom=0)


def _calibration(figure: "Figure", bins: Sequence[Bin]) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure.set_size_inches(INCHES[0], 4.2)
    top, bottom = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    filled = [b for b in bins if b.num_videos]
    lows, widths = [b.low for b in filled], [b.high - b.low for b in filled]
    bars = {"width": widths, "align": "edge", "linewidth": 0}
    top.bar(lows, [b.accuracy for b in filled], color=ACCENT, label="accuracy", **bars)
    scores, highs = [b.confidence for b in filled], [b.high for b in filled]
    top.hlines(scores, lows, highs, color=WRONG, linewidth=2.5, label="mean score")
    bottom.bar(lows, [b.num_videos for b in filled], color=FAINT, **bars)
    for axes in (top, bottom):
        axes.grid(visible=False, axis="x")
    top.set(ylabel="accuracy", ylim=(0, 1))
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
