"""Render a regression as one self-contained HTML page.

Order: numbers of the targets, predicted against true values, errors by true value, the largest
errors, training curves; then the evaluation setup and excluded videos.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from video_mvit.evaluation.error_list import link_to
from video_mvit.evaluation.learning_curves import Curves, draw_curves
from video_mvit.evaluation.regression_comparison import errors_of_videos
from video_mvit.evaluation.regression_figures import MAX_POINTS, draw_errors, draw_values
from video_mvit.evaluation.regression_metrics import TargetNumbers
from video_mvit.evaluation.regression_predictions import RegressionVideo, value_arrays
from video_mvit.evaluation.regression_results import RegressionResult
from video_mvit.evaluation.report import MAX_NAMES, page_environment
from video_mvit.evaluation.report_files import strips_of, write_page
from video_mvit.evaluation.strips import Strip
from video_mvit.evaluation.summary_text import protocol_sentence

NUM_SHOWN = 60  # errors
NUM_PARTS = 5  # of the true values, each with as many videos where values differ
MAX_FIGURES = 12  # targets with figures
MAX_HEADLINES = 4  # targets at the top of the page
MAX_VALUES = 12  # targets of an error


class ValuePart(NamedTuple):
    """Videos whose true values are neighbours."""

    low: float
    high: float
    num_videos: int
    mae: float
    bias: float


class TargetRow(NamedTuple):
    """A target: its numbers, its errors by true value, and its figures by title."""

    name: str
    numbers: TargetNumbers
    parts: list[ValuePart]
    figures: Mapping[str, Markup]


class ShownValue(NamedTuple):
    name: str
    predicted: float
    true: float


class LargeError(NamedTuple):
    """One of the videos with the largest errors."""

    video: str
    link: str | None
    values: list[ShownValue]
    strip: Strip | None


def parts_of_values(values: NDArray[np.float64], truth: NDArray[np.float64]) -> list[ValuePart]:
    """Divide videos by their true value, and measure the errors of each part: (N,), (N,).

    Equal values are in one part; a value that would fill whole parts has its own.
    """
    inner = np.linspace(0, 1, NUM_PARTS + 1)[1:-1]
    edges, counts = np.unique(np.quantile(truth, inner), return_counts=True)
    numbers = np.searchsorted(edges, truth) + np.searchsorted(edges[counts > 1], truth, "right")
    parts = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
    return [
        ValuePart(
            low=float(truth[part].min()),
            high=float(truth[part].max()),
            num_videos=len(part),
            mae=float(np.abs(values - truth)[part].mean()),
            bias=float((values - truth)[part].mean()),
        )
        for part in parts
    ]


def largest_errors(predictions: Sequence[RegressionVideo]) -> list[RegressionVideo]:
    """Return the evaluated videos with the largest errors, first the largest."""
    found = [each for each in predictions if not each.problem]
    values, truth = value_arrays(predictions)
    order = np.argsort(-errors_of_videos(values - truth, truth), kind="stable")
    return [found[i] for i in order[:NUM_SHOWN].tolist()]


def target_rows(
    result: RegressionResult, predictions: Sequence[RegressionVideo]
) -> list[TargetRow]:
    """Return a row for each target, the first of them with figures."""
    values, truth = value_arrays(predictions)
    rows = []
    for k, (name, numbers) in enumerate(result.by_name.items()):
        predicted, true = values[:, k], truth[:, k]
        figures = {}
        if k < MAX_FIGURES:
            figures = {
                "Predicted against true": Markup(draw_values(str(k), predicted, true)),
                "Errors": Markup(draw_errors(str(k), predicted - true)),
            }
        rows.append(TargetRow(name, numbers, parts_of_values(predicted, true), figures))
    return rows


def render_regression_report(
    result: RegressionResult,
    predictions: Sequence[RegressionVideo],
    *,
    curves: Curves,
    strips: Mapping[str, Strip],
) -> str:
    """Render the page; `strips` are frames of the videos of `largest_errors`, by video."""
    origin = result.origin
    errors = [
        LargeError(
            video=each.video,
            link=link_to(origin.list_root, each.video),
            values=[
                ShownValue(*row)
                for row in zip(origin.class_names, each.values, each.truth or (), strict=True)
            ][:MAX_VALUES],
            strip=strips.get(each.video),
        )
        for each in largest_errors(predictions)
    ]
    targets = target_rows(result, predictions)
    return (
        page_environment()
        .get_template("regression_report.html.j2")
        .render(
            result=result,
            origin=origin,
            targets=targets,
            errors=errors,
            max_headlines=MAX_HEADLINES,
            max_names=MAX_NAMES,
            num_points=min(MAX_POINTS, result.num_videos),
            num_figures=sum(bool(row.figures) for row in targets),
            protocol_sentence=protocol_sentence(origin.protocol),
            curves={title: Markup(svg) for title, svg in draw_curves(curves).items()},
        )
    )


def write_regression_report(
    folder: Path,
    result: RegressionResult,
    predictions: Sequence[RegressionVideo],
    curves: Curves,
    *,
    thumbnails: bool = True,
) -> Path:
    """Write `report.html` into a folder; videos that were removed since are shown without frames.

    Args:
        curves: metric -> (epoch, value) of the training run, empty where it is unknown.
        thumbnails: whether frames of the videos are shown.
    """
    shown = [each.video for each in largest_errors(predictions)] if thumbnails else []
    strips = strips_of(result.origin.list_root, shown)
    page = render_regression_report(result, predictions, curves=curves, strips=strips)
    return write_page(folder, page)
