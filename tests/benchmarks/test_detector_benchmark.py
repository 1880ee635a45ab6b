"""What the measurement of detectors asks for, shows and refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.detector import (
    DetectorBenchmark,
    DetectorRequest,
    exponent,
    measure,
    requests_of,
    run_detector_benchmark,
)
from rich.console import Console

from video_mvit.errors import UserError

REQUEST: dict[str, Any] = {"name": "mask_rcnn_mvitv2_demo", "side": 64, "precision": 32}
REQUEST |= {"device": "cpu", "num_images": 1, "num_runs": 1}


def benchmark(output: Path, **changes: Any) -> DetectorBenchmark:
    settings: dict[str, Any] = {
        "output": str(output),
        "names": ["mask_rcnn_mvitv2_demo"],
        "sides": [64, 96],
        "parts": ["backbone", "detector"],
        "against": ["plain"],
        "num_runs": 1,
    }
    return DetectorBenchmark(**(settings | changes))


def test_torchvision_is_measured_once_and_as_a_whole(tmp_path: Path) -> None:
    settings = benchmark(tmp_path, names=["a", "b"], against=["plain", "torchvision"])
    requests = requests_of(settings)
    theirs = [(each.name, each.part) for each in requests if each.network == "torchvision"]
    assert theirs == [("a", "detector")] * 2
    assert len([each for each in requests if each.network == "ours"]) == 8


def test_exponent_is_the_slope_over_pixels() -> None:
    assert exponent([10, 20, 40], [3 * side**3 for side in (10, 20, 40)]) == pytest.approx(1.5)


@pytest.mark.parametrize("field", ["against", "parts"])
def test_unknown_names_are_user_errors(tmp_path: Path, field: str) -> None:
    with pytest.raises(UserError, match=f"{field} has 'head', expected"):
        benchmark(tmp_path, **{field: ["head"]})


@pytest.mark.slow
def test_failure_of_a_process_is_its_last_line() -> None:
    request = DetectorRequest(network="ours", part="backbone", **(REQUEST | {"name": "none"}))
    assert "unknown detector 'none'" in str(measure(request, 600).skipped)


@pytest.mark.long
def test_every_part_is_measured_and_written(tmp_path: Path) -> None:
    rows = run_detector_benchmark(benchmark(tmp_path), Console(width=160))
    assert len(rows) == 8
    assert all(row.time_ms and row.memory and row.memory > 0 for row in rows)
    content = json.loads((tmp_path / "detector_32_cpu.json").read_text())
    assert len(content["rows"]) == 8
