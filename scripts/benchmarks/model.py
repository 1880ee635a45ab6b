"""How fast the network runs, trains and evaluates here, beside others with the same weights.

Ours and a baseline take turns in one process, A B A B; a pair is one run of each, and its ratio
is the baseline's time over ours. Before that their logits are compared.
"""

import copy
import dataclasses
import gc
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.machine_facts import describe_machine, machine_facts
from benchmarks.model_peers import BUILDERS, build_baseline, difference, draw_weights, give_weights
from benchmarks.peer_errors import BaselineError, baseline_errors
from benchmarks.workloads import (
    MEAN,
    STD,
    Setting,
    Task,
    compile_network,
    draw_clips,
    forward_task,
    step_task,
    timed_s,
)
from video_mvit.data.transforms.augment import Normalize
from video_mvit.errors import UserError
from video_mvit.evaluation.view_scores import ClipPasses, clips_at_once, score_videos
from video_mvit.models.mvit import MViT
from video_mvit.training.throughput import FLOPS_OF_STEP, count_flops, matmul_rate, on_meta

RUN_ERRORS = (RuntimeError, NotImplementedError, TypeError, ValueError)
COLUMNS = ("ours", "other", "ratio", "from, to", "GMAC/s", "of matmul", "differs by", "wanted")
Wanted = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]


@dataclass(frozen=True, kw_only=True)
class ModelBenchmark:
    """What is done (`target`) by which network (`setting`), `num_pairs` times by each side.

    Attributes:
        against: names of baselines, see `model_peers.BUILDERS`.
        num_warmups: runs of each side that are not counted.
        num_views: of each video of `target=evaluate`; `setting.batch_size` is its videos.
        tolerance: how much logits may differ, at most.
        wanted: how many times our time a peer is wanted to take, at least: device -> target ->
            precision -> baseline -> ratio.
    """

    output: str
    target: Literal["model", "step", "evaluate"]
    setting: Setting
    against: Sequence[str]
    num_pairs: int = 5
    num_warmups: int = 2
    num_views: int = 5
    tolerance: float = 1e-3
    wanted: Wanted

    def __post_init__(self) -> None:
        check_baselines(self.against)
        for name in ("num_pairs", "num_warmups", "num_views"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} must be at least 1")
        if not self.tolerance > 0:
            raise UserError(f"tolerance {self.tolerance} must be positive")

    @property
    def passes(self) -> int:
        """Clips that are run through the network each time."""
        return self.setting.batch_size * (self.num_views if self.target == "evaluate" else 1)


@dataclass(frozen=True, kw_only=True)
class SpeedRow:
    """Our network beside one baseline; `gmacs` are of one run, multiply-adds / 1e9."""

    baseline: str
    wanted: float | None
    skipped: str | None = None
    failed: str | None = None
    is_same_network: bool = True
    difference: float | None = None
    ours_ms: tuple[float, ...] = ()
    baseline_ms: tuple[float, ...] = ()
    gmacs: float | None = None
    matmul_gmacs_per_s: float = 0.0

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(b / a for a, b in zip(self.ours_ms, self.baseline_ms, strict=True))

    @property
    def gmacs_per_s(self) -> float | None:
        return self.gmacs and 1000 * self.gmacs / statistics.median(self.ours_ms)

    @property
    def matmul_share(self) -> float | None:
        return self.gmacs_per_s and self.gmacs_per_s / self.matmul_gmacs_per_s

    @property
    def verdict(self) -> str:
        if self.skipped is not None:
            return f"skipped: {self.skipped}"
        if self.failed is not None:
            return f"failed: {self.failed}"
        verdict = "measured"
        if self.wanted is not None:
            verdict = "pass" if statistics.median(self.ratios) >= self.wanted else "miss"
        return verdict if self.is_same_network else f"{verdict}, another network and weights"


def check_baselines(names: Sequence[str]) -> None:
    """Raise `ValueError` where a name is unknown."""
    for name in names:
        if name not in BUILDERS:
            raise UserError(f"against has {name!r}, expected some of {', '.join(BUILDERS)}")


def run_model_benchmark(settings: ModelBenchmark, console: Console) -> list[SpeedRow]:
    """Measure, show, and write `<target>_<name>_<precision>_<device>.json` into `output`."""
    setting, facts = settings.setting, machine_facts(settings.setting.device)
    ours = MViT(setting.config)
    draw_weights(ours, setting.seed)
    gmacs = _gmacs(ours, settings)
    rates, rows = [_matmul_gmacs_per_s(setting)], []
    for name in settings.against:
        with console.status(f"{settings.target}, {name}"):
            rows.append(compare(copy.deepcopy(ours), name, settings))
            gc.collect()  # before the next network is built
        rates.append(_matmul_gmacs_per_s(setting))
    best = max(rates)  # of a machine that others use as well
    rows = [dataclasses.replace(row, gmacs=gmacs, matmul_gmacs_per_s=best) for row in rows]
    _show(settings, rows, describe_machine(facts), console)
    name = f"{settings.target}_{setting.name}_{setting.precision}_{setting.device}.json"
    report = Path(settings.output, name)
    report.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "settings": dataclasses.asdict(settings),
        "machine": facts,
        "rows": [entry_of(row) for row in rows],
    }
    report.write_text(json.dumps(content, indent=2) + "\n")
    console.print(f"written to {report}")
    return rows


def compare(ours: MViT, name: str, settings: ModelBenchmark) -> SpeedRow:
    """Logits, then times of ours and of one baseline."""
    setting = settings.setting
    targets = {} if setting.compile else settings.wanted.get(setting.device, {})
    bounds = targets.get(settings.target, {}).get(str(setting.precision), {})
    row = SpeedRow(baseline=name, wanted=bounds.get(name))
    try:
        baseline = build_baseline(name, ours.config)
        is_same = give_weights(name, baseline, ours)
        row = dataclasses.replace(row, is_same_network=is_same)
        for network in (ours, baseline):
            network.to(setting.device)
        if is_same:
            clip, training = draw_clips(setting)[:1], settings.target == "step"
            apart = difference(ours.train(training), baseline.train(training), clip)
            row = dataclasses.replace(row, difference=apart)
            if not apart <= settings.tolerance:  # or NaN
                reason = f"logits differ by {apart:.2g}, more than {settings.tolerance:g}"
                return dataclasses.replace(row, failed=reason)
        if setting.compile:
            torch.compiler.reset()
            for network in (ours, baseline):
                compile_network(network, setting)
        sides = [task_of(network, settings) for network in (ours, baseline)]
        sides[0]()  # where ours does not run, that is no fault of the baseline
        with baseline_errors("it does not run", *RUN_ERRORS):
            times_s = alternate(sides, settings)
    except BaselineError as error:
        return dataclasses.replace(row, skipped=str(error))
    ours_s, baseline_s = zip(*times_s, strict=True)
    return dataclasses.replace(
        row,
        ours_ms=tuple(1000 * time_s for time_s in ours_s),
        baseline_ms=tuple(1000 * time_s for time_s in baseline_s),
    )


def task_of(network: nn.Module, settings: ModelBenchmark) -> Task:
    """One run of a network: a forward pass, a training step, or the scores of videos."""
    tasks: Mapping[str, Callable[[nn.Module, Tensor, Setting], Task]] = {
        "model": forward_task,
        "step": step_task,
    }
    setting = settings.setting
    if settings.target in tasks:
        return tasks[settings.target](network, draw_clips(setting), setting)
    return _score_task(network, settings)


def alternate(sides: Sequence[Task], settings: ModelBenchmark) -> list[tuple[float, ...]]:
    """Seconds of each side in each pair, after some that are not counted."""
    num_runs, device = settings.num_warmups + settings.num_pairs, settings.setting.device
    times_s = [tuple(timed_s(side, device) for side in sides) for _ in range(num_runs)]
    return times_s[settings.num_warmups :]


def entry_of(row: SpeedRow) -> dict[str, Any]:
    """A row for the JSON file, with what follows from it."""
    is_measured = bool(row.ours_ms)
    return {
        **dataclasses.asdict(row),
        "ratio": statistics.median(row.ratios) if is_measured else None,
        "gmacs_per_s": row.gmacs_per_s if is_measured else None,
        "matmul_share": row.matmul_share if is_measured else None,
        "verdict": row.verdict,
    }


def _score_task(network: nn.Module, settings: ModelBenchmark) -> Task:
    """Scores of videos as the classifier computes them, from raw views."""
    setting, config = settings.setting, settings.setting.config
    network.eval()
    generator = torch.Generator().manual_seed(setting.seed)
    shape = (setting.batch_size, settings.num_views, config.num_frames, 3, *[config.crop_size] * 2)
    views = torch.randint(256, shape, dtype=torch.uint8, generator=generator).to(setting.device)
    preprocess = Normalize(mean=MEAN, std=STD).to(setting.device)
    passes = ClipPasses(clips_at_once(shape[2:3] + shape[4:], views.device))

    def score() -> Tensor:
        with torch.inference_mode(), setting.autocast():
            return score_videos(network, views, preprocess, passes)

    return score


def _gmacs(ours: MViT, settings: ModelBenchmark) -> float | None:
    """Multiply-adds / 1e9 of the published network in one run."""
    config = ours.config
    clip = torch.empty(1, 3, config.num_frames, config.crop_size, config.crop_size)
    flops = count_flops(on_meta(ours), clip)
    if flops is None:
        return None
    passes = FLOPS_OF_STEP if settings.target == "step" else 1
    return flops / FLOPS_OF_STEP / 2e9 * passes * settings.passes


def _matmul_gmacs_per_s(setting: Setting) -> float:
    return matmul_rate(torch.device(setting.device), setting.matmul_precision) / 2e9


def _show(
    settings: ModelBenchmark, rows: Sequence[SpeedRow], machine: str, console: Console
) -> None:
    clips = settings.setting.describe_clips(settings.passes)
    title = f"{settings.target} of the network alone, {clips}; {machine}"
    table = Table("against", title=title, title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    table.add_column("result")
    for row in rows:
        table.add_row(row.baseline, *_cells(row), row.verdict)
    console.print(table)


def _cells(row: SpeedRow) -> list[str]:
    apart = "" if row.difference is None else f"{row.difference:.1e}"
    wanted = "" if row.wanted is None else f"{row.wanted:g}"
    if not row.ours_ms:
        return ["", "", "", "", "", "", apart, wanted]
    share = row.matmul_share
    return [
        f"{statistics.median(row.ours_ms):.1f} ms",
        f"{statistics.median(row.baseline_ms):.1f} ms",
        f"{statistics.median(row.ratios):.2f}",
        f"{min(row.ratios):.2f}, {max(row.ratios):.2f}",
        "" if row.gmacs_per_s is None else f"{row.gmacs_per_s:.1f}",
        "" if share is None else f"{100 * share:.0f} %",
        apart,
        wanted,
    ]
