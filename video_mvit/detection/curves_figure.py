"""Draw precision over recall as SVG, in the style of all reports."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from video_mvit.detection.coco_ap import RECALLS
from video_mvit.evaluation.figures import ACCENT, FAINT, INCHES, WRONG, add_legend, draw_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# IoU -> label, colour and dashes of its line.
LINES = {
    "0.5": ("IoU 0.5", ACCENT, "-"),
    "0.75": ("IoU 0.75", WRONG, "-"),
    "mean": ("0.5 to 0.95", FAINT, "--"),
}


def draw_precision_recall(name: str, curves: Mapping[str, Sequence[float]]) -> str:
    """Draw the precision at 101 recalls of each IoU: -> SVG."""
    return draw_figure(f"precision {name}", partial(_fill, curves=curves))


def _fill(figure: "Figure", curves: Mapping[str, Sequence[float]]) -> None:
    from matplotlib.ticker import PercentFormatter

    figure.set_size_inches(INCHES[0], 3.8)
    axes = figure.subplots()
    for iou, (label, color, dashes) in LINES.items():
        axes.plot(RECALLS, curves[iou], label=label, color=color, linestyle=dashes, linewidth=1.8)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    add_legend(axes)
