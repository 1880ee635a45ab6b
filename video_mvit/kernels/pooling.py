"""Pool the token grid: depthwise convolution of Q, K and V, max-pooling of the skip path."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from video_mvit.kernels import cpu_pooling, plain
from video_mvit.kernels.dispatch import COMPILABLE, TRACEABLE, Form, Operation
from video_mvit.kernels.plain import Grid


def channels_last(x: Tensor, weight: Tensor, thw: Grid, stride: Grid, num_cls: int) -> Tensor:
    """As `plain.pool_tokens`, heads merged into the channels: nothing is transposed."""
    B, N, C = x.shape
    weight = shared_kernel(weight, x)
    cls, grid = torch.split(x, [num_cls, N - num_cls], dim=1)
    grid = cpu_pooling.convolve(grid.reshape(B, *thw, C), weight, stride).flatten(1, 3)
    return torch.cat([cls, grid], dim=1) if num_cls else grid


def shared_kernel(weight: Tensor, x: Tensor) -> Tensor:
    """Repeat the kernel that heads share for the channels of x: (D, 1, ...) -> (h*D, 1, ...)."""
    return _repeated(weight, x.shape[-1] // len(weight), x.dtype)


def _repeated(weight: Tensor, num_heads: int, dtype: torch.dtype) -> Tensor:
    heads = weight.expand(num_heads, *weight.shape)
    return heads.to(dtype, copy=True, memory_format=torch.contiguous_format).flatten(0, 1)


def _cpu(x: Tensor, weight: Tensor, thw: Grid, stride: Grid, num_cls: int) -> Tensor:
    return cpu_pooling.pool_tokens(x, shared_kernel(weight, x), thw, stride, num_cls)


def _triton(x: Tensor, weight: Tensor, thw: Grid, stride: Grid, num_cls: int) -> Tensor:
    from video_mvit.kernels.triton_pooling import pool_tokens

    kernel = _SharedKernel.apply(weight, x.shape[-1] // len(weight), x.dtype)  # type: ignore[no-untyped-call]
    return pool_tokens(x, kernel, thw, stride, num_cls)


class _SharedKernel(torch.autograd.Function):
    """`shared_kernel`, whose gradient is cast and summed at once."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, num_heads: int, dtype: torch.dtype) -> Tensor:
        ctx.shape, ctx.dtype = weight.shape, weight.dtype
        return _repeated(weight, num_heads, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.view(-1, *ctx.shape).sum(dim=0, dtype=ctx.dtype), None, None


def _has_triton_kernel(_: Tensor, weight: Tensor, __: Grid, stride: Grid, ___: int) -> bool:
    kernel = tuple(weight.shape[2:])
    return kernel[0] in (1, 3) and kernel[1:] == (3, 3) and stride[0] == 1


def _has_right_gradients(x: Tensor, *_: object) -> bool:
    """Not of bfloat16 on a CPU, where PyTorch 2.13's gradient of such a convolution is garbage."""
    return x.device.type != "cpu" or x.dtype != torch.bfloat16


def _pool_examples() -> list[tuple[object, ...]]:
    generator = torch.Generator().manual_seed(0)
    cases = [  # kernel, thw, stride, num_cls
        ((3, 3, 3), (3, 4, 5), (1, 1, 1), 1),
        ((3, 3, 3), (2, 5, 4), (1, 2, 2), 1),
        ((3, 3, 3), (2, 9, 8), (1, 8, 8), 0),
        ((1, 3, 3), (1, 6, 7), (1, 4, 4), 0),
    ]
    return [
        (
            # Q, K and V lie side by side; here is K.
            torch.randn(2, plain.num_tokens(thw, num_cls), 3 * 16, generator=generator)[..., 16:32],
            torch.randn(8, 1, *kernel, generator=generator),
            thw,
            stride,
            num_cls,
        )
        for kernel, thw, stride, num_cls in cases
    ]


POOL_TOKENS = Operation(
    name="pool_tokens",
    plain=plain.pool_tokens,
    forms=(
        Form(name="cpu", run=_cpu, devices=("cpu",), stages=COMPILABLE),
        Form(
            name="triton",
            run=_triton,
            devices=("cuda",),
            stages=COMPILABLE,
            applies=_has_triton_kernel,
            tried=True,
        ),
        Form(
            name="channels_last",
            run=channels_last,
            devices=("cpu", "cuda"),
            stages=TRACEABLE,
            applies=_has_right_gradients,
        ),
    ),
    examples=_pool_examples,
)


def pool_tokens(x: Tensor, weight: Tensor, thw: Grid, stride: Grid, num_cls: int) -> Tensor:
    """Pool the grid of each head with a depthwise convolution: (B, N, h*D) -> (B, N', h*D).

    `weight` (D, 1, kt, kh, kw), or (D, 1, kh, kw) of images, is shared by all heads; cls passes as
    it is.
    """
    weight = weight.unsqueeze(2) if weight.ndim == 4 else weight
    return POOL_TOKENS(x, weight, thw, stride, num_cls)


def _max_pool_2d(x: Tensor, thw: Grid, stride: Grid, num_cls: int) -> Tensor:
    """As `plain.max_pool_tokens`, frame by frame and channels last: nothing is transposed."""
    (B, N, C), (T, H, W) = x.shape, thw
    cls, grid = torch.split(x, [num_cls, N - num_cls], dim=1)
    grid = grid.reshape(B * T, H, W, C).permute(0, 3, 1, 2)
    kernel = [s + 1 if s > 1 else 1 for s in stride[1:]]
    grid = F.max_pool2d(grid, kernel, stride[1:], [k // 2 for k in kernel])
    grid = grid.permute(0, 2, 3, 1).reshape(B, -1, C)
    return torch.cat([cls, grid], dim=1) if num_cls else grid


def _max_pool_examples() -> list[tuple[object, ...]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(2, num_cls + 2 * 6 * 5, 8, generator=generator), (2, 6, 5), (1, 2, 2), num_cls)
        for num_cls in (0, 1)
    ]


MAX_POOL_TOKENS = Operation(
    name="max_pool_tokens",
    plain=plain.max_pool_tokens,
    forms=(
        Form(
            name="frames",
            run=_max_pool_2d,
            devices=("cpu", "cuda"),
            stages=TRACEABLE,
            applies=lambda _x, _thw, stride, _num_cls: stride[0] == 1,
        ),
    ),
    examples=_max_pool_examples,
)


def max_pool_tokens(x: Tensor, thw: Grid, stride: Grid, num_cls: int) -> Tensor:
    """Max-pool the grid of the skip path, cls as it is: (B, N, C) -> (B, N', C)."""
    return MAX_POOL_TOKENS(x, thw, stride, num_cls)
