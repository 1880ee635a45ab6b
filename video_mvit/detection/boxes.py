"""Arithmetic of boxes: anchors, deltas, matching, sampling and suppression.

Boxes are (x0, y0, x1, y1) in pixels, always float32; N counts them. An image's size is (height,
width).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, nms

ASPECT_RATIOS = (0.5, 1.0, 2.0)  # height / width of anchors
MAX_LOG_SCALE = math.log(1000 / 16)  # of a decoded side, against overflow
SOFT_NMS_MIN_SCORE = 1e-3  # detections that fall below it are dropped
Size = tuple[int, int]


class Matches(NamedTuple):
    """Targets of N boxes: the index of the best one, and whether it is one, is none, or neither."""

    target: Tensor
    is_positive: Tensor
    is_negative: Tensor


def anchors_of(hw: Size, stride: int, side: int, device: torch.device) -> Tensor:
    """Return the anchors of a map, three a cell, cells row by row: -> (3*H*W, 4)."""
    widths = [side / ratio**0.5 for ratio in ASPECT_RATIOS]
    halves = torch.tensor(
        [[w / 2, w * ratio / 2] for w, ratio in zip(widths, ASPECT_RATIOS, strict=True)],
        device=device,
    )
    y, x = (torch.arange(n, dtype=torch.float32, device=device) * stride for n in hw)
    center = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[:, :, None]  # (H, W, 1, 2)
    return torch.cat([center - halves, center + halves], dim=-1).flatten(0, 2)


def encode(targets: Tensor, boxes: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the deltas that turn boxes into targets: (N, 4), (N, 4) -> (N, 4)."""
    x, y, w, h = center_and_sides(boxes)
    target_x, target_y, target_w, target_h = center_and_sides(targets)
    deltas = [(target_x - x) / w, (target_y - y) / h, (target_w / w).log(), (target_h / h).log()]
    return torch.stack([d * weight for d, weight in zip(deltas, weights, strict=True)], dim=-1)


def decode(deltas: Tensor, boxes: Tensor, weights: Sequence[float]) -> Tensor:
    """Apply deltas to boxes, in float32: (..., 4), (..., 4) -> (..., 4)."""
    x, y, w, h = center_and_sides(boxes)
    parts = deltas.float().unbind(-1)
    dx, dy, dw, dh = (part / weight for part, weight in zip(parts, weights, strict=True))
    half_w = w * dw.clamp(max=MAX_LOG_SCALE).exp() / 2
    half_h = h * dh.clamp(max=MAX_LOG_SCALE).exp() / 2
    x, y = x + dx * w, y + dy * h
    return torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], dim=-1)


def center_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x0, y0, x1, y1 = boxes.unbind(-1)
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0


def clip(boxes: Tensor, size: Size) -> Tensor:
    return clip_boxes_to_image(boxes, size)  # type: ignore[no-any-return]


def has_area(boxes: Tensor) -> Tensor:
    """Tell which boxes are wider and higher than 0: (N, 4) -> (N,) bool."""
    return (boxes[:, 2:] > boxes[:, :2]).all(dim=1)


def match(iou: Tensor, positive_from: float, negative_below: float) -> Matches:
    """Match boxes with the target of best IoU: (M, N) of M targets and N boxes -> N matches."""
    if len(iou) == 0:
        none = torch.zeros(iou.shape[1], dtype=torch.bool, device=iou.device)
        return Matches(none.long(), none, ~none)
    best, target = iou.max(dim=0)
    return Matches(target, best >= positive_from, best < negative_below)


def is_best_of_a_target(iou: Tensor) -> Tensor:
    """Tell which boxes no other one overtakes at some target they overlap: (M, N) -> (N,) bool."""
    best = iou.amax(dim=1, keepdim=True) if len(iou) else iou
    return ((iou == best) & (iou > 0)).any(dim=0)


def sample(
    is_positive: Tensor, is_negative: Tensor, num: int, positive_share: float
) -> tuple[Tensor, Tensor]:
    """Draw indices of positives, up to their share of `num`, and of negatives for the rest."""
    positive, negative = is_positive.nonzero()[:, 0], is_negative.nonzero()[:, 0]
    num_positive = min(len(positive), int(num * positive_share))
    num_negative = min(len(negative), num - num_positive)
    return (
        positive[torch.randperm(len(positive), device=positive.device)[:num_positive]],
        negative[torch.randperm(len(negative), device=negative.device)[:num_negative]],
    )


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Apply NMS within each group of boxes of an image: -> indices of those left, best first."""
    # An exported graph cannot ask how many boxes there are: it moves the groups apart instead.
    if torch.compiler.is_compiling():
        side = F.pad(boxes, (0, 0, 0, 1)).max() + 1
        return nms(boxes + (groups * side)[:, None], scores, iou_threshold)  # type: ignore[no-any-return]
    return batched_nms(boxes, scores, groups, iou_threshold)  # type: ignore[no-any-return]


def soft_nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float, num: int
) -> tuple[Tensor, Tensor]:
    """Pick the best `num` detections, each lowering others: -> their indices and lowered scores.

    The linear form of Bodla et al. (arXiv 1704.04503): a picked box takes the share IoU of the
    scores of its class above `iou_threshold`, with nothing left to choose but this threshold, which
    is that of plain NMS.
    """
    scores = scores.clone()
    picked = labels.new_zeros(min(num, len(boxes)))
    picked_scores = scores.new_zeros(len(picked))
    for i in range(len(picked)):
        picked_scores[i], picked[i] = scores.max(dim=0)
        iou = box_iou(boxes[picked[i], None], boxes)[0]
        lowers = (iou > iou_threshold) & (labels == labels[picked[i]])
        scores = torch.where(lowers, scores * (1 - iou), scores)
        scores[picked[i]] = 0
    is_left = picked_scores >= SOFT_NMS_MIN_SCORE
    return picked[is_left], picked_scores[is_left]
