"""Heads on regions: classes, boxes and masks of proposals (He et al., arXiv 1703.06870).

One class serves Mask R-CNN and its cascade (Cai and Vasconcelos, arXiv 1906.09756), in which each
box head takes the boxes of the one before. K counts the classes; class K is the background.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou, roi_align

from video_mvit.detection.boxes import (
    Size,
    clip,
    decode,
    encode,
    has_area,
    match,
    sample,
    soft_nms,
    suppress,
)
from video_mvit.detection.config import DetectorConfig
from video_mvit.detection.fpn import LEVELS, STRIDES
from video_mvit.detection.instances import Instances
from video_mvit.detection.layers import (
    Norm,
    ReluConv,
    init_caffe2,
    init_fan_out,
    init_normal,
)
from video_mvit.detection.masks import mask_targets

BOX_SIDE, MASK_SIDE = 7, 14  # of pooled features in cells; masks have twice as many
POSITIVE_SHARE = 0.25
CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4  # a box of this side in pixels is pooled from p4
STAGE_IOU = (0.5, 0.6, 0.7)  # from which a box counts as an object
STAGE_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))


class Samples(NamedTuple):
    """Boxes of an image for the losses (N, 4), with class (K: background) and index of the object.

    `targets` (N, 4) are the boxes of these objects; those of the background mean nothing.
    """

    boxes: Tensor
    labels: Tensor
    objects: Tensor
    targets: Tensor


class Candidates(NamedTuple):
    """What the box heads say of an image: boxes (N, 1 or K, 4), probabilities (N, K + 1)."""

    boxes: Tensor
    probabilities: Tensor


class BoxHead(nn.Sequential):
    """Features of pooled boxes: (N, C, 7, 7) -> (N, fc_channels)."""

    def __init__(self, config: DetectorConfig, norm: Norm) -> None:
        dim, fc = config.fpn_channels, config.fc_channels
        num_convs, num_fcs = (4, 1) if config.is_cascade else (0, 2)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(num_convs):
            layers[f"conv{i + 1}"] = conv = ReluConv(dim, dim, norm)
            init_fan_out(conv)
        layers["flatten"] = nn.Flatten()
        for i in range(num_fcs):
            layers[f"fc{i + 1}"] = linear = nn.Linear(fc if i else dim * BOX_SIDE**2, fc)
            layers[f"relu{i + 1}"] = nn.ReLU()
            init_caffe2(linear)
        super().__init__(layers)


class BoxPredictor(nn.Module):
    """Logits and deltas of boxes: (N, fc_channels) -> (N, K + 1), (N, 1 or K, 4)."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        num_boxes = 1 if config.is_cascade else config.num_classes
        self.cls_score = nn.Linear(config.fc_channels, config.num_classes + 1)
        self.bbox_pred = nn.Linear(config.fc_channels, 4 * num_boxes)
        init_normal(self.cls_score, std=0.01)
        init_normal(self.bbox_pred, std=0.001)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        deltas = self.bbox_pred(x).float().unflatten(1, (self.bbox_pred.out_features // 4, 4))
        return self.cls_score(x).float(), deltas


class MaskHead(nn.Sequential):
    """Mask logits of pooled boxes for each class: (N, C, 14, 14) -> (N, K, 28, 28)."""

    def __init__(self, config: DetectorConfig, norm: Norm) -> None:
        dim = config.mask_channels
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(4):
            conv = ReluConv(dim if i else config.fpn_channels, dim, norm)
            layers[f"mask_fcn{i + 1}"] = conv
            init_fan_out(conv)
        deconv, predictor = (
            nn.ConvTranspose2d(dim, dim, 2, 2),
            nn.Conv2d(dim, config.num_classes, 1),
        )
        init_fan_out(deconv)
        init_normal(predictor, std=0.001)
        super().__init__(layers | {"deconv": deconv, "relu": nn.ReLU(), "predictor": predictor})


class RoIHeads(nn.Module):
    """Box heads, one or a cascade of three, and a mask head.

    `features` are the maps p2 to p5, `sizes` those of the images without padding.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        norm: Norm = "none"
        if config.is_cascade:
            norm = "batch" if config.heads == "cascade_batch_norm" else "layer"
        self.num_stages = len(STAGE_IOU) if config.is_cascade else 1
        heads = [BoxHead(config, norm) for _ in range(self.num_stages)]
        predictors = [BoxPredictor(config) for _ in range(self.num_stages)]
        self.box_head = nn.ModuleList(heads) if config.is_cascade else heads[0]
        self.box_predictor = nn.ModuleList(predictors) if config.is_cascade else predictors[0]
        self.mask_head = MaskHead(config, norm)

    def losses(
        self,
        features: Sequence[Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[Instances],
        sizes: Sequence[Size],
    ) -> dict[str, Tensor]:
        """Compute the losses of boxes drawn from each image."""
        samples = [self.draw(*image) for image in zip(proposals, targets, strict=True)]
        losses = {"loss_mask": self.mask_loss(features, samples, targets)}
        for stage in range(self.num_stages):
            boxes = [each.boxes for each in samples]
            logits, deltas = self.predict(features, boxes, stage)
            loss_cls, loss_box = box_losses(logits, deltas, samples, STAGE_WEIGHTS[stage])
            suffix = f"_stage{stage}" if self.config.is_cascade else ""
            losses |= {f"loss_cls{suffix}": loss_cls, f"loss_box_reg{suffix}": loss_box}
            # The next stage takes what this one made of all its boxes, matched anew.
            if stage + 1 < self.num_stages:
                refined = refine(boxes, deltas.detach(), sizes, stage)
                samples = [
                    self.label(each[has_area(each)], target, stage + 1)
                    for each, target in zip(refined, targets, strict=True)
                ]
        return losses

    def classify(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]
    ) -> list[Candidates]:
        """Rate proposals by the mean of all stages; the boxes are those of the last one."""
        boxes, probabilities = proposals, []
        for stage in range(self.num_stages):
            logits, deltas = self.predict(features, boxes, stage)
            probabilities.append(logits.softmax(dim=1))
            if stage + 1 < self.num_stages:  # empty boxes stay: rows are those of the proposals
                boxes = refine(boxes, deltas, sizes, stage)
        nums = [each.shape[0] for each in proposals]
        decoded = decode(deltas, torch.cat([*boxes])[:, None], STAGE_WEIGHTS[stage])
        mean = torch.stack(probabilities).mean(dim=0)
        return [
            Candidates(*each)
            for each in zip(torch.split(decoded, nums), torch.split(mean, nums), strict=True)
        ]

    def select(self, candidates: Candidates, size: Size) -> tuple[Tensor, Tensor, Tensor]:
        """Select the detections of an image: -> boxes (N, 4), scores, labels, the best first."""
        config, (boxes, probabilities) = self.config, candidates
        is_finite = boxes.isfinite().all(dim=2).all(dim=1) & probabilities.isfinite().all(dim=1)
        boxes, scores = clip(boxes[is_finite], size), probabilities[is_finite, :-1]
        row, labels = (scores > config.score_threshold).nonzero(as_tuple=True)
        boxes, scores = boxes.expand(-1, config.num_classes, 4)[row, labels], scores[row, labels]
        if config.suppression == "soft_nms":
            threshold, num = config.nms_threshold, config.num_detections
            best, scores = soft_nms(boxes, scores, labels, threshold, num)
        else:
            best = suppress(boxes, scores, labels, config.nms_threshold)
            best = best[: config.num_detections]
            scores = scores[best]
        return boxes[best], scores, labels[best]

    def masks(
        self, features: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> list[Tensor]:
        """Compute mask probabilities: B of (N, 4) boxes, (N,) labels -> B of (N, 28, 28)."""
        logits = self.mask_logits(features, boxes, torch.cat([*labels]))
        return list(torch.split(logits.sigmoid(), [each.shape[0] for each in boxes]))

    def draw(self, proposals: Tensor, target: Instances) -> Samples:
        """Draw boxes for the losses of the first stage; the objects' own are among the choice."""
        samples = self.label(torch.cat([proposals, target.boxes]), target, stage=0)
        is_object = samples.labels < self.config.num_classes
        drawn = sample(is_object, ~is_object, self.config.num_boxes_sampled, POSITIVE_SHARE)
        return Samples(*(part[torch.cat(drawn)] for part in samples))

    def label(self, boxes: Tensor, target: Instances, stage: int) -> Samples:
        """Give each box the object of best IoU, or the background."""
        matches = match(box_iou(target.boxes, boxes), STAGE_IOU[stage], STAGE_IOU[stage])
        labels = torch.full_like(matches.target, self.config.num_classes)
        if len(target.boxes) == 0:
            return Samples(boxes, labels, matches.target, boxes)
        labels = torch.where(matches.is_positive, target.labels[matches.target], labels)
        return Samples(boxes, labels, matches.target, target.boxes[matches.target])

    def predict(
        self, features: Sequence[Tensor], boxes: Sequence[Tensor], stage: int
    ) -> tuple[Tensor, Tensor]:
        """Apply one box head to the boxes of all images: -> (N, K + 1), (N, 1 or K, 4)."""
        pooled = pool(features, boxes, BOX_SIDE)
        # All stages together move the features as much as one head would.
        if self.training and pooled.requires_grad:
            pooled.register_hook(lambda gradient: gradient / self.num_stages)  # type: ignore[no-untyped-call]
        suffix = f".{stage}" if self.config.is_cascade else ""
        x = self.get_submodule(f"box_head{suffix}")(pooled)
        logits, deltas = self.get_submodule(f"box_predictor{suffix}")(x)
        return logits, deltas

    def mask_logits(
        self, features: Sequence[Tensor], boxes: Sequence[Tensor], labels: Tensor
    ) -> Tensor:
        """Apply the mask head, and keep the class of each box: -> (N, 28, 28)."""
        logits = self.mask_head(pool(features, boxes, MASK_SIDE))  # (N, K, 28, 28)
        return logits[torch.arange(labels.shape[0], device=labels.device), labels].float()  # type: ignore[no-any-return]

    def mask_loss(
        self, features: Sequence[Tensor], samples: Sequence[Samples], targets: Sequence[Instances]
    ) -> Tensor:
        is_object = [each.labels < self.config.num_classes for each in samples]
        found = [
            Samples(*(part[kept] for part in each))
            for each, kept in zip(samples, is_object, strict=True)
        ]
        labels = torch.cat([each.labels for each in found])
        logits = self.mask_logits(features, [each.boxes for each in found], labels)
        wanted = torch.cat(
            [
                mask_targets(target.masks, each.boxes, each.objects, 2 * MASK_SIDE)
                for each, target in zip(found, targets, strict=True)
            ]
        )
        total = F.binary_cross_entropy_with_logits(logits, wanted.float(), reduction="sum")
        return total / max(wanted.numel(), 1)


def pool(features: Sequence[Tensor], boxes: Sequence[Tensor], side: int) -> Tensor:
    """Pool each box from the map that suits its size: B of (N, 4) -> (sum of N, C, side, side).

    Boxes may be empty, or NaN.
    """
    index = [torch.full_like(each[:, :1], i) for i, each in enumerate(boxes)]
    rois = torch.cat([torch.cat([*index]), torch.cat([*boxes])], dim=1).float().nan_to_num()
    root = (rois[:, 3:] - rois[:, 1:3]).prod(dim=1).sqrt()
    level = (CANONICAL_LEVEL + (root / CANONICAL_SIDE + 1e-8).log2()).floor()
    level = level.clamp(LEVELS[0], LEVELS[-1])
    order, pooled = [], []
    for i, stride, x in zip(LEVELS, STRIDES, features, strict=False):
        order.append((level == i).nonzero()[:, 0])
        cells = roi_align(
            x.float(), rois[order[-1]], side, 1 / stride, sampling_ratio=0, aligned=True
        )
        pooled.append(cells.to(x.dtype))
    return torch.cat(pooled).index_select(0, torch.cat(order).argsort())


def refine(
    boxes: Sequence[Tensor], deltas: Tensor, sizes: Sequence[Size], stage: int
) -> list[Tensor]:
    """Apply the deltas of a stage to its boxes, inside the images: B of (N, 4) -> B of (N, 4)."""
    decoded = decode(deltas[:, 0], torch.cat([*boxes]), STAGE_WEIGHTS[stage])
    parts = torch.split(decoded, [each.shape[0] for each in boxes])
    return [clip(part, size) for part, size in zip(parts, sizes, strict=True)]


def box_losses(
    logits: Tensor, deltas: Tensor, samples: Sequence[Samples], weights: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Compute the losses of classes and boxes, both means over all samples: -> (), ()."""
    boxes, labels, _, targets = map(torch.cat, zip(*samples, strict=True))
    loss_cls = F.cross_entropy(logits, labels, reduction="sum")
    positive = (labels < logits.shape[1] - 1).nonzero()[:, 0]
    # Boxes that do not depend on the class have one row for all.
    column = labels[positive].clamp(max=deltas.shape[1] - 1)
    wanted = encode(targets[positive], boxes[positive], weights)
    loss_box = F.l1_loss(deltas[positive, column], wanted, reduction="sum")
    num = max(len(labels), 1)
    return loss_cls / num, loss_box / num
