"""Where an attentive head looks: the relevance of the tokens that it pools, for a class.

As in `attention_rollout`: attention weights times the gradient of the class score with respect to
them, positive parts, averaged over heads; a self-attention block divides the relevance of a token
between its attention and its skip path by the squared norms of what both add.

Shapes: N tokens, h heads, D channels of a head, C = h * D.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

TINY = torch.finfo(torch.float32).tiny


def head_mass(head: Any, tokens: Tensor, class_index: int) -> Tensor:
    """Compute the relevance of the tokens for a class: (N, C) -> (N,), sum 1.

    `head` is an `AttentiveHead` in evaluation mode, `tokens` are what it takes of one clip.
    """
    cross, blocks = head.pooler.cross_attention_block, list(head.pooler.blocks)
    entered = tokens.detach()[None].requires_grad_()  # weights may be frozen
    with torch.inference_mode(mode=False), torch.enable_grad(), _recorded(head) as records:
        score = head(entered)[0, class_index]
        outputs = [records[module][1] for module in (cross.xattn, *(b.attn for b in blocks))]
        grads = torch.autograd.grad(score, outputs)
    with torch.no_grad():
        (queries, normed), _ = records[cross.xattn]
        k, v = cross.xattn.kv(normed).chunk(2, dim=-1)
        q, num_heads = cross.xattn.q(queries), cross.xattn.num_heads
        mass = relevance_of_weights(q[0], k[0], v[0], grads[0][0], num_heads)[0]  # (N,)
        if not mass.any():  # no token speaks for the class
            mass = torch.full_like(mass, 1 / len(mass))
        for block, grad in reversed(list(zip(blocks, grads[1:], strict=True))):
            mass = block_mass(block, mass, records[block][0][0][0], records[block.attn], grad[0])
    return mass


def block_mass(
    block: Any, mass: Tensor, tokens: Tensor, record: tuple[Any, Tensor], grad: Tensor
) -> Tensor:
    """Propagate relevance (N,) from the output of a block to its input, of tokens (N, C)."""
    (normed,), output = record
    q, k, v = block.attn.qkv(normed).chunk(3, dim=-1)
    grad = grad @ block.attn.proj.weight  # before the projection
    relevance = relevance_of_weights(q[0], k[0], v[0], grad, block.attn.num_heads)
    energies = [each.square().sum(dim=1) for each in (output[0], tokens)]
    share = energies[0] / (energies[0] + energies[1]).clamp(min=TINY)
    share = torch.where(relevance.any(dim=1), share, 0.0)
    return mass * (1 - share) + (mass * share) @ relevance


def relevance_of_weights(q: Tensor, k: Tensor, v: Tensor, grad: Tensor, num_heads: int) -> Tensor:
    """Return weights times their gradient, positive parts, over heads: (Q, C) -> (Q, N), sums 1.

    Rows without a positive weight are zero. `grad` (Q, C) is that of the score with respect to the
    output before any projection.
    """
    q, k, v, grad = (x.view(len(x), num_heads, -1).transpose(0, 1) for x in (q, k, v, grad))
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)  # (h, Q, N)
    weights = (weights * (grad @ v.mT)).clamp(min=0).mean(dim=0)
    relevance: Tensor = weights / weights.sum(dim=1, keepdim=True).clamp(min=TINY)
    return relevance


@contextmanager
def _recorded(head: Any) -> Iterator[dict[Any, tuple[Any, Tensor]]]:
    """Record inputs and output of each attention and block of a head."""
    records: dict[Any, tuple[Any, Tensor]] = {}

    def record(module: Any, inputs: Any, output: Tensor) -> None:
        records[module] = (inputs, output)

    pooler = head.pooler
    watched = [pooler.cross_attention_block.xattn, *pooler.blocks]
    watched += [block.attn for block in pooler.blocks]
    handles = [module.register_forward_hook(record) for module in watched]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()
