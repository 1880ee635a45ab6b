"""Every fast form of every operation against its plain twin: outputs and gradients.

Triton forms run on a GPU, or where there is none, on a CPU in Triton's interpreter (conftest.py).
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from video_mvit import kernels
from video_mvit.kernels import cpu_linear
from video_mvit.kernels.dispatch import Form, Operation, _results, max_difference

CPU = torch.device("cpu")
TRITON_DEVICE = CPU if os.environ.get("TRITON_INTERPRET") == "1" else torch.device("cuda")
PAIRS = [
    pytest.param(
        operation,
        form,
        id=f"{operation.name}-{form.name}",
        marks=[pytest.mark.slow] if form.name == "triton" else [],
    )
    for operation in kernels.OPERATIONS
    for form in operation.forms
]
BFLOAT16_TOLERANCE = 0.05  # of the largest number; bfloat16 keeps 8 bits of each


def device_of(form: Form) -> torch.device:
    if form.name != "triton":
        return CPU
    pytest.importorskip("triton", reason="there is no Triton here")
    return TRITON_DEVICE


@pytest.fixture
def prefers_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor where PyTorch's own products are slow."""
    monkeypatch.setattr(cpu_linear, "mkl_lacks_avx512", lambda: True)


@pytest.mark.parametrize(("operation", "form"), PAIRS)
def test_form_equals_its_twin_in_float64(operation: Operation, form: Form) -> None:
    assert max_difference(operation, form, device_of(form), torch.float64) < 1e-12


@pytest.mark.usefixtures("prefers_convolution")
@pytest.mark.parametrize(("operation", "form"), PAIRS)
def test_form_equals_its_twin_in_float32(operation: Operation, form: Form) -> None:
    assert max_difference(operation, form, device_of(form)) < 1e-5


@pytest.mark.parametrize(("operation", "form"), PAIRS)
def test_form_equals_its_twin_in_bfloat16(operation: Operation, form: Form) -> None:
    device = device_of(form)
    examples = ([to(device, x, torch.bfloat16) for x in each] for each in operation.examples())
    if not any(form.applies(*example) for example in examples):
        pytest.skip("this form takes no bfloat16 on this processor")
    difference = max_difference(operation, form, device, torch.bfloat16)
    assert difference < BFLOAT16_TOLERANCE


@pytest.mark.parametrize(("operation", "form"), PAIRS)
def test_form_gives_the_same_without_gradients_and_changes_no_argument(
    operation: Operation, form: Form
) -> None:
    device = device_of(form)
    for example in operation.examples():
        expected, *_ = _results(form.run, example, device, torch.float64)
        args = [to(device, value) for value in example]
        before = [to(device, value) for value in example]
        with torch.inference_mode():
            found = form.run(*args)
        torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(args, before, rtol=0, atol=0)


@pytest.mark.parametrize(("operation", "form"), PAIRS)
def test_gradients_are_those_of_finite_differences(operation: Operation, form: Form) -> None:
    """Of the twin too: both could be wrong in the same way."""
    if form.name == "triton":
        pytest.skip("float32 sums of the kernels are compared with the twin")
    example = operation.examples()[-1]
    leaves = [to(CPU, value) for value in example]
    generator = torch.Generator().manual_seed(1)
    for run in (form.run, operation.plain):
        for i, value in enumerate(leaves):
            if not isinstance(value, Tensor):
                continue
            step = 1e-5 * torch.randn(value.shape, dtype=torch.float64, generator=generator)
            gradient, direction = gradient_of(run, leaves, i)
            ahead, behind = (
                (run(*leaves[:i], value + sign * step, *leaves[i + 1 :]) * direction).sum()
                for sign in (1, -1)
            )
            assert float((gradient * step).sum()) == pytest.approx(
                float(ahead - behind) / 2, rel=1e-4, abs=1e-9
            )


def gradient_of(run: Callable[..., Tensor], args: list[Any], i: int) -> tuple[Tensor, Tensor]:
    leaf = args[i].clone().requires_grad_()
    y = run(*args[:i], leaf, *args[i + 1 :])
    direction = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    (gradient,) = torch.autograd.grad(y, leaf, direction)
    return gradient, direction


def to(device: torch.device, value: Any, dtype: torch.dtype = torch.float64) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, dtype)
    return [to(device, each, dtype) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("operation", "form"), PAIRS)
def test_examples_satisfy_the_condition_of_the_form(operation: Operation, form: Form) -> None:
    """Otherwise the twin test would try what never happens."""
    if form.name in ("convolution", "blocks"):
        return  # their conditions are about speed on this processor
    examples = ([to(CPU, x, form.trial_dtype) for x in each] for each in operation.examples())
    assert any(form.applies(*example) for example in examples)


def test_plain_forms_are_all_that_is_used_within_the_context() -> None:
    operation = kernels.OPERATIONS[4]
    example = operation.examples()[0]
    assert operation.choose(*example) is not None
    with kernels.use("plain"):
        assert operation.choose(*example) is None
        with kernels.use("fast"):
            assert operation.choose(*example) is not None
        assert operation.choose(*example) is None
    assert operation.choose(*example) is not None


def test_meta_tensors_get_plain_forms_whose_flops_are_the_published_ones() -> None:
    for operation in kernels.OPERATIONS:
        for example in operation.examples():
            assert operation.choose(example[0].to("meta"), *example[1:]) is None


@pytest.mark.slow
@pytest.mark.parametrize("example", [0, 1])
def test_queries_are_kept_for_trained_tables_only(example: int) -> None:
    """On a GPU; frozen relative positions, as beside adapters, need no gradient."""
    triton = pytest.importorskip("video_mvit.kernels.triton_queries", reason="there is no Triton")
    q, tables, *rest = kernels.folding.FOLD_QUERIES.examples()[example]
    q, tables = to(TRITON_DEVICE, q).requires_grad_(), to(TRITON_DEVICE, tables)
    gradients, kept = [], []
    for is_trained in (True, False):
        numbers: list[int] = []
        tables = [table.detach().requires_grad_(is_trained) for table in tables]
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, numbers=numbers: numbers.append(x.numel()) or x, lambda x: x
        ):
            y = triton.fold_queries(q, tables, *rest)
        gradients.append(torch.autograd.grad(y.square().sum(), [q])[0])
        kept.append(sum(numbers))
    assert torch.equal(*gradients)
    num_cls, (_, h, _, D) = rest[-1], q.shape
    assert kept[0] - kept[1] == len(q) * h * (q.shape[2] - num_cls) * D
