"""The region proposal network (Ren et al., arXiv 1506.01497): boxes that may hold an object."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou

from video_mvit.detection.boxes import (
    ASPECT_RATIOS,
    Size,
    anchors_of,
    clip,
    decode,
    encode,
    has_area,
    is_best_of_a_target,
    match,
    sample,
    suppress,
)
from video_mvit.detection.config import DetectorConfig
from video_mvit.detection.fpn import STRIDES
from video_mvit.detection.instances import Instances
from video_mvit.detection.layers import ReluConv, init_normal

ANCHOR_SIDES = (32, 64, 128, 256, 512)  # of p2 to p6, in pixels
WEIGHTS = (1.0, 1.0, 1.0, 1.0)  # of deltas
POSITIVE_IOU, NEGATIVE_IOU, POSITIVE_SHARE = 0.7, 0.3, 0.5
NMS_THRESHOLD = 0.7


class Level(NamedTuple):
    """Anchors of one map (N, 4), and for each image their logits (B, N) and deltas (B, N, 4)."""

    anchors: Tensor
    logits: Tensor
    deltas: Tensor


class RPNHead(nn.Module):
    """Objectness and deltas of the anchors of a map: (B, C, H, W) -> (B, N), (B, N, 4)."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        dim, num_convs = config.fpn_channels, 2 if config.is_cascade else 1
        convs = [ReluConv(dim, dim) for _ in range(num_convs)]
        named: dict[str, nn.Module] = {f"conv{i}": conv for i, conv in enumerate(convs)}
        self.conv = nn.Sequential(OrderedDict(named)) if config.is_cascade else convs[0]
        self.objectness_logits = nn.Conv2d(dim, len(ASPECT_RATIOS), 1)
        self.anchor_deltas = nn.Conv2d(dim, 4 * len(ASPECT_RATIOS), 1)
        for layer in (*convs, self.objectness_logits, self.anchor_deltas):
            init_normal(layer, std=0.01)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(x)
        logits, deltas = self.objectness_logits(x), self.anchor_deltas(x)
        return (
            logits.permute(0, 2, 3, 1).flatten(1).float(),
            deltas.permute(0, 2, 3, 1).reshape(len(x), -1, 4).float(),
        )


class ProposalGenerator(nn.Module):
    """Proposals of images, and the losses they are learned with."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.rpn_head = RPNHead(config)

    def forward(self, features: Sequence[Tensor]) -> list[Level]:
        """Rate the anchors of maps p2 to p6."""
        return [
            Level(anchors_of((x.shape[2], x.shape[3]), stride, side, x.device), *self.rpn_head(x))
            for x, stride, side in zip(features, STRIDES, ANCHOR_SIDES, strict=True)
        ]

    @torch.no_grad()
    def propose(self, levels: Sequence[Level], sizes: Sequence[Size]) -> list[Tensor]:
        """Return the boxes of each image, the best first: B of (N, 4); none is NaN or Inf."""
        config = self.config
        limit = config.num_candidates_train if self.training else config.num_candidates_test
        boxes, logits, level_index = [], [], []
        for i, level in enumerate(levels):
            best, index = level.logits.topk(min(limit, level.logits.shape[1]), dim=1)
            deltas = level.deltas.gather(1, index[..., None].expand(-1, -1, 4))
            boxes.append(decode(deltas, level.anchors[index], WEIGHTS))
            logits.append(best)
            level_index.append(torch.full_like(index, i))
        candidates = zip(
            torch.cat(boxes, 1), torch.cat(logits, 1), torch.cat(level_index, 1), sizes, strict=True
        )
        return [self.choose(*image) for image in candidates]

    def choose(self, boxes: Tensor, logits: Tensor, level_index: Tensor, size: Size) -> Tensor:
        """Choose the proposals of an image from the candidates of its levels."""
        is_finite = boxes.isfinite().all(dim=1) & logits.isfinite()
        boxes = clip(boxes, size)
        kept = is_finite & has_area(boxes)
        boxes, logits, level_index = boxes[kept], logits[kept], level_index[kept]
        best = suppress(boxes, logits, level_index, NMS_THRESHOLD)
        return boxes[best[: self.config.num_proposals]]

    def losses(self, levels: Sequence[Level], targets: Sequence[Instances]) -> dict[str, Tensor]:
        """Compute the losses of anchors drawn from each image; NaN if any output is NaN or Inf."""
        anchors = torch.cat([level.anchors for level in levels])
        all_logits = torch.cat([level.logits for level in levels], dim=1)
        all_deltas = torch.cat([level.deltas for level in levels], dim=1)
        num, loss_cls, loss_loc = self.config.num_anchors_sampled, [], []
        for target, logits, deltas in zip(targets, all_logits, all_deltas, strict=True):
            iou = box_iou(target.boxes, anchors)
            matches = match(iou, POSITIVE_IOU, NEGATIVE_IOU)
            is_best = is_best_of_a_target(iou)
            positive, negative = sample(
                matches.is_positive | is_best, matches.is_negative & ~is_best, num, POSITIVE_SHARE
            )
            drawn = logits[torch.cat([positive, negative])]
            labels = torch.zeros_like(drawn)
            labels[: len(positive)] = 1
            loss_cls.append(F.binary_cross_entropy_with_logits(drawn, labels, reduction="sum"))
            matched = target.boxes[matches.target[positive]]
            wanted = encode(matched, anchors[positive], WEIGHTS)
            loss_loc.append(F.l1_loss(deltas[positive], wanted, reduction="sum"))
        # An output that was not drawn may be a proposal.
        is_finite = all_logits.isfinite().all() & all_deltas.isfinite().all()
        scale = torch.where(is_finite, 1 / (num * len(targets)), torch.nan)
        return {
            "loss_rpn_cls": torch.stack(loss_cls).sum() * scale,
            "loss_rpn_loc": torch.stack(loss_loc).sum() * scale,
        }
