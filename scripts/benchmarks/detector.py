"""Time and memory of detectors and of their backbone, with fast and plain kernels.

Each number comes from a process of its own, which measures one image (`detector_step.py`).
"""

import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from benchmarks.machine_facts import describe_machine, machine_facts
from benchmarks.measurements import CHECKPOINTED, EXACT_HEAP
from video_mvit.errors import UserError

COMMAND = Path(__file__).with_name("detector_step.py")
GB = 1e9
NETWORKS = ("ours", *CHECKPOINTED, "plain", "torchvision")
PARTS = ("backbone", "detector")


@dataclass(frozen=True, kw_only=True)
class DetectorRequest:
    """What a process measures: `num_runs` times after a first one.

    Attributes:
        network: "ours", one of `CHECKPOINTED`, "plain" (`kernels.use("plain")`), or torchvision's
            Mask R-CNN.
        part: "backbone" is its forward and backward pass, "detector" a training step with AdamW.
    """

    network: str
    part: str
    name: str
    side: int
    precision: Literal[32, "bf16"]
    device: Literal["cpu", "cuda"]
    num_images: int
    num_runs: int


@dataclass(frozen=True, kw_only=True)
class DetectorBenchmark:
    """Detectors `names` at images of `sides` pixels.

    Attributes:
        wanted_speed: time of plain over ours for the backbone at the largest side, at least.
        wanted_memory: our memory over plain's there, at most.
        wanted_exponent: of the memory of a training step in pixels, at most.
    """

    output: str
    names: Sequence[str]
    sides: Sequence[int]
    parts: Sequence[str]
    against: Sequence[str]
    precision: Literal[32, "bf16"] = 32
    device: Literal["cpu", "cuda"] = "cpu"
    num_images: int = 1
    num_runs: int = 2
    timeout_s: float = 900
    wanted_speed: float = 1.3
    wanted_memory: float = 0.6
    wanted_exponent: float = 1.1

    def __post_init__(self) -> None:
        for field, known in (("against", NETWORKS[1:]), ("parts", PARTS)):
            if unknown := [each for each in getattr(self, field) if each not in known]:
                raise UserError(f"{field} has {unknown[0]!r}, expected {', '.join(known)}")


@dataclass(frozen=True, kw_only=True)
class DetectorRow:
    """Median milliseconds, and bytes at the peak above libraries; or why there are none."""

    request: DetectorRequest
    time_ms: float | None = None
    memory: int | None = None
    skipped: str | None = None


def run_detector_benchmark(settings: DetectorBenchmark, console: Console) -> list[DetectorRow]:
    """Measure, show, and write `detector_<precision>_<device>.json` into `output`."""
    rows = []
    for request in requests_of(settings):
        with console.status(f"{request.name}, {request.part}, {request.side}, {request.network}"):
            rows.append(measure(request, settings.timeout_s))
    facts = machine_facts(settings.device)
    _show(settings, rows, describe_machine(facts), console)
    content = {
        "settings": dataclasses.asdict(settings),
        "machine": facts,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    report = Path(settings.output, f"detector_{settings.precision}_{settings.device}.json")
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(content, indent=2) + "\n")
    console.print(f"written to {report}")
    return rows


def requests_of(settings: DetectorBenchmark) -> list[DetectorRequest]:
    """Return all that is measured: ours and each other network, which may lack the part."""
    return [
        DetectorRequest(
            network=network,
            part=part,
            name=name,
            side=side,
            precision=settings.precision,
            device=settings.device,
            num_images=settings.num_images,
            num_runs=settings.num_runs,
        )
        for part in settings.parts
        for name in settings.names
        for side in settings.sides
        for network in ("ours", *settings.against)
        if network != "torchvision" or (part == "detector" and name == settings.names[0])
    ]


def measure(request: DetectorRequest, timeout_s: float) -> DetectorRow:
    """Take times from one process, and the peak from one whose freed memory goes back at once."""
    answers = []
    for environment in ({}, EXACT_HEAP):
        command = [sys.executable, "-P", str(COMMAND), json.dumps(dataclasses.asdict(request))]
        variables = {**os.environ, "PYTHONPATH": str(COMMAND.parents[1]), **environment}
        try:
            done = subprocess.run(
                command,
                env=variables,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return DetectorRow(request=request, skipped=f"took longer than {timeout_s:g} s")
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["ended by the system"])[-1]
            return DetectorRow(request=request, skipped=reason)
        answers.append(json.loads(done.stdout.splitlines()[-1]))
    return DetectorRow(
        request=request,
        time_ms=1000 * statistics.median(answers[0]["times_s"]),
        memory=answers[1]["peak"] - answers[1]["libraries"],
    )


def exponent(sides: Sequence[int], values: Sequence[float]) -> float:
    """Return the slope of values over pixels, both logarithmic, by least squares."""
    x = [2 * math.log(side) for side in sides]
    y = [math.log(value) for value in values]
    mean_x, mean_y = statistics.mean(x), statistics.mean(y)
    products = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return products / sum((a - mean_x) ** 2 for a in x)


def _show(
    settings: DetectorBenchmark, rows: Sequence[DetectorRow], machine: str, console: Console
) -> None:
    title = f"{settings.num_images} image, precision {settings.precision}; {machine}"
    table = Table("part", "detector", "pixels", title=title, title_justify="left")
    for column in ("network", "time", "memory", "its time / ours", "our memory / its", "result"):
        table.add_column(column, justify="right")
    ours: DetectorRow | None = None
    for row in rows:
        each = row.request
        ours = row if each.network == "ours" else ours
        cells = [each.part, each.name, f"{each.side}", each.network]
        table.add_row(*cells, *_cells(settings, row, ours))
    console.print(table)
    for name in settings.names:
        found = [
            row
            for row in rows
            if row.memory
            and (row.request.network, row.request.part, row.request.name)
            == ("ours", "detector", name)
        ]
        if len(found) > 1:
            sides = [row.request.side for row in found]
            growth = exponent(sides, [row.memory or 0 for row in found])
            verdict = "pass" if growth <= settings.wanted_exponent else "miss"
            console.print(
                f"{name}: memory of a step grows as pixels to the power of {growth:.2f} "
                f"(wanted {settings.wanted_exponent:g} at most: {verdict})"
            )


def _cells(settings: DetectorBenchmark, row: DetectorRow, ours: DetectorRow | None) -> list[str]:
    if row.time_ms is None or row.memory is None:
        return ["", "", "", "", f"skipped: {row.skipped}"]
    cells = [f"{row.time_ms:.0f} ms", f"{row.memory / GB:.2f} GB"]
    if row is ours or ours is None or ours.time_ms is None or ours.memory is None:
        return [*cells, "", "", "measured"]
    speed, memory = row.time_ms / ours.time_ms, ours.memory / row.memory
    request, verdict = row.request, "measured"
    is_bound = request.network == "plain" and request.part == "backbone"
    if is_bound and request.side == max(settings.sides):
        is_met = speed >= settings.wanted_speed and memory <= settings.wanted_memory
        verdict = "pass" if is_met else "miss"
    return [*cells, f"{speed:.2f}", f"{memory:.2f}", verdict]
