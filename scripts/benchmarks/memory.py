"""What a training step of the network needs in memory here, beside others, each in a process."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine_facts import describe_machine, machine_facts
from benchmarks.measurements import (
    CHECKPOINTED,
    OURS,
    Measurement,
    MeasureRequest,
    measure_time_and_peak,
)
from benchmarks.model import check_baselines
from benchmarks.peer_errors import BaselineError
from benchmarks.workloads import Setting
from video_mvit.errors import UserError

MB = 1e6
COLUMNS = ("peak", "above libraries", "a step", "ours / it", "above libraries", "wanted")


@dataclass(frozen=True, kw_only=True)
class MemoryBenchmark:
    """A training step of `setting`, by us, by us with recomputed blocks, and by the baselines.

    Attributes:
        num_processes: of which the smallest peak counts.
        num_runs: steps that are timed, after a first one.
        timeout_s: of each process.
        wanted: which share of a peer's peak ours may have, at most: device -> peer -> share.
    """

    output: str
    setting: Setting
    against: Sequence[str]
    num_processes: int = 3
    num_runs: int = 3
    timeout_s: float
    wanted: Mapping[str, Mapping[str, float]]

    def __post_init__(self) -> None:
        check_baselines(self.against)
        for name in ("num_processes", "num_runs", "timeout_s"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} {getattr(self, name)} must be positive")


@dataclass(frozen=True, kw_only=True)
class MemoryRow:
    """One network; `share` is our peak over its peak, `net_share` without libraries."""

    network: str
    measured: Measurement | None = None
    skipped: str | None = None
    share: float | None = None
    net_share: float | None = None
    wanted: float | None = None

    @property
    def verdict(self) -> str:
        if self.skipped is not None:
            return f"skipped: {self.skipped}"
        if self.share is None or self.wanted is None:
            return "measured"
        return "pass" if self.share <= self.wanted else "miss"


def run_memory_benchmark(settings: MemoryBenchmark, console: Console) -> list[MemoryRow]:
    """Measure, show, and write `memory_<name>_<precision>_<device>.json` into `output`."""
    rows: list[MemoryRow] = []
    for network in (OURS, *CHECKPOINTED, *settings.against):
        with console.status(f"a training step, {network}"):
            row = _row_of(network, settings)
        rows.append(row if row.skipped else _compared(row, rows, settings))
    facts, setting = machine_facts(settings.setting.device), settings.setting
    _show(settings, rows, describe_machine(facts), console)
    name = f"memory_{setting.name}_{setting.precision}_{setting.device}.json"
    content = {
        "settings": dataclasses.asdict(settings),
        "machine": facts,
        "rows": [entry_of(row) for row in rows],
    }
    report = Path(settings.output, name)
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(content, indent=2) + "\n")
    console.print(f"written to {report}")
    return rows


def entry_of(row: MemoryRow) -> dict[str, Any]:
    """A row for the JSON file."""
    return {**dataclasses.asdict(row), "verdict": row.verdict}


def _row_of(network: str, settings: MemoryBenchmark) -> MemoryRow:
    request = MeasureRequest(
        network=network, work="step", setting=settings.setting, num_runs=settings.num_runs
    )
    try:
        measured = measure_time_and_peak(request, settings.timeout_s, settings.num_processes)
    except BaselineError as error:
        return MemoryRow(network=network, skipped=str(error))
    return MemoryRow(network=network, measured=measured)


def _compared(row: MemoryRow, rows: Sequence[MemoryRow], settings: MemoryBenchmark) -> MemoryRow:
    """The row of a baseline with what ours needs beside it; of ours, as it is."""
    ours = rows[0].measured if rows else None
    if ours is None or row.measured is None or row.network in CHECKPOINTED:
        return row
    return dataclasses.replace(
        row,
        share=ours.peak / row.measured.peak,
        net_share=ours.above_libraries / row.measured.above_libraries,
        wanted=settings.wanted.get(settings.setting.device, {}).get(row.network),
    )


def _show(
    settings: MemoryBenchmark, rows: Sequence[MemoryRow], machine: str, console: Console
) -> None:
    clips = settings.setting.describe_clips(settings.setting.batch_size)
    title = f"a step of the network alone, {clips}; {machine}"
    table = Table("network", title=title, title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    table.add_column("result")
    for row in rows:
        table.add_row(row.network, *_cells(row), row.verdict)
    console.print(table)


def _cells(row: MemoryRow) -> list[str]:
    if row.measured is None:
        return [""] * len(COLUMNS)
    shares = ["" if share is None else f"{share:.2f}" for share in (row.share, row.net_share)]
    return [
        f"{row.measured.peak / MB:.0f} MB",
        f"{row.measured.above_libraries / MB:.0f} MB",
        f"{row.measured.time_ms:.0f} ms",
        *shares,
        "" if row.wanted is None else f"{row.wanted:g}",
    ]
