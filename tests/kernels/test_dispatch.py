"""What all Triton kernels have in common: they compile, and are tried before they are used."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from video_mvit.kernels import dispatch as triton_trial

pytest.importorskip("triton", reason="there is no Triton here")

COMPILE = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from video_mvit.kernels import triton_layer_norm, triton_pooling, triton_rel_pos

INTEGERS = {"num_rows", "num_tiles", "num_cls", "width", "C", "T", "H", "W", "N"}
INTEGERS |= {"H_made", "W_made", "H_out", "W_out"}
FLOATS = {"parts", "means", "scales"}
STEPS = ("step_", "made_", "grad_", "q_")

def type_of(name, constants):
    if name in constants:
        return "constexpr"
    if name == "eps":
        return "fp32"
    if name in INTEGERS or (name.startswith(STEPS) and name[-1] in "bhnp" and name[-2] == "_"):
        return "i32"
    return "*fp32" if name in FLOATS else "*bf16"

def compile_for(capability, kernel, warps, **constants):
    signature = {name: type_of(name, constants) for name in kernel.arg_names}
    source = ASTSource(kernel, signature, constexprs=constants)
    target = GPUTarget("cuda", capability, 32)
    triton.compile(source, target=target, options={"num_warps": warps})

def tile(of):
    return {"P": of.positions, "PC": of.channels, "VECTOR": of.vector, "SUM": tl.float32}

for capability, frames, stride in ((80, 3, 1), (90, 3, 1), (90, 3, 2), (90, 3, 3), (90, 1, 2)):
    sizes = {"KT": frames, "SH": stride, "SW": stride}
    walk, sums = triton_pooling.WALK, triton_pooling.SUMS
    for is_gradient in (False, True):
        options = {"IS_GRADIENT": is_gradient, **sizes, **tile(walk)}
        compile_for(capability, triton_pooling._walk_kernel, walk.warps, **options)
    compile_for(capability, triton_pooling._weight_kernel, sums.warps, **sizes, **tile(sums))
for length, longer in ((96, 128), (768, 1024)):
    sizes = {"D": length, "PD": longer, "P": 4096 // longer, "SUM": tl.float32}
    compile_for(90, triton_layer_norm._forward_kernel, 4, **sizes)
    compile_for(90, triton_layer_norm._backward_kernel, 4, **sizes)
sizes = {"D": 96, "PD": 128, "P": 32, "SUM": tl.float32}
compile_for(90, triton_rel_pos._merge_kernel, 4, **sizes)
for splits in (False, True):
    sizes = {"D": 96, "ST": 8, "SH": 8, "SW": 8, "P": 32, "PW": 128, "SPLITS": splits}
    compile_for(90, triton_rel_pos._join_kernel, 4, **sizes)
print("all compiled")
"""


def test_kernels_compile_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["all compiled"], done.stderr


@pytest.mark.parametrize(
    ("trial", "reason"),
    [
        (lambda *_: 0.5, "they differ by 0.5"),
        (lambda *_: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda *_: float("nan"), "they differ by nan"),
    ],
)
def test_kernels_that_do_not_work_are_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trial: Any, reason: str
) -> None:
    monkeypatch.setattr(triton_trial, "_tried", {})
    with caplog.at_level(logging.WARNING, "video_mvit"):
        assert not triton_trial.kernels_work("pooling", 0, trial)
        assert not triton_trial.kernels_work("pooling", 0, lambda _: 0.0)  # tried once
        assert triton_trial.kernels_work("heads", 0, lambda _: 0.0)
    assert [record.getMessage() for record in caplog.records] == [
        f"Triton kernels for pooling are left out on cuda:0, which will be slower: {reason}"
    ]


def test_difference_is_relative_to_the_largest_number_and_sees_gradients() -> None:
    device = torch.device("cpu")

    def difference(ours: Any) -> float:
        return triton_trial.difference_from_plain(ours, lambda x: 3 * x, [(2, 3)], device)

    assert difference(lambda x: 3 * x) < 1e-6
    assert difference(lambda x: 3 * x.detach() + 0.0 * x) == pytest.approx(1)
    assert difference(lambda x: 3.3 * x) == pytest.approx(0.1)
    assert difference(lambda x: x * torch.nan) != 0


def test_trial_within_a_checkpointed_block_leaves_its_gradients_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def trial(_: torch.device) -> float:
        cpu, times_itself = torch.device("cpu"), lambda x: x * x
        return triton_trial.difference_from_plain(times_itself, times_itself, [(2, 3)], cpu)

    def block(x: torch.Tensor) -> torch.Tensor:
        return x.exp() if triton_trial.kernels_work("pooling", 0, trial) else x

    monkeypatch.setattr(triton_trial, "_tried", {})
    x = torch.randn(4, requires_grad=True)
    checkpoint(block, x, use_reentrant=False).sum().backward()
    torch.testing.assert_close(x.grad, x.detach().exp())
    assert triton_trial._tried == {("pooling", 0): True}
    assert not caplog.records
