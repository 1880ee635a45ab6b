"""Depthwise 3-D pooling of tokens on a GPU: two Triton kernels.

PyTorch's own depthwise `conv3d` is
slow on GPUs, most of all backward. For kernels of 3x3 positions and 1 or 3 frames that move one
frame at a time, as all of MViT's do. Tokens are read where they lie: a part of the channels of a
wider tensor needs no copy, nor do those behind a cls token. Sums are in float32 (float64 for
float64).

A program takes a few positions and channels of one clip (neighbouring channels are neighbours in
memory) and walks through its frames, a few at a time. Each frame is read once and goes into the
sums of three: those of the frame before, of the same, and of the next. The gradient of the input is
such a walk, too, over the gradient of the output: positions that lie at the same place between the
windows read the same taps. The gradient of the kernel is summed in parts, each always in the same
order, so that it is the same in every run.
"""

from math import prod
from typing import Any, NamedTuple, Sequence  # noqa: UP035 (PyTorch 2.6 reads no other Sequence)

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from video_mvit.kernels.dispatch import on_device_of
from video_mvit.kernels.operators import operator
from video_mvit.kernels.plain import Grid, conv_output_size

NUM_PARTS = 1024  # programs that sum the gradient of the kernel, for all channels together
DTYPES = {torch.float64: tl.float64}


class Tile(NamedTuple):
    """What a program takes at once, and how."""

    positions: int
    channels: int
    vector: int  # channels that a thread reads at once
    warps: int


# 8 channels of bfloat16 are 16 bytes, the widest load. Sums of two frames more than it reads at
# once and three taps of 8 channels fit into 96 registers, with which 20 warps share a processor.
WALK = Tile(positions=8, channels=32, vector=8, warps=1)
WALK_FRAMES = 4
MAX_REGISTERS = {"maxnreg": 96} if torch.version.cuda else {}  # ROCm knows no such option
# Each thread has all 27 sums of its channels.
SUMS = Tile(positions=8, channels=32, vector=2, warps=4)


@triton.jit
def _windows(p, W_out, SH: tl.constexpr, SW: tl.constexpr):
    """Row and column of outputs p, and of the first input that each of them reads."""
    h, w = p // W_out, p % W_out
    return h, w, h * SH - 1, w * SW - 1


@triton.jit
def _readers(p, h_in, w_in, W, SH: tl.constexpr, SW: tl.constexpr):
    """Row and column of inputs p, and of the first output of those that read each of them.

    They lie (h_in, w_in) behind the corners of cells of SH x SW; few rows and columns of outputs,
    (2 + S) // S, read them.
    """
    W_cells = (W + SW - 1) // SW
    row, column = p // W_cells, p % W_cells
    first_row = row + (h_in + 1) // SH - (2 + SH) // SH + 1
    first_column = column + (w_in + 1) // SW - (2 + SW) // SW + 1
    return row * SH + h_in, column * SW + w_in, first_row, first_column


@triton.jit
def _taps_of_frames(taps, n, C, c, is_channel, KT: tl.constexpr, IS_REVERSED: tl.constexpr):
    """Taps of each frame; as wide as tokens: a thread reads those of its channels, no others."""
    of_frames = ()
    for i in tl.static_range(KT):
        place = taps + ((KT - 1 - i if IS_REVERSED else i) * 9 + n) * C + c
        place = tl.broadcast_to(place[None, :], is_channel.shape)
        of_frames = of_frames + (tl.load(place, mask=is_channel, other=0.0),)
    return of_frames


@triton.jit
def _add_products(sums, tokens, taps, i: tl.constexpr, N: tl.constexpr, KT: tl.constexpr):
    """N sums; tokens of frame i belong to KT of them, through the last tap first."""
    more = ()
    for f in tl.static_range(N):
        if f >= i and f < i + KT:
            more = more + (sums[f] + tokens * taps[i + KT - 1 - f],)
        else:
            more = more + (sums[f],)
    return more


@triton.jit
def _walk_kernel(
    source, taps, made, num_blocks, C, T, H, W, H_made, W_made, step_b, step_p, made_b,
    KT: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, IS_GRADIENT: tl.constexpr,
    P: tl.constexpr, PC: tl.constexpr, VECTOR: tl.constexpr, F: tl.constexpr,
    IS_EVEN: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """`made` from the grid `source`, T frames of HxW: the output of a pooling, or the gradient of
    its input from that of its output. It reads F frames at a time; IS_EVEN: they divide T.
    """
    NH: tl.constexpr = (2 + SH) // SH if IS_GRADIENT else 3
    NW: tl.constexpr = (2 + SW) // SW if IS_GRADIENT else 3
    HALO: tl.constexpr = KT // 2
    p = tl.program_id(0) % num_blocks * P + tl.arange(0, P)
    c = tl.max_contiguous(tl.program_id(1) * PC + tl.arange(0, PC), VECTOR)
    b = tl.program_id(2).to(tl.int64)
    h_in, w_in = 0, 0
    if IS_GRADIENT:
        h_in, w_in = tl.program_id(0) // num_blocks // SW, tl.program_id(0) // num_blocks % SW
        h, w, row, column = _readers(p, h_in, w_in, W_made, SH, SW)
    else:
        h, w, row, column = _windows(p, W_made, SH, SW)
    is_channel = tl.broadcast_to((c < C)[None, :], (P, PC))
    is_wanted = ((h < H_made) & (w < W_made))[:, None] & is_channel
    read = source + b * step_b + ((row * W + column) * step_p)[:, None] + c[None, :]
    write = made + b * made_b + ((h * W_made + w) * C)[:, None] + c[None, :]
    step_t, made_t = H * W * step_p, H_made * W_made * C
    zeros = tl.zeros((P, PC), dtype=SUM)
    before, now = zeros, zeros  # sums that frames to come belong to, too
    for first in range(0, T, F):
        sums = (before, now) if KT == 3 else ()
        for _ in tl.static_range(F):
            sums = sums + (zeros,)
        for n in range(NH * NW):  # unrolled, it would take more registers
            j, k = n // NW, n % NW
            r, s = row + j, column + k
            is_there = ((r >= 0) & (r < H) & (s >= 0) & (s < W))[:, None] & is_wanted
            place = read + (j * W + k) * step_p
            if IS_GRADIENT:  # the first of those that read an input reads it through its last tap
                j = (h_in + 1) % SH + (NH - 1 - j) * SH
                k = (w_in + 1) % SW + (NW - 1 - k) * SW
                is_there = is_there & (j < 3) & (k < 3)
                j, k = tl.minimum(j, 2), tl.minimum(k, 2)
            of_frames = _taps_of_frames(taps, j * 3 + k, C, c, is_channel, KT, IS_GRADIENT)
            for i in tl.static_range(F):
                is_frame = is_there if IS_EVEN else is_there & (first + i < T)
                tokens = tl.load(place + i * step_t, mask=is_frame, other=0.0).to(SUM)
                sums = _add_products(sums, tokens, of_frames, i, F + 2 * HALO, KT)
        for f in tl.static_range(F):
            t = first + f - HALO
            tl.store(write + t * made_t, sums[f], mask=is_wanted & (t >= 0) & (t < T))
        if KT == 3:
            before, now = sums[F], sums[F + 1]
        read += F * step_t
    if KT == 3 and IS_EVEN:
        tl.store(write + (T - 1) * made_t, before, mask=is_wanted)


@triton.jit
def _weight_kernel(
    x, grad, parts, num_tiles, C, T, H, W, H_out, W_out, step_b, step_p, grad_b,
    KT: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    P: tl.constexpr, PC: tl.constexpr, VECTOR: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Each program sums the products of every tap over its tiles, those of many clips."""
    c = tl.max_contiguous(tl.program_id(0) * PC + tl.arange(0, PC), VECTOR)
    part = tl.program_id(1)
    tiles_of_frame = (H_out * W_out + P - 1) // P
    frame = H_out * W_out * C
    sums = ()
    for n in tl.static_range(9 * KT):  # noqa: B007
        sums = sums + (tl.zeros((P, PC), dtype=SUM),)
    for tile in range(part, num_tiles, tl.num_programs(1)):
        b = (tile // tiles_of_frame).to(tl.int64)
        p = tile % tiles_of_frame * P + tl.arange(0, P)
        row, column = p // W_out * SH - 1, p % W_out * SW - 1
        is_wanted = (p < H_out * W_out)[:, None] & (c < C)[None, :]
        x_t, grad_t = x + b * step_b, grad + b * grad_b
        read = ((row * W + column) * step_p)[:, None] + c[None, :]
        outputs = (p * C)[:, None] + c[None, :]
        before = tl.zeros((P, PC), dtype=SUM)
        now = tl.load(grad_t + outputs, mask=is_wanted, other=0.0).to(SUM)
        for t in range(T):
            grad_t += frame
            after = tl.load(grad_t + outputs, mask=is_wanted & (t + 1 < T), other=0.0).to(SUM)
            longer = ()
            for n in tl.static_range(9):
                r, s = row + n // 3, column + n % 3
                is_there = (r >= 0) & (r < H) & (s >= 0) & (s < W)
                place = read + (n // 3 * W + n % 3) * step_p
                tokens = tl.load(x_t + place, mask=is_there[:, None] & is_wanted, other=0.0).to(SUM)
                if KT == 3:
                    longer = longer + (sums[3 * n] + tokens * after,)
                    longer = longer + (sums[3 * n + 1] + tokens * now,)
                    longer = longer + (sums[3 * n + 2] + tokens * before,)
                else:
                    longer = longer + (sums[n] + tokens * now,)
            sums = longer
            before = now
            now = after
            x_t += H * W * step_p
    parts += part.to(tl.int64) * KT * 9 * C
    for i in tl.static_range(KT):
        for n in tl.static_range(9):
            tl.store(parts + (i * 9 + n) * C + c, tl.sum(sums[n * KT + i], axis=0), mask=c < C)


def pool_tokens(x: Tensor, weight: Tensor, thw: Grid, stride: Grid, num_cls: int) -> Tensor:
    """Pool tokens: (B, num_cls + T*H*W, C), (C, 1, kt, 3, 3) -> (B, N', C); both of one type."""
    return _PoolTokens.apply(x, weight, tuple(thw), stride, num_cls)  # type: ignore[no-untyped-call]


class _PoolTokens(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, thw: Grid, stride: Grid, num_cls: int
    ) -> Tensor:
        # Only the gradient of the kernel needs the input.
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        ctx.settings = thw, stride, num_cls
        return pooled_tokens(x, weight, thw, stride, num_cls)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, *_ = ctx.needs_input_grad
        grad_x = input_gradient(grad, weight, *ctx.settings) if needs_x else None
        grad_weight = weight_gradient(grad, x, weight, *ctx.settings) if needs_weight else None
        return grad_x, grad_weight, None, None, None


def _empty_output(
    x: Tensor, weight: Tensor, thw: Sequence[int], stride: Sequence[int], num_cls: int
) -> Tensor:
    pooled = conv_output_size(thw, weight.shape[2:], stride)
    return x.new_empty(x.shape[0], num_cls + prod(pooled), x.shape[2])


def _empty_input(
    grad: Tensor, weight: Tensor, thw: Sequence[int], stride: Sequence[int], num_cls: int
) -> Tensor:
    return grad.new_empty(grad.shape[0], num_cls + prod(thw), grad.shape[2])


def _empty_weight(grad: Tensor, x: Tensor, weight: Tensor, *_: object) -> Tensor:
    return x.new_empty(weight.shape)


# Operators, which compilers take as they are.
@operator("triton_pooled_tokens", _empty_output)
def pooled_tokens(
    x: Tensor, weight: Tensor, thw: Sequence[int], stride: Sequence[int], num_cls: int
) -> Tensor:
    """(B, num_cls + T*H*W, C) and (C, 1, kt, 3, 3) -> (B, num_cls + T'*H'*W', C)."""
    _, *hw = thw_out = conv_output_size(thw, weight.shape[2:], stride)
    y = x.new_empty(x.shape[0], num_cls + prod(thw_out), x.shape[2])
    y[:, :num_cls] = x[:, :num_cls]
    grid, made = _even(x)[:, num_cls:], y[:, num_cls:]
    _walk(grid, weight, made, (*thw, *hw), stride, positions=prod(hw))
    return y


@operator("triton_input_gradient", _empty_input)
def input_gradient(
    grad: Tensor, weight: Tensor, thw: Sequence[int], stride: Sequence[int], num_cls: int
) -> Tensor:
    """Gradient of the tokens, (B, num_cls + T*H*W, C), from that of the pooled ones."""
    grad_x = grad.new_empty(grad.shape[0], num_cls + prod(thw), grad.shape[2])
    grad_x[:, :num_cls] = grad[:, :num_cls]
    cells = triton.cdiv(thw[1], stride[1]) * triton.cdiv(thw[2], stride[2])
    sizes = (*conv_output_size(thw, weight.shape[2:], stride), *thw[1:])
    grid, made = _even(grad)[:, num_cls:], grad_x[:, num_cls:]
    _walk(grid, weight, made, sizes, stride, positions=cells, is_gradient=True)
    return grad_x


@operator("triton_weight_gradient", _empty_weight)
def weight_gradient(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    thw: Sequence[int],
    stride: Sequence[int],
    num_cls: int,
) -> Tensor:
    """Gradient of the kernel, (C, 1, kt, 3, 3), from that of the pooled tokens."""
    x, grad = _even(x)[:, num_cls:], grad.contiguous()[:, num_cls:]
    tile, (C, _, frames, *_) = SUMS, weight.shape
    _, *hw = conv_output_size(thw, weight.shape[2:], stride)
    num_tiles = x.shape[0] * triton.cdiv(prod(hw), tile.positions)
    blocks = triton.cdiv(C, tile.channels)
    num_parts = min(num_tiles, triton.cdiv(NUM_PARTS, blocks))
    dtype = torch.promote_types(x.dtype, torch.float32)
    parts = x.new_empty((num_parts, 9 * frames, C), dtype=dtype)
    with on_device_of(x):
        _weight_kernel[(blocks, num_parts)](
            x, grad, parts, num_tiles, C, *thw, *hw, x.stride(0), x.stride(1), grad.stride(0),
            frames, *stride[1:], P=tile.positions, PC=tile.channels, VECTOR=tile.vector,
            SUM=_sum_type(x), num_warps=tile.warps,
        )  # fmt: skip
    # Its own memory order, not that of the parts: compiled code relies on it.
    return parts.sum(0).T.contiguous().view(weight.shape).to(x.dtype)


def _walk(
    source: Tensor,
    weight: Tensor,
    made: Tensor,
    sizes: Sequence[int],
    stride: Sequence[int],
    *,
    positions: int,
    is_gradient: bool = False,
) -> None:
    """`sizes` are T, H, W of the source and H, W of what is made."""
    C, tile, dtype = made.shape[-1], WALK, torch.promote_types(source.dtype, torch.float32)
    blocks = triton.cdiv(positions, tile.positions)
    cells = stride[1] * stride[2] if is_gradient else 1
    grid = (blocks * cells, triton.cdiv(C, tile.channels), made.shape[0])
    frames = triton.cdiv(sizes[0], triton.cdiv(sizes[0], WALK_FRAMES))
    taps = weight.flatten(1).T  # (kt*3*3, C)
    taps = torch.empty_like(taps, dtype=dtype, memory_format=torch.contiguous_format).copy_(taps)
    with on_device_of(source):
        _walk_kernel[grid](
            source, taps, made, blocks, C, *sizes, source.stride(0), source.stride(1),
            made.stride(0), weight.shape[2], *stride[1:], IS_GRADIENT=is_gradient,
            P=tile.positions, PC=tile.channels, VECTOR=tile.vector, F=frames,
            IS_EVEN=sizes[0] % frames == 0, SUM=_sum_type(source), num_warps=tile.warps,
            **MAX_REGISTERS,
        )  # fmt: skip


def _sum_type(x: Tensor) -> tl.dtype:
    return DTYPES.get(x.dtype, tl.float32)


def _even(x: Tensor) -> Tensor:
    """Tokens whose channels are neighbours: x itself or a copy."""
    return x if x.stride(2) == 1 else x.contiguous()
