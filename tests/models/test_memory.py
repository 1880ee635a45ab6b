"""Peak memory of a training step, as a whole process, against torchvision's MViTv2-S."""

import os
import subprocess
import sys

import pytest
from support.paths import ROOT

pytestmark = pytest.mark.slow


def peak_memory(model: str, mode: str = "none") -> float:
    """In MiB.

    Large blocks go back to the system at once; a fragmented heap varies by more than 100 MiB.
    """
    command = [sys.executable, str(ROOT / "tests" / "support" / "peak_memory.py"), model, mode]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    options = {"env": environment, "capture_output": True, "text": True, "check": True}
    return float(subprocess.run(command, **options).stdout)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read in Linux units")
def test_training_step_of_small_needs_less_than_one_of_torchvision() -> None:
    pytest.importorskip("torchvision")
    theirs = peak_memory("torchvision")
    assert peak_memory("video_mvit", "selective") <= 0.7 * theirs
    assert peak_memory("video_mvit", "full") <= 0.6 * theirs
