"""Pictures of mistakes for the report: a window around the object, with boxes and masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from video_mvit.data.reading.open import VideoDecodeError, open_video
from video_mvit.detection.coco_ap import encode_segmentation
from video_mvit.detection.mistakes import FalsePositive, Miss
from video_mvit.detection.pictures import (
    Box,
    DrawnObject,
    Picture,
    class_color,
    crop,
    draw_objects,
    resize,
)
from video_mvit.evaluation.thumbnails import jpeg_address
from video_mvit.text import printable

SIZE = (320, 420)  # height, width of a picture in the report
CONTEXT = 2.2  # sides of the window relative to those of the objects
MIN_WINDOW = 64  # pixels of its short side


@dataclass(frozen=True, kw_only=True)
class PictureSource:
    """Where pictures come from, and how their classes are called: category id -> name, colour.

    Without `thumbnails`, no image is read.
    """

    root: str
    file_names: Mapping[int, str]  # by image id
    class_names: Sequence[str]
    category_ids: Sequence[int]
    thumbnails: bool = True

    def name_of(self, category_id: int) -> str:
        return printable(self.class_names[self.category_ids.index(category_id)])

    def read(self, image_id: int) -> Picture | None:
        """Read an image, upright; None where it is unreadable, or none are wanted."""
        if not self.thumbnails:
            return None
        try:
            with open_video(f"{self.root}/{self.file_names[image_id]}") as image:
                return np.asarray(image.read([0])[0])
        except VideoDecodeError:
            return None

    def detected(self, row: Mapping[str, Any], mask: NDArray[np.bool_] | None) -> DrawnObject:
        """Return a detection as it is drawn."""
        category_id = row["category_id"]
        return DrawnObject(
            box=_corners(row["bbox"]),
            color=class_color(self.category_ids.index(category_id)),
            text=f"{self.name_of(category_id)}  {100 * row['score']:.0f} %",
            mask=mask,
        )

    def annotated(
        self, annotation: Mapping[str, Any], mask: NDArray[np.bool_] | None
    ) -> DrawnObject:
        """Return an object as it is drawn."""
        category_id = annotation["category_id"]
        return DrawnObject(
            box=_corners(annotation["bbox"]),
            color=class_color(self.category_ids.index(category_id)),
            text=self.name_of(category_id),
            mask=mask,
            is_dashed=True,
        )


def draw_false_positive(each: FalsePositive, source: PictureSource) -> str | None:
    """Draw a wrong detection with its mask, and the object it is compared with: -> data URL."""
    picture = source.read(each.image_id)
    if picture is None:
        return None
    objects = [source.detected(each.row, _mask(each.row, picture))]
    if each.other is not None:
        objects.append(source.annotated(each.other, None))
    return _draw(picture, objects)


def draw_miss(each: Miss, source: PictureSource) -> str | None:
    """Draw a missed object with its mask, and the detection nearest to it: -> data URL."""
    picture = source.read(each.image_id)
    if picture is None:
        return None
    objects = [source.annotated(each.annotation, _mask(each.annotation, picture))]
    if each.nearest is not None:
        objects.append(source.detected(each.nearest, None))
    return _draw(picture, objects)


def _draw(picture: Picture, objects: Sequence[DrawnObject]) -> str:
    height, width = picture.shape[:2]
    window = _window([each.box for each in objects], (height, width))
    part, moved = crop(picture, objects, window)
    scale = min(SIZE[0] / part.shape[0], SIZE[1] / part.shape[1])
    size = (max(1, round(part.shape[0] * scale)), max(1, round(part.shape[1] * scale)))
    return jpeg_address(draw_objects(*resize(part, moved, size)), SIZE[::-1])


def _window(boxes: Sequence[Box], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Place a window of the report's shape around boxes, moved into the image."""
    corners = np.array(boxes)
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    sides = np.maximum(CONTEXT * (high - low), MIN_WINDOW)
    aspect = SIZE[1] / SIZE[0]
    sides = np.maximum(sides, sides[::-1] * (aspect, 1 / aspect))  # width, height
    limits = np.array(size[::-1])
    sides = np.minimum(sides, limits).round().astype(int)
    start = ((low + high - sides) / 2).round().astype(int).clip(0, limits - sides)
    (x0, y0), (x1, y1) = start.tolist(), (start + sides).tolist()
    return x0, y0, x1, y1


def _corners(bbox: Sequence[float]) -> Box:
    x, y, width, height = bbox
    return x, y, x + width, y + height


def _mask(row: Mapping[str, Any], picture: Picture) -> NDArray[np.bool_] | None:
    """Decode the mask of a row or annotation; None where it has none, or of another size."""
    from pycocotools import mask as coco_mask

    if not row.get("segmentation"):
        return None
    rle = encode_segmentation(row["segmentation"], *picture.shape[:2])
    mask = np.asarray(coco_mask.decode([rle]))[..., 0].astype(np.bool_)
    return mask if mask.shape == picture.shape[:2] else None
