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

from video_mvit.kernels import dispatch
from video_mvit.kernels.dispatch import EAGER, Form, Operation

CPU = torch.device("cpu")

COMPILE = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from video_mvit.kernels import triton_drop_path, triton_keys, triton_layer_norm
from video_mvit.kernels import triton_pooling, triton_rel_pos

INTEGERS = {"num_rows", "num_tiles", "num_cls", "cls_rows", "width", "C", "T", "H", "W", "N"}
INTEGERS |= {"length", "H_made", "W_made", "H_out", "W_out"}
FLOATS = {"parts", "means", "scales"}
STEPS = ("step_", "made_", "grad_", "q_")

def type_of(name, constants):
    if name in constants:
        return "constexpr"
    if name in ("eps", "keep"):
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
    sizes = {"D": 96, "SL": 16, "SC": 8, "P": 32, "PW": 128, "SPLITS": splits}
    compile_for(90, triton_rel_pos._join_kernel, 4, **sizes)
for columns in (0, 8):
    sizes = {"D": 96, "ST": columns, "SH": 8, "P": 8, "PW": 128, "SUM": tl.float32}
    compile_for(90, triton_keys._keys_kernel, triton_keys.WARPS, **sizes)
sizes = {"P": triton_drop_path.ELEMENTS, "SUM": tl.float32}
compile_for(90, triton_drop_path._drop_path_kernel, triton_drop_path.WARPS, **sizes)
print("all compiled")
"""


@pytest.mark.long
@pytest.mark.slow
def test_kernels_compile_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="there is no Triton here")
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


def operation(run: Any) -> tuple[Operation, Form]:
    """An operation that triples numbers, with a form that runs `run` and must be tried."""
    form = Form(name="triton", run=run, devices=("cuda",), stages=EAGER, tried=True)
    examples = [(torch.tensor([[1.0, 2.0, -3.0]]),)]
    triple = Operation(
        name="triple", plain=lambda x: 3 * x, forms=(form,), examples=lambda: examples
    )
    return triple, form


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (lambda x: 3.3 * x, "they differ by 0.1"),
        (lambda _: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda x: x * torch.nan, "they differ by nan"),
        (lambda x: 3 * x.detach() + 0 * x, "they differ by 1"),  # no gradient
    ],
)
def test_kernels_that_do_not_work_are_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, run: Any, reason: str
) -> None:
    monkeypatch.setattr(dispatch, "_tried", {})
    trial = dispatch.max_difference
    monkeypatch.setattr(dispatch, "max_difference", lambda *args: trial(*args[:2], CPU))
    triple, form = operation(run)
    with caplog.at_level(logging.WARNING, "video_mvit"):
        assert not triple.works(form, 0)
        assert not triple.works(form, 0)  # tried once
    assert [record.getMessage() for record in caplog.records] == [
        f"the triton form of triple is not used on cuda:0, which will be slower: {reason}"
    ]


def test_kernels_that_work_are_tried_once_also_while_a_compiler_looks_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "_tried", {})
    monkeypatch.setattr(dispatch, "max_difference", lambda *_: 0.0)
    triple, form = operation(lambda x: 3 * x)
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend="eager")
    def add(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if triple.works(form, 0) else x

    assert float(add(torch.zeros(()))) == 1
    assert dispatch._tried == {("triple/triton", 0): True}


def test_trial_within_a_checkpointed_block_leaves_its_gradients_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatch, "_tried", {})
    trial = dispatch.max_difference
    monkeypatch.setattr(dispatch, "max_difference", lambda *args: trial(*args[:2], CPU))
    triple, form = operation(lambda x: 3 * x)

    def block(x: torch.Tensor) -> torch.Tensor:
        return x.exp() if triple.works(form, 0) else x

    x = torch.randn(4, requires_grad=True)
    checkpoint(block, x, use_reentrant=False).sum().backward()
    torch.testing.assert_close(x.grad, x.detach().exp())
    assert dispatch._tried == {("triple/triton", 0): True}
    assert not caplog.records


def test_forms_are_chosen_by_device_stage_and_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    form = Form(
        name="fast", run=torch.neg, devices=("cpu",), stages=EAGER, applies=lambda x: len(x) > 1
    )
    negate = Operation(name="negate", plain=torch.neg, forms=(form,), examples=list)
    assert negate.choose(torch.ones(2)) is form
    assert negate.choose(torch.ones(1)) is None
    assert negate.choose(torch.ones(2, device="meta")) is None
    for stage in ("compile", "record"):
        monkeypatch.setattr(dispatch, "_stage", lambda stage=stage: stage)
        assert negate.choose(torch.ones(2)) is None


def test_function_transforms_and_traces_see_operators_that_they_know() -> None:
    stages = []
    torch.func.grad(lambda x: (stages.append(dispatch._stage()), x.sum())[1])(torch.ones(2))
    torch.func.vmap(lambda x: (stages.append(dispatch._stage()), x)[1])(torch.ones(2))
    torch.jit.trace(lambda x: (stages.append(dispatch._stage()), x + 1)[1], torch.ones(2))
    assert set(stages[:3]) == {"record"}
    assert dispatch._stage() == "eager"
