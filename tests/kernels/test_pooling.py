"""The depthwise pooling kernel against plain `conv3d`: forward and both gradients, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from video_mvit.kernels import pooling
from video_mvit.kernels.pooling import conv_output_size, depthwise_conv3d, seen_positions

STRIDES = [(1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 8, 8), (2, 2, 2), (4, 1, 1)]
GRIDS = [(4, 16, 16), (3, 9, 7), (2, 5, 6), (1, 1, 1), (1, 2, 3)]


def plain(x: Tensor, weight: Tensor, stride: tuple[int, int, int]) -> Tensor:
    padding = [k // 2 for k in weight.shape[2:]]
    y = F.conv3d(
        x.permute(0, 4, 1, 2, 3), weight, stride=stride, padding=padding, groups=x.shape[-1]
    )
    return y.permute(0, 2, 3, 4, 1)


@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("thw", GRIDS)
@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3)])
def test_pooling_equals_conv3d_forward_and_backward(
    thw: tuple[int, ...], stride: tuple[int, int, int], kernel: tuple[int, ...]
) -> None:
    x = torch.randn(2, *thw, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 1, *kernel, dtype=torch.float64, requires_grad=True)
    ours, expected = depthwise_conv3d(x, weight, stride), plain(x, weight, stride)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    assert tuple(ours.shape[1:4]) == conv_output_size(thw, kernel, stride)
    direction = torch.randn_like(expected)
    for got, want in zip(
        torch.autograd.grad(ours, (x, weight), direction),
        torch.autograd.grad(expected, (x, weight), direction),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-11)


@pytest.mark.parametrize("group", [1, 2 * 3 * 5 * 6 * 4])
def test_kernel_gradient_is_summed_over_groups_of_clips(
    group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooling, "MAX_SUMMED", group)  # one clip at a time; two of five
    x = torch.randn(5, 3, 5, 6, 4, dtype=torch.float64)
    weight = torch.randn(4, 1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    ours, expected = depthwise_conv3d(x, weight, (1, 2, 2)), plain(x, weight, (1, 2, 2))
    direction = torch.randn_like(expected)
    (got,) = torch.autograd.grad(ours, weight, direction)
    (want,) = torch.autograd.grad(expected, weight, direction)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-11)


def test_backward_takes_non_contiguous_gradients_and_inputs() -> None:
    x = torch.randn(2, 3, 8, 6, 12, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    part = x[..., 4:8]  # as q, k and v come out of one projection
    direction = torch.randn(2, 4, 3, 8, 6, dtype=torch.float64).permute(0, 2, 3, 4, 1)
    got = torch.autograd.grad(depthwise_conv3d(part, weight, (1, 1, 1)), (x, weight), direction)
    want = torch.autograd.grad(plain(part, weight, (1, 1, 1)), (x, weight), direction)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("stride", [4, 5, 8])
@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 16, 17, 25])
def test_windows_see_only_the_positions_said(size: int, stride: int) -> None:
    seen = seen_positions(size, 3, stride)
    x = torch.randn(2, 3, size, 9, 4, dtype=torch.float64)
    weight = torch.randn(4, 1, 3, 3, 3, dtype=torch.float64)
    expected = plain(x, weight, (1, stride, 2))
    ours = depthwise_conv3d(x[:, :, seen], weight, (1, 3, 2))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("has_instructions", [False, True])
def test_kernel_gradient_of_bfloat16_is_exact_to_its_rounding(
    has_instructions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooling, "multiplies_bfloat16", lambda: has_instructions)
    x = torch.randn(2, 4, 14, 14, 32).bfloat16()
    weight = torch.randn(32, 1, 3, 3, 3).bfloat16().requires_grad_()
    direction = torch.randn(2, 4, 7, 7, 32).bfloat16()
    (got,) = torch.autograd.grad(depthwise_conv3d(x, weight, (1, 2, 2)), weight, direction)
    exact = weight.detach().double().requires_grad_()
    (want,) = torch.autograd.grad(plain(x.double(), exact, (1, 2, 2)), exact, direction.double())
    torch.testing.assert_close(got.double(), want, rtol=2**-7, atol=2**-9 * float(want.abs().max()))
