"""What detection passes around: ground truth, batches, and what was found.

Boxes are (x0, y0, x1, y1) in pixels; a pixel covers [x, x + 1) x [y, y + 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from video_mvit.data.dataset import Unreadable

Polygons = list[npt.NDArray[np.float64]]  # each flat (x0, y0, x1, y1, ...)
Mask = Polygons | npt.NDArray[np.bool_]  # of one object: polygons, or a bitmap (H, W)


@dataclass(frozen=True, kw_only=True)
class Instances:
    """Annotated objects of one image, in pixels of the image that the detector gets.

    Attributes:
        boxes: (N, 4) float32.
        labels: (N,) int64, indices into the classes.
        masks: N polygons or bitmaps.
    """

    boxes: Tensor
    labels: Tensor
    masks: Sequence[Mask]

    def to(self, device: torch.device) -> "Instances":
        """Copy boxes and labels to a device; masks stay where they are rasterized."""
        boxes, labels = (x.to(device, non_blocking=True) for x in (self.boxes, self.labels))
        return Instances(boxes=boxes, labels=labels, masks=self.masks)


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Objects found in one image, best score first.

    Attributes:
        boxes: (N, 4) float32.
        scores: (N,) float32 probabilities.
        labels: (N,) int64, indices into the classes.
        masks: (N, H, W) bool, or (N, 28, 28) float probabilities inside the boxes.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor


class DetectionBatch(NamedTuple):
    """Images of a batch, each of its own size.

    `images` are uint8 (3, H, W) RGB; `targets` is empty in evaluation; `original_sizes` are the
    (height, width) of the files, to which evaluation scales what was found. `unreadable` images are
    not among them.
    """

    images: list[Tensor]
    targets: list[Instances]
    image_index: Tensor
    original_sizes: list[tuple[int, int]]
    unreadable: tuple[Unreadable, ...] = ()

    def to(self, device: torch.device) -> "DetectionBatch":
        """Copy images and targets to a device, as trainers ask; the rest is for the host."""
        return self._replace(
            images=[image.to(device, non_blocking=True) for image in self.images],
            targets=[target.to(device) for target in self.targets],
        )
