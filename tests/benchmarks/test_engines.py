"""The benchmark of inference engines: settings, verdicts, and a run with a tiny network."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.engines import ENGINES, EngineRow, EnginesBenchmark, run_engines_benchmark
from benchmarks.workloads import Setting
from rich.console import Console
from support.engines import needs_openvino

from video_mvit.models.config import variant_config

TINY = variant_config("mvitv2_demo", num_classes=3, num_frames=2, crop_size=32)
ROW = EngineRow(
    engine="openvino",
    precision="bf16",
    batch_size=4,
    difference=0.01,
    prepare_s=3.0,
    engine_s=(1.0, 2.0, 1.0),
    eager_s=(1.5, 2.0, 1.8),
    eager_float32_s=(3.0, 6.0, 4.0),
    own_s={"float32": (2.0, 4.0, 4.0), "int8": (0.5, 0.5, 0.5)},
    wanted=1.5,
)


def settings(**changes: Any) -> EnginesBenchmark:
    known: dict[str, Any] = {"output": "", "batch_sizes": [1, 3], "num_pairs": 1, "wanted": {}}
    return EnginesBenchmark(setting=Setting(name="tiny", config=TINY), **{**known, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_sizes": []}, "batch_sizes"),
        ({"batch_sizes": [0, 1]}, "batch_sizes"),
        ({"num_pairs": 0}, "num_pairs 0"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_ratio_is_the_median_of_the_pairs_and_decides() -> None:
    assert ROW.ratio == 1.5
    assert ROW.verdict == "pass"
    assert replace(ROW, wanted=1.51).verdict == "miss"
    assert replace(ROW, wanted=None).verdict == "measured"
    assert ROW.cells()[:5] == ["openvino bf16", "4", "250.0 ms", "1.50", "3.00"]
    assert ROW.cells()[5] == "float32 2.00, int8 0.50"


@pytest.mark.long
def test_all_engines_are_measured(tmp_path: Path) -> None:
    needs_openvino()
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module)
    wanted = {"tiny": {"openvino bf16": {"3": 1e9}}}
    rows = run_engines_benchmark(settings(output=str(tmp_path), wanted=wanted), Console(width=160))
    assert [(row.engine, row.precision) for row in rows] == [*ENGINES, *ENGINES]
    assert [sorted(row.own_s) for row in rows[:2]] == [[], ["bf16", "int8"]]
    assert [row.batch_size for row in rows] == [1] * len(ENGINES) + [3] * len(ENGINES)
    assert [row.verdict for row in rows] == ["measured"] * 6 + ["miss", "measured"]
    assert len(json.loads((tmp_path / "engines_tiny.json").read_text())["rows"]) == len(rows)
