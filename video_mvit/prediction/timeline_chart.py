"""Draw a timeline as a chart: a row for each of the top classes, darker for higher scores.

Numbers have a line each, over time.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from video_mvit.errors import UserError
from video_mvit.prediction.predictor import Prediction
from video_mvit.prediction.timeline import Timeline
from video_mvit.prediction.writers import describe_length, shown_name
from video_mvit.text import printable

MAX_ROWS = 10
WIDTH, ROW_HEIGHT, REST_HEIGHT = 10.0, 0.3, 1.3  # inches
VALUE_HEIGHT = 1.5  # of the panel of a target
DOTS_PER_INCH = 120
MAX_NAME = 40  # longest class name, in characters
COLOURS = "Blues"
OTHER_COLOUR = "0.7"
ROUND_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 4 * 3600, 12 * 3600)
MAX_TICKS = 9


def draw_strip_chart(prediction: Prediction, path: Path) -> None:
    """Write the chart (PNG); raises `UserError` without a timeline."""
    timeline = prediction.timeline
    if timeline is None or not len(timeline.scores):
        raise UserError(f"{prediction.video} has no timeline to draw")
    if prediction.task == "regression":
        _draw_values(prediction, timeline, path)
        return
    from matplotlib.figure import Figure

    rows = shown_classes(timeline)
    height = REST_HEIGHT + ROW_HEIGHT * (len(rows) + 1)
    figure = Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH, layout="constrained")
    names = [_short(prediction.class_names[label]) for label in rows]
    if not prediction.has_several:
        bar, chart = axes = figure.subplots(2, 1, sharex=True, height_ratios=[1, len(rows)])
        colours = {label: f"C{place}" for place, label in enumerate(rows)}
        _draw_segments(bar, prediction, colours)
        shades = _draw_scores(chart, timeline, rows, names)
        for label, text in zip(rows, chart.get_yticklabels(), strict=True):
            text.set_color(colours[label])
    else:  # segments of several classes overlap
        axes = np.array([figure.subplots()])
        shades = _draw_scores(axes[0], timeline, rows, names)
    figure.colorbar(shades, ax=axes, label="score", pad=0.01, fraction=0.03)
    axes[0].set_title(_title(prediction), loc="left", parse_math=False)
    figure.savefig(path, format="png")


def _title(prediction: Prediction) -> str:
    name = printable(Path(shown_name(prediction.video)).name)
    return f"{name}, {describe_length(prediction)}"


def _draw_values(prediction: Prediction, timeline: Timeline, path: Path) -> None:
    """Write a chart with a panel for each of the first targets."""
    from matplotlib.figure import Figure

    names = prediction.class_names[:MAX_ROWS]
    height = REST_HEIGHT + VALUE_HEIGHT * len(names)
    figure = Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH, layout="constrained")
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name, values in zip(panels, names, timeline.scores.T.numpy(), strict=False):
        axes.stairs(values, timeline.bounds_s[: len(values) + 1], baseline=None)
        axes.set_ylabel(_short(name), parse_math=False)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    ticks = time_ticks(timeline.bounds_s[-1])
    panels[-1].set_xticks(ticks, [clock(time_s) for time_s in ticks])
    panels[-1].set_xlim(0, timeline.bounds_s[-1])
    panels[0].set_title(_title(prediction), loc="left", parse_math=False)
    figure.savefig(path, format="png")


def shown_classes(timeline: Timeline) -> list[int]:
    """Return the classes of the segments, longest first, then the next best on average."""
    times: dict[int, float] = {}
    for segment in timeline.segments:
        if segment.label is not None:
            length_s = segment.end_s - segment.start_s
            times[segment.label] = times.get(segment.label, 0.0) + length_s
    seen = sorted(times, key=lambda label: -times[label])
    best = timeline.scores.mean(dim=0).sort(descending=True, stable=True).indices.tolist()
    return list(dict.fromkeys([*seen, *best]))[:MAX_ROWS]


def time_ticks(duration_s: float) -> list[float]:
    """Return few enough round times from 0 to the end."""
    step_s = next((s for s in ROUND_S if duration_s / s <= MAX_TICKS), ROUND_S[-1])
    return np.arange(0, duration_s + 1e-6, step_s).tolist()


def clock(time_s: float) -> str:
    """Format a time: 0:07, 3:07, 1:02:03."""
    minutes, seconds = divmod(round(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _draw_segments(axes: Any, prediction: Prediction, colours: Mapping[int, str]) -> None:
    """Draw a bar of coloured segments; long enough ones are labelled."""
    duration_s = prediction.segments[-1].end_s
    for segment in prediction.segments:
        is_uncertain = segment.label is None
        colour = colours.get(segment.label, OTHER_COLOUR) if segment.label is not None else "0.93"
        length_s = segment.end_s - segment.start_s
        axes.barh(0, length_s, 1.0, left=segment.start_s, color=colour, edgecolor="white", lw=0.4)
        name = _short(segment.name(prediction.class_names))
        if length_s / duration_s > 0.013 * len(name):
            middle_s = segment.start_s + length_s / 2
            axes.text(
                middle_s,
                0,
                name,
                ha="center",
                va="center",
                color="0.35" if is_uncertain else "white",
                fontsize=8,
                parse_math=False,
                weight="normal" if is_uncertain else "bold",
            )
    axes.set_yticks([0], ["seen"])
    axes.set_ylim(-0.5, 0.5)
    axes.tick_params(length=0, labelbottom=False)
    axes.spines[:].set_visible(False)


def _draw_scores(axes: Any, timeline: Timeline, rows: list[int], names: list[str]) -> Any:
    """Draw a row of shades for each class; -> the mappable of a colour bar."""
    scores = timeline.scores[:, rows].T.numpy()  # (rows, W)
    edges = np.arange(len(rows) + 1) - 0.5
    shades = axes.pcolormesh(
        timeline.bounds_s, edges, scores, cmap=COLOURS, vmin=0, vmax=1, rasterized=True
    )
    axes.set_yticks(range(len(rows)), names, parse_math=False)
    axes.invert_yaxis()
    axes.hlines(edges[1:-1], 0, timeline.bounds_s[-1], color="white", lw=1.5)
    ticks = time_ticks(timeline.bounds_s[-1])
    axes.set_xticks(ticks, [clock(time_s) for time_s in ticks])
    axes.set_xlim(0, timeline.bounds_s[-1])
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    return shades


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"
