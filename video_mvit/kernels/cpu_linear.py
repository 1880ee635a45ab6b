"""Float32 matrix products on AMD processors with AVX-512.

PyTorch multiplies float32 matrices on a CPU with MKL, which leaves AVX-512 unused on AMD
processors. Its convolutions go through oneDNN, which does not: a convolution with a kernel of one
position is a matrix product, and twice as fast there (110 and 230 GMAC/s on two cores of Zen 5).
On other processors, and in other precisions, both run at the same rate, and nothing here is used.

Layers stay `nn.Linear`: `fast_linear` is a mode that catches `F.linear` during a forward pass.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight
from torch.overrides import TorchFunctionMode

from video_mvit.kernels import plain
from video_mvit.kernels.dispatch import EAGER, Form, Operation

WIDTH = 128  # rows that the gradient of a convolution takes at once, as an image
NUM_IMAGES = 16  # with fewer, PyTorch does the gradient without oneDNN where it has one thread
MIN_ELEMENTS = 2**16  # of one clip; a convolution of less gains nothing
PLAIN_TENSORS = (Tensor, nn.Parameter)  # not subclasses: quantized or distributed weights


def capabilities() -> dict[str, Any]:
    """Return what PyTorch knows about the processor; older versions than 2.10 do not say."""
    know = getattr(torch.cpu, "get_capabilities", dict)
    return know()


def mkl_lacks_avx512() -> bool:
    """Return whether float32 products of this processor are faster as oneDNN convolutions."""
    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    facts = capabilities()
    return has_both and "AMD" in facts.get("cpu_name", "") and facts.get("avx512_f", False)


def multiplies_bfloat16() -> bool:
    """Return whether the processor has instructions for it; without them products are slow."""
    facts = capabilities()
    return any(facts.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


# What `torch.compiler.assume_constant_result` does, without importing the compiler: 3 s.
mkl_lacks_avx512._dynamo_marked_constant = True  # type: ignore[attr-defined]
multiplies_bfloat16._dynamo_marked_constant = True  # type: ignore[attr-defined]


def prefers_convolution(x: Tensor) -> bool:
    """Return whether products of this tensor are faster as convolutions."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and mkl_lacks_avx512()


def matmul_nt(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return a b^T (+ bias): (M, K), (N, K) -> (M, N).

    Also for stacks (H, M, K), (H, N, K) where convolutions are not preferred.
    """
    if not prefers_convolution(a):
        return a @ b.mT if bias is None else F.linear(a, b, bias)
    (M, K), N = a.shape, b.shape[0]
    image = a.contiguous().view(1, M, 1, K).permute(0, 3, 1, 2)  # channels last: nothing moves
    # Not `F.conv2d`: with one thread, it is done without oneDNN.
    y = torch.ops.aten.mkldnn_convolution(
        image, b[:, :, None, None], bias, padding=[0, 0], stride=[1, 1], dilation=[1, 1], groups=1
    )
    return y.permute(0, 2, 3, 1).reshape(M, N)  # type: ignore[no-any-return]


def matmul_tn(a: Tensor, b: Tensor) -> Tensor:
    """Return a^T b: (M, N), (M, K) -> (N, K); also for stacks, as `matmul_nt`."""
    width = min(WIDTH, len(a) // NUM_IMAGES) if prefers_convolution(a) else 0
    if width == 0:
        return a.mT @ b
    # The gradient of a convolution's kernel, over as many whole images as there are.
    rows = len(a) // width * width
    images, of_images = (
        x[:rows].contiguous().view(rows // width, 1, width, -1).permute(0, 3, 1, 2) for x in (b, a)
    )
    shape = (a.shape[1], b.shape[1], 1, 1)
    product: Tensor = conv2d_weight(images, shape, of_images)[:, :, 0, 0]  # type: ignore[no-untyped-call]
    return product if rows == len(a) else product + a[rows:].mT @ b[rows:]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # Only the gradient of the weight needs the input, which is large.
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return matmul_nt(x.flatten(0, -2), weight, bias).view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            matmul_nt(rows, weight.mT).view(*grad.shape[:-1], -1) if needs_x else None,
            matmul_tn(rows, x.flatten(0, -2)) if needs_weight else None,
            rows.sum(dim=0) if needs_bias else None,
        )


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _Linear.apply(x, weight, bias)  # type: ignore[no-any-return, no-untyped-call]


def _applies(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    tensors = [x, weight] if bias is None else [x, weight, bias]
    if x.ndim < 2 or len(x) == 0 or any(type(each) not in PLAIN_TENSORS for each in tensors):
        return False
    is_large = x.shape[1:].numel() >= MIN_ELEMENTS  # whatever the number of clips
    has_one_dtype = all(each.dtype == x.dtype for each in tensors)
    is_cast = torch.is_autocast_enabled("cpu")
    return is_large and has_one_dtype and not is_cast and prefers_convolution(x)


def _examples() -> list[tuple[object, ...]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(2, rows, 24, generator=generator),
            torch.randn(40, 24, generator=generator),
            torch.randn(40, generator=generator),
        )
        for rows in (7, 300, 4099)
    ]


LINEAR = Operation(
    name="linear",
    plain=plain.linear,
    forms=(
        Form(
            name="convolution",
            run=_convolution,
            devices=("cpu",),
            stages=EAGER,
            applies=_applies,
        ),
    ),
    examples=_examples,
)


class _FastLinear(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is F.linear and not kwargs and len(args) == 3:
            return LINEAR(*args)
        return func(*args, **(kwargs or {}))


def fast_linear(x: Tensor) -> AbstractContextManager[object]:
    """Let linear layers of a forward pass over `x` take the fast form where it is any faster."""
    is_eager = not torch.compiler.is_compiling()
    return _FastLinear() if is_eager and prefers_convolution(x) else nullcontext()
