"""The benchmark of a whole training: the command itself, honest pairs, counts that see a wait."""

import dataclasses
import io
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import train as benchmark_train
from benchmarks.measurements import OURS
from benchmarks.peer_errors import BaselineError
from benchmarks.step_count import count_step, num_launches
from benchmarks.train import TrainBenchmark, measure, run_train_benchmark, words_of
from benchmarks.train_parts import KeptBatches, create_baseline, write_footage
from benchmarks.train_probe import Measured, StepEnd, least_lead_s
from benchmarks.train_rows import Bounds, TrainRow, best_of_each, compare_rows
from rich.console import Console
from support.commands import composed as composed_in
from support.commands import run_command
from support.paths import SCRIPTS
from torch import nn

from video_mvit.cli.build import build
from video_mvit.cli.config_check import check_values
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.data.dataset import Batch
from video_mvit.errors import UserError

CPU = torch.device("cpu")
BOUNDS = Bounds(experiment="s", speed={"torchvision": 3.0}, memory=0.5, mfu=0.22, lead_ms=10)
MEASURED = Measured(
    num_clips=64,
    num_steps=2,
    time_s=1.0,
    host_s=0.1,
    data_wait_s=0.01,
    lead_s=0.02,
    operators=2000,
    launches=1500,
    waits=0,
    peak=10**9,
    flops=10**12,
    matmul_rate=2e14,
)


def benchmark(output: Path, *overrides: str) -> TrainBenchmark:
    small = ("batch_sizes=[4]", "num_pairs=1", "num_warmups=1", "num_steps=2")
    words = [f"output={output}", *(f"train.{word}" for word in small), *overrides]
    cfg = composed_in("benchmark", *words, folder=SCRIPTS / "benchmarks")
    check_values(cfg.train, "train")
    return build(cfg.train)  # type: ignore[no-any-return]


@pytest.fixture
def forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork trainings instead of starting an interpreter for each."""

    def run(words: list[str], _: float) -> subprocess.CompletedProcess[str]:
        return run_command(*words, cwd=tmp_path)

    monkeypatch.setattr(benchmark_train, "run_command", run)


# The whole


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_training_is_measured_from_files_beside_torchvision(tmp_path: Path) -> None:
    printed = io.StringIO()
    console = Console(file=printed, width=200)
    rows = run_train_benchmark(benchmark(tmp_path), console)
    assert [row.network for row in rows] == [OURS, "torchvision"]
    for row in rows:
        (run,) = row.runs
        assert (run.num_clips, run.num_steps) == (8, 2)
        assert run.time_s > run.host_s > 0
        assert (run.operators or 0) > 500
        assert (run.waits is None, run.lead_s, run.launches) == (False, None, None)
        assert (run.peak or 0) > 1e8
        assert 0 < (row.mfu or 0) < 1
        assert row.verdict == "measured"  # bounds are of a GPU
        assert f"{run.operators:,}" in printed.getvalue()
    (ratio,) = rows[1].ratios
    assert ratio == pytest.approx(rows[0].clips_per_s / rows[1].clips_per_s)
    content = json.loads((tmp_path / "train_demo_cpu.json").read_text())
    assert [row["clips_per_s"] for row in content["rows"]] == [row.clips_per_s for row in rows]
    assert not list(tmp_path.glob("tmp*"))  # no run stays


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_training_from_memory_and_a_network_that_is_not_there(tmp_path: Path) -> None:
    settings = benchmark(
        tmp_path, "train.data=memory", "train.against=[torchvision]", "train.options=[]"
    )
    ours, other = run_train_benchmark(settings, Console(file=io.StringIO()))
    assert ours.runs[0].num_clips == 8
    assert other.verdict.startswith("skipped: video-mvit train: it has video models with a cls")


# What is asked for


def test_words_are_those_of_the_command(tmp_path: Path) -> None:
    settings = benchmark(
        tmp_path, "compile=blocks", "train.data=memory", "train.experiment=k400_mvitv2_s_16x4"
    )
    ours = words_of(settings, OURS, 64, tmp_path, tmp_path)
    assert {"experiment=k400_mvitv2_s_16x4", "data.train_batch_size=64", "compile=blocks"} < {*ours}
    assert "+callbacks.probe.is_compiled=true" in ours
    assert "data.module._target_=benchmarks.train_parts.MemoryDataModule" in ours
    assert "augment=published" in ours
    other = words_of(settings, "torchvision", 64, tmp_path, tmp_path)
    assert "+callbacks.probe.is_compiled=false" in other
    assert {*other} - {*ours} == {
        "model._target_=benchmarks.train_parts.create_baseline",
        "+model.baseline=torchvision",
        "+callbacks.probe.is_compiled=false",
    }
    compiled = words_of(settings, "torchvision_compiled", 64, tmp_path, tmp_path)
    assert "+callbacks.probe.is_compiled=true" in compiled


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.against=[slowfast]", "against has 'slowfast', expected some of plain, torchvis"),
        ("train.batch_sizes=[]", r"batch_sizes \[\] must be positive"),
        ("train.batch_sizes=[8,0]", r"batch_sizes \[8, 0\] must be positive"),
        ("train.num_steps=0", "num_steps 0 must be positive"),
        ("train.data=tape", "data is 'tape', expected"),
        ("compile=true", "compile is true, expected"),
        ("train.wanted.mfu=0", "wanted mfu 0 must be positive"),
    ],
)
def test_wrong_value_is_a_user_error(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=message), exit_on_user_error():
        benchmark(tmp_path, override)


def test_training_that_fails_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(code: int, told: str) -> None:
        done = subprocess.CompletedProcess([], code, "", told)
        monkeypatch.setattr(benchmark_train, "run_command", lambda *_: done)

    ends(1, "12:00 precision\nerror: compile=cudagraph needs a GPU\n")
    with pytest.raises(UserError, match=r"^video-mvit train: compile=cudagraph needs a GPU$"):
        measure([], tmp_path, 1)
    for code, told in ((-9, ""), (1, "Trace\ntorch.OutOfMemoryError: CUDA out of memory. Tried")):
        ends(code, told)
        with pytest.raises(BaselineError, match="does not fit into memory"):
            measure([], tmp_path, 1)
    ends(1, "Traceback\nKeyError: 'x'")
    with pytest.raises(RuntimeError, match="ended with 1: Traceback\nKeyError"):
        measure(["train"], tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(BaselineError, match=r"took longer than 0\.001 s"):
        measure(["train"], tmp_path, 0.001)


# Parts


def test_baseline_has_the_drop_path_of_the_experiment() -> None:
    sizes = {"num_frames": 4, "crop_size": 32, "embed_dim": 16, "depths": [1, 1, 1, 1]}
    network = create_baseline("mvitv2_s", baseline="torchvision", drop_path_rate=0.2, **sizes)
    rates = [each.p for each in network.modules() if type(each).__name__ == "StochasticDepth"]
    assert max(rates) == pytest.approx(0.2)


def test_kept_batches_fill_an_epoch() -> None:
    batches = [Batch(*[torch.tensor([i])] * 3, unreadable=()) for i in range(2)]
    kept = KeptBatches(batches, 5)
    assert len(kept) == 5
    assert [int(batch.label) for batch in kept] == [0, 1, 0, 1, 0]
    assert len(list(kept)) == 5  # the next epoch as well


def test_footage_is_laid_out_once_as_kinetics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def write(folder: Path, seed: int, number: int) -> Path:
        folder.mkdir(exist_ok=True)
        path = folder / f"{seed}_{number}.mp4"
        path.write_bytes(b"")
        written.append(number)
        return path

    monkeypatch.setattr("benchmarks.train_parts.generated_video", write)
    root = write_footage(tmp_path, 3, 900, seed=0)
    assert write_footage(tmp_path, 3, 900, seed=0) == root
    assert written == [0, 1, 2] * 2
    rows = (root / "train.csv").read_text().splitlines()
    assert len(rows) == 901
    assert len({row.split(",")[0] for row in rows[1:]}) == 400
    assert len(list((root / "train").glob("*/*.mp4"))) == 900


# Counts


class Waits(nn.Module):
    """A step of two operators, with one wait for the device."""

    def forward(self) -> float:
        return torch.ones(3).sum().item()


def test_a_wait_is_counted_and_a_compiled_network_is_not() -> None:
    counted = count_step(Waits(), CPU, is_compiled=False)
    assert (counted.operators, counted.launches, counted.waits) == (3, None, 1)
    step = lambda: torch.ones(3).sum()  # noqa: E731
    assert count_step(step, CPU, is_compiled=False).waits == 0
    assert count_step(Waits(), CPU, is_compiled=True) == (None, None, None)
    calls = Counter({"cudaLaunchKernel": 5, "cuLaunchKernelEx": 2, "cudaGraphLaunch": 1, "mm": 9})
    assert num_launches(calls) == 8


class Instant:
    """A timestamp of a device at a known time."""

    def __init__(self, time_s: float) -> None:
        self.time_s = time_s

    def until_s(self, later: Any) -> float:
        return later.time_s - self.time_s


def test_lead_is_the_least_time_by_which_the_device_ends_later() -> None:
    start = StepEnd(100.0, Instant(5.0))
    ends = [StepEnd(100.1, Instant(5.25)), StepEnd(100.4, Instant(5.43))]
    assert least_lead_s(start, ends) == pytest.approx(0.03)
    assert least_lead_s(start, [*ends, StepEnd(101.0, Instant(5.9))]) == pytest.approx(-0.1)


# Rows


def row(network: str, batch_size: int = 32, **changes: Any) -> TrainRow:
    runs = (dataclasses.replace(MEASURED, **changes),)
    return TrainRow(network=network, batch_size=batch_size, runs=runs)


def test_bounds_are_judged_pair_by_pair() -> None:
    slow = {"time_s": 3.5, "peak": 3 * 10**9, "flops": None}
    ours, other = compare_rows(row(OURS), [row("torchvision", **slow)], BOUNDS)
    assert (ours.mfu, other.mfu) == (pytest.approx(0.32), pytest.approx(0.32 / 3.5))
    assert other.ratios == (3.5,)
    assert other.memory_share == pytest.approx(1 / 3)
    assert (ours.verdict, other.verdict) == ("pass", "pass")


@pytest.mark.parametrize(
    ("changes", "theirs", "verdicts"),
    [
        ({"time_s": 1.5}, {}, ("miss: MFU 22 %", "miss: 3x")),
        ({"lead_s": 0.009}, {}, ("miss: 10 ms ahead", "pass")),
        ({}, {"time_s": 2.9}, ("pass", "miss: 3x")),
        ({"peak": 2 * 10**9}, {}, ("pass", "miss: peak 0.5")),
        ({"lead_s": None}, {}, ("pass", "pass")),
    ],
)
def test_a_missed_bound_is_named(
    changes: dict[str, Any], theirs: dict[str, Any], verdicts: tuple[str, str]
) -> None:
    slow = {"time_s": 3.5, "peak": 3 * 10**9, "flops": None, **theirs}
    rows = compare_rows(row(OURS, **changes), [row("torchvision", **slow)], BOUNDS)
    assert tuple(each.verdict for each in rows) == verdicts
    without = compare_rows(row(OURS, **changes), [row("torchvision", **slow)], None)
    assert [each.verdict for each in without] == ["measured"] * 2


def test_each_network_has_the_batch_that_suits_it() -> None:
    rows = [row(OURS), row("torchvision", time_s=2.0)]
    assert best_of_each(rows) == []
    rows += [row(OURS, 64, time_s=0.5)]
    rows += [TrainRow(network="torchvision", batch_size=64, skipped="does not fit into memory")]
    (best,) = best_of_each(rows)
    assert (best.batch_sizes, best.clips_per_s, best.ratio) == ((64, 32), (128.0, 32.0), 4.0)
