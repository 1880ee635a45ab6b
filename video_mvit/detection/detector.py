"""Mask R-CNN and Cascade Mask R-CNN on MViTv2: images in; losses, or what is found in them, out.

Li et al. (arXiv 2112.01526), section 5.2. Parameter names, arithmetic and sampling are those of
detectron2, with which the published weights were trained.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from video_mvit.detection.boxes import Size, clip, has_area
from video_mvit.detection.config import STRIDE, DetectorConfig, detector_config
from video_mvit.detection.fpn import FPN
from video_mvit.detection.instances import Detections, Instances
from video_mvit.detection.masks import paste
from video_mvit.detection.roi_heads import Candidates, RoIHeads
from video_mvit.detection.rpn import ProposalGenerator
from video_mvit.errors import UserError

PIXEL_MEAN = (123.675, 116.28, 103.53)  # of ImageNet, RGB from 0 to 255
PIXEL_STD = (58.395, 57.12, 57.375)
Masks = Literal["pasted", "probabilities"]


class Detector(nn.Module):
    """Find objects in images: boxes, classes and masks.

    `detector.backbone(x)` maps padded images to "p2" to "p6", `detector.backbone.bottom_up(x)` to
    "scale2" to "scale5".
    """

    card: Any = None  # what the weight file says about the detector (`weights/model_card.py`)
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = FPN(config)
        self.proposal_generator = ProposalGenerator(config)
        self.roi_heads = RoIHeads(config)
        for name, values in (("pixel_mean", PIXEL_MEAN), ("pixel_std", PIXEL_STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Instances] | None = None,
        *,
        output_sizes: Sequence[Size] | None = None,
        masks: Masks = "pasted",
    ) -> dict[str, Tensor] | list[Detections]:
        """Return losses by name in training, and else the detections of each image.

        Args:
            images: (3, H, W) each, RGB from 0 to 255, of any sizes.
            targets: objects of each image; training needs them.
            output_sizes: (height, width) to which detections are scaled, by default the images'.
            masks: "pasted" into images of the output size, or "probabilities" (N, 28, 28) that lie
                over the boxes.
        """
        if self.training:
            if targets is None:
                raise UserError("a detector in training mode needs targets; call eval() to detect")
            return self.losses(images, targets)
        return self.detect(images, output_sizes=output_sizes, masks=masks)

    def losses(self, images: Sequence[Tensor], targets: Sequence[Instances]) -> dict[str, Tensor]:
        batch, sizes = self.batch(images)
        targets = [
            Instances(
                boxes=each.boxes.to(batch.device),
                labels=each.labels.to(batch.device),
                masks=each.masks,
            )
            for each in targets
        ]
        pyramid = list(self.backbone(batch).values())
        levels = self.proposal_generator(pyramid)
        losses = self.proposal_generator.losses(levels, targets)
        proposals = self.proposal_generator.propose(levels, sizes)
        return losses | self.roi_heads.losses(pyramid[:4], proposals, targets, sizes)

    @torch.no_grad()
    def detect(
        self,
        images: Sequence[Tensor],
        *,
        output_sizes: Sequence[Size] | None = None,
        masks: Masks = "pasted",
    ) -> list[Detections]:
        features, candidates, sizes = self.candidates(images)
        selected = [self.roi_heads.select(*each) for each in zip(candidates, sizes, strict=True)]
        boxes, scores, labels = (list(parts) for parts in zip(*selected, strict=True))
        probabilities = self.roi_heads.masks(features, boxes, labels)
        return [
            finish(Detections(boxes=b, scores=s, labels=k, masks=m), size, output_size, masks)
            for b, s, k, m, size, output_size in zip(
                boxes, scores, labels, probabilities, sizes, output_sizes or sizes, strict=True
            )
        ]

    def candidates(
        self, images: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Candidates], list[Size]]:
        """Return the maps p2 to p5, what the box heads say of each image, and the images' sizes."""
        batch, sizes = self.batch(images)
        pyramid = list(self.backbone(batch).values())
        proposals = self.proposal_generator.propose(self.proposal_generator(pyramid), sizes)
        features = pyramid[:4]
        return features, self.roi_heads.classify(features, proposals, sizes), sizes

    def batch(self, images: Sequence[Tensor]) -> tuple[Tensor, list[Size]]:
        """Normalize images and pad them with the mean color: -> (B, 3, H, W), their sizes."""
        for image in images:
            if image.ndim != 3 or image.shape[0] != 3 or not image.numel():
                raise UserError(f"an image has shape {tuple(image.shape)}, expected (3, H, W)")
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        height, width = self.padded_size(sizes)
        batch = self.pixel_mean.new_zeros(len(images), 3, height, width)
        for padded, image in zip(batch, images, strict=True):
            pixels = image.to(batch.device, batch.dtype)
            padded[:, : image.shape[1], : image.shape[2]] = pixels.sub(self.pixel_mean).div(
                self.pixel_std
            )
        return batch, sizes

    def padded_size(self, sizes: Sequence[Size]) -> Size:
        """Return the size to which images of these sizes are padded."""
        height, width = (-(-max(sides) // STRIDE) * STRIDE for sides in zip(*sizes, strict=True))
        if self.config.square_pad:
            height = width = max(self.config.square_pad, height, width)
        return height, width


def scaled(boxes: Tensor, size: Size, new_size: Size) -> Tensor:
    """Scale boxes from an image of one size to one of another: (..., 4) -> (..., 4)."""
    if size == new_size:
        return boxes
    x, y = new_size[1] / size[1], new_size[0] / size[0]
    return boxes * boxes.new_tensor((x, y, x, y))


def finish(found: Detections, size: Size, output_size: Size, masks: Masks) -> Detections:
    """Scale detections with 28x28 masks to the output, drop empty boxes, and paste the masks."""
    boxes = clip(scaled(found.boxes, size, output_size), output_size)
    kept = has_area(boxes)
    boxes, probabilities = boxes[kept], found.masks[kept]
    return Detections(
        boxes=boxes,
        scores=found.scores[kept],
        labels=found.labels[kept],
        masks=paste(probabilities, boxes, output_size) if masks == "pasted" else probabilities,
    )


def create_detector(name: str, num_classes: int = 80, **overrides: Any) -> Detector:
    """Build a detector with fresh weights: a row of `detection.config.DETECTORS`.

    `create_detector("mask_rcnn_mvitv2_t", drop_path_rate=0.1)` replaces fields of `DetectorConfig`
    or of its `BackboneConfig`. Raises `UserError` on an unknown name, an unknown field or an
    impossible value.
    """
    return Detector(detector_config(name, num_classes=num_classes, **overrides))
