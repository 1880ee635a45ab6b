"""How time and memory of forward and backward pass grow with frames, resolution and batch."""

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine_facts import describe_machine, machine_facts
from benchmarks.measurements import OURS, MeasureRequest, measure_time_and_peak
from benchmarks.model import check_baselines
from benchmarks.peer_errors import BaselineError
from benchmarks.workloads import Setting
from video_mvit.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXES = {"num_frames": "frames", "crop_size": "pixels of a side", "batch_size": "clips"}
MEASURES = {"time_ms": "ms", "megabytes": "MB"}
COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple")
INCHES, DPI = (12.0, 7.0), 120
REMARK = (
    "Forward and backward pass, without the optimizer. Memory is above that of libraries, weights "
    "included. The exponent is the slope of a line through all points on logarithmic axes."
)


@dataclass(frozen=True, kw_only=True)
class GrowthBenchmark:
    """Sizes that replace those of `setting`, one axis at a time; an empty list leaves one out.

    Attributes:
        num_runs: runs of each process, after a first one.
        timeout_s: of each process.
    """

    output: str
    setting: Setting
    against: Sequence[str]
    num_frames: Sequence[int]
    crop_size: Sequence[int]
    batch_size: Sequence[int]
    num_runs: int = 2
    timeout_s: float

    def __post_init__(self) -> None:
        check_baselines(self.against)
        for name in ("num_runs", "timeout_s"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} {getattr(self, name)} must be positive")
        for axis in AXES:
            for size in getattr(self, axis):
                resized(self.setting, axis, size)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One network at one size, or the reason why it was not measured there."""

    network: str
    axis: str
    size: int
    time_ms: float | None = None
    megabytes: float | None = None
    skipped: str | None = None


def resized(setting: Setting, axis: str, size: int) -> Setting:
    """A setting with one size replaced; raises `ValueError` where there is no such network."""
    sizes: dict[str, Any] = {axis: size}
    if axis == "batch_size":
        return dataclasses.replace(setting, **sizes)
    return dataclasses.replace(setting, config=dataclasses.replace(setting.config, **sizes))


def fitted_exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """Slope of the least-squares line through logarithms; None of less than two sizes."""
    if len(set(sizes)) < 2:
        return None
    logarithms = [[math.log(each) for each in side] for side in (sizes, values)]
    return statistics.linear_regression(*logarithms).slope


def run_growth_benchmark(settings: GrowthBenchmark, console: Console) -> list[Point]:
    """Measure, show, and write `growth_<name>_<precision>_<device>` as JSON and PNG."""
    points = []
    measured: dict[tuple[str, Setting], Point] = {}  # the middle of all axes is the same size
    for axis in AXES:
        for size in getattr(settings, axis):
            for network in (OURS, *settings.against):
                key = (network, resized(settings.setting, axis, size))
                if key not in measured:
                    with console.status(f"{network}, {size} {AXES[axis]}"):
                        measured[key] = _point(settings, network, key[1])
                points.append(dataclasses.replace(measured[key], axis=axis, size=size))
    setting, facts = settings.setting, machine_facts(settings.setting.device)
    exponents = exponents_of(points)
    _show(points, exponents, f"{setting.name}; {describe_machine(facts)}", console)
    report = Path(settings.output, f"growth_{setting.name}_{setting.precision}_{setting.device}")
    report.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "settings": dataclasses.asdict(settings),
        "machine": facts,
        "points": [dataclasses.asdict(point) for point in points],
        "exponents": exponents,
    }
    report.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n")
    draw_growth(points, exponents, report.with_suffix(".png"))
    console.print(REMARK)
    console.print(f"written to {report}.json and .png")
    return points


def exponents_of(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Of each network, axis and measure."""
    found = []
    for network in dict.fromkeys(point.network for point in points):
        for axis in AXES:
            for measure_name in MEASURES:
                sizes, values = _line(points, network, axis, measure_name)
                exponent = fitted_exponent(sizes, values)
                found.append(
                    {"network": network, "axis": axis, "of": measure_name, "exponent": exponent}
                )
    return found


def draw_growth(
    points: Sequence[Point], exponents: Sequence[Mapping[str, Any]], path: Path
) -> None:
    """Write a PNG: time above, memory below, one column for each axis."""
    from matplotlib.figure import Figure  # slow to import, and needed once

    axes_used = [axis for axis in AXES if any(point.axis == axis for point in points)]
    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained", facecolor="white")
    panels = figure.subplots(len(MEASURES), len(axes_used) or 1, squeeze=False)
    for row, measure_name in zip(panels, MEASURES, strict=True):
        for panel, axis in zip(row, axes_used, strict=False):
            chosen = {
                each["network"]: each["exponent"]
                for each in exponents
                if (each["axis"], each["of"]) == (axis, measure_name)
            }
            _draw_panel(panel, points, axis, measure_name, chosen)
    figure.savefig(path)


def _draw_panel(
    panel: "Axes",
    points: Sequence[Point],
    axis: str,
    measure_name: str,
    exponents: Mapping[str, float | None],
) -> None:
    from matplotlib.ticker import LogLocator

    for (network, exponent), color in zip(exponents.items(), COLORS, strict=False):
        sizes, values = _line(points, network, axis, measure_name)
        if sizes:
            label = network if exponent is None else f"{network}: exponent {exponent:.2f}"
            panel.plot(sizes, values, color=color, marker="o", label=label)
    ticks = sorted({point.size for point in points if point.axis == axis})
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks(ticks, [str(tick) for tick in ticks])
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.minorticks_off()
    panel.set_xlabel(AXES[axis])
    panel.set_ylabel(MEASURES[measure_name])
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(frameon=False)


def _point(settings: GrowthBenchmark, network: str, setting: Setting) -> Point:
    request = MeasureRequest(
        network=network, work="gradients", setting=setting, num_runs=settings.num_runs
    )
    point = Point(network=network, axis="", size=0)
    try:
        found = measure_time_and_peak(request, settings.timeout_s, num_processes=1)
    except BaselineError as error:
        return dataclasses.replace(point, skipped=str(error))
    return dataclasses.replace(point, time_ms=found.time_ms, megabytes=found.above_libraries / 1e6)


def _line(
    points: Sequence[Point], network: str, axis: str, measure_name: str
) -> tuple[list[float], list[float]]:
    """Sizes and values of a network where it was measured."""
    found = [
        (point.size, getattr(point, measure_name))
        for point in points
        if (point.network, point.axis) == (network, axis) and point.skipped is None
    ]
    return [float(size) for size, _ in found], [value for _, value in found]


def _show(
    points: Sequence[Point], exponents: Sequence[Mapping[str, Any]], title: str, console: Console
) -> None:
    networks = list(dict.fromkeys(point.network for point in points))
    table = Table("size", title=title, title_justify="left")
    for network in networks:
        table.add_column(network, justify="right")
    for axis, unit in AXES.items():
        for size in dict.fromkeys(point.size for point in points if point.axis == axis):
            found = [point for point in points if (point.axis, point.size) == (axis, size)]
            table.add_row(f"{size} {unit}", *map(_cell, found))
        for measure_name in MEASURES:
            slopes = [
                each["exponent"]
                for each in exponents
                if (each["axis"], each["of"]) == (axis, measure_name)
            ]
            cells = ["" if slope is None else f"{slope:.2f}" for slope in slopes]
            table.add_row(f"exponent of {MEASURES[measure_name]}", *cells)
        table.add_section()
    console.print(table)
    reasons: dict[str, list[str]] = {}
    for point in points:
        if point.skipped is not None:
            where = f"{point.size} {AXES[point.axis]}"
            reasons.setdefault(f"{point.network} skipped: {point.skipped}", []).append(where)
    for reason, sizes in reasons.items():
        console.print(f"{reason} ({', '.join(sizes)})")


def _cell(point: Point) -> str:
    if point.time_ms is None or point.megabytes is None:
        return "skipped"
    return f"{point.time_ms:.0f} ms, {point.megabytes:.0f} MB"
