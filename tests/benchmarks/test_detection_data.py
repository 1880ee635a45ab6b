"""The measurements of detection's data, on small sets."""

import io
import json
from pathlib import Path

import pytest
from benchmarks.annotations import (
    AnnotationsBenchmark,
    Limits,
    run_annotations_benchmark,
    write_annotations,
)
from benchmarks.jitter import JitterBenchmark, run_jitter_benchmark
from rich.console import Console

from video_mvit.detection.data.coco_json import CocoSource
from video_mvit.errors import UserError


def test_generated_file_is_in_the_form_of_coco(tmp_path: Path) -> None:
    path = write_annotations(tmp_path, 20, 50)
    found = CocoSource(json=path, images=str(tmp_path / "images")).read()
    assert (len(found), len(found.objects), found.problems) == (20, 50, ())
    assert len(found.coordinates) == 50 * 40


@pytest.mark.slow
def test_loading_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("this system does not say how much memory a process shares")
    limits = Limits(seconds=1e9, peak_mb=1e9, shared_mb=0)
    settings = AnnotationsBenchmark(
        output=str(tmp_path), limits=limits, num_images=20, num_objects=50, num_workers=2
    )
    printed = io.StringIO()
    loading = run_annotations_benchmark(settings, Console(file=printed, width=200))
    assert loading.seconds > 0
    assert loading.array_mb > 50 * 40 * 8 / 1e6
    assert printed.getvalue().count("pass") == 2
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert content["measured"]["shared_mb"] == loading.shared_mb


def test_jitter_is_measured_beside_torchvision(tmp_path: Path) -> None:
    settings = JitterBenchmark(output=str(tmp_path), torchvision=1e-9, num_images=1, num_pairs=1)
    printed = io.StringIO()
    times = run_jitter_benchmark(settings, Console(file=printed, width=200))
    assert times.ratio == pytest.approx(times.torchvision_ms / times.ours_ms)
    assert "pass" in printed.getvalue()
    with pytest.raises(UserError, match="num_pairs 0 must be positive"):
        JitterBenchmark(output=str(tmp_path), torchvision=2, num_pairs=0)
