"""What came out of `target=train`: a row for each network and batch size, and what was wanted."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measurements import OURS
from benchmarks.train_probe import Measured
from video_mvit.errors import UserError

COLUMNS = (
    *("clips a step", "clips/s", "step", "host", "data wait", "operators", "launches", "waits"),
    *("host ahead", "peak", "MFU", "ours / it (from, to)", "our peak / its", "wanted"),
)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What is wanted of a training of one experiment on a GPU.

    Attributes:
        speed: our clips per second over a baseline's, at least, by its name.
        memory: our peak over each baseline's, at most.
        mfu: share of the measured rate of matrix products, at least.
        lead_ms: by which the host is ahead of the GPU at the end of a step, at least.
    """

    experiment: str
    speed: Mapping[str, float]
    memory: float
    mfu: float
    lead_ms: float

    def __post_init__(self) -> None:
        numbers = {**self.speed, "memory": self.memory, "mfu": self.mfu, "lead_ms": self.lead_ms}
        for name, value in numbers.items():
            if not value > 0:
                raise UserError(f"wanted {name} {value} must be positive")


@dataclass(frozen=True, kw_only=True)
class TrainRow:
    """One network at one batch size: its trainings, or the reason why there are none.

    Attributes:
        ratios: of each pair, our clips per second over this network's; of ours, none.
        memory_share: our peak over this network's.
        mfu: by the FLOPs of the published network and the best rate of products that was seen.
        bounds: None where nothing is judged.
    """

    network: str
    batch_size: int
    runs: tuple[Measured, ...] = ()
    skipped: str | None = None
    ratios: tuple[float, ...] = ()
    memory_share: float | None = None
    mfu: float | None = None
    bounds: Bounds | None = None

    @property
    def clips_per_s(self) -> float:
        return statistics.median(each.num_clips / each.time_s for each in self.runs)

    def checks(self) -> dict[str, bool]:
        """Return what is wanted of this row, in words, and whether it is so."""
        if self.bounds is None or not self.runs:
            return {}
        bounds, found = self.bounds, {}
        if self.network == OURS:
            if self.mfu is not None:
                found[f"MFU {100 * bounds.mfu:.0f} %"] = self.mfu >= bounds.mfu
            lead = _median(self.runs, "lead_s")
            if lead is not None:
                found[f"{bounds.lead_ms:g} ms ahead"] = 1000 * lead >= bounds.lead_ms
            return found
        wanted = bounds.speed.get(self.network)
        if wanted is not None and self.ratios:
            found[f"{wanted:g}x"] = statistics.median(self.ratios) >= wanted
        if wanted is not None and self.memory_share is not None:
            found[f"peak {bounds.memory:g}"] = self.memory_share <= bounds.memory
        return found

    @property
    def verdict(self) -> str:
        if self.skipped is not None:
            return f"skipped: {self.skipped}"
        checks = self.checks()
        if not checks:
            return "measured"
        missed = [name for name, is_met in checks.items() if not is_met]
        return f"miss: {', '.join(missed)}" if missed else "pass"


@dataclass(frozen=True, kw_only=True)
class BestOfEach:
    """Ours and a baseline, each with the batch of which it trains most clips per second."""

    baseline: str
    batch_sizes: tuple[int, int]
    clips_per_s: tuple[float, float]

    @property
    def ratio(self) -> float:
        return self.clips_per_s[0] / self.clips_per_s[1]


def compare_rows(
    ours: TrainRow, others: Sequence[TrainRow], bounds: Bounds | None
) -> list[TrainRow]:
    """Complete rows of one batch size with what compares them."""
    runs = [run for row in (ours, *others) for run in row.runs]
    rate = max((run.matmul_rate for run in runs), default=0.0)  # the machine may be shared
    flops = next((run.flops for run in ours.runs if run.flops), None)
    completed = []
    for row in (ours, *others):
        mfu = flops * row.clips_per_s / rate if row.runs and flops else None
        row = dataclasses.replace(row, mfu=mfu, bounds=bounds)
        if row.network != OURS and ours.runs:
            pairs = list(zip(ours.runs, row.runs, strict=False))
            ratios = (a.num_clips / a.time_s * b.time_s / b.num_clips for a, b in pairs)
            row = dataclasses.replace(row, ratios=tuple(ratios), memory_share=_share(ours, row))
        completed.append(row)
    return completed


def best_of_each(rows: Sequence[TrainRow]) -> list[BestOfEach]:
    """Compare networks across batch sizes, where there are several."""
    measured = [row for row in rows if row.runs]
    if len({row.batch_size for row in measured}) < 2:
        return []
    best: dict[str, TrainRow] = {}
    for row in measured:
        known = best.get(row.network)
        if known is None or row.clips_per_s > known.clips_per_s:
            best[row.network] = row
    ours = best.pop(OURS, None)
    return [
        BestOfEach(
            baseline=name,
            batch_sizes=(ours.batch_size, row.batch_size),
            clips_per_s=(ours.clips_per_s, row.clips_per_s),
        )
        for name, row in best.items()
        if ours is not None
    ]


def show(
    title: str, rows: Sequence[TrainRow], best: Sequence[BestOfEach], console: Console
) -> None:
    """Print all rows, without columns that are empty."""
    cells = [_cells(row) for row in rows]
    shown = [i for i in range(len(COLUMNS)) if any(each[i] for each in cells)]
    table = Table(title=title, title_justify="left")
    table.add_column("network", no_wrap=True)
    for i in shown:
        table.add_column(COLUMNS[i], justify="right")
    table.add_column("result")
    for row, each in zip(rows, cells, strict=True):
        table.add_row(row.network, *(each[i] for i in shown), row.verdict)
    console.print(table)
    for one in best:
        (a, b), (fast, slow) = one.batch_sizes, one.clips_per_s
        console.print(
            f"each at its best batch: ours {fast:.1f} clips/s with {a} videos, {one.baseline} "
            f"{slow:.1f} with {b}: {one.ratio:.2f}"
        )


def entry_of(row: TrainRow) -> dict[str, Any]:
    """A row for the JSON file, with what follows from it."""
    speed = row.clips_per_s if row.runs else None
    return {**dataclasses.asdict(row), "clips_per_s": speed, "verdict": row.verdict}


def _cells(row: TrainRow) -> list[str]:
    if not row.runs:
        return [""] * len(COLUMNS)
    first = row.runs[0]
    lead, peak = _median(row.runs, "lead_s"), _median(row.runs, "peak")
    ratio = ""
    if row.ratios:
        least, most = min(row.ratios), max(row.ratios)
        ratio = f"{statistics.median(row.ratios):.2f} ({least:.2f}, {most:.2f})"
    return [
        f"{first.num_clips // first.num_steps}",
        f"{row.clips_per_s:.1f}",
        f"{1000 * statistics.median(run.time_s / run.num_steps for run in row.runs):.0f} ms",
        f"{1000 * statistics.median(run.host_s for run in row.runs):.0f} ms",
        f"{100 * statistics.median(run.data_wait_s / run.time_s for run in row.runs):.0f} %",
        *(_count(row.runs, name) for name in ("operators", "launches", "waits")),
        "" if lead is None else f"{1000 * lead:.0f} ms",
        "" if peak is None else f"{peak / 1e9:.2f} GB",
        "" if row.mfu is None else f"{100 * row.mfu:.0f} %",
        ratio,
        "" if row.memory_share is None else f"{row.memory_share:.2f}",
        ", ".join(row.checks()),
    ]


def _count(runs: Sequence[Measured], name: str) -> str:
    value = _median(runs, name)
    return "" if value is None else f"{value:,.0f}"


def _median(runs: Sequence[Measured], name: str) -> float | None:
    values = [getattr(run, name) for run in runs]
    return None if None in values or not values else float(statistics.median(values))


def _share(ours: TrainRow, other: TrainRow) -> float | None:
    peaks = (_median(ours.runs, "peak"), _median(other.runs, "peak"))
    return peaks[0] / peaks[1] if peaks[0] and peaks[1] else None
