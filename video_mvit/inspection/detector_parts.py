"""The parts of a detector, and a run of all of them on images without values.

Which boxes there are depends on values, so each head gets as many as it may: in evaluation all
proposals and detections, in training those that are drawn for the losses. Sorting and suppressing
boxes is not counted.
"""

import torch

from video_mvit.detection.boxes import Size
from video_mvit.detection.detector import Detector
from video_mvit.detection.roi_heads import BOX_SIDE, MASK_SIDE, POSITIVE_SHARE
from video_mvit.inspection.network import Part


def parts_of(detector: Detector) -> list[Part]:
    """Return patches, stages and pyramid of the backbone, and the heads."""
    backbone, start, parts = "backbone.bottom_up", 0, []
    parts.append(Part("patch_embed", (f"{backbone}.patch_embed",)))
    for stage, depth in enumerate(detector.config.backbone.depths, 1):
        names = tuple(f"{backbone}.blocks.{i}" for i in range(start, start + depth))
        parts.append(Part(f"stage {stage}, {depth} block{'s' * (depth > 1)}", names))
        start += depth
    pyramid = (name for name, _ in detector.backbone.named_children() if name.startswith("fpn_"))
    parts.append(Part("pyramid", tuple(f"backbone.{name}" for name in pyramid)))
    parts.append(Part("proposals", ("proposal_generator.rpn_head",)))
    heads = detector.roi_heads
    stages = range(heads.num_stages) if detector.config.is_cascade else [None]
    for number in stages:
        suffix = "" if number is None else f".{number}"
        names = (f"roi_heads.box_head{suffix}", f"roi_heads.box_predictor{suffix}")
        parts.append(Part(f"boxes{'' if number is None else f' {number + 1}'}", names))
    parts.append(Part("masks", ("roi_heads.mask_head",)))
    return parts


def run_parts(detector: Detector, num_images: int, size: Size) -> None:
    """Run all parts on padded images of a size, on the device of the detector."""
    config, heads, is_training = detector.config, detector.roi_heads, detector.training
    device = detector.pixel_mean.device
    images = torch.empty(num_images, 3, *size, device=device)
    for level in detector.backbone(images).values():
        detector.proposal_generator.rpn_head(level)
    num_boxes = config.num_boxes_sampled if is_training else config.num_proposals
    num_masks = int(num_boxes * POSITIVE_SHARE) if is_training else config.num_detections
    for number in range(heads.num_stages):
        suffix = f".{number}" if config.is_cascade else ""
        shape = (num_images * num_boxes, config.fpn_channels, BOX_SIDE, BOX_SIDE)
        pooled = torch.empty(shape, device=device, requires_grad=is_training)
        features = heads.get_submodule(f"box_head{suffix}")(pooled)
        heads.get_submodule(f"box_predictor{suffix}")(features)
    shape = (num_images * num_masks, config.fpn_channels, MASK_SIDE, MASK_SIDE)
    heads.mask_head(torch.empty(shape, device=device, requires_grad=is_training))
