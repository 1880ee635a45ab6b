"""The model benchmark: the same weights and clips on both sides, and honest rows."""

import dataclasses
import io
import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import model as benchmark_model
from benchmarks.model import ModelBenchmark, SpeedRow, alternate, run_model_benchmark
from benchmarks.model_peers import PlainMViT, comparable_config
from benchmarks.peer_errors import BaselineError
from benchmarks.workloads import (
    Setting,
    compile_network,
    draw_clips,
    forward_task,
    gradient_task,
    step_task,
)
from rich.console import Console
from support.commands import composed as composed_in
from support.paths import SCRIPTS
from torch import Tensor, nn

from video_mvit.cli.build import build
from video_mvit.cli.config_check import check_values
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.models.config import MViTConfig
from video_mvit.models.mvit import MViT
from video_mvit.training.throughput import count_flops, on_meta

pytestmark = pytest.mark.slow  # a command as a whole, or networks of other libraries

TINY = {
    "num_frames": 4,
    "crop_size": 32,
    "embed_dim": 16,
    "depths": [1, 1, 1, 1],
    "num_classes": 5,
}
TINY_OVERRIDES = [
    "model.num_frames=4",
    "model.crop_size=32",
    "model.num_classes=5",
    "+model.embed_dim=16",
    "+model.depths=[1,1,1,1]",
]


def composed(tmp_path: Path, *overrides: str) -> Any:
    options = [f"output={tmp_path}", "num_pairs=2", *TINY_OVERRIDES, *overrides]
    return composed_in("benchmark", *options, folder=SCRIPTS / "benchmarks")


def flat_settings(tmp_path: Path, *overrides: str) -> ModelBenchmark:
    cfg = composed(tmp_path, *overrides)
    check_values(cfg.network, "network")
    return build(cfg.network)  # type: ignore[no-any-return]


def tiny_setting(**values: Any) -> Setting:
    return Setting(name="tiny", config=comparable_config("mvitv2_s", **TINY), **values)


def row(**values: Any) -> SpeedRow:
    return SpeedRow(
        **{"baseline": "p", "wanted": 2.0, "ours_ms": (1.0,), "baseline_ms": (2.0,), **values}
    )


# Rows


def test_median_ratio_of_the_pairs_decides() -> None:
    times = {"ours_ms": (10.0, 10.0, 20.0), "baseline_ms": (10.0, 20.0, 180.0)}
    assert row(**times).ratios == (1.0, 2.0, 9.0)
    assert row(**times).verdict == "pass"
    assert row(**times, wanted=2.1).verdict == "miss"
    assert row(**times, wanted=None).verdict == "measured"
    other = row(**times, wanted=None, is_same_network=False)
    assert other.verdict == "measured, another network and weights"


def test_rate_is_work_over_time_and_its_share_that_of_products() -> None:
    measured = row(ours_ms=(100.0, 200.0, 400.0), baseline_ms=(1.0,) * 3, gmacs=8.0)
    measured = dataclasses.replace(measured, matmul_gmacs_per_s=160.0)
    assert measured.gmacs_per_s == pytest.approx(40)  # 8 in the median of 200 ms
    assert measured.matmul_share == pytest.approx(0.25)
    assert row(gmacs=None).matmul_share is None


def test_work_of_a_run_is_that_of_its_passes(tmp_path: Path) -> None:
    model = MViT(MViTConfig(**TINY))
    flops = count_flops(on_meta(model), torch.empty(1, 3, 4, 32, 32))
    assert flops
    for target, passes in (("model", 2), ("step", 2 * 3), ("evaluate", 2 * 5)):
        settings = flat_settings(tmp_path, f"target={target}", "batch_size=2")
        assert benchmark_model._gmacs(model, settings) == pytest.approx(flops / 6e9 * passes)


# Tasks


def test_sides_take_turns_and_warm_up(tmp_path: Path) -> None:
    calls: list[str] = []
    settings = flat_settings(tmp_path, "num_pairs=3", "network.num_warmups=1")
    times = alternate([lambda: calls.append("A"), lambda: calls.append("B")], settings)
    assert "".join(calls) == "ABABABAB"
    assert len(times) == 3
    assert all(time > 0 for pair in times for time in pair)


class Recorder(nn.Module):
    """Notes how it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 5))
        self.calls: list[dict[str, Any]] = []

    def forward(self, clips: Tensor) -> Tensor:
        note = {
            "training": self.training,
            "grad": torch.is_grad_enabled(),
            "autocast": torch.is_autocast_enabled("cpu"),
            "shape": tuple(clips.shape),
        }
        self.calls.append(note)
        return clips.mean(dim=(2, 3, 4)) @ self.weight


@pytest.mark.parametrize("precision", [32, "bf16"])
def test_forward_runs_in_evaluation_without_gradients(precision: Any) -> None:
    setting, network = tiny_setting(precision=precision, batch_size=3), Recorder()
    logits = forward_task(network, draw_clips(setting), setting)()
    is_bf16 = precision == "bf16"
    expected = {"training": False, "grad": False, "autocast": is_bf16, "shape": (3, 3, 4, 32, 32)}
    assert network.calls == [expected]
    assert isinstance(logits, Tensor)
    assert logits.dtype == (torch.bfloat16 if is_bf16 else torch.float32)


@pytest.mark.parametrize("precision", [32, "bf16"])
def test_step_updates_weights_and_gradients_alone_do_not(precision: Any) -> None:
    setting = tiny_setting(precision=precision)
    for make, moves in ((step_task, True), (gradient_task, False)):
        network, before = Recorder(), torch.ones(3, 5)
        seen: list[Tensor] = []
        network.weight.register_hook(seen.append)
        make(network, draw_clips(setting), setting)()
        note = network.calls[0]
        assert note["training"]
        assert note["grad"]
        assert note["autocast"] == (precision == "bf16")
        assert len(seen) == 1  # one backward pass
        assert torch.equal(network.weight, before) != moves
        assert network.weight.grad is None  # the next step starts from nothing


def test_evaluation_scores_all_views_of_the_videos_in_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark_model, "clips_at_once", lambda *_: 4)
    settings = flat_settings(tmp_path, "target=evaluate", "batch_size=2", "network.num_views=3")
    network = Recorder()
    scores = benchmark_model.task_of(network, settings)()
    assert isinstance(scores, Tensor)
    assert scores.shape == (2, 5)
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(2))
    assert [note["shape"][0] for note in network.calls] == [4, 2]
    assert not any(note["training"] or note["grad"] for note in network.calls)


def test_clips_come_again_from_the_same_seed() -> None:
    one, again, other = (draw_clips(tiny_setting(seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


# The whole


@pytest.mark.parametrize(
    ("target", "precision"), [("model", 32), ("step", "bf16"), ("evaluate", 32)]
)
def test_a_run_measures_peers_and_writes_them_down(
    target: str, precision: Any, tmp_path: Path
) -> None:
    settings = flat_settings(
        tmp_path, f"target={target}", f"precision={precision}", "against=[plain,timm]"
    )
    printed = io.StringIO()
    rows = run_model_benchmark(settings, Console(file=printed, width=200))
    content = json.loads((tmp_path / f"{target}_mvitv2_s_{precision}_cpu.json").read_text())
    assert content["machine"]["threads"] == torch.get_num_threads()
    assert content["settings"]["setting"]["config"]["embed_dim"] == 16
    plain, timm = content["rows"]
    assert plain["verdict"] == rows[0].verdict
    assert plain["verdict"] in ("pass", "miss")
    assert plain["wanted"] == settings.wanted["cpu"][target][str(precision)]["plain"]
    assert 0 <= plain["difference"] < 1e-4
    assert len(plain["ours_ms"]) == len(plain["baseline_ms"]) == 2
    assert plain["ratio"] == pytest.approx(statistics.median(rows[0].ratios))
    assert 0 < plain["matmul_share"] < 1
    assert timm["verdict"].startswith("skipped: it has image models")
    assert timm["ratio"] is None
    assert "plain" in printed.getvalue()
    assert "skipped: it has image models" in printed.getvalue()


def test_best_of_several_rates_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter([4e9, 80e9, 6e9])
    monkeypatch.setattr(benchmark_model, "matmul_rate", lambda *_: next(rates))
    settings = flat_settings(tmp_path, "against=[plain,timm]")
    rows = run_model_benchmark(settings, Console(file=io.StringIO()))
    assert [row.matmul_gmacs_per_s for row in rows] == [40, 40]  # two FLOPs each


class Disturbed(PlainMViT):
    """Another network under the same names."""

    shift = 0.01

    def forward(self, clip: Tensor) -> Tensor:
        return super().forward(clip) + self.shift


@pytest.mark.parametrize("shift", [0.01, math.nan])
def test_peer_with_other_logits_fails_and_is_not_timed(
    shift: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(benchmark_model.BUILDERS, "plain", Disturbed)
    monkeypatch.setattr(Disturbed, "shift", shift)
    settings = flat_settings(tmp_path, "against=[plain]")
    (found,) = run_model_benchmark(settings, Console(file=io.StringIO()))
    assert found.verdict.startswith(f"failed: logits differ by {shift:.2g}, more than 0.001")
    assert found.ours_ms == ()


def test_peer_that_does_not_run_has_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("no kernel\nof this kind")

    settings = flat_settings(tmp_path, "against=[plain]")
    monkeypatch.setattr(benchmark_model, "difference", lambda *_: 0.0)
    monkeypatch.setattr(PlainMViT, "forward", fail)
    (found,) = run_model_benchmark(settings, Console(file=io.StringIO()))
    assert found.verdict == "skipped: it does not run: no kernel"

    def refuse(_: MViTConfig) -> nn.Module:
        raise BaselineError("no such network")

    monkeypatch.setitem(benchmark_model.BUILDERS, "plain", refuse)
    (found,) = run_model_benchmark(settings, Console(file=io.StringIO()))
    assert found.verdict == "skipped: no such network"


def test_ours_that_does_not_run_is_no_fault_of_the_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(benchmark_model, "difference", lambda *_: 0.0)
    monkeypatch.setattr(MViT, "forward", fail)
    monkeypatch.setattr(benchmark_model, "count_flops", lambda *_: None)
    with pytest.raises(RuntimeError, match="no kernel"):
        run_model_benchmark(flat_settings(tmp_path, "against=[plain]"), Console(file=io.StringIO()))


def test_row_shows_medians_and_the_spread_of_the_pairs() -> None:
    shown = row(
        ours_ms=(10.0, 20.0, 30.0), baseline_ms=(40.0, 40.0, 30.0), gmacs=2.0, difference=1e-6
    )
    cells = benchmark_model._cells(dataclasses.replace(shown, matmul_gmacs_per_s=200.0))
    assert cells[:4] == ["20.0 ms", "40.0 ms", "2.00", "1.00, 4.00"]
    assert cells[4:] == ["100.0", "50 %", "1.0e-06", "2"]
    assert benchmark_model._cells(row(ours_ms=(), baseline_ms=()))[:6] == [""] * 6


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_pairs=0", "num_pairs 0 must be at least 1"),
        ("batch_size=0", "batch_size 0 must be at least 1"),
        ("precision=16", "precision is 16, expected one of 32, bf16"),
        ("device=tpu", "device is 'tpu', expected one of cpu, cuda"),
        ("against=[pytorch]", "against has 'pytorch', expected some of plain, torchvision"),
        ("against=plain", "against is 'plain', expected a list of text"),
        ("model.name=mvitv3", "unknown model 'mvitv3'"),
        ("+model.num_frame=4", "unknown model option num_frame"),
        ("model=x3d_s", "model.name"),
        ("network.tolerance=0", "tolerance 0 must be positive"),
        ("seed=-1", "seed -1 must be 0 or more"),
    ],
)
def test_wrong_value_ends_in_one_sentence(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as error, exit_on_user_error():
        flat_settings(tmp_path, override)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu_ends_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as error, exit_on_user_error():
        flat_settings(tmp_path, "device=cuda")
    assert "device is cuda, but torch finds none" in str(error.value)


def test_step_may_begin_with_augmentation_that_draws_anew() -> None:
    setting = tiny_setting(batch_size=2, augmented=True)
    seen: list[Tensor] = []

    class Recorder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(5))

        def forward(self, clips: Tensor) -> Tensor:
            seen.append(clips)
            return self.scale.expand(len(clips), -1)

    task = step_task(Recorder(), draw_clips(setting), setting)
    task()
    task()
    assert seen[0].shape == seen[1].shape == (2, 3, 4, 32, 32)
    assert not torch.equal(*seen)


def test_blocks_are_compiled_one_by_one() -> None:
    network = PlainMViT(tiny_setting().config)
    compile_network(network, tiny_setting(compile="blocks"))
    assert network._compiled_call_impl is None
    assert all(block._compiled_call_impl is not None for block in network.blocks)
