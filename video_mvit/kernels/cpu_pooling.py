"""Depthwise 3-D pooling of tokens on a CPU, with its own backward pass.

Computes exactly `conv3d(groups=channels, bias=False, padding=kernel // 2)` of the token grid. It
never sees heads: they are merged into the channels, and the caller repeats the kernel they share.

PyTorch's forward pass is fast for channels-last grids, but its backward pass is not (22 ms in
float32 and 81 ms in bfloat16 after a forward pass of 0.8 ms, for 96 channels on 8x56x56). The
gradient of the input is a convolution with the flipped kernel, that of the kernel is a sum of 2-D
ones, which have fast code of their own. Where windows lie further apart than they are wide (stride
8, kernel 3), only the tokens that they cover are read at all.
"""

from math import ceil
from typing import Any, Sequence  # noqa: UP035 (PyTorch 2.6 reads no other Sequence)

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

from video_mvit.kernels.cpu_linear import multiplies_bfloat16
from video_mvit.kernels.operators import operator
from video_mvit.kernels.plain import Grid, conv_output_size, num_tokens

MAX_SUMMED = 2**19  # elements of clips whose kernel gradients are summed at once


def pool_tokens(x: Tensor, weight: Tensor, thw: Grid, stride: Grid, num_cls: int) -> Tensor:
    """Pool tokens: (B, num_cls + T*H*W, C), (C, 1, kt, kh, kw) -> (B, N', C)."""
    return _PoolTokens.apply(x, weight, thw, stride, num_cls)  # type: ignore[no-any-return, no-untyped-call]


class _PoolTokens(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, thw: Grid, stride: Grid, num_cls: int
    ) -> Tensor:
        (B, _, C), kernel = x.shape, weight.shape[2:]
        # Where windows do not touch, leave out the tokens between them.
        sizes, steps = covered_grid(thw, kernel, stride)
        tokens = covered_tokens(thw, kernel, stride, num_cls) if sizes != tuple(thw) else None
        grid = x[:, num_cls:] if tokens is None else x.index_select(1, tokens)
        grid = grid.reshape(B, *sizes, C).contiguous()  # not a view that keeps Q, K and V alive
        pooled = convolve(grid, weight, steps)
        y = x.new_empty(B, num_tokens(pooled.shape[1:4], num_cls), C)
        y[:, :num_cls] = x[:, :num_cls]
        y[:, num_cls:] = pooled.flatten(1, 3)
        # Only the gradient of the kernel needs the input.
        ctx.save_for_backward(grid if ctx.needs_input_grad[1] else None, weight, tokens)
        ctx.geometry = x.shape, grid.shape, steps, num_cls, pooled.shape[1:4]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grid, weight, tokens = ctx.saved_tensors
        shape, grid_shape, steps, num_cls, pooled_thw = ctx.geometry
        needs_x, needs_weight, *_ = ctx.needs_input_grad
        of_grid = grad[:, num_cls:].reshape(len(grad), *pooled_thw, shape[2]).contiguous()
        grad_x = None
        if needs_x:
            inner = input_gradient(of_grid, weight, grid_shape, steps).flatten(1, 3)
            if tokens is None:
                grad_x = grad.new_empty(shape)
                grad_x[:, num_cls:] = inner
            else:
                grad_x = grad.new_zeros(shape).index_copy_(1, tokens, inner)
            grad_x[:, :num_cls] = grad[:, :num_cls]
        grad_weight = weight_gradient(of_grid, grid, weight.shape, steps) if needs_weight else None
        return grad_x, grad_weight, None, None, None


def covered_positions(size: int, kernel: int, stride: int) -> list[int]:
    """Return the positions of an axis that windows cover, where they do not touch each other."""
    num_windows = conv_output_size([size] * 3, [kernel] * 3, [stride] * 3)[0]
    windows = (
        range(stride * i - kernel // 2, stride * i + kernel // 2 + 1) for i in range(num_windows)
    )
    return [i for window in windows for i in window if 0 <= i < size]


def covered_grid(thw: Grid, kernel: Sequence[int], stride: Grid) -> tuple[Grid, Grid]:
    """Return the grid of covered positions and the stride of the windows on it."""
    axes = list(zip(thw, kernel, stride, strict=True))
    t, h, w = (len(covered_positions(n, k, s)) if s > k else n for n, k, s in axes)
    step_t, step_h, step_w = (min(s, k) for _, k, s in axes)
    return (t, h, w), (step_t, step_h, step_w)


def covered_tokens(thw: Grid, kernel: Sequence[int], stride: Grid, num_cls: int) -> Tensor:
    """Return the indices of the covered tokens of the grid, as they lie in memory."""
    axes = zip(thw, kernel, stride, strict=True)
    positions = [covered_positions(n, k, s) if s > k else list(range(n)) for n, k, s in axes]
    t, h, w = torch.meshgrid(*map(torch.tensor, positions), indexing="ij")
    return num_cls + ((t * thw[1] + h) * thw[2] + w).flatten()


def convolve(x: Tensor, weight: Tensor, stride: Sequence[int]) -> Tensor:
    """Convolve each channel: (B, T, H, W, C), (C, 1, kt, kh, kw) -> (B, T', H', W', C)."""
    padding = [k // 2 for k in weight.shape[2:]]
    x = x.permute(0, 4, 1, 2, 3)  # a channels_last_3d view: (B, C, T, H, W)
    y = F.conv3d(x, weight, stride=tuple(stride), padding=padding, groups=x.shape[1])
    return y.permute(0, 2, 3, 4, 1)  # (B, T', H', W', C)


def _empty_gradient(grad: Tensor, _: Tensor, shape: Sequence[int], __: Sequence[int]) -> Tensor:
    return grad.new_empty(shape)


# Operators: compilers would take long over their insides and gain nothing.
@operator("depthwise_input_gradient", _empty_gradient)
def input_gradient(
    grad: Tensor, weight: Tensor, shape: Sequence[int], stride: Sequence[int]
) -> Tensor:
    """Return the gradient of the input: spread, then convolved with the flipped kernel."""
    if max(stride) > 1:
        t, h, w = stride
        spread = grad.new_zeros(shape)
        spread[:, ::t, ::h, ::w] = grad
        grad = spread
    return convolve(grad, weight.flip(2, 3, 4), (1, 1, 1)).contiguous()


@operator("depthwise_weight_gradient", _empty_gradient)
def weight_gradient(grad: Tensor, x: Tensor, shape: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Return the gradient of the kernel, one of its frames at a time, as that of a 2-D convolution.

    Frames and groups of clips are summed in float32 at least. On a processor without bfloat16
    instructions, products are in float32, too: bfloat16 has no fast kernel there.
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
    """Pad input and output's gradient with zeros to at least the size of the kernel.

    The zeros add nothing; grids smaller than the kernel have no fast convolution.
    """
    thw = x.shape[1], max(x.shape[2], kernel[1]), max(x.shape[3], kernel[2])
    if thw == x.shape[1:4]:
        return x, grad
    return _pad_end(x, thw), _pad_end(grad, conv_output_size(thw, kernel, stride))


def _pad_end(x: Tensor, thw: Grid) -> Tensor:
    """Append zeros to each axis: (B, t, h, w, C) -> (B, T, H, W, C)."""
    missing = [size - n for size, n in zip(thw, x.shape[1:4], strict=True)]
    return F.pad(x, (0, 0, 0, missing[2], 0, missing[1], 0, missing[0]))


def _frames(offset: int, stride: int, num_outputs: int, num_inputs: int) -> tuple[range, range]:
    """Return output frames that read the frame `stride * output + offset`, and what they read."""
    first = max(0, ceil(-offset / stride))
    last = min(num_outputs - 1, (num_inputs - 1 - offset) // stride)
    outputs = range(first, max(first, last + 1))
    inputs = range(stride * first + offset, stride * (outputs.stop - 1) + offset + 1, stride)
    return outputs, inputs
