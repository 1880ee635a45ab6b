"""Detection in several sizes of an image and in its mirror image, as one answer.

The paper's best results (section 5.2, with Soft-NMS) use it; the tables do not.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from video_mvit.detection.boxes import Size
from video_mvit.detection.detector import Detector, Masks, finish, scaled
from video_mvit.detection.instances import Detections
from video_mvit.detection.roi_heads import Candidates

SHORT_SIDES_PX = (400, 500, 600, 700, 800, 900, 1000, 1100, 1200)  # detectron2's `TEST.AUG`


class View(NamedTuple):
    """An image at a size, mirrored or not, with its maps p2 to p5."""

    size: Size
    is_mirrored: bool
    features: list[Tensor]


@torch.no_grad()
def detect_multi_scale(
    detector: Detector,
    image: Tensor,
    *,
    short_sides: Sequence[int] = SHORT_SIDES_PX,
    max_side: int = 4000,
    mirrored: Sequence[bool] = (False, True),
    masks: Masks = "pasted",
) -> Detections:
    """Detect objects in all views of an image (3, H, W), at the size of the image.

    The boxes of all views compete in one suppression; the mask of a box is the mean over the views.
    """
    size = (image.shape[1], image.shape[2])
    views, candidates = [], []
    for short_side in short_sides:
        scale = min(short_side / min(size), max_side / max(size))
        view_size = (int(size[0] * scale + 0.5), int(size[1] * scale + 0.5))
        resized = resize(image, view_size)
        for is_mirrored in mirrored:
            view = resized.flip(-1) if is_mirrored else resized
            features, [(boxes, probabilities)], _ = detector.candidates([view])
            if is_mirrored:
                boxes = mirror(boxes, view_size)
            candidates.append(Candidates(scaled(boxes, view_size, size), probabilities))
            views.append(View(view_size, is_mirrored, features))
    merged = Candidates(*(torch.cat(parts) for parts in zip(*candidates, strict=True)))
    boxes, scores, labels = detector.roi_heads.select(merged, size)
    probabilities = torch.stack([view_masks(detector, view, boxes, labels, size) for view in views])
    found = Detections(boxes=boxes, scores=scores, labels=labels, masks=probabilities.mean(dim=0))
    return finish(found, size, size, masks)


def view_masks(detector: Detector, view: View, boxes: Tensor, labels: Tensor, size: Size) -> Tensor:
    """Compute the masks of boxes of the image in one view: -> (N, 28, 28)."""
    boxes = scaled(boxes, size, view.size)
    if not view.is_mirrored:
        return detector.roi_heads.masks(view.features, [boxes], [labels])[0]
    boxes = mirror(boxes, view.size)
    return detector.roi_heads.masks(view.features, [boxes], [labels])[0].flip(-1)


def resize(image: Tensor, size: Size) -> Tensor:
    """Resize with antialiasing, to whole values as Pillow does: (3, H, W) -> (3, *size) float."""
    if image.shape[1:] == size:
        return image.float()
    resized = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True)
    return resized[0].round().clamp(0, 255)


def mirror(boxes: Tensor, size: Size) -> Tensor:
    """Mirror boxes from left to right: (..., 4) -> (..., 4)."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack([size[1] - x1, y0, size[1] - x0, y1], dim=-1)
