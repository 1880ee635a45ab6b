"""Multiply-adds of the published detectors at 800x1280, against the paper's table 5."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from video_mvit import kernels
from video_mvit.detection.detector import Detector, create_detector

HEIGHT, WIDTH = 800, 1280
NUM_PROPOSALS, NUM_MASKS = 1000, 100


def gmacs(module: nn.Module, *shapes: tuple[int, ...]) -> float:
    """Count the multiply-adds of products and convolutions, as they are written down."""
    with torch.no_grad(), kernels.use("plain"), FlopCounterMode(display=False) as counter:
        for shape in shapes:
            module(torch.empty(shape, device="meta"))
    return counter.get_total_flops() / 2e9


def parts_of(detector: Detector) -> dict[str, float]:
    levels = [(1, 256, -(-HEIGHT // s), -(-WIDTH // s)) for s in (4, 8, 16, 32, 64)]
    backbone = gmacs(detector.backbone.bottom_up, (1, 3, HEIGHT, WIDTH))
    box_heads = detector.roi_heads.box_head
    heads = list(box_heads) if isinstance(box_heads, nn.ModuleList) else [box_heads]
    return {
        "backbone": backbone,
        "pyramid": gmacs(detector.backbone, (1, 3, HEIGHT, WIDTH)) - backbone,
        "proposals": gmacs(detector.proposal_generator.rpn_head, *levels),
        "boxes": sum(gmacs(head, (NUM_PROPOSALS, 256, 7, 7)) for head in heads),
        "masks": gmacs(detector.roi_heads.mask_head, (NUM_MASKS, 256, 14, 14)),
    }


@pytest.mark.parametrize(
    ("name", "published", "computed", "backbone"),
    [
        ("mask_rcnn_mvitv2_t", 279, 277.6, 106.7),
        ("mask_rcnn_mvitv2_s", 326, 324.9, 153.9),
        ("mask_rcnn_mvitv2_b", 392, 390.3, 219.3),
        ("cascade_mask_rcnn_mvitv2_t", 701, 699.2, 106.7),
    ],
)
def test_multiply_adds_are_those_of_the_reference(
    name: str, published: float, computed: float, backbone: float
) -> None:
    with torch.device("meta"):
        detector = create_detector(name)
    parts = parts_of(detector)
    assert parts["backbone"] == pytest.approx(backbone, abs=0.1)
    assert sum(parts.values()) == pytest.approx(computed, abs=0.5)
    # The paper also counts layer norms.
    assert sum(parts.values()) == pytest.approx(published, rel=0.01)
