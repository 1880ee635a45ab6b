"""The AP benchmark: boxes as told, and evaluators that agree."""

import json
from pathlib import Path

import pytest
from rich.console import Console

pytest.importorskip("pycocotools")
pytest.importorskip("faster_coco_eval")

from benchmarks.average_precision import ApBenchmark, generated_boxes, run_ap_benchmark


def test_evaluators_agree_on_generated_boxes(tmp_path: Path) -> None:
    settings = ApBenchmark(
        output=str(tmp_path),
        num_images=40,
        num_detections=4000,
        evaluators=["pycocotools", "faster-coco-eval"],
    )
    ground_truth, rows = generated_boxes(settings)
    assert (len(ground_truth["images"]), len(rows)) == (40, 4000)
    assert len(ground_truth["annotations"]) == 292
    assert len(ground_truth["categories"]) == 80
    assert (ground_truth, rows) == generated_boxes(settings)
    first, second = run_ap_benchmark(settings, Console(width=160))
    assert first.ap == pytest.approx(second.ap, abs=1e-6)
    assert 0.05 < first.ap < 0.95
    assert second.largest_difference <= 1e-6
    assert len(json.loads((tmp_path / "ap.json").read_text())["times"]) == 2


def test_no_detections_are_refused() -> None:
    with pytest.raises(ValueError, match="num_detections 0 must be positive"):
        ApBenchmark(output="", num_detections=0, evaluators=["pycocotools"])
