"""Masks between boxes and images: training targets of the mask head, and pasting of its output."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import roi_align

from video_mvit.detection.boxes import Size
from video_mvit.detection.instances import Mask, Polygons

MIN_SIDE_PX = 0.1  # of the box that a polygon is scaled into


def mask_targets(masks: Sequence[Mask], boxes: Tensor, objects: Tensor, side: int) -> Tensor:
    """Cut masks out of boxes: M masks, (N, 4), (N,) index of the mask -> (N, side, side) bool."""
    targets = torch.zeros(len(boxes), side, side, dtype=torch.bool, device=boxes.device)
    corners, index = boxes.tolist(), objects.tolist()
    for i in sorted(set(index)):
        mask, rows = masks[i], [row for row, other in enumerate(index) if other == i]
        if isinstance(mask, np.ndarray):
            targets[rows] = cut_bitmap(mask, boxes[rows], side)
        else:
            cut = np.stack([rasterize(mask, corners[row], side) for row in rows])
            targets[rows] = torch.from_numpy(cut).to(boxes.device)
    return targets


def rasterize(polygons: Polygons, box: Sequence[float], side: int) -> npt.NDArray[np.bool_]:
    """Fill polygons on a grid over a box, as the COCO API does: -> (side, side)."""
    x0, y0, x1, y1 = box
    scale = np.array([side / max(x1 - x0, MIN_SIDE_PX), side / max(y1 - y0, MIN_SIDE_PX)])
    moved = [((p.reshape(-1, 2) - (x0, y0)) * scale).ravel().tolist() for p in polygons]
    merged = coco_mask.merge(coco_mask.frPyObjects(moved, side, side))
    return coco_mask.decode(merged).astype(np.bool_)  # type: ignore[no-any-return]


def cut_bitmap(bitmap: npt.NDArray[np.bool_], boxes: Tensor, side: int) -> Tensor:
    """Resample a bitmap of the image inside boxes: (H, W), (N, 4) -> (N, side, side) bool."""
    image = torch.from_numpy(bitmap).to(boxes.device).float()[None, None]
    cut: Tensor = roi_align(image, [boxes.float()], side, sampling_ratio=0, aligned=True)
    return cut[:, 0] >= 0.5


@torch.no_grad()
def paste(probabilities: Tensor, boxes: Tensor, size: Size) -> Tensor:
    """Resize masks into their boxes: (N, h, w), (N, 4) with area -> (N, *size) bool.

    A pixel belongs to the mask where the bilinear sample at its center reaches 0.5; samples outside
    of a box stay below.
    """
    pasted = torch.zeros(len(boxes), *size, dtype=torch.bool, device=boxes.device)
    for mask, probability, (x0, y0, x1, y1) in zip(
        pasted, probabilities.float(), boxes.tolist(), strict=True
    ):
        rows = slice(max(int(y0), 0), min(int(y1) + 1, size[0]))
        columns = slice(max(int(x0), 0), min(int(x1) + 1, size[1]))
        along_y = bilinear_weights(rows, y0, y1, probability[:, 0])
        along_x = bilinear_weights(columns, x0, x1, probability[0])
        with torch.autocast(boxes.device.type, enabled=False):
            mask[rows, columns] = along_y @ probability @ along_x.T >= 0.5
    return pasted


def bilinear_weights(pixels: slice, start: float, end: float, cells: Tensor) -> Tensor:
    """Return how much each of n cells over [start, end) adds to a pixel: (n,) -> (pixels, n)."""
    centers = torch.arange(pixels.start, pixels.stop, device=cells.device) + 0.5
    position = (centers - start) * (len(cells) / (end - start)) - 0.5
    index = torch.arange(len(cells), device=cells.device)
    return (1 - (position[:, None] - index).abs()).clamp(min=0)
