"""Learning curves: which lines a run shows, the same in its picture and in the report."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from video_mvit.evaluation.figures import ACCENT, FAINT, add_legend, draw_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHED_OVER = 0.05  # fraction of all points
FEW_POINTS = 10  # of single steps; with fewer, epoch means are drawn
SMOOTHED = "training (smoothed)"
MAX_POINTS = 120  # of a line of the report; more are averaged


class Point(NamedTuple):
    epoch: float  # passes over the data when it was logged, fractions included
    value: float


Points = Sequence[tuple[float, float]]  # epoch, value
Curves = Mapping[str, Points]  # by the name under which a run logs them


class Line(NamedTuple):
    metric: str
    label: str
    color: str
    dashes: str


PANELS = {
    "Loss": (Line("val/loss", "validation", ACCENT, "-"),),
    "Accuracy on the validation list": (
        Line("val/top1", "top-1", ACCENT, "-"),
        Line("val/top5", "top-5", FAINT, "-"),
        Line("val/ema_top1", "top-1 of EMA weights", ACCENT, "--"),
        Line("val/all_top1", "top-1 of all heads", ACCENT, "-"),
        Line("val/ema_all_top1", "top-1 of all heads, EMA weights", ACCENT, "--"),
        Line("val/map", "mAP", ACCENT, "-"),
        Line("val/ema_map", "mAP of EMA weights", ACCENT, "--"),
    ),
    "R² on the validation list": (
        Line("val/r2", "R²", ACCENT, "-"),
        Line("val/ema_r2", "R² of EMA weights", ACCENT, "--"),
    ),
    "Mean absolute error on the validation list": (
        Line("val/mae", "MAE", ACCENT, "-"),
        Line("val/ema_mae", "MAE of EMA weights", ACCENT, "--"),
    ),
    "Learning rate": (Line("train/lr", "learning rate", FAINT, "-"),),
}


def training_loss(curves: Curves) -> tuple[str, list[Point]]:
    """Return name and points of the training loss: smoothed steps, of short runs epoch means."""
    steps = curves.get("train/loss", ())
    if len(steps) >= FEW_POINTS or "train/epoch_loss" not in curves:
        return SMOOTHED, smooth(steps)
    return "training", [Point(*point) for point in curves["train/epoch_loss"]]


def learning_rate(curves: Curves) -> Points:
    """Return the points of the learning rate: of steps, of short runs at the ends of epochs."""
    steps, ends = curves.get("train/lr", ()), curves.get("train/epoch_lr", ())
    return steps if len(steps) >= min(FEW_POINTS, len(ends)) else ends


def smooth(points: Points, share: float = SMOOTHED_OVER) -> list[Point]:
    """Smooth a curve with a centred moving average over `share` of all points."""
    reach = int(len(points) * share / 2) + 1
    smoothed = []
    for i, (epoch, _) in enumerate(points):
        near = min(reach, i, len(points) - 1 - i)  # shrinks symmetrically at both ends
        window = points[i - near : i + near + 1]
        smoothed.append(Point(epoch, sum(value for _, value in window) / len(window)))
    return smoothed


def thin(points: Points, at_most: int = MAX_POINTS) -> list[Point]:
    """Downsample a curve to at most so many points by averaging neighbours."""
    size = -(-len(points) // at_most)
    groups = [points[i : i + size] for i in range(0, len(points), size or 1)]
    return [
        Point(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]


def draw_curves(curves: Curves) -> dict[str, str]:
    """Draw the panels that a run has logged metrics for: -> title to SVG."""
    label, loss = training_loss(curves)
    known = {**curves, label: loss, "train/lr": learning_rate(curves)}
    first = Line(label, label, FAINT, "-")
    panels = {
        title: (first, *lines) if title == "Loss" else lines for title, lines in PANELS.items()
    }
    return {
        title: draw_figure(f"curves {title}", partial(_panel, lines=lines, curves=known))
        for title, lines in panels.items()
        if any(known.get(line.metric) for line in lines)
    }


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
