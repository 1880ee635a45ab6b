"""A block compiled for training steps on a GPU that is not here: its code, and what it starts.

Inductor and Triton generate code for it without one (`support/sm90_block.py`). What the code
computes is another test's, on a CPU.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.paths import ROOT

NUMBER = 2  # of the block: it pools keys and values, and not queries
MAX_LAUNCHES = 120  # of a step, kernels and operators
pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def block(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    compiler = pytest.importorskip("triton.backends.nvidia.compiler", reason="there is no Triton")
    if not (Path(compiler.__file__).parent / "bin" / "ptxas").exists():
        pytest.skip("Triton came without ptxas")
    if not hasattr(torch._C, "_cuda_getCurrentRawStream"):
        pytest.skip("generated code asks for what only a PyTorch with CUDA has")
    folder = str(tmp_path_factory.mktemp("compiled"))
    environment = {**os.environ, "TRITON_CACHE_DIR": folder, "TORCHINDUCTOR_CACHE_DIR": folder}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment.pop("TRITON_INTERPRET", None)  # a process reads it once
    done = subprocess.run(
        [sys.executable, ROOT / "tests/support/sm90_block.py", str(NUMBER)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])[str(NUMBER)]  # type: ignore[no-any-return]


def test_all_generated_kernels_compile(block: dict[str, Any]) -> None:
    forward, backward = block["launches"]
    started = {name for name in (*forward, *backward) if name.startswith("triton_")}
    assert started == set(block["kernels"])
    assert all(block["kernels"].values())  # bytes of code


def test_operators_of_ours_are_taken_as_they_are(block: dict[str, Any]) -> None:
    forward, backward = block["launches"]
    ours = "torch.ops.video_mvit.triton"
    assert forward[f"{ours}_pooled_tokens.default"] == 3
    assert backward[f"{ours}_input_gradient.default"] == 3
    assert backward[f"{ours}_weight_gradient.default"] == 3


def test_a_step_stays_within_its_budget_of_launches(block: dict[str, Any]) -> None:
    forward, backward = block["launches"]
    assert sum(forward.values()) + sum(backward.values()) <= MAX_LAUNCHES, block["launches"]
