"""Tell the loggers of a run how it was evaluated: metrics, confusion matrix, results by class."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pytorch_lightning.loggers import Logger
from torch import Tensor

from video_mvit.evaluation.metrics import class_results, confusion_matrix
from video_mvit.evaluation.predictions import VideoResult
from video_mvit.evaluation.results import Result
from video_mvit.text import printable
from video_mvit.training.logger_content import Table, log_picture, log_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NAMED, MAX_NAME = 40, 24  # classes with their names at the axes, characters of a name
INCHES, DPI = 8.0, 120
COLUMNS = ("class", "videos", "recall", "precision", "top-5", "predicted as")


def record_evaluation(
    log: Logger, result: Result, predictions: Sequence[VideoResult], step: int
) -> None:
    """Write an evaluation of a run to one of its loggers."""
    names = result.origin.class_names
    found = result.accuracies
    metrics = {
        "test/top1": found.top1,
        "test/top5": found.top5,
        "test/mean_class_accuracy": found.mean_class_accuracy,
        "test/calibration_error": found.calibration_error,
        **{f"test/top1_{name}": value for name, value in found.motion.items()},
    }
    log.log_metrics(metrics, step)
    matrix = draw_confusion(confusion_matrix(predictions, len(names)), names)
    log_picture(log, "test/confusion", matrix, step)
    log_table(log, "test/classes", table_of_classes(predictions, names), step)
    log.save()


def table_of_classes(predictions: Sequence[VideoResult], names: Sequence[str]) -> Table:
    """Return the results of each class that has videos, worst recall first."""
    results = [each for each in class_results(predictions, len(names)) if each.num_videos]
    rows = [
        (
            printable(names[each.label]),
            each.num_videos,
            each.num_right / each.num_videos,
            each.num_right / each.num_predicted if each.num_predicted else 0.0,
            each.num_right_in_top5 / each.num_videos,
            printable(names[each.predicted_as[0][0]]) if each.predicted_as else "",
        )
        for each in results
    ]
    return Table(COLUMNS, sorted(rows, key=lambda row: row[2]))


def draw_confusion(counts: Tensor, names: Sequence[str]) -> np.ndarray:
    """Draw a confusion matrix (K, K), each row as shares of its class: -> (H, W, 3) uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    shares = (counts.double() / counts.sum(dim=1, keepdim=True).clamp(min=1)).numpy()
    figure = Figure(figsize=(INCHES, INCHES), dpi=DPI, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
    axes.set(xlabel="predicted", ylabel="true")
    if len(names) <= MAX_NAMED:
        _name_classes(axes, names)
    figure.colorbar(image, shrink=0.6, label="share of the videos of a class")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # of scripts that the font lacks
        canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return pixels[..., :3].copy()


def _name_classes(axes: "Axes", names: Sequence[str]) -> None:
    # A dollar sign would begin a formula.
    shown = [printable(name)[:MAX_NAME].replace("$", r"\$") for name in names]
    places = range(len(shown))
    axes.set_xticks(places, shown, rotation=90, fontsize=8)
    axes.set_yticks(places, shown, fontsize=8)
