"""Attention roll-out through the pooled attention of an MViT: where a model looked.

Relevance starts at the tokens that the classifier reads (those that an attentive head attends to:
see `head_rollout`) and is propagated, block by block, to the
tokens that they were computed from, until it lies on the patches. Rows of a block's matrix sum to
1, so that relevance is conserved. A block propagates along two paths:

- Attention: to keys, by attention weights times the gradient of the class score with respect to
  them, positive parts, averaged over heads (Chefer et al., arXiv 2103.15679). The relevance of a
  key is spread evenly over the window of tokens that it was pooled from.
- Skip path: to the token itself; where the grid is max-pooled, to the tokens that were the
  maximum, by the contribution of each channel to the score (gradient times value, positive part).

The split between both is by the squared norms of the two vectors that the block adds: their
contributions to the length of the sum if orthogonal (norms of both: Kobayashi et al., arXiv
2109.07152). The rest of a block does not mix tokens.

Measured on the 320 test videos of the demo (`scripts/benchmarks/localization.py`), as relevance
inside the shape's bounding box over the box's share of the area: 2.33 in this form (2.36 on 192
videos not used to choose it); 2.33 with the maximum over heads; 2.29 with attention weights alone;
2.26 with maxima counted, 2.13 with windows spread evenly on the skip path; 2.15 with a split by
norms, 1.79 with an equal one; 1.40 with all of that plain, the roll-out of Abnar and Zuidema (arXiv
2005.00928).

Shapes: N tokens, cls first if any; h heads; D channels of a head; thw = (T, H, W) token grid.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from video_mvit.errors import UserError
from video_mvit.prediction.head_rollout import head_mass

Grid = tuple[int, int, int]
NUM_WEIGHTS = 2**22  # attention weights in memory at once; stage 1 of S has 25,089 x 393 per head
TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Activations of one block for one clip, and the gradient of the class score.

    `tokens` (N, C) entered the block, `attended` (N', C') is the output of its attention;
    `grad_attended` is the gradient of the score with respect to it.
    """

    block: Any
    tokens: Tensor
    attended: Tensor
    grad_attended: Tensor


def roll_out(model: Any, clip: Tensor, class_index: int) -> Tensor:
    """Compute the relevance of each patch of a clip for a class: -> (T', H', W'), sum 1.

    `model` is an MViT in evaluation mode, `clip` is normalized (3, T, H, W) on its device. Raises
    `UserError` if the class does not exist.
    """
    check_explainable(model)
    num_classes = model.config.num_classes
    if not 0 <= class_index < num_classes:
        raise UserError(f"class {class_index} is not one of {num_classes} (0..{num_classes - 1})")
    if model.training:
        raise UserError("the model is in training mode; call model.eval() before explaining it")
    passages, tokens = trace(model, clip, class_index)
    if model.config.head == "attentive":
        mass = head_mass(model.head, tokens, class_index)
    else:
        mass = first_mass(model.config, passages[-1].attended)
    for passage in reversed(passages):
        mass = hand_down(mass, passage)
    on_patches = mass[passages[0].block.spec.num_cls :]
    # Relevance of the cls token is dropped: it is the same for every clip.
    return shares(on_patches, torch.ones_like(on_patches)).reshape(model.config.patch_grid)


def check_explainable(model: Any) -> None:
    """Raise `UserError` for a network that is no MViT."""
    if not hasattr(model, "forward_stages"):
        raise UserError(
            f"an explanation follows the attention of an MViTv2, which a {type(model).__name__} "
            "does not have"
        )


def trace(model: Any, clip: Tensor, class_index: int) -> tuple[list[Passage], Tensor]:
    """Run a clip through the model; return the passage of each block, and what the head takes."""
    taken: list[Tensor] = []
    with torch.inference_mode(mode=False), torch.enable_grad(), _recorded(model, taken) as records:
        # Weights may be frozen, so the clip requires gradients.
        logits = model(clip.clone().requires_grad_()[None])
        grads = torch.autograd.grad(logits[0, class_index], [output for _, output in records])
    passages = [
        Passage(
            block=block,
            tokens=tokens.detach()[0],
            attended=output.detach()[0],
            grad_attended=grad[0],
        )
        for block, (tokens, output), grad in zip(model.blocks, records, grads, strict=True)
    ]
    return passages, taken[0].detach()[0]


@contextmanager
def _recorded(model: Any, taken: list[Tensor]) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Record the input of each block, the output of its attention, and the head's input (taken)."""
    records: list[tuple[Tensor, Tensor]] = []
    entered: list[Tensor] = []

    def enter(_: object, inputs: tuple[Tensor, ...]) -> None:
        entered.append(inputs[0])

    def record(_: object, __: object, output: Tensor) -> None:
        records.append((entered.pop(), output))

    handles = [block.register_forward_pre_hook(enter) for block in model.blocks]
    handles += [block.attn.register_forward_hook(record) for block in model.blocks]
    handles += [model.head.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def first_mass(config: Any, tokens: Tensor) -> Tensor:
    """Return the relevance at the output (N,): all on cls, or evenly on the averaged tokens."""
    mass = tokens.new_zeros(len(tokens), dtype=torch.float32)
    if config.head == "cls":
        mass[0] = 1
    else:
        num_cls = int(config.cls_token)  # excluded from the mean
        mass[num_cls:] = 1 / (len(tokens) - num_cls)
    return mass


def hand_down(mass: Tensor, passage: Passage) -> Tensor:
    """Propagate relevance from the output of a block to its input: (N',) -> (N,)."""
    block, tokens = passage.block, passage.tokens
    with torch.no_grad():
        widens = block.spec.dim != block.spec.dim_attn
        grid = block.proj(block.norm1(tokens)) if widens else tokens
        skipped = block.pool_skip(grid[None], block.spec)[0]
        energies = [each.float().square().sum(dim=1) for each in (passage.attended, skipped)]
        share = energies[0] / (energies[0] + energies[1]).clamp(min=TINY)
        below, is_attended = hand_to_keys(mass * share, passage)
        mass_skip = mass * torch.where(is_attended, 1 - share, 1.0)
        return below + hand_to_skip(mass_skip, passage, grid)


def hand_to_keys(mass: Tensor, passage: Passage) -> tuple[Tensor, Tensor]:
    """Propagate relevance (N',) of queries to tokens (N,); -> also which queries did (N',).

    Queries without a positive weight keep theirs.
    """
    attention, spec = passage.block.attn, passage.block.spec
    factors = attention.score_factors(passage.block.norm1(passage.tokens[None]))
    q, k, v = (each[0] for each in factors)  # (h, N', W), (h, Nkv, W), (h, Nkv, D)
    grad = passage.grad_attended @ attention.proj.weight  # (N', h*D): before the projection
    grad = grad.reshape(len(grad), spec.num_heads, -1).transpose(0, 1)  # (h, N', D)
    below = mass.new_zeros(k.shape[1])
    is_attended = torch.zeros_like(mass, dtype=torch.bool)
    num_queries = max(1, NUM_WEIGHTS // (len(k) * k.shape[1]))
    for first in range(0, len(mass), num_queries):
        some = slice(first, first + num_queries)
        weights = (q[:, some] @ k.mT).float().softmax(dim=-1)  # (h, some, Nkv)
        weights = (weights * (grad[:, some] @ v.mT)).clamp(min=0).mean(dim=0)
        sums = weights.sum(dim=1)
        is_attended[some] = sums > 0
        below += torch.where(sums > 0, mass[some] / sums, 0) @ weights
    n = spec.num_cls
    on_grid = spread_over_windows(
        below[n:].reshape(spec.kv_thw), spec.thw, spec.pool_kernel, spec.stride_kv
    )
    return torch.cat([below[:n], on_grid.flatten()]), is_attended


def hand_to_skip(mass: Tensor, passage: Passage, grid: Tensor) -> Tensor:
    """Propagate relevance (N',) along the skip path to (N,); `grid` (N, C) enters its pooling."""
    spec = passage.block.spec
    if max(spec.stride_q) == 1:
        return mass
    n, (T, H, W) = spec.num_cls, spec.thw
    maps = grid[n:].reshape(T, H, W, -1).permute(0, 3, 1, 2)  # (T, C, H, W)
    maxima, places = F.max_pool2d(
        maps, kernel_size=3, stride=spec.stride_q[1:], padding=1, return_indices=True
    )
    maxima, places = maxima.flatten(2), places.flatten(2)  # (T, C, H'*W')
    grad = passage.grad_attended[n:].reshape(T, maxima.shape[2], -1).mT  # (T, C, H'*W')
    weights = shares((maxima * grad).clamp(min=0).float(), torch.ones_like(grad).float(), dim=1)
    weights = weights * mass[n:].reshape(T, 1, -1)
    below = mass.new_zeros(T, H * W)
    below.scatter_add_(1, places.flatten(1), weights.flatten(1))
    return torch.cat([mass[:n], below.flatten()])


def spread_over_windows(mass: Tensor, thw: Grid, kernel: Grid, stride: Grid) -> Tensor:
    """Spread relevance of pooled tokens evenly over their windows: (T', H', W') -> (T, H, W)."""
    window = mass.new_ones(1, 1, *kernel)
    padding = [k // 2 for k in kernel]
    num_inside = F.conv3d(mass.new_ones(1, 1, *thw), window, stride=stride, padding=padding)
    rest = [(n + 2 * p - k) % s for n, p, k, s in zip(thw, padding, kernel, stride, strict=True)]
    spread = F.conv_transpose3d(
        mass / num_inside, window, stride=stride, padding=padding, output_padding=rest
    )
    return spread[0, 0]


def spread_over_pixels(mass: Tensor, config: Any) -> Tensor:
    """Spread relevance of patches over the pixels they read: -> (T, H, W), same sum.

    The weights of a patch fall linearly to its neighbours' centres: away from the border, this is
    linear interpolation between patches.
    """
    size = (config.num_frames, config.crop_size, config.crop_size)
    for axis, (num_pixels, stride) in enumerate(zip(size, config.patch_stride, strict=True)):
        pixels = torch.arange(num_pixels, device=mass.device)
        centres = torch.arange(mass.shape[axis], device=mass.device) * stride
        weights = (1 - (pixels - centres[:, None]).abs() / stride).clamp(min=0)
        weights = weights / weights.sum(dim=1, keepdim=True)  # (patches, pixels)
        mass = torch.movedim(torch.movedim(mass, axis, -1) @ weights, -1, axis)
    return mass


def shares(values: Tensor, fallback: Tensor, dim: int = 0) -> Tensor:
    """Divide non-negative values by their sum; `fallback` where it is zero."""
    values = torch.where(values.sum(dim, keepdim=True) > 0, values, fallback)
    return values / values.sum(dim, keepdim=True)
