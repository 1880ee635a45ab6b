"""Memory and growth of the network: processes of their own, shares, exponents, and reasons."""

import dataclasses
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmarks import growth as benchmark_growth
from benchmarks import measurements
from benchmarks.growth import (
    Point,
    draw_growth,
    exponents_of,
    fitted_exponent,
    run_growth_benchmark,
)
from benchmarks.measurements import (
    CHECKPOINTED,
    EXACT_HEAP,
    OURS,
    Measurement,
    MeasureRequest,
    measure,
    request_from_json,
)
from benchmarks.memory import MemoryRow, run_memory_benchmark
from benchmarks.model_peers import comparable_config
from benchmarks.peer_errors import BaselineError
from benchmarks.workloads import Setting
from PIL import Image
from rich.console import Console
from support.commands import composed
from support.paths import SCRIPTS
from support.processes import TIMEOUT_S

from video_mvit.cli.build import build
from video_mvit.cli.config_check import check_values
from video_mvit.cli.errors import exit_on_user_error

pytestmark = pytest.mark.slow  # a command as a whole, or networks of other libraries

TINY: dict[str, Any] = {
    "num_frames": 4,
    "crop_size": 32,
    "embed_dim": 16,
    "depths": (1, 1, 1, 1),
    "num_classes": 5,
}


def flat_settings(node: str, tmp_path: Path, *overrides: str) -> Any:
    tiny = ["model.num_frames=4", "model.crop_size=32", "+model.embed_dim=16"]
    options = [f"output={tmp_path}", *tiny, *overrides]
    cfg = composed("benchmark", *options, folder=SCRIPTS / "benchmarks")
    check_values(cfg[node], node)
    return build(cfg[node])


def request(**values: Any) -> MeasureRequest:
    setting = Setting(name="tiny", config=comparable_config("mvitv2_s", **TINY))
    return MeasureRequest(
        **{"network": OURS, "work": "step", "setting": setting, "num_runs": 2, **values}
    )


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


# Processes


def test_order_survives_the_way_to_its_process() -> None:
    assert request_from_json(request().to_json()) == request()


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory of a CPU is read in Linux only")
def test_process_measures_a_step_or_says_why_not() -> None:
    few = measure(request(), timeout_s=TIMEOUT_S)
    assert len(few.times_s) == 2
    assert few.peak > few.libraries > 1e8
    assert few.above_libraries < 1e8  # libraries are known before
    setting = dataclasses.replace(request().setting, batch_size=96)
    many = measure(request(setting=setting, num_runs=1), timeout_s=TIMEOUT_S)
    clips = 96 * 3 * 4 * 32 * 32 * 4
    assert many.above_libraries > few.above_libraries + 2 * clips


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited in Linux only")
def test_step_that_does_not_fit_ends_with_a_reason() -> None:
    setting = dataclasses.replace(request().setting, batch_size=4096)
    code = (
        "import sys; from benchmarks import measure_step; "
        "measure_step.free_memory = lambda _: 5e8; measure_step.main(sys.argv[1])"
    )
    command = [sys.executable, "-c", code, request(setting=setting).to_json()]
    done = subprocess.run(command, cwd=SCRIPTS, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == {"reason": "does not fit into memory"}


@pytest.mark.parametrize(
    ("code", "timeout_s", "reason"),
    [
        ("import threading; threading.Event().wait()", 1, "took longer than 1 s"),
        ("import os; os.kill(os.getpid(), 9)", TIMEOUT_S, "the system ended it"),
        ('print(\'{"reason": "no such network"}\')', TIMEOUT_S, "no such network"),
    ],
)
def test_process_without_a_number_has_a_reason(
    code: str, timeout_s: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurements, "COMMAND", tmp_path / "fake.py")
    (tmp_path / "fake.py").write_text(code)
    with pytest.raises(BaselineError, match=reason):
        measure(request(), timeout_s)


def test_process_that_fails_is_no_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "COMMAND", tmp_path / "fake.py")
    (tmp_path / "fake.py").write_text("import nowhere_at_all")
    with pytest.raises(RuntimeError, match="No module named 'nowhere_at_all'"):
        measure(request(), timeout_s=TIMEOUT_S)


# Memory


def test_memory_is_the_smallest_peak_of_processes_with_an_exact_heap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = {OURS: [700, 600, 650], "plain": [1200, 1000, 1100]}
    peaks |= {name: [500] * 3 for name in CHECKPOINTED}
    calls: list[tuple[str, Any]] = []

    def fake(request: MeasureRequest, timeout_s: float, environment: Any = None) -> Measurement:
        assert (request.work, timeout_s) == ("step", 900)
        calls.append((request.network, environment))
        if request.network == "torchvision":
            raise BaselineError("not installed")
        if environment is None:
            return Measurement(peak=10**6, libraries=0, times_s=(0.2, 0.1, 0.3))
        return Measurement(peak=peaks[request.network].pop(0), libraries=100, times_s=(9.0,))

    monkeypatch.setattr(measurements, "measure", fake)
    settings = flat_settings("memory", tmp_path, "against=[plain,torchvision]")
    rows = run_memory_benchmark(settings, quiet())
    ours, *_, full, plain, torchvision = rows
    assert calls[:4] == [(OURS, None), *[(OURS, EXACT_HEAP)] * 3]
    assert ours.measured is not None
    assert (ours.measured.peak, ours.measured.time_ms) == (600, 200)
    assert (ours.verdict, full.verdict) == ("measured", "measured")
    assert (plain.share, plain.net_share) == (0.6, 500 / 900)
    assert plain.verdict == "pass"
    assert dataclasses.replace(plain, share=1.01).verdict == "miss"
    assert torchvision.verdict == "skipped: not installed"
    content = json.loads((tmp_path / "memory_mvitv2_s_32_cpu.json").read_text())
    assert [row["verdict"] for row in content["rows"]] == [row.verdict for row in rows]


def test_without_ours_nothing_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(request: MeasureRequest, *_: Any) -> Measurement:
        if request.network in (OURS, *CHECKPOINTED):
            raise BaselineError("does not fit into memory")
        return Measurement(peak=2, libraries=1, times_s=(1.0,))

    monkeypatch.setattr(measurements, "measure", fake)
    rows = run_memory_benchmark(flat_settings("memory", tmp_path, "against=[plain]"), quiet())
    assert [row.verdict for row in rows] == [
        *["skipped: does not fit into memory"] * (1 + len(CHECKPOINTED)),
        "measured",
    ]
    assert isinstance(rows[3], MemoryRow)


# Growth


def test_exponent_is_the_slope_on_logarithmic_axes() -> None:
    assert fitted_exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert fitted_exponent([10, 30], [5, 5]) == pytest.approx(0)
    assert fitted_exponent([8], [3]) is None
    assert fitted_exponent([], []) is None


def fake_growth(calls: list[MeasureRequest]) -> Callable[..., Measurement]:
    """Time as frames and pixels, memory as the square of frames; 64 frames do not fit."""

    def fake(request: MeasureRequest, _: float, *, num_processes: int) -> Measurement:
        assert num_processes == 1
        calls.append(request)
        config = request.setting.config
        T, side, B = config.num_frames, config.crop_size, request.setting.batch_size
        if T == 64:
            raise BaselineError("does not fit into memory")
        slower = 1 if request.network == OURS else 2
        time_s = slower * T * (side / 32) ** 2 * B
        return Measurement(peak=10**6 * T**2 * B + 10**9, libraries=10**9, times_s=(time_s,))

    return fake


def test_growth_measures_every_size_once_and_fits_exponents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[MeasureRequest] = []
    monkeypatch.setattr(benchmark_growth, "measure_time_and_peak", fake_growth(calls))
    sizes = [
        "growth.num_frames=[4,8,64]",
        "growth.crop_size=[32,64]",
        "growth.batch_size=[1,2,4]",
        "against=[plain]",
    ]
    console, printed = quiet(), io.StringIO()
    console.file = printed
    points = run_growth_benchmark(flat_settings("growth", tmp_path, *sizes), console)
    assert "plain skipped: does not fit into memory (64 frames)" in printed.getvalue()
    assert "8000 ms, 64 MB" in printed.getvalue()  # ours, 8 frames
    assert len(points) == 2 * (3 + 2 + 3)
    assert len(calls) == len({(each.network, each.setting) for each in calls}) == 2 * 6
    assert {each.work for each in calls} == {"gradients"}
    skipped = [(each.network, each.size) for each in points if each.skipped]
    assert skipped == [(OURS, 64), ("plain", 64)]
    content = json.loads((tmp_path / "growth_mvitv2_s_32_cpu.json").read_text())
    found = {(e["network"], e["axis"], e["of"]): e["exponent"] for e in content["exponents"]}
    for network in (OURS, "plain"):
        assert found[network, "num_frames", "time_ms"] == pytest.approx(1)
        assert found[network, "num_frames", "megabytes"] == pytest.approx(2)
        assert found[network, "crop_size", "time_ms"] == pytest.approx(2)
        assert found[network, "batch_size", "megabytes"] == pytest.approx(1)
    with Image.open(tmp_path / "growth_mvitv2_s_32_cpu.png") as picture:
        assert picture.size == (1440, 840)


def test_growth_without_an_axis_or_a_number_is_drawn_all_the_same(tmp_path: Path) -> None:
    points = [
        Point(network=OURS, axis="crop_size", size=32, time_ms=1.0, megabytes=2.0),
        Point(network=OURS, axis="crop_size", size=64, skipped="does not fit into memory"),
    ]
    exponents = exponents_of(points)
    assert {each["exponent"] for each in exponents} == {None}
    draw_growth(points, exponents, tmp_path / "some.png")
    draw_growth([], [], tmp_path / "none.png")
    assert (tmp_path / "some.png").stat().st_size > (tmp_path / "none.png").stat().st_size


@pytest.mark.parametrize(
    ("node", "override", "message"),
    [
        ("memory", "memory.num_processes=0", "num_processes 0 must be positive"),
        ("memory", "memory.timeout_s=0", "timeout_s 0 must be positive"),
        ("memory", "against=[onnx]", "against has 'onnx'"),
        ("growth", "growth.num_runs=0", "num_runs 0 must be positive"),
        ("growth", "growth.num_frames=[3]", "num_frames 3 is neither 1 (image) nor"),
        ("growth", "growth.crop_size=[30]", "crop_size 30 is not a positive multiple"),
        ("growth", "growth.batch_size=[0]", "batch_size 0 must be at least 1"),
        ("growth", "growth.crop_size=[big]", "growth.crop_size is ['big'], expected a list of int"),
    ],
)
def test_wrong_value_ends_in_one_sentence(
    node: str, override: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as error, exit_on_user_error():
        flat_settings(node, tmp_path, override)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
