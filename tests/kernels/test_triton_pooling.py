"""The Triton pooling kernels against the plain pooling, in float64.

On a GPU, or where there is none, on a CPU in Triton's interpreter (`conftest.py`).
"""

import os
from math import prod

import numpy as np
import pytest
import torch

from video_mvit.kernels import dispatch as triton_trial
from video_mvit.kernels import pooling
from video_mvit.kernels.pooling import pool_tokens

kernels = pytest.importorskip("video_mvit.kernels.triton_pooling", reason="there is no Triton here")
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if IS_INTERPRETED else "cuda")


@pytest.mark.parametrize(
    ("thw", "kernel", "stride", "channels"),
    [
        ((3, 5, 4), (3, 3, 3), (1, 1, 1), 6),
        ((2, 9, 7), (3, 3, 3), (1, 2, 2), 6),
        ((4, 9, 8), (3, 3, 3), (1, 3, 3), 3),
        ((3, 9, 8), (3, 3, 3), (1, 4, 8), 3),
        ((1, 6, 5), (1, 3, 3), (1, 2, 2), 70),  # an image, more channels than a tile has
        ((2, 4, 3), (1, 3, 3), (1, 1, 2), 6),
    ],
)
@pytest.mark.parametrize("num_cls", [0, 1])
def test_outputs_and_gradients_are_those_of_plain_pooling(
    thw: pooling.Grid,
    kernel: pooling.Grid,
    stride: pooling.Grid,
    channels: int,
    num_cls: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def random(*shape: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(shape, dtype=torch.float64, generator=generator).to(DEVICE)

    wide = random(2, num_cls + prod(thw), 3 * channels).requires_grad_()
    weight = random(channels, 1, *kernel).requires_grad_()
    part = wide[..., channels : 2 * channels]  # as k comes out of one projection
    ours, plain = both_ways(part, weight, thw, stride, num_cls, monkeypatch)
    assert len(ours) == len(plain) == num_cls + 1
    directions = [random(*each.shape) for each in plain]
    gradients = [torch.autograd.grad(each, (wide, weight), directions) for each in (ours, plain)]
    for a, b in zip((*ours, *gradients[0]), (*plain, *gradients[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def both_ways(
    x: torch.Tensor,
    weight: torch.Tensor,
    thw: pooling.Grid,
    stride: pooling.Grid,
    num_cls: int,
    monkeypatch: pytest.MonkeyPatch,
) -> list[list[torch.Tensor]]:
    """Pooled by the kernels, and without them."""
    results = []
    for takes in (True, False):
        monkeypatch.setattr(pooling, "_takes_triton", lambda *_, takes=takes: takes)
        results.append(pool_tokens(x, weight, thw, stride, num_cls))
    return results


def test_gradient_of_the_kernel_is_summed_over_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "NUM_PARTS", 2)  # of 10 tiles
    x = torch.randn(2, 2 * 3 * 5, 4, dtype=torch.float64, device=DEVICE)
    weight = torch.randn(4, 1, 3, 3, 3, dtype=torch.float64, device=DEVICE, requires_grad=True)
    ours, plain = both_ways(x, weight, (2, 3, 5), (1, 1, 1), 0, monkeypatch)
    (a,), (b,) = (torch.autograd.grad(y, weight, torch.ones_like(y)) for (y,) in (ours, plain))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_channels_may_lie_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1, 4, 40, device=DEVICE).transpose(1, 2).requires_grad_()
    weight = torch.randn(4, 1, 1, 3, 3, device=DEVICE)
    ours, plain = both_ways(x, weight, (2, 5, 4), (1, 1, 1), 0, monkeypatch)
    torch.testing.assert_close(ours, plain)
    direction = torch.randn(1, 4, 40, device=DEVICE).transpose(1, 2)
    (a,), (b,) = (torch.autograd.grad(y, x, direction) for (y,) in (ours, plain))
    torch.testing.assert_close(a, b)


def test_pooling_takes_the_kernels_and_compiles_to_one_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight = torch.randn(8, 1, 1, 3, 3, device=DEVICE, requires_grad=True)
    x = torch.randn(2, 21, 8, device=DEVICE)

    def pool(x: torch.Tensor) -> torch.Tensor:
        return torch.cat(pool_tokens(x, weight, (1, 5, 4), (1, 2, 2), 1), dim=1)

    calls = []
    kernel = kernels.pooled_grid
    monkeypatch.setattr(kernels, "pooled_grid", lambda *args: calls.append(args) or kernel(*args))
    ours, plain = both_ways(x, weight, (1, 5, 4), (1, 2, 2), 1, monkeypatch)
    torch.testing.assert_close(ours, plain)
    assert len(calls) == 1
    monkeypatch.setattr(kernels, "pooled_grid", kernel)
    monkeypatch.setattr(pooling, "_takes_triton", lambda *_: True)
    torch._dynamo.reset()
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(compiled, torch.cat(plain, dim=1))
    (a,), (b,) = (torch.autograd.grad(y.square().sum(), weight) for y in (compiled, pool(x)))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("num_cls", [0, 1])
def test_compilers_are_told_the_truth_about_the_kernels(num_cls: int) -> None:
    """Shapes, types and memory order: compiled code asserts them."""
    thw, stride = [3, 5, 4], [1, 2, 2]
    x = torch.randn(2, num_cls + prod(thw), 8, device=DEVICE)
    weight = torch.randn(8, 1, 3, 3, 3, device=DEVICE)
    cls, grad = torch.randn(2, num_cls, 8, device=DEVICE), torch.randn(2, 18, 8, device=DEVICE)
    rest = (weight, thw, stride, num_cls)
    for operator, args in (
        (kernels.pooled_grid, (x, *rest)),
        (kernels.input_gradient, (cls, grad, *rest)),
        (kernels.weight_gradient, (grad, x, *rest)),
    ):
        torch.library.opcheck(operator, args, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.slow
def test_trial_tells_kernels_that_work_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.inference_mode():  # as in an evaluation that is the first use
        assert pooling.worst_difference(DEVICE) < triton_trial.MAX_DIFFERENCE

    plain = pooling._forward

    def wrong(x: torch.Tensor, weight: torch.Tensor, stride: pooling.Grid) -> torch.Tensor:
        return plain(x, weight, stride) * torch.nan

    monkeypatch.setattr(pooling, "_forward", wrong)
    assert np.isnan(pooling.worst_difference(DEVICE))


def test_trial_is_made_while_a_compiler_looks_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "worst_difference", lambda *_: 0.0)
    monkeypatch.setattr(triton_trial, "_tried", {})
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend="eager")
    def add(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if pooling.triton_works(0) else x

    assert float(add(torch.zeros(()))) == 1
    assert triton_trial._tried == {("pooling", 0): True}
