"""Annotated objects of a split, in flat arrays that forked loader processes share.

Nothing here is a Python object per image or annotation: touching one writes its reference count
and copies its memory page. Numbers are kept in double precision, as files give them, so that the
ground truth of an evaluation is the file's own.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco_mask

from video_mvit.data.lists.manifest import PackedStrings
from video_mvit.detection.instances import Mask, Polygons
from video_mvit.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Categories:
    """Classes in the order of their ids, which may have gaps: label `i` has id `ids[i]`."""

    ids: tuple[int, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.ids:
            raise UserError("there are no categories")
        if list(self.ids) != sorted(set(self.ids)) or len(self.ids) != len(self.names):
            raise UserError(f"category ids {self.ids} are not ascending, one for each name")
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise UserError(f"two categories have the name {twice!r}")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with `count` entries of a file, which are ignored."""

    entries: str  # "annotations"
    what: str  # "box without area"
    count: int
    first: str

    def __str__(self) -> str:
        entries = self.entries if self.count > 1 else self.entries.removesuffix("s")
        return f"ignored {self.count:,} {entries}: {self.what}; first: {self.first}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotations:
    """Images of a split and their N objects.

    Attributes:
        path: The file or folder that was read.
        root: Folder of the images.
        sizes: (I, 2) heights and widths in pixels.
        objects: Usable objects, those of image i at [first_object[i], first_object[i + 1]).
        boxes: (N, 4) x, y, width, height.
        areas: (N,) pixels, NaN where the file has none.
        labels: (N,) indices into `categories`.
        first_polygon: (N + 1,) polygons of an object.
        first_coordinate: (P + 1,) coordinates x0, y0, x1, ... of a polygon.
        run_lengths: Compressed RLE of each object, empty where it has polygons.
        missing: Images that are not on disk.
        problems: Entries that were ignored.
    """

    path: str
    root: str
    categories: Categories
    file_names: PackedStrings
    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int32]
    objects: NDArray[np.int64]
    first_object: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    labels: NDArray[np.int32]
    is_crowd: NDArray[np.bool_]
    first_polygon: NDArray[np.int64]
    first_coordinate: NDArray[np.int64]
    coordinates: NDArray[np.float64]
    run_lengths: PackedStrings
    missing: NDArray[np.int64]
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.file_names)

    def image_path(self, image_index: int) -> str:
        """Return the path of an image."""
        return f"{self.root}/{self.file_names[image_index]}"

    def digest(self) -> str:
        """Hash what evaluation depends on: images, categories and objects."""
        digest = hashlib.sha1(usedforsecurity=False)
        for array in (
            self.image_ids,
            self.sizes,
            self.objects,
            self.first_object,
            self.boxes,
            self.labels,
            self.is_crowd,
            self.coordinates,
        ):
            digest.update(np.ascontiguousarray(array).data)
        strings = [*self.file_names, *self.run_lengths]
        digest.update(repr((self.categories, strings)).encode())
        return digest.hexdigest()

    def size(self, image_index: int) -> tuple[int, int]:
        """Return the (height, width) of an image."""
        height, width = self.sizes[image_index].tolist()
        return height, width

    def objects_of(self, image_index: int) -> NDArray[np.int64]:
        """Return the objects of an image in the order of the file, crowds included."""
        start, stop = self.first_object[image_index : image_index + 2]
        return self.objects[start:stop]

    def targets_of(self, image_index: int) -> NDArray[np.int64]:
        """Return the objects of an image to train on: no crowds."""
        objects = self.objects_of(image_index)
        return objects[~self.is_crowd[objects]]

    @cached_property
    def num_targets(self) -> NDArray[np.int64]:
        """Objects to train on in each image: (I,)."""
        totals = np.concatenate([[0], np.cumsum(~self.is_crowd[self.objects])])
        return np.diff(totals[self.first_object])

    @property
    def has_masks(self) -> bool:
        """Return whether the usable objects have masks: all of them or none."""
        index = int(self.objects[0])
        has_polygons = self.first_polygon[index] < self.first_polygon[index + 1]
        return bool(has_polygons) or bool(self.run_lengths[index])

    def mask(self, index: int, size: tuple[int, int]) -> Mask:
        """Return the polygons of an object, or its bitmap, in an image of a (height, width)."""
        if runs := self.run_lengths[index]:
            bitmap = coco_mask.decode({"size": size, "counts": runs.encode()})
            return bitmap.astype(np.bool_)  # type: ignore[no-any-return]
        return self._polygons(index)

    def _polygons(self, index: int) -> Polygons:
        start, stop = self.first_polygon[index : index + 2].tolist()
        bounds = self.first_coordinate[start : stop + 1].tolist()
        return [self.coordinates[a:b] for a, b in pairwise(bounds)]

    def coco_ground_truth(self) -> dict[str, list[dict[str, Any]]]:
        """Return the usable annotations in COCO's form; their ids are counted from 1."""
        names = zip(self.categories.ids, self.categories.names, strict=True)
        return {
            "images": [
                {"id": id_, "file_name": name, "height": height, "width": width}
                for id_, name, (height, width) in zip(
                    self.image_ids.tolist(), self.file_names, self.sizes.tolist(), strict=True
                )
            ],
            "annotations": list(self._coco_annotations()),
            "categories": [{"id": id_, "name": name} for id_, name in names],
        }

    def _coco_annotations(self) -> Iterator[dict[str, Any]]:
        image_index = np.repeat(np.arange(len(self)), np.diff(self.first_object))
        numbered = zip(self.objects.tolist(), image_index.tolist(), strict=True)
        for number, (index, image) in enumerate(numbered, 1):
            size, area = self.size(image), float(self.areas[index])
            segmentation = self._coco_segmentation(index, size)
            if np.isnan(area):
                width, height = self.boxes[index, 2:].tolist()
                area = _mask_area(segmentation, size) if segmentation else width * height
            yield {
                "id": number,
                "image_id": int(self.image_ids[image]),
                "category_id": self.categories.ids[self.labels[index]],
                "bbox": self.boxes[index].tolist(),
                "area": area,
                "iscrowd": int(self.is_crowd[index]),
                "segmentation": segmentation,
            }

    def _coco_segmentation(self, index: int, size: tuple[int, int]) -> Any:
        if runs := self.run_lengths[index]:
            return {"size": list(size), "counts": runs}
        return [polygon.tolist() for polygon in self._polygons(index)]


def _mask_area(segmentation: Any, size: tuple[int, int]) -> float:
    """Count the pixels of a mask."""
    if isinstance(segmentation, dict):
        return float(coco_mask.area(segmentation))
    return float(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))))


def decode_run_lengths(runs: bytes) -> NDArray[np.int64]:
    """Decode COCO's compressed RLE into lengths of background and object, by turns.

    A number is a series of 5-bit digits in characters from '0', lowest first, bit 6 set on all but
    the last; from the fourth on, numbers are differences to the one before the last.
    """
    digits = np.frombuffer(runs, np.uint8).astype(np.int64) - ord("0")
    last = np.flatnonzero(digits & 32 == 0)
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or last[-1:] != len(digits) - 1:
        raise ValueError("the RLE holds other characters, or ends within a number")
    first = np.concatenate([[0], last[:-1] + 1])
    num_digits = last - first + 1
    if num_digits.max() > 7:  # 35 bits
        raise ValueError("the RLE holds a number above 32 bits")
    place = np.arange(len(digits)) - np.repeat(first, num_digits)
    numbers = np.add.reduceat((digits & 31) << 5 * place, first)
    numbers -= np.where(digits[last] & 16, 1 << 5 * num_digits, 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def check_run_lengths(lengths: ArrayLike, num_pixels: int) -> None:
    """Raise `ValueError` unless run lengths cover an image exactly."""
    runs = np.asarray(lengths, np.int64)
    is_possible = len(runs) and runs.min() >= 0 and runs.max() <= num_pixels
    if not is_possible or runs.sum() != num_pixels:
        raise ValueError(f"the RLE does not cover {num_pixels} pixels")
