"""Inference engines on a CPU beside PyTorch's eager mode, on raw clips, in alternating pairs."""

import dataclasses
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.machine_facts import describe_machine, machine_facts
from benchmarks.model_peers import draw_weights
from benchmarks.workloads import MEAN, STD, Setting
from video_mvit.data.transforms.augment import Normalize
from video_mvit.errors import UserError
from video_mvit.models.mvit import MViT
from video_mvit.weights.engines import Engine, Run, eager_run, open_engine
from video_mvit.weights.openvino_graphs import Precision

# What is measured; ONNX Runtime computes in float32 on a CPU, and PyTorch not in int8.
ENGINES: Sequence[tuple[str, Precision]] = (
    ("onnxruntime", "float32"),
    ("openvino", "float32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)


@dataclass(frozen=True, kw_only=True)
class EnginesBenchmark:
    """Each engine on `batch_sizes` clips at a time, in `num_pairs` turns with PyTorch.

    `wanted` is how many times the engine's time PyTorch's at the same precision is to be, at least:
    network -> engine and precision -> batch size -> ratio. int8 is held against float32.
    """

    output: str
    setting: Setting
    batch_sizes: Sequence[int]
    num_pairs: int
    wanted: Mapping[str, Mapping[str, Mapping[str, float]]]

    def __post_init__(self) -> None:
        if self.setting.device != "cpu":
            raise UserError(f"device is {self.setting.device}, but engines run on a CPU")
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise UserError(f"engines.batch_sizes {list(self.batch_sizes)} must be 1 or more each")
        if self.num_pairs < 1:
            raise UserError(f"num_pairs {self.num_pairs} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class EngineRow:
    """Seconds of a batch: the engine, PyTorch at its precision, and PyTorch in float32.

    `own_s` is of the same engine at its other precisions, in the same turns.
    """

    engine: str
    precision: Precision
    batch_size: int
    difference: float
    prepare_s: float
    engine_s: tuple[float, ...]
    eager_s: tuple[float, ...]
    eager_float32_s: tuple[float, ...]
    own_s: Mapping[str, tuple[float, ...]]
    wanted: float | None

    @property
    def ratio(self) -> float:
        """Return the median of the ratios of the pairs."""
        return self._median_ratio(self.eager_s)

    def _median_ratio(self, other_s: Sequence[float]) -> float:
        return statistics.median(b / a for a, b in zip(self.engine_s, other_s, strict=True))

    @property
    def verdict(self) -> str:
        if self.wanted is None:
            return "measured"
        return "pass" if self.ratio >= self.wanted else "miss"

    def cells(self) -> list[str]:
        clip_ms = 1000 * statistics.median(self.engine_s) / self.batch_size
        wanted = "" if self.wanted is None else f"{self.wanted:g}"
        return [
            f"{self.engine} {self.precision}",
            str(self.batch_size),
            f"{clip_ms:.1f} ms",
            f"{self.ratio:.2f}",
            f"{self._median_ratio(self.eager_float32_s):.2f}",
            ", ".join(f"{name} {self._median_ratio(s):.2f}" for name, s in self.own_s.items()),
            f"{100 * self.difference:.2g} %",
            f"{self.prepare_s:.0f} s",
            wanted,
            self.verdict,
        ]


def run_engines_benchmark(settings: EnginesBenchmark, console: Console) -> list[EngineRow]:
    """Measure, show, and write `engines_<name>.json` into `output`."""
    setting, facts = settings.setting, machine_facts("cpu")
    model = MViT(setting.config)
    draw_weights(model, setting.seed)
    network = nn.Sequential(Normalize(mean=MEAN, std=STD), model).eval()
    T, side = setting.config.num_frames, setting.config.crop_size
    generator = torch.Generator().manual_seed(setting.seed)
    clips = torch.randint(
        0, 256, (max(2, *settings.batch_sizes), T, 3, side, side), dtype=torch.uint8,
        generator=generator,
    )  # fmt: skip
    engines: list[Engine] = []
    for name, precision in ENGINES:
        with console.status(f"{name}, {precision}"):
            at_once = max(settings.batch_sizes)
            engine = open_engine(network, clips[:2], name, precision, at_once)  # type: ignore[arg-type]
            engines.append(engine)
    rows: list[EngineRow] = []
    for batch_size in settings.batch_sizes:
        with console.status(f"{batch_size} clips at a time"):
            rows += _measure(settings, network, engines, clips[:batch_size])
    table = Table("", title=f"{setting.name}, {describe_machine(facts)}", title_justify="left")
    columns = (
        "clips",
        "a clip",
        "torch / engine",
        "torch float32 / engine",
        "own / engine",
        "differs by",
    )
    for column in (*columns, "ready after", "wanted", ""):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row.cells())
    console.print(table)
    report = Path(settings.output, f"engines_{setting.name}.json")
    report.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": facts, "rows": [dataclasses.asdict(row) for row in rows]}
    report.write_text(json.dumps(content, indent=2) + "\n")
    console.print(f"written to {report}")
    return rows


def _measure(
    settings: EnginesBenchmark, network: nn.Module, engines: Sequence[Engine], batch: torch.Tensor
) -> list[EngineRow]:
    """Let all engines and PyTorch take turns on one batch; the first turn warms up."""
    host = torch.device("cpu")
    runs: dict[tuple[str, str], Run] = {
        ("torch", "float32"): eager_run(network, host, "float32"),
        ("torch", "bf16"): eager_run(network, host, "bf16"),
        **{(engine.name, engine.precision): engine.run for engine in engines},
    }
    times_s: dict[tuple[str, str], list[float]] = {which: [] for which in runs}
    for turn in range(settings.num_pairs + 1):
        for which, run in runs.items():
            start = time.perf_counter()
            run(batch)
            if turn:
                times_s[which].append(time.perf_counter() - start)
    bounds = settings.wanted.get(settings.setting.name, {})
    rows = []
    for engine in engines:
        name, precision = engine.name, engine.precision
        wanted = bounds.get(f"{name} {precision}", {})
        eager = "bf16" if precision == "bf16" else "float32"
        own = [which for which in times_s if which[0] == name and which[1] != precision]
        row = EngineRow(
            engine=name,
            precision=precision,
            batch_size=len(batch),
            difference=engine.difference,
            prepare_s=engine.prepare_s,
            engine_s=tuple(times_s[name, precision]),
            eager_s=tuple(times_s["torch", eager]),
            eager_float32_s=tuple(times_s["torch", "float32"]),
            own_s={other: tuple(times_s[name, other]) for _, other in own},
            wanted=wanted.get(str(len(batch))),
        )
        rows.append(row)
    return rows
