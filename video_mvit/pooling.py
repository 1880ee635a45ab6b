"""Depthwise 3-D pooling of channels-last token grids, with its own backward.

Decides how the pooling convolution of MViTv2 (section 3.1 of the MViTv1 paper, mode "conv") is
computed; what it computes is exactly `conv3d(groups=channels, bias=False, padding=kernel // 2)`. It
never sees heads or cls tokens: heads are merged into the channels and the kernel they share is
repeated by the caller.

Why an own backward: on a CPU the forward is fast for channels-last grids, but PyTorch's backward is
not (22 ms in float32 and 81 ms in bfloat16 after a forward of 0.8 ms, for 96 channels on 8x56x56).
The gradient of the input is a convolution with the flipped kernel, that of the kernel is the sum of
2-D ones, which have fast code of their own. On a GPU, `pooling_triton.py` does all of it, once a
trial has shown that it works there.
"""

import logging
from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

from video_mvit.products import multiplies_bfloat16

logger = logging.getLogger(__name__)

Grid = tuple[int, int, int]
FastPath = Literal["cpu", "triton"]
_tried: dict[int, bool] = {}  # GPU -> whether the Triton kernels work on it
GROUP = 2**19  # elements of clips whose kernel gradients are summed at once, where they are small
MAX_DIFFERENCE = 1e-4  # in float32, relative to the largest number


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


def depthwise_conv3d(x: Tensor, weight: Tensor, stride: Grid) -> Tensor:
    """Depthwise convolution with padding `kernel // 2`: (B, T, H, W, C) -> (B, T', H', W', C).

    `weight` is (C, 1, kt, kh, kw).
    """
    if path := _fast_path(x, weight.shape[2:], stride):
        return _DepthwiseConv3d.apply(x, weight.to(x.dtype), stride, path)  # type: ignore[no-any-return, no-untyped-call]
    return _forward(x, weight, stride)


def _fast_path(x: Tensor, kernel: Sequence[int], stride: Grid) -> FastPath | None:
    """What is faster than PyTorch's operator, which alone can be exported."""
    if x.device.type == "cpu":
        return "cpu" if torch.is_grad_enabled() else None
    if x.device.type != "cuda" or torch.compiler.is_exporting():
        return None
    has_kernels = kernel[0] in (1, 3) and tuple(kernel[1:]) == (3, 3) and stride[0] == 1
    return "triton" if has_kernels and triton_works(x.device.index) else None


def triton_works(device_index: int) -> bool:
    """Whether the Triton kernels give on this GPU what PyTorch gives; tried once in a process."""
    if device_index not in _tried:
        _tried[device_index] = _try_triton(torch.device("cuda", device_index))
    return _tried[device_index]


# What `torch.compiler.assume_constant_result` does, without importing the compiler: 3 s.
triton_works._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _try_triton(device: torch.device) -> bool:
    try:
        difference = worst_difference(device)
    except Exception as error:  # compilers and drivers fail in many ways: none may end a training
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    else:
        if difference < MAX_DIFFERENCE:
            return True
        reason = f"they differ by {difference:.1g}"
    logger.warning("Triton pooling is left out on %s, which will be slower: %s", device, reason)
    return False


def worst_difference(device: torch.device) -> float:
    """Largest difference of Triton's outputs and gradients in float32 from PyTorch's in float64.

    Of the largest number of each, over a few shapes. PyTorch computes on the CPU: on a GPU it may
    round products to TF32.
    """

    def by_triton(*args: Any) -> Tensor:
        return _DepthwiseConv3d.apply(*args, "triton")  # type: ignore[no-any-return, no-untyped-call]

    generator, differences = torch.Generator().manual_seed(0), []
    plain_options: dict[str, Any] = {"device": "cpu", "dtype": torch.float64}
    for channels, stride in ((40, (1, 1, 1)), (24, (1, 2, 2)), (8, (1, 3, 3))):
        shapes = ((2, 3, 9, 8, 3 * channels), (channels, 1, 3, 3, 3))
        with torch.inference_mode(mode=False), torch.enable_grad():
            wide, weight = (torch.randn(shape, generator=generator) for shape in shapes)
            results = []
            for pool, options in ((by_triton, {"device": device}), (_forward, plain_options)):
                leaves = [each.to(**options).requires_grad_() for each in (wide, weight)]
                with torch.autocast(device.type, enabled=False):
                    y = pool(leaves[0][..., channels : 2 * channels], leaves[1], stride)
                    grads = torch.autograd.grad(y, leaves, torch.ones_like(y))
                results.append([each.detach().to(**plain_options) for each in (y, *grads)])
        differences += [
            (ours - plain).abs().max() / plain.abs().max()
            for ours, plain in zip(*results, strict=True)
        ]
    return float(torch.stack(differences).max())  # not a number if any of them is


class DepthwisePool(nn.Module):
    """Depthwise 3-D pooling whose kernel is shared by all heads.

    `weight` has the official name and shape `(head_dim, 1, kt, kh, kw)`.
    """

    def __init__(self, head_dim: int, kernel: Grid, stride: Grid) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(head_dim, 1, *kernel))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Pool a token grid: (B, T, H, W, h*D) -> (B, T', H', W', h*D)."""
        num_heads = x.shape[-1] // self.weight.shape[0]
        return depthwise_conv3d(x, self.weight.repeat(num_heads, 1, 1, 1, 1), self.stride)

    def extra_repr(self) -> str:
        kernel = tuple(self.weight.shape[2:])
        return f"{len(self.weight)}, kernel={kernel}, stride={self.stride}"


def _forward(x: Tensor, weight: Tensor, stride: Sequence[int]) -> Tensor:
    padding = [k // 2 for k in weight.shape[2:]]
    x = x.permute(0, 4, 1, 2, 3)  # a channels_last_3d view: (B, C, T, H, W)
    y = F.conv3d(x, weight, stride=tuple(stride), padding=padding, groups=x.shape[1])
    return y.permute(0, 2, 3, 4, 1)  # (B, T', H', W', C)


class _Kernels(NamedTuple):
    """What a fast path is made of; the two gradients are operators that compilers do not open."""

    forward: Callable[..., Tensor]
    input_gradient: Callable[..., Tensor]
    weight_gradient: Callable[..., Tensor]


def _kernels_of(path: FastPath) -> _Kernels:
    if path == "cpu":
        return _Kernels(_forward, _input_gradient, _weight_gradient)
    from video_mvit.pooling_triton import depthwise_forward, input_gradient, weight_gradient

    return _Kernels(depthwise_forward, input_gradient, weight_gradient)


class _DepthwiseConv3d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Grid, path: FastPath) -> Tensor:
        if path == "cpu":  # Triton reads tokens where they lie
            x = x.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.path = stride, path
        return _kernels_of(path).forward(x, weight, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        _, of_input, of_weight = _kernels_of(ctx.path)
        grad, stride = grad.contiguous(), ctx.stride
        needs_x, needs_weight, *_ = ctx.needs_input_grad
        grad_x = of_input(grad, weight, x.shape, stride) if needs_x else None
        grad_weight = of_weight(grad, x, weight.shape, stride) if needs_weight else None
        return grad_x, grad_weight, None, None


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
    num_clips = max(1, GROUP // x.shape[1:].numel())
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


def empty_gradient(grad: Tensor, _: Tensor, shape: Sequence[int], __: Sequence[int]) -> Tensor:
    return grad.new_empty(shape)


_input_gradient.register_fake(empty_gradient)
_weight_gradient.register_fake(empty_gradient)
