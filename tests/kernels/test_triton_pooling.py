"""The Triton pooling kernels beyond the twin test: odd sizes, sums in parts, compilers.

On a GPU, or where there is none, on a CPU in Triton's interpreter (`conftest.py`).
"""

import os
from math import prod

import pytest
import torch

from video_mvit.kernels import plain
from video_mvit.kernels.plain import Grid

kernels = pytest.importorskip("video_mvit.kernels.triton_pooling", reason="there is no Triton here")
DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")


def random(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(DEVICE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("thw", "kernel", "stride", "channels"),
    [
        ((4, 9, 8), (3, 3, 3), (1, 3, 3), 3),
        ((3, 9, 8), (3, 3, 3), (1, 4, 8), 3),
        ((1, 6, 5), (1, 3, 3), (1, 2, 2), 70),  # an image, more channels than a tile has
        ((2, 4, 3), (1, 3, 3), (1, 1, 2), 6),
    ],
)
@pytest.mark.parametrize("num_cls", [0, 1])
def test_outputs_and_gradients_are_those_of_plain_pooling(
    thw: Grid, kernel: Grid, stride: Grid, channels: int, num_cls: int
) -> None:
    wide = random(2, num_cls + prod(thw), 3 * channels).requires_grad_()
    weight = random(channels, 1, *kernel).requires_grad_()
    part = wide[..., channels : 2 * channels]  # as K comes out of one projection
    results = []
    for pool in (kernels.pool_tokens, plain.pool_tokens):
        y = pool(part, weight, thw, stride, num_cls)
        results.append([y, *torch.autograd.grad(y, (wide, weight), random(*y.shape))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.slow
def test_gradient_of_the_kernel_is_summed_over_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "NUM_PARTS", 2)  # of 10 tiles
    x, weight = random(2, 2 * 3 * 5, 4), random(4, 1, 3, 3, 3).requires_grad_()
    gradients = []
    for pool in (kernels.pool_tokens, plain.pool_tokens):
        y = pool(x, weight, (2, 3, 5), (1, 1, 1), 0)
        gradients += torch.autograd.grad(y, weight, torch.ones_like(y))
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-11)


def test_channels_may_lie_apart() -> None:
    x, direction = (torch.randn(1, 4, 40, device=DEVICE).transpose(1, 2) for _ in range(2))
    x.requires_grad_()
    weight = torch.randn(4, 1, 1, 3, 3, device=DEVICE)
    results = []
    for pool in (kernels.pool_tokens, plain.pool_tokens):
        y = pool(x, weight, (2, 5, 4), (1, 1, 1), 0)
        results.append([y, *torch.autograd.grad(y, x, direction)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
def test_pooling_compiles_to_one_graph() -> None:
    weight = torch.randn(8, 1, 1, 3, 3, device=DEVICE, requires_grad=True)
    x = torch.randn(2, 21, 8, device=DEVICE)

    def pool(x: torch.Tensor) -> torch.Tensor:
        return kernels.pool_tokens(x, weight, (1, 5, 4), (1, 2, 2), 1)

    torch._dynamo.reset()
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(compiled, pool(x))
    gradients = [torch.autograd.grad(y.square().sum(), weight)[0] for y in (compiled, pool(x))]
    torch.testing.assert_close(*gradients)


@pytest.mark.slow
@pytest.mark.parametrize("num_cls", [0, 1])
def test_compilers_are_told_the_truth_about_the_kernels(num_cls: int) -> None:
    """Shapes, types and memory order: compiled code asserts them."""
    thw, stride = [3, 5, 4], [1, 2, 2]
    x = torch.randn(2, num_cls + prod(thw), 8, device=DEVICE)
    weight = torch.randn(8, 1, 3, 3, 3, device=DEVICE)
    grad = torch.randn(2, num_cls + 18, 8, device=DEVICE)
    rest = (weight, thw, stride, num_cls)
    for operator, args in (
        (kernels.pooled_tokens, (x, *rest)),
        (kernels.input_gradient, (grad, *rest)),
        (kernels.weight_gradient, (grad, x, *rest)),
    ):
        torch.library.opcheck(operator, args, test_utils=("test_schema", "test_faketensor"))
