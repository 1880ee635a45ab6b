"""Depthwise 3-D pooling of channels-last token grids on a GPU: three Triton kernels.

A fast path of `pooling.py`, which decides when it is taken; PyTorch's own depthwise `conv3d` is
slow on GPUs, most of all backward. Tokens are read where they lie: a part of the channels of a
wider tensor needs no copy. Sums are in float32 (float64 for float64).

Each program makes `BLOCK_P` positions x `BLOCK_C` channels; neighbouring channels are neighbours in
memory. The gradient of the kernel is summed in parts, each always in the same order, so that it is
the same in every run.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from video_mvit.pooling import conv_output_size, empty_gradient

BLOCK_P = 64
BLOCK_C = 64
PART = 4096  # positions that one program sums for the gradient of the kernel
DTYPES = {torch.float64: tl.float64}


@triton.jit
def _place(p, T, H, W):
    """Batch, frame, row and column of positions p of a contiguous (B, T, H, W) grid."""
    return p // (T * H * W), (p // (H * W)) % T, (p // W) % H, p % W


@triton.jit
def _load(x, b, t, h, w, c, T, H, W, C, is_wanted, step_b, step_p, SUM: tl.constexpr):
    """x[b, t, h, w, c] as (positions, channels), zero outside of the grid."""
    inside = is_wanted & (t >= 0) & (t < T) & (h >= 0) & (h < H) & (w >= 0) & (w < W)
    place = b.to(tl.int64) * step_b + ((t * H + h) * W + w).to(tl.int64) * step_p
    mask = inside[:, None] & (c < C)[None, :]
    return tl.load(x + place[:, None] + c[None, :], mask=mask, other=0.0).to(SUM)


@triton.jit
def _forward_kernel(
    x, weight, y, num_positions, C, T, H, W, T_out, H_out, W_out, step_b, step_p,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    P: tl.constexpr, PC: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0) * P + tl.arange(0, P)
    c = tl.program_id(1) * PC + tl.arange(0, PC)
    b, t, h, w = _place(p, T_out, H_out, W_out)
    total = tl.zeros((P, PC), dtype=SUM)
    for i in tl.static_range(KT):
        for j in tl.static_range(KH):
            for k in tl.static_range(KW):
                tokens = _load(
                    x, b, t * ST + i - KT // 2, h * SH + j - KH // 2, w * SW + k - KW // 2, c,
                    T, H, W, C, p < num_positions, step_b, step_p, SUM,
                )  # fmt: skip
                tap = tl.load(weight + ((i * KH + j) * KW + k) * C + c, mask=c < C, other=0.0)
                total += tokens * tap.to(SUM)[None, :]
    mask = (p < num_positions)[:, None] & (c < C)[None, :]
    tl.store(y + p.to(tl.int64)[:, None] * C + c[None, :], total, mask=mask)


@triton.jit
def _input_kernel(
    grad, weight, grad_x, num_positions, C, T, H, W, T_out, H_out, W_out, step_b, step_p,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    P: tl.constexpr, PC: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0) * P + tl.arange(0, P)
    c = tl.program_id(1) * PC + tl.arange(0, PC)
    b, t, h, w = _place(p, T, H, W)
    total = tl.zeros((P, PC), dtype=SUM)
    for i in tl.static_range(KT):
        for j in tl.static_range(KH):
            for k in tl.static_range(KW):
                # The output that read this token through this tap, if there is one.
                t_from, h_from, w_from = t + KT // 2 - i, h + KH // 2 - j, w + KW // 2 - k
                is_read = (t_from >= 0) & (h_from >= 0) & (w_from >= 0)
                is_read &= (t_from % ST == 0) & (h_from % SH == 0) & (w_from % SW == 0)
                outputs = _load(
                    grad, b, t_from // ST, h_from // SH, w_from // SW, c,
                    T_out, H_out, W_out, C, is_read & (p < num_positions), step_b, step_p, SUM,
                )  # fmt: skip
                tap = tl.load(weight + ((i * KH + j) * KW + k) * C + c, mask=c < C, other=0.0)
                total += outputs * tap.to(SUM)[None, :]
    mask = (p < num_positions)[:, None] & (c < C)[None, :]
    tl.store(grad_x + p.to(tl.int64)[:, None] * C + c[None, :], total, mask=mask)


@triton.jit
def _weight_kernel(
    x, grad, parts, num_positions, C, T, H, W, T_out, H_out, W_out, step_b, step_p,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    P: tl.constexpr, PC: tl.constexpr, SUM: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    tap = tl.program_id(0)  # the fastest index: programs that run together read the same tokens
    i, j, k = tap // (KH * KW), (tap // KW) % KH, tap % KW
    c = tl.program_id(1) * PC + tl.arange(0, PC)
    part = tl.program_id(2)
    total = tl.zeros((PC,), dtype=SUM)
    first = part * SIZE
    for start in range(first, min(first + SIZE, num_positions), P):
        p = start + tl.arange(0, P)
        b, t, h, w = _place(p, T_out, H_out, W_out)
        tokens = _load(
            x, b, t * ST + i - KT // 2, h * SH + j - KH // 2, w * SW + k - KW // 2, c,
            T, H, W, C, p < num_positions, step_b, step_p, SUM,
        )  # fmt: skip
        mask = (p < num_positions)[:, None] & (c < C)[None, :]
        outputs = tl.load(grad + p.to(tl.int64)[:, None] * C + c[None, :], mask=mask, other=0.0)
        total += tl.sum(tokens * outputs.to(SUM), axis=0)
    tl.store(parts + (part.to(tl.int64) * KT * KH * KW + tap) * C + c, total, mask=c < C)


@torch.library.custom_op("video_mvit::triton_depthwise_conv3d", mutates_args=())
def depthwise_forward(x: Tensor, weight: Tensor, stride: Sequence[int]) -> Tensor:
    """(B, T, H, W, C) and (C, 1, kt, kh, kw) -> (B, T', H', W', C)."""
    x = _even(x)
    y = x.new_empty(_output_shape(x, weight, stride))
    sizes = (*x.shape[1:4], *y.shape[1:4])
    _launch(_forward_kernel, y, (x, _taps_first(weight), y), sizes, x, weight, stride)
    return y


@torch.library.custom_op("video_mvit::triton_depthwise_input_gradient", mutates_args=())
def input_gradient(
    grad: Tensor, weight: Tensor, shape: Sequence[int], stride: Sequence[int]
) -> Tensor:
    """Gradient of the input, of the given shape; `grad` is that of the output."""
    grad = _even(grad)
    grad_x = grad.new_empty(shape)
    sizes = (*shape[1:4], *grad.shape[1:4])
    _launch(_input_kernel, grad_x, (grad, _taps_first(weight), grad_x), sizes, grad, weight, stride)
    return grad_x


@torch.library.custom_op("video_mvit::triton_depthwise_weight_gradient", mutates_args=())
def weight_gradient(grad: Tensor, x: Tensor, shape: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Gradient of the kernel, of the given shape (C, 1, kt, kh, kw)."""
    x, grad = _even(x), grad.contiguous()
    C, num_taps = shape[0], shape[2] * shape[3] * shape[4]
    num_positions = grad.numel() // C
    num_parts = triton.cdiv(num_positions, PART)
    parts = x.new_empty((num_parts, num_taps, C), dtype=torch.promote_types(x.dtype, torch.float32))
    _weight_kernel[(num_taps, triton.cdiv(C, BLOCK_C), num_parts)](
        x, grad, parts, num_positions, C, *x.shape[1:4], *grad.shape[1:4], x.stride(0), x.stride(3),
        *stride, *shape[2:], P=BLOCK_P, PC=BLOCK_C, SUM=_sum_type(x), SIZE=PART,
    )  # fmt: skip
    return parts.sum(0).T.reshape(tuple(shape)).to(x.dtype)


def _launch(
    kernel: triton.JITFunction,
    result: Tensor,
    tensors: tuple[Tensor, ...],
    sizes: Sequence[int],
    source: Tensor,
    weight: Tensor,
    stride: Sequence[int],
) -> None:
    C = result.shape[-1]
    num_positions = result.numel() // C
    grid = (triton.cdiv(num_positions, BLOCK_P), triton.cdiv(C, BLOCK_C))
    kernel[grid](
        *tensors, num_positions, C, *sizes, source.stride(0), source.stride(3), *stride,
        *weight.shape[2:], P=BLOCK_P, PC=BLOCK_C, SUM=_sum_type(source),
    )  # fmt: skip


def _sum_type(x: Tensor) -> tl.dtype:
    return DTYPES.get(x.dtype, tl.float32)


def _taps_first(weight: Tensor) -> Tensor:
    """(C, 1, kt, kh, kw) -> (kt*kh*kw, C): channels are neighbours."""
    return weight.flatten(1).T.contiguous()


def _even(x: Tensor) -> Tensor:
    """x itself where positions follow each other at one distance and channels at 1, else a copy."""
    *_, step_t, step_h, step_w, step_c = x.stride()
    distances = (step_w * x.shape[3] * x.shape[2], step_w * x.shape[3], step_w)
    return x if (step_t, step_h, step_w) == distances and step_c == 1 else x.contiguous()


def _output_shape(x: Tensor, weight: Tensor, stride: Sequence[int]) -> tuple[int, ...]:
    thw = conv_output_size(x.shape[1:4], weight.shape[2:], stride)
    return (x.shape[0], *thw, x.shape[4])


@depthwise_forward.register_fake
def _(x: Tensor, weight: Tensor, stride: Sequence[int]) -> Tensor:
    return x.new_empty(_output_shape(x, weight, stride))


input_gradient.register_fake(empty_gradient)
weight_gradient.register_fake(empty_gradient)
