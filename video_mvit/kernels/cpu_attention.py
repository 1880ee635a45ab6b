"""Softmax attention on a CPU, by blocks of queries.

PyTorch's fused attention multiplies in pieces too small for the fast matrix products of a CPU.
Blocks whose scores stay in the cache take, in bfloat16 on a processor that has instructions for it,
a third of its time forward and half backward; in float32 about half where convolutions are
preferred (`cpu_linear.py`); elsewhere nothing is gained.

Scores and probabilities have the precision of the inputs, as when attention is written down with
matrix products under autocast; fused attention keeps scores of bfloat16 in float32, and is more
exact. Gradients of keys and values are summed in float32 at least.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from video_mvit.kernels.cpu_linear import (
    matmul_nt,
    matmul_tn,
    multiplies_bfloat16,
    prefers_convolution,
)
from video_mvit.kernels.operators import operator

MIN_SCORES = 2**16  # of one head; in float32, which takes a head at a time, less gains nothing
MAX_SCORES = 2**20  # scores computed at once: 2 MB, so that they stay in the cache


def applies(q: Tensor, k: Tensor, _: Tensor) -> bool:
    """Return whether blocks are faster than PyTorch's fused attention for these tensors."""
    if q.dtype == torch.bfloat16:
        return multiplies_bfloat16()
    return prefers_convolution(q) and q.shape[2] * k.shape[2] >= MIN_SCORES


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As `plain.attention`, by blocks of queries: (B, h, N, W), ..., (B, h, Nkv, D)."""
    x = _BlockedAttention.apply(*(part.flatten(0, 1) for part in (q, k, v)))  # type: ignore[no-untyped-call]
    return x.unflatten(0, q.shape[:2])  # type: ignore[no-any-return]


class _BlockedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v)
        return blocked_attention(q, k, v)  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return blocked_attention_gradients(grad.contiguous(), *ctx.saved_tensors)  # type: ignore[no-any-return]


def _empty_output(q: Tensor, _: Tensor, v: Tensor) -> Tensor:
    return q.new_empty(*q.shape[:2], v.shape[2])


def _empty_gradients(_: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


# Operators, opaque to compilers, which would unroll the loops.
@operator("blocked_attention", _empty_output)
def blocked_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(H, N, W), (H, Nkv, W), (H, Nkv, D) -> (H, N, D), where H counts the heads of all clips."""
    x = q.new_empty(*q.shape[:2], v.shape[2])
    for heads, rows in _blocks(q, k):
        x[heads, rows] = matmul_nt(_probabilities(q[heads, rows], k[heads]), v[heads].mT)
    return x


@operator("blocked_attention_gradients", _empty_gradients)
def blocked_attention_gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v; the probabilities are computed again."""
    are_parts = q.shape[1] * k.shape[1] > MAX_SCORES  # whose gradients of k and v are to be summed
    dtype = torch.promote_types(q.dtype, torch.float32) if are_parts else q.dtype
    grad_q = torch.empty_like(q)
    grad_k, grad_v = (torch.zeros_like(x, dtype=dtype) for x in (k, v))
    for heads, rows in _blocks(q, k):
        q_some, grad_some = q[heads, rows], grad[heads, rows]
        probabilities = _probabilities(q_some, k[heads])
        grad_v[heads] += matmul_tn(probabilities, grad_some)
        of_probabilities = matmul_nt(grad_some, v[heads])
        of_scores = torch._softmax_backward_data(of_probabilities, probabilities, -1, q.dtype)
        grad_q[heads, rows] = matmul_nt(of_scores, k[heads].mT)
        grad_k[heads] += matmul_tn(of_scores, q_some)
    return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype)


def _probabilities(q: Tensor, k: Tensor) -> Tensor:
    return matmul_nt(q, k).softmax(dim=-1)


def _blocks(q: Tensor, k: Tensor) -> Iterator[tuple[slice | int, slice]]:
    """Heads and queries of each block: several heads whole, or equal parts of one."""
    (num_heads, num_rows, _), num_keys = q.shape, k.shape[1]
    whole_heads = MAX_SCORES // (num_rows * num_keys)
    if whole_heads > 1 and not prefers_convolution(q):
        for head in range(0, num_heads, whole_heads):
            yield slice(head, head + whole_heads), slice(None)
        return
    num_parts = -(-num_rows * num_keys // MAX_SCORES)
    rows = -(-num_rows // num_parts)
    for head in range(num_heads):  # a number: products of two dimensions copy nothing
        for row in range(0, num_rows, rows):
            yield head, slice(row, row + rows)
