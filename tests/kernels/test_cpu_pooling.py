"""Depthwise pooling on a CPU: odd grids and strides, sums over clips, precision."""

import pytest
import torch

from video_mvit.kernels import cpu_pooling, plain
from video_mvit.kernels.plain import Grid, conv_output_size

STRIDES = [(1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 8, 8), (2, 2, 2), (4, 1, 1)]
GRIDS = [(4, 16, 16), (3, 9, 7), (2, 5, 6), (1, 1, 1), (1, 2, 3)]


def both(thw: Grid, stride: Grid, kernel: Grid, num_clips: int = 2) -> list[list[torch.Tensor]]:
    """Outputs and gradients of our pooling and of the plain one, of K among Q, K and V."""
    generator = torch.Generator().manual_seed(0)
    shape = (num_clips, plain.num_tokens(thw, 1), 18)
    x = torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
    weight = torch.randn(6, 1, *kernel, dtype=torch.float64, generator=generator).requires_grad_()
    results = []
    for pool in (cpu_pooling.pool_tokens, plain.pool_tokens):
        y = pool(x[..., 6:12], weight, thw, stride, 1)
        assert y.shape[1] == plain.num_tokens(conv_output_size(thw, kernel, stride), 1)
        direction = torch.linspace(0, 1, y.numel(), dtype=y.dtype).view_as(y)
        results.append([y, *torch.autograd.grad(y, (x, weight), direction)])
    return results


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("thw", GRIDS)
@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3)])
def test_pooling_equals_conv3d_forward_and_backward(thw: Grid, stride: Grid, kernel: Grid) -> None:
    for ours, expected in zip(*both(thw, stride, kernel), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("group", [1, 2 * 3 * 5 * 6 * 6])
def test_kernel_gradient_is_summed_over_groups_of_clips(
    group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_pooling, "MAX_SUMMED", group)  # one clip at a time; two of five
    for ours, expected in zip(*both((3, 5, 6), (1, 2, 2), (3, 3, 3), 5), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("has_instructions", [False, True])
def test_kernel_gradient_of_bfloat16_is_exact_to_its_rounding(
    has_instructions: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu_pooling, "multiplies_bfloat16", lambda: has_instructions)
    thw, stride = (4, 14, 14), (1, 2, 2)
    x, direction = torch.randn(2, 784, 32).bfloat16(), torch.randn(2, 196, 32).bfloat16()
    weight = torch.randn(32, 1, 3, 3, 3).bfloat16().requires_grad_()
    y = cpu_pooling.pool_tokens(x, weight, thw, stride, 0)
    (got,) = torch.autograd.grad(y, weight, direction)
    exact = weight.detach().double().requires_grad_()
    y = plain.pool_tokens(x.double(), exact, thw, stride, 0)
    (want,) = torch.autograd.grad(y, exact, direction.double())
    torch.testing.assert_close(got.double(), want, rtol=2**-7, atol=2**-9 * float(want.abs().max()))


@pytest.mark.slow
def test_operators_are_what_compilers_expect() -> None:
    grid, pooled = torch.randn(2, 3, 5, 4, 6), torch.randn(2, 3, 3, 2, 6)
    weight, tests = torch.randn(6, 1, 3, 3, 3), ("test_schema", "test_faketensor")
    for operator, args in (
        (cpu_pooling.input_gradient, (pooled, weight, grid.shape, (1, 2, 2))),
        (cpu_pooling.weight_gradient, (pooled, grid, weight.shape, (1, 2, 2))),
    ):
        torch.library.opcheck(operator, args, test_utils=tests)
