"""Figures of a regression: predicted against true values, and how large the errors are."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from video_mvit.evaluation.figures import ACCENT, FAINT, INK, draw_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_POINTS = 2000  # of a figure; each is an element of the page
MAX_BINS = 40
Values = NDArray[np.float64]  # (N,)


def draw_values(name: str, values: Values, truth: Values) -> str:
    """Draw predicted against true values, of many videos some; `name` seeds the ids inside it."""
    return draw_figure(f"values {name}", partial(_values, values=values, truth=truth))


def draw_errors(name: str, errors: Values) -> str:
    """Draw a histogram of the errors, predicted minus true."""
    return draw_figure(f"errors {name}", partial(_errors, errors=errors))


def _values(figure: "Figure", values: Values, truth: Values) -> None:
    figure.set_size_inches(5.0, 4.4)
    axes = figure.subplots()
    if len(truth) > MAX_POINTS:
        some = np.random.default_rng(0).choice(len(truth), MAX_POINTS, replace=False)
        values, truth = values[some], truth[some]
    ends = [min(truth.min(), values.min()), max(truth.max(), values.max())]
    axes.plot(ends, ends, color=INK, linestyle="--", linewidth=1, label="right")
    alpha = float(np.clip(100 / len(truth), 0.15, 0.7))  # so that many show where they are dense
    axes.plot(
        truth, values, linestyle="", marker="o", color=ACCENT, alpha=alpha, markersize=4, mew=0
    )
    axes.set(xlabel="true", ylabel="predicted")
    axes.locator_params(nbins=6)


def _errors(figure: "Figure", errors: Values) -> None:
    from matplotlib.ticker import MaxNLocator

    figure.set_size_inches(5.0, 4.4)
    axes = figure.subplots()
    reach = float(np.abs(errors).max()) or 1.0
    num_bins = int(np.clip(2 * np.sqrt(len(errors)), 5, MAX_BINS)) // 2 * 2 + 1  # one around 0
    axes.hist(errors, bins=num_bins, range=(-reach, reach), color=ACCENT, alpha=0.55, linewidth=0)
    axes.axvline(0, color=INK, linestyle="--", linewidth=1)
    axes.axvline(float(errors.mean()), color=FAINT, linewidth=1.5)
    axes.set(xlabel="error, predicted minus true (grey: their mean)", ylabel="videos")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.locator_params(axis="x", nbins=6)
    axes.grid(visible=False, axis="x")
