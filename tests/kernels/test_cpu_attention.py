"""Attention by blocks of queries against the plain formula: outputs and gradients, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from video_mvit.kernels import cpu_attention as module
from video_mvit.kernels import cpu_linear as products
from video_mvit.kernels.cpu_attention import _BlockedAttention
from video_mvit.kernels.rel_pos import attention

SHAPES = [(5, 40, 12, 24, 16), (1, 37, 11, 16, 16), (3, 1, 1, 8, 8)]  # heads, N, Nkv, W, D


def inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    heads, N, Nkv, W, D = shape
    shapes = [(heads, N, W), (heads, Nkv, W), (heads, Nkv, D)]
    return [torch.randn(it, dtype=dtype).requires_grad_() for it in shapes]


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT).softmax(dim=-1) @ v


def with_gradients(function, qkv: list[Tensor], direction: Tensor) -> list[Tensor]:
    y = function(*qkv)
    return [y.detach(), *torch.autograd.grad(y, qkv, direction)]


# All at once; several heads whole; parts of one head, which do not divide it; one query.
@pytest.mark.parametrize("block", [10**6, 2 * 40 * 12, 7 * 12, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_give_what_the_formula_gives(
    shape: tuple[int, ...], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SCORES", block)
    qkv = inputs(shape)
    direction = torch.randn(*shape[:2], shape[4], dtype=torch.float64)
    ours = with_gradients(_BlockedAttention.apply, qkv, direction)
    for got, want in zip(ours, with_gradients(plain, qkv, direction), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    v = F.pad(v, (0, q.shape[-1] - v.shape[-1]))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_blocks_are_taken_where_they_are_faster_and_as_exact_as_the_formula(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "mkl_lacks_avx512", lambda: True)
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(module, "MAX_SCORES", 2**14)
    monkeypatch.setattr(module, "MIN_SCORES", 400 * 150)
    qkv = [x.detach().unflatten(0, (2, 3)) * 0.7 for x in inputs((6, 400, 150, 24, 16))]
    exact = plain(*qkv)
    rounded = [x.to(dtype) for x in qkv]
    counted, real = [], module.blocked_attention
    monkeypatch.setattr(
        module, "blocked_attention", lambda *args: (counted.append(1), real(*args))[1]
    )
    error = (attention(*rounded) - exact).abs().max()
    assert counted == [1]
    error_of_formula = (plain(*rounded) - exact).abs().max()
    assert error <= 1.5 * error_of_formula


@pytest.mark.parametrize(
    ("dtype", "products_are_slow"),
    [  # the last but one: few scores; the last: no instructions for it
        (torch.float64, True),
        (torch.float32, False),
        (torch.float32, True),
        (torch.bfloat16, True),
    ],
)
def test_elsewhere_attention_is_the_fused_one(
    dtype: torch.dtype, products_are_slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "mkl_lacks_avx512", lambda: products_are_slow)
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda: False)
    q, k, v = (x[None].to(dtype) for x in inputs((5, 40, 12, 24, 16)))
    assert torch.equal(attention(q, k, v), fused(q, k, v)[..., :16])


@pytest.mark.slow
def test_operators_are_what_compilers_expect() -> None:
    q, k, v = (x.detach() for x in inputs(SHAPES[0]))
    torch.library.opcheck(module.blocked_attention, (q, k, v))
    grad = torch.randn(5, 40, 16, dtype=torch.float64)
    torch.library.opcheck(module.blocked_attention_gradients, (grad, q, k, v))


def test_what_records_or_maps_gets_operators_that_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda: True)
    q, k, v = (x.detach()[None].bfloat16() for x in inputs(SHAPES[0]))
    traced = torch.jit.trace(attention, (q, k, v))
    kinds = {node.kind() for node in traced.graph.nodes()}
    assert {kind.split("::")[0] for kind in kinds} == {"aten", "prim"}
    assert "prim::PythonOp" not in kinds
    batched = [torch.stack([x, 2 * x]) for x in (q, k, v)]
    mapped = torch.func.vmap(attention)(*batched)
    assert torch.equal(mapped[0], fused(q, k, v)[..., :16])
