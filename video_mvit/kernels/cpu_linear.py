"""Matrix products on CPUs, where PyTorch's own take longer or keep more than they need.

Decides how a product of two matrices is computed; `linear` is `F.linear`, gradients included.

PyTorch multiplies float32 matrices on a CPU with MKL, which leaves AVX-512 unused on AMD
processors. Its convolutions go through oneDNN, which does not: a convolution with a kernel of one
position is a matrix product, and twice as fast there (110 and 230 GMAC/s on two cores of Zen 5).
On other processors, and in other precisions, both run at the same rate.

Under autocast, a linear layer keeps its weight in bfloat16 for the backward pass, and recomputation
rounds it once more; here the weight itself is kept, and rounded when gradients need it.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

from video_mvit.kernels.recompute import recompute

WIDTH = 128  # rows that the gradient of a convolution takes at once, as an image
NUM_IMAGES = 16  # with fewer, PyTorch does the gradient without oneDNN where it has one thread
MAX_GELUS = 2**22  # computed at once: 8 MB of bfloat16
MIN_ELEMENTS = 2**16  # of one clip; a convolution of less gains nothing


class Linear(nn.Linear):
    """`nn.Linear`, faster where it can be: (..., K) -> (..., N).

    `outputs`: only these of the N.
    """

    def forward(
        self, x: Tensor, outputs: slice | None = None, *, after_gelu: bool = False
    ) -> Tensor:
        map_of = gelu_linear if after_gelu else linear
        if outputs is None:
            return map_of(x, self.weight, self.bias)
        return map_of(x, self.weight[outputs], self.bias[outputs])


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Linear map of the last dimension: (..., K), (N, K), (N,) -> (..., N)."""
    if bias is None or not _is_ours(x, weight):
        return F.linear(x, weight, bias)
    return _mapped(x, weight, bias, _LINEAR)


def gelu_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Linear map of the exact GELU, which is not kept: (..., K), (N, K), (N,) -> (..., N)."""
    if bias is None or not _is_ours(x, weight):
        return recompute(lambda x: F.linear(F.gelu(x), weight, bias), x)  # type: ignore[no-any-return]
    return _mapped(x, weight, bias, _GELU_LINEAR)


def _is_ours(x: Tensor, weight: Tensor) -> bool:
    if x.device.type != "cpu" or x.ndim < 2 or torch.compiler.is_compiling() or len(x) == 0:
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.float64 not in (x.dtype, weight.dtype)
    is_large = x.shape[1:].numel() >= MIN_ELEMENTS  # whatever the number of clips
    return is_large and are_slow(x) and x.dtype == weight.dtype


def are_slow(x: Tensor) -> bool:
    """Whether PyTorch's matrix products leave this processor half idle."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and _mkl_lacks_avx512()


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for it; without them PyTorch's products are slow."""
    facts = torch.cpu.get_capabilities()
    return any(facts.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _mkl_lacks_avx512() -> bool:
    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    facts = torch.cpu.get_capabilities()
    return has_both and "AMD" in facts.get("cpu_name", "") and facts.get("avx512_f", False)


# What `torch.compiler.assume_constant_result` does, without importing the compiler: 3 s.
_mkl_lacks_avx512._dynamo_marked_constant = True  # type: ignore[attr-defined]
multiplies_bfloat16._dynamo_marked_constant = True  # type: ignore[attr-defined]


def times_transposed(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product a b^T (+ bias), as convolution if need be: (M, K), (N, K) -> (M, N).

    Several products at once, (H, M, K) and (H, N, K), only where products are not slow.
    """
    if not are_slow(a):
        return a @ b.mT if bias is None else F.linear(a, b, bias)
    (M, K), N = a.shape, b.shape[0]
    image = a.contiguous().view(1, M, 1, K).permute(0, 3, 1, 2)  # channels last: nothing moves
    # Not `F.conv2d`: with one thread, it is done without oneDNN.
    y = torch.ops.aten.mkldnn_convolution(
        image, b[:, :, None, None], bias, padding=[0, 0], stride=[1, 1], dilation=[1, 1], groups=1
    )
    return y.permute(0, 2, 3, 1).reshape(M, N)  # type: ignore[no-any-return]


def transposed_times(a: Tensor, b: Tensor) -> Tensor:
    """The product a^T b, as a convolution's gradient if need be: (M, N), (M, K) -> (N, K).

    Several products at once, as for `times_transposed`.
    """
    width = min(WIDTH, len(a) // NUM_IMAGES) if are_slow(a) else 0
    if width == 0:
        return a.mT @ b
    rows = len(a) // width * width
    images, of_images = (
        x[:rows].contiguous().view(rows // width, 1, width, -1).permute(0, 3, 1, 2) for x in (b, a)
    )
    shape = (a.shape[1], b.shape[1], 1, 1)
    product: Tensor = conv2d_weight(images, shape, of_images)[:, :, 0, 0]  # type: ignore[no-untyped-call]
    return product if rows == len(a) else product + a[rows:].mT @ b[rows:]


class _Map(NamedTuple):
    """A map of the rows of a matrix, and its gradients.

    Attributes:
        apply: (rows, weight, bias) -> outputs.
        gradients: (their gradient, rows, weight, needs_weight=) -> gradients of the rows, unless
            `weight` is None, and of the weight if needed.
    """

    apply: Callable[[Tensor, Tensor, Tensor], Tensor]
    gradients: Callable[..., tuple[Tensor | None, Tensor | None]]


def _mapped(x: Tensor, weight: Tensor, bias: Tensor, kind: _Map) -> Tensor:
    if torch.is_autocast_enabled("cpu"):
        x = x.to(torch.get_autocast_dtype("cpu"))
    if not torch.is_grad_enabled():
        return _applied(x, weight, bias, kind)
    # In two steps: recomputation ends when all is saved, which is then before the product.
    saved = _SavedForGradients.apply(x, weight, bias, kind)  # type: ignore[no-untyped-call]
    return _Computed.apply(saved, x.detach(), weight.detach(), bias.detach(), kind)  # type: ignore[no-any-return, no-untyped-call]


def _applied(x: Tensor, weight: Tensor, bias: Tensor, kind: _Map) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        y = kind.apply(x.flatten(0, -2), weight.to(x.dtype), bias.to(x.dtype))
        return y.view(*x.shape[:-1], len(weight))


class _SavedForGradients(torch.autograd.Function):
    """Takes what the gradients need; what it gives has only the shape of the outputs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, _: Tensor, kind: _Map) -> Tensor:
        needs_x, needs_weight, *_ = ctx.needs_input_grad
        needs_rows = needs_weight or (needs_x and kind is _GELU_LINEAR)
        ctx.save_for_backward(x if needs_rows else None, weight if needs_x else None)
        ctx.shape, ctx.dtype, ctx.kind = x.shape, weight.dtype, kind
        return x.new_empty(()).expand(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        _, needs_weight, needs_bias, _ = ctx.needs_input_grad
        grad = grad.flatten(0, -2)
        rows = None if x is None else x.flatten(0, -2)
        weight = None if weight is None else weight.to(grad.dtype)
        grad_x, grad_weight = ctx.kind.gradients(grad, rows, weight, needs_weight=needs_weight)
        return (
            None if grad_x is None else grad_x.view(ctx.shape),
            None if grad_weight is None else grad_weight.to(ctx.dtype),
            grad.sum(dim=0).to(ctx.dtype) if needs_bias else None,
            None,
        )


class _Computed(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, __: Tensor, *args: Any) -> Tensor:
        return _applied(*args)

    @staticmethod
    def backward(_: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad, None, None, None, None


def _linear_gradients(
    grad: Tensor, rows: Tensor | None, weight: Tensor | None, *, needs_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    grad_rows = None if weight is None else times_transposed(grad, weight.mT)
    return grad_rows, transposed_times(grad, rows) if needs_weight and rows is not None else None


def _gelu_linear(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    y = rows.new_empty(len(rows), len(weight))
    for some in _blocks(rows):
        y[some] = times_transposed(F.gelu(rows[some]), weight, bias)
    return y


def _gelu_linear_gradients(
    grad: Tensor, rows: Tensor | None, weight: Tensor | None, *, needs_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    if rows is None:
        return None, None
    grad_rows = None if weight is None else torch.empty_like(rows)
    grad_weight: Tensor | None = None
    for some in _blocks(rows):
        if weight is not None and grad_rows is not None:
            of_gelu = times_transposed(grad[some], weight.mT)
            grad_rows[some] = torch.ops.aten.gelu_backward(of_gelu, rows[some])
        if needs_weight:
            part = transposed_times(grad[some], F.gelu(rows[some]))
            grad_weight = part.float() if grad_weight is None else grad_weight.add_(part)
    return grad_rows, grad_weight


def _blocks(rows: Tensor) -> Iterator[slice]:
    """Equal parts of the rows, of `MAX_GELUS` elements at most."""
    length = -(-len(rows) // -(-rows.numel() // MAX_GELUS))
    return (slice(start, start + length) for start in range(0, len(rows), length))


_LINEAR = _Map(times_transposed, _linear_gradients)
_GELU_LINEAR = _Map(_gelu_linear, _gelu_linear_gradients)
