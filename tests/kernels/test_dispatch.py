"""What all Triton kernels have in common: they are tried before they are used."""

import logging
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from video_mvit.kernels import dispatch
from video_mvit.kernels.dispatch import EAGER, Form, Operation

CPU = torch.device("cpu")


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
