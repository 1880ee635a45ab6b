"""Attention to parts of the keys, for relative positions that fold into too many dimensions.

The fast attention of a GPU takes heads of at most 128 channels. Halving the keys along w, then
along h, then along t halves the columns of that axis in q' and k'. Each part has outputs x and the
logarithms l of the sums that normalize them; together they are the softmax over all keys, exactly:

    l = log(sum of exp(l_i)),  x = sum of exp(l_i - l) * x_i.

The backward pass of fused attention needs no more than x and l to make the gradients of a part.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from video_mvit.kernels.folding import FOLD_KEYS, FOLD_QUERIES, folded_width
from video_mvit.kernels.plain import Grid, Grids, round_up

MAX_WIDTH = 128
HALVED = ((1, 1, 2), (1, 2, 2), (2, 2, 2))  # parts along t, h, w: as few as will do


def applies(
    q: Tensor, _k: Tensor, _v: Tensor, tables: Sequence[Tensor], grids: Grids, _num_cls: int
) -> bool:
    """Return whether the keys must be split, and can be: not in float32."""
    head_dim, sizes = q.shape[-1], grids[1][-len(tables) :]
    is_wide = folded_width(head_dim, sizes) > MAX_WIDTH and q.element_size() == 2
    return is_wide and num_parts(head_dim, sizes) is not None


def num_parts(head_dim: int, sizes: Sequence[int]) -> Grid | None:
    """Return the number of parts along t, h, w for keys of these sizes; None if none will do."""
    for parts in HALVED:
        halves = [-(-n // p) for n, p in zip(sizes, parts[-len(sizes) :], strict=True)]
        if folded_width(head_dim, halves) <= MAX_WIDTH:
            return parts
    return None


def attention(
    q: Tensor, k: Tensor, v: Tensor, tables: Sequence[Tensor], grids: Grids, num_cls: int
) -> Tensor:
    """As `plain.rel_pos_attention`, for keys of a part at a time."""
    (q_thw, kv_thw), axes = grids, len(tables)
    numbers = num_parts(q.shape[-1], kv_thw[-axes:])
    assert numbers is not None, "keys of this size were to be refused by `applies`"
    parts = tuple(_parts(kv_thw, numbers))
    keys, values = (_SplitKeys.apply(x, kv_thw, parts, num_cls) for x in (k, v))  # type: ignore[no-untyped-call]
    operands: list[Tensor] = []
    for part in parts:
        sizes = tuple(len(each) for each in part)[-axes:]
        some = [_columns(table, each) for table, each in zip(tables, part[-axes:], strict=True)]
        part_cls = 0 if operands else num_cls  # the cls key belongs to the first part
        operands += [
            FOLD_QUERIES(q, some, q_thw, MAX_WIDTH, num_cls),
            FOLD_KEYS(keys[len(operands) // 3], sizes, MAX_WIDTH, part_cls),
            widen(values[len(operands) // 3], MAX_WIDTH),
        ]
    x: Tensor = _MergedAttention.apply(*operands)  # type: ignore[no-untyped-call]
    return x[..., : v.shape[-1]]


def _parts(thw: Grid, numbers: Grid) -> Iterator[tuple[range, ...]]:
    """Yield the positions of each part along t, h and w."""
    lengths = [-(-n // p) for n, p in zip(thw, numbers, strict=True)]
    starts = [range(0, n, length) for n, length in zip(thw, lengths, strict=True)]
    for first in product(*starts):
        ends = zip(first, lengths, thw, strict=True)
        yield tuple(range(start, min(start + length, n)) for start, length, n in ends)


def _columns(table: Tensor, part: range) -> Tensor:
    """Take the keys of a part: (size_q, size_k', D) -> (size_q, size_part', D)."""
    width = round_up(len(part))
    table = table[:, part.start : part.start + width]  # what is beyond the part means nothing
    missing = width - table.shape[1]
    return F.pad(table, (0, 0, 0, missing)) if missing else table


def widen(x: Tensor, width: int) -> Tensor:
    """Append zeros to the channels: (..., D) -> (..., width); the gradient is not copied."""
    return _Widen.apply(x, width)  # type: ignore[no-any-return, no-untyped-call]


class _Widen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, width: int) -> Tensor:
        ctx.num_channels = x.shape[-1]
        return F.pad(x, (0, width - x.shape[-1]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad[..., : ctx.num_channels], None


class _SplitKeys(torch.autograd.Function):
    """Keys or values of each part, cls before the first: (B, h, N, D) -> (B, h, N_part, D) each."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, thw: Grid, parts: Sequence[Sequence[range]], num_cls: int
    ) -> tuple[Tensor, ...]:
        ctx.shape, ctx.settings = x.shape, (thw, parts, num_cls)
        first, *others = _parts_of(x, *ctx.settings)
        first = first.flatten(2, 4)
        first = torch.cat([x[:, :, :num_cls], first], dim=2) if num_cls else first
        return first, *(part.flatten(2, 4) for part in others)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        num_cls = ctx.settings[-1]
        first, *others = gradients
        grad = first.new_empty(ctx.shape)
        grad[:, :, :num_cls] = first[:, :, :num_cls]
        parts = _parts_of(grad, *ctx.settings)
        for part, each in zip(parts, (first[:, :, num_cls:], *others), strict=True):
            part.copy_(each.view(part.shape))
        return grad, None, None, None


def _parts_of(x: Tensor, thw: Grid, parts: Sequence[Sequence[range]], num_cls: int) -> list[Tensor]:
    """View the grid of each part: (B, h, N, D) -> (B, h, T_part, H_part, W_part, D) each."""
    grid = x[:, :, num_cls:].unflatten(2, thw)  # type: ignore[no-untyped-call]
    slices = ([slice(each.start, each.stop) for each in part] for part in parts)
    return [grid[:, :, of_t, of_h, of_w] for of_t, of_h, of_w in slices]


class _MergedAttention(torch.autograd.Function):
    """Queries, keys and values of each part, (B, h, N or N_part, W) -> (B, h, N, W)."""

    @staticmethod
    def forward(ctx: Any, *operands: Tensor) -> Tensor:
        made = [_flash(*operands[i : i + 3]) for i in range(0, len(operands), 3)]
        outputs, sums, ctx.randoms = zip(*made, strict=True)
        logarithms = torch.stack(sums)
        total = logarithms.logsumexp(0)
        weights = (logarithms - total).exp_().unsqueeze(-1).unbind()
        x: Tensor = outputs[0] * weights[0]
        for output, weight in zip(outputs[1:], weights[1:], strict=True):
            x.addcmul_(output, weight)
        x = x.to(outputs[0].dtype)
        ctx.save_for_backward(x, total, *operands)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, total, *operands = ctx.saved_tensors
        gradients: list[Tensor] = []
        for i, random in enumerate(ctx.randoms):
            part = operands[3 * i : 3 * i + 3]
            gradients += _flash_gradients(grad, *part, x, total, *random)
        return tuple(gradients)


def _flash(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, list[Any]]:
    """Return outputs, logarithms of the sums (B, h, N), and what the backward pass wants, too."""
    if q.device.type == "cpu":
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return *fused(q, k, v, scale=1.0), []
    fused = torch.ops.aten._scaled_dot_product_flash_attention
    x, logarithms, *others = fused(q, k, v, scale=1.0)
    return x, logarithms, others[:-1]  # the last one is for debugging


def _flash_gradients(grad: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, x, logarithms, *others = args
    aten, settings = torch.ops.aten, (0.0, False)  # no dropout, not causal
    if q.device.type == "cpu":
        fused = aten._scaled_dot_product_flash_attention_for_cpu_backward
        return fused(grad, q, k, v, x, logarithms, *settings, scale=1.0)  # type: ignore[no-any-return]
    *lengths, seed, offset = others
    fused = aten._scaled_dot_product_flash_attention_backward
    return fused(grad, q, k, v, x, logarithms, *lengths, *settings, seed, offset, scale=1.0)  # type: ignore[no-any-return]
