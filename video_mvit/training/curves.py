"""Draw the training curves of a run from its CSV logs."""

import csv
import logging
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytorch_lightning as pl

from video_mvit.evaluation.learning_curves import (
    FEW_POINTS,
    SMOOTHED,
    Point,
    Points,
    learning_rate,
    training_loss,
)
from video_mvit.files import replace_atomically
from video_mvit.renamed import LOG_KEYS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)

FILES = "version_*/metrics.csv"  # of the CSV logger
INCHES, DPI = (9.0, 8.5), 120
LOSSES = {"val/loss": ("validation", "tab:orange")}
ACCURACIES = {
    "val/box_ap": ("box AP", "tab:blue"),
    "val/mask_ap": ("mask AP", "tab:green"),
    "val/ema_box_ap": ("box AP of EMA weights", "tab:purple"),
    "val/r2": ("R²", "tab:blue"),
    "val/ema_r2": ("R² of EMA weights", "tab:purple"),
    "val/map": ("mAP", "tab:blue"),
    "val/ema_map": ("mAP of EMA weights", "tab:purple"),
    "val/all_top1": ("top-1 of all heads", "tab:blue"),
    "val/ema_all_top1": ("top-1 of all heads, EMA weights", "tab:purple"),
    "val/top1": ("top-1", "tab:blue"),
    "val/top5": ("top-5", "tab:green"),
    "val/ema_top1": ("top-1 of EMA weights", "tab:purple"),
}


class Row(NamedTuple):
    """Metrics logged at one step, by name; `epoch` counts from 0."""

    step: int
    epoch: int
    values: Mapping[str, float]


def read_rows(folder: Path) -> list[Row]:
    """Read all `version_<n>/metrics.csv` of a run; resumed runs overwrite what they log again.

    A start begins after the step from which it resumed, or repeats some of its metrics.
    """
    rows: list[Row] = []
    numbers = {path: path.parent.name.partition("_")[2] for path in folder.glob(FILES)}
    paths = [path for path, number in numbers.items() if number.isdecimal()]
    for path in sorted(paths, key=lambda path: int(numbers[path])):
        with path.open(newline="") as file:
            later = [_row(cells) for cells in csv.DictReader(file) if cells.get("step")]
        if later:
            first = min(row.step for row in later)
            again = {name for row in later if row.step == first for name in row.values}
            rows = [_without(row, again) if row.step == first else row for row in rows]
            rows = [row for row in rows if row.step <= first and row.values] + later
    return rows


def _without(row: Row, names: Set[str]) -> Row:
    return row._replace(values={k: v for k, v in row.values.items() if k not in names})


def _row(cells: Mapping[str, str]) -> Row:
    known = {name: text for name, text in cells.items() if text}
    step, epoch = int(known.pop("step")), int(float(known.pop("epoch", "0")))
    values = {LOG_KEYS.get(name, name): float(text) for name, text in known.items()}
    return Row(step, epoch, values)


def series(rows: Sequence[Row]) -> dict[str, list[Point]]:
    """Group rows into one curve per metric over epochs; x is fractional without a full epoch."""
    ends = [(row.step + 1) / (row.epoch + 1) for row in rows if "train/epoch_loss" in row.values]
    num_steps = max(ends) if ends else max((row.step + 1 for row in rows), default=1)
    found: dict[str, dict[int, Point]] = {}
    for row in rows:
        for name, value in row.values.items():
            found.setdefault(name, {})[row.step] = Point((row.step + 1) / num_steps, value)
    return {name: [points[step] for step in sorted(points)] for name, points in found.items()}


def draw_curves(curves: Mapping[str, Sequence[Point]], path: Path) -> None:
    """Write a PNG with loss, accuracy and learning rate over epochs."""
    from matplotlib.figure import Figure  # slow to import, and needed once
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained", facecolor="white")
    top, middle, bottom = figure.subplots(3, sharex=True, height_ratios=[3, 3, 1.2])
    # Loss: single steps smoothed over a trace of themselves, or epoch means of short runs.
    label, loss = training_loss(curves)
    if label == SMOOTHED:
        steps = curves.get("train/loss", ())
        top.plot(*_columns(steps), color="tab:blue", alpha=0.25, linewidth=0.8)
    marker = "" if label == SMOOTHED else "o"
    top.plot(*_columns(loss), color="tab:blue", label=label, marker=marker, markersize=3)
    _plot(top, curves, LOSSES)
    top.set_ylabel("loss")
    # Validation accuracy.
    _plot(middle, curves, ACCURACIES)
    if "val/r2" in curves:
        middle.set_ylabel("R²")
    else:
        middle.yaxis.set_major_formatter(PercentFormatter(1))
        middle.set_ylabel("accuracy")
    # Learning rate.
    rates = learning_rate(curves)
    bottom.plot(*_columns(rates), color="tab:gray", marker="o" if len(rates) < FEW_POINTS else "")
    bottom.set_ylabel("learning rate")
    bottom.ticklabel_format(axis="y", scilimits=(-3, 3))
    bottom.set_xlabel("epoch")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    bottom.set_xlim(left=0)
    # Shared style.
    figure.align_ylabels()
    for axes in (top, middle, bottom):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (top, middle):  # legend above the panel
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    with replace_atomically(path) as temporary:
        figure.savefig(temporary, format="png")


def _plot(
    axes: "Axes",
    curves: Mapping[str, Sequence[Point]],
    styles: Mapping[str, tuple[str, str]],
) -> None:
    for name, (label, color) in styles.items():
        if points := curves.get(name):
            axes.plot(*_columns(points), label=label, color=color, marker="o", markersize=3)


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [epoch for epoch, _ in points], [value for _, value in points]


class LearningCurves(pl.Callback):
    """Draw `<folder>/curves.png` from `<folder>/metrics` when training ends or stops.

    A failure is a warning and never ends a run.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._draw(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._draw(trainer)

    def _draw(self, trainer: pl.Trainer) -> None:
        if not trainer.is_global_zero or trainer.state.fn != "fit":
            return
        path = self.folder / "curves.png"
        try:
            for log in trainer.loggers:
                log.save()
            if rows := read_rows(self.folder / "metrics"):
                draw_curves(series(rows), path)
        except Exception as error:  # a drawing error must not end the run
            logger.warning("cannot draw %s: %s", path, error)
