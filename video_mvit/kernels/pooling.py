"""Depthwise 3-D pooling of tokens, with its own backward.

Decides how the pooling convolution of MViTv2 (section 3.1 of the MViTv1 paper, mode "conv") is
computed; what it computes is exactly `conv3d(groups=channels, bias=False, padding=kernel // 2)` of
the tokens of the grid. It never sees heads: they are merged into the channels, and the kernel they
share is repeated by the caller.

Why an own backward: on a CPU the forward is fast for channels-last grids, but PyTorch's backward is
not (22 ms in float32 and 81 ms in bfloat16 after a forward of 0.8 ms, for 96 channels on 8x56x56).
The gradient of the input is a convolution with the flipped kernel, that of the kernel is the sum of
2-D ones, which have fast code of their own. On a GPU, `pooling_triton.py` does all of it, once a
trial has shown that it works there.
"""

from collections.abc import Sequence
from math import ceil, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

from video_mvit.kernels.cpu_linear import multiplies_bfloat16
from video_mvit.kernels.dispatch import difference_from_plain, kernels_work
from video_mvit.kernels.tracing import is_exporting

Grid = tuple[int, int, int]
MAX_SUMMED = 2**19  # elements of clips whose kernel gradients are summed at once


def conv_output_size(size: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> Grid:
    """Grid after a convolution with padding `kernel // 2`: (T, H, W) -> (T', H', W')."""
    t, h, w = (
        (n + 2 * (k // 2) - k) // s + 1 for n, k, s in zip(size, kernel, stride, strict=True)
    )
    return t, h, w


def seen_positions(size: int, kernel: int, stride: int) -> list[int]:
    """Positions of an axis that windows cover, where they lie further apart than they are wide.

    On these alone a convolution of stride `kernel` gives the same.
    """
    num_windows = conv_output_size([size] * 3, [kernel] * 3, [stride] * 3)[0]
    windows = (
        range(stride * i - kernel // 2, stride * i + kernel // 2 + 1) for i in range(num_windows)
    )
    return [i for window in windows for i in window if 0 <= i < size]


def split_cls(x: Tensor, num_cls: int) -> list[Tensor]:
    """The cls token, if there is one, and those of the grid.

    (B, N, C) -> [(B, 1, C), (B, T*H*W, C)]. Not slices: their gradients are zero-filled tensors of
    the whole size.
    """
    if num_cls == 0:
        return [x]
    return list(torch.split(x, [num_cls, x.shape[1] - num_cls], dim=1))


def pool_tokens(
    x: Tensor, weight: Tensor, thw: Sequence[int], stride: Grid, num_cls: int
) -> list[Tensor]:
    """The cls token as it is, if there is one, and the tokens of the grid, pooled.

    (B, num_cls + T*H*W, C) and `weight` (C, 1, kt, kh, kw) -> [(B, 1, C), (B, T'*H'*W', C)]
    """
    if _takes_triton(x, weight.shape[2:], stride):
        from video_mvit.kernels.triton_pooling import pool

        return pool(x, weight.to(x.dtype), thw, stride, num_cls)
    *cls, grid = split_cls(x, num_cls)
    grid = grid.reshape(x.shape[0], *thw, x.shape[2])
    return [*cls, depthwise_conv3d(grid, weight, stride).flatten(1, 3)]


def depthwise_conv3d(x: Tensor, weight: Tensor, stride: Grid) -> Tensor:
    """Depthwise convolution with padding `kernel // 2`: (B, T, H, W, C) -> (B, T', H', W', C).

    `weight` is (C, 1, kt, kh, kw).
    """
    if x.device.type == "cpu" and torch.is_grad_enabled():
        return _DepthwiseConv3d.apply(x, weight.to(x.dtype), stride)  # type: ignore[no-any-return, no-untyped-call]
    return _forward(x, weight, stride)


def _takes_triton(x: Tensor, kernel: Sequence[int], stride: Grid) -> bool:
    if x.device.type != "cuda" or is_exporting():
        return False
    has_kernels = kernel[0] in (1, 3) and tuple(kernel[1:]) == (3, 3) and stride[0] == 1
    return has_kernels and triton_works(x.device.index)


def triton_works(device_index: int) -> bool:
    """Whether the Triton kernels give on this GPU what PyTorch gives; tried once in a process."""
    return kernels_work("pooling", device_index, worst_difference)


# What `torch.compiler.assume_constant_result` does, without importing the compiler: 3 s.
triton_works._dynamo_marked_constant = True  # type: ignore[attr-defined]


def worst_difference(device: torch.device) -> float:
    """Largest difference of Triton's outputs and gradients from PyTorch's, over a few shapes."""
    from video_mvit.kernels.triton_pooling import pool

    thw, differences = (3, 7, 5), []
    for channels, stride in ((40, (1, 1, 1)), (24, (1, 2, 2)), (24, (1, 3, 3))):

        def ours(
            x: Tensor, weight: Tensor, channels: int = channels, stride: Grid = stride
        ) -> Tensor:
            return torch.cat(pool(x[..., channels : 2 * channels], weight, thw, stride, 1), dim=1)

        def plain(
            x: Tensor, weight: Tensor, channels: int = channels, stride: Grid = stride
        ) -> Tensor:
            x = x[..., channels : 2 * channels]
            grid = _forward(x[:, 1:].reshape(len(x), *thw, channels), weight, stride)
            return torch.cat([x[:, :1], grid.flatten(1, 3)], dim=1)

        shapes = ((2, 1 + prod(thw), 3 * channels), (channels, 1, 3, 3, 3))
        differences.append(difference_from_plain(ours, plain, shapes, device))
    return float(torch.tensor(differences).max())  # not a number if any of them is


class DepthwisePool(nn.Module):
    """Kernel and stride of a pooling, shared by all heads; `pool_tokens` pools.

    `weight` has the official name and shape `(head_dim, 1, kt, kh, kw)`.
    """

    def __init__(self, head_dim: int, kernel: Grid, stride: Grid) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(head_dim, 1, *kernel))
        self.stride = stride

    def extra_repr(self) -> str:
        kernel = tuple(self.weight.shape[2:])
        return f"{len(self.weight)}, kernel={kernel}, stride={self.stride}"


def _forward(x: Tensor, weight: Tensor, stride: Sequence[int]) -> Tensor:
    padding = [k // 2 for k in weight.shape[2:]]
    x = x.permute(0, 4, 1, 2, 3)  # a channels_last_3d view: (B, C, T, H, W)
    y = F.conv3d(x, weight, stride=tuple(stride), padding=padding, groups=x.shape[1])
    return y.permute(0, 2, 3, 4, 1)  # (B, T', H', W', C)


class _DepthwiseConv3d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Grid) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return _forward(x, weight, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        grad, stride = grad.contiguous(), ctx.stride
        needs_x, needs_weight, _ = ctx.needs_input_grad
        grad_x = _input_gradient(grad, weight, x.shape, stride) if needs_x else None
        grad_weight = _weight_gradient(grad, x, weight.shape, stride) if needs_weight else None
        return grad_x, grad_weight, None


# Opaque to compilers, which would take long over it and make nothing faster of it.
@torch.library.custom_op("video_mvit::depthwise_input_gradient", mutates_args=())
def _input_gradient(
    grad: Tensor, weight: Tensor, shape: Sequence[int], stride: Sequence[int]
) -> Tensor:
    """Spread the gradient over the input grid, then convolve with the flipped kernel."""
    if max(stride) > 1:
        t, h, w = stride
        spread = grad.new_zeros(shape)
        spread[:, ::t, ::h, ::w] = grad
        grad = spread
    return _forward(grad, weight.flip(2, 3, 4), (1, 1, 1)).contiguous()


@torch.library.custom_op("video_mvit::depthwise_weight_gradient", mutates_args=())
def _weight_gradient(
    grad: Tensor, x: Tensor, shape: Sequence[int], stride: Sequence[int]
) -> Tensor:
    """For each frame of the kernel, the gradient of a 2-D convolution of the frames it reads.

    Those of frames and groups of clips are summed in float32 at least. Without instructions for
    bfloat16, it has no fast kernel.
    """
    dtype = torch.promote_types(grad.dtype, torch.float32)
    grad_weight = torch.zeros(shape, dtype=dtype)
    if grad.dtype == torch.bfloat16 and multiplies_bfloat16():
        dtype = grad.dtype
    (num_taps, *kernel), (stride_t, *stride_hw) = shape[2:], stride
    padding = [k // 2 for k in kernel]
    x, grad = _at_least_the_kernel(x, grad, shape[2:], stride)
    num_clips = max(1, MAX_SUMMED // x.shape[1:].numel())
    for some, grad_some in zip(*(torch.split(each, num_clips) for each in (x, grad)), strict=True):
        some, grad_some = some.to(dtype), grad_some.to(dtype)
        for tap in range(num_taps):
            outputs, inputs = _frames(tap - num_taps // 2, stride_t, grad.shape[1], x.shape[1])
            if len(outputs) == 0:
                continue
            # Frames of one clip follow each other in memory, those of several are copied.
            read = some[:, inputs.start : inputs.stop : stride_t].flatten(0, 1)
            made = grad_some[:, outputs.start : outputs.stop].flatten(0, 1)
            grad_weight[:, :, tap] += conv2d_weight(  # type: ignore[no-untyped-call]
                read.permute(0, 3, 1, 2),
                (shape[0], 1, *kernel),
                made.permute(0, 3, 1, 2),
                stride=stride_hw,
                padding=padding,
                groups=shape[0],
            )
    return grad_weight.to(grad.dtype)


def _at_least_the_kernel(
    x: Tensor, grad: Tensor, kernel: Sequence[int], stride: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Input and output's gradient with zeros where rows or columns are fewer than the kernel has.

    The zeros add nothing; grids smaller than the kernel have no fast convolution.
    """
    thw = x.shape[1], max(x.shape[2], kernel[1]), max(x.shape[3], kernel[2])
    if thw == x.shape[1:4]:
        return x, grad
    return _grown(x, thw), _grown(grad, conv_output_size(thw, kernel, stride))


def _grown(x: Tensor, thw: Grid) -> Tensor:
    """x with zeros behind it: (B, t, h, w, C) -> (B, T, H, W, C)."""
    missing = [wanted - there for wanted, there in zip(thw, x.shape[1:4], strict=True)]
    return F.pad(x, (0, 0, 0, missing[2], 0, missing[1], 0, missing[0]))


def _frames(offset: int, stride: int, num_outputs: int, num_inputs: int) -> tuple[range, range]:
    """Output frames that read an input frame at `stride * output + offset`, and those they read."""
    first = max(0, ceil(-offset / stride))
    last = min(num_outputs - 1, (num_inputs - 1 - offset) // stride)
    outputs = range(first, max(first, last + 1))
    inputs = range(stride * first + offset, stride * (outputs.stop - 1) + offset + 1, stride)
    return outputs, inputs


def _empty_gradient(grad: Tensor, _: Tensor, shape: Sequence[int], __: Sequence[int]) -> Tensor:
    return grad.new_empty(shape)


_input_gradient.register_fake(_empty_gradient)
_weight_gradient.register_fake(_empty_gradient)
