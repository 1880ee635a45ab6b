"""The code of every Triton kernel for a GPU that is not here: it compiles, and is lean.

Registers decide how many threads share a processor, widths of loads how many instructions move the
tokens; both stand in the compiled code, for which no GPU is needed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT

MAX_REGISTERS = {"_walk_kernel": 96, "_weight_kernel": 96, "_backward_kernel": 112}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    compiler = pytest.importorskip("triton.backends.nvidia.compiler", reason="there is no Triton")
    tools = Path(compiler.__file__).parent / "bin"
    if missing := [
        each for each in ("ptxas", "cuobjdump", "nvdisasm") if not (tools / each).exists()
    ]:
        pytest.skip(f"Triton came without {', '.join(missing)}")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment.pop("TRITON_INTERPRET", None)  # a process reads it once
    done = subprocess.run(
        [sys.executable, ROOT / "tests/support/sm90.py"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def test_all_kernels_compile(kernels: list[dict[str, Any]]) -> None:
    names = {(each["name"], each.get("IS_GRADIENT", each.get("SPLITS"))) for each in kernels}
    assert names == {
        ("_walk_kernel", False),
        ("_walk_kernel", True),
        ("_weight_kernel", None),
        ("_forward_kernel", None),
        ("_backward_kernel", None),
        ("_join_kernel", False),
        ("_join_kernel", True),
        ("_merge_kernel", None),
        ("_keys_kernel", None),
        ("_drop_path_kernel", None),
    }


def test_threads_have_few_registers_and_spill_none(kernels: list[dict[str, Any]]) -> None:
    for each in kernels:
        assert each["registers"] <= MAX_REGISTERS.get(each["name"], 64), each
        assert each["stack"] == each["spills"] == 0, each


def test_tokens_are_moved_by_16_bytes(kernels: list[dict[str, Any]]) -> None:
    """But for the gradient of the pooling kernel: 27 sums of more channels have no room."""
    for each in kernels:
        if each["name"] == "_weight_kernel":
            continue
        assert 128 in each["load_bits"], each
        assert 128 in each["store_bits"], each
        if each["name"] not in ("_forward_kernel", "_backward_kernel", "_drop_path_kernel"):
            # Those read statistics and draws, too, which are short.
            assert each["load_bits"] == each["store_bits"] == [128], each
