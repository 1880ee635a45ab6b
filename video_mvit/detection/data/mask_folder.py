"""Class folders of pictures with painted masks: the simplest form of own data.

    train/cat/tom.jpg           a picture
    train/cat/tom.png           its mask: black background, one colour for each cat
    train/dog/rex.png           a picture that is a PNG itself ...
    train/dog/masks/rex.png     ... has its mask in the folder `masks`, as any picture may

A mask has the size of its picture and sharp edges; all pixels of a colour are one object, and an
entirely black mask says that there is none. Pictures with objects of several classes need an
annotation file in COCO's form instead.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from video_mvit.data.lists.folders import FolderWalk
from video_mvit.data.lists.listing import one_of_each_stem
from video_mvit.data.reading.containers import check_regular
from video_mvit.data.reading.formats import PICTURE_SUFFIXES
from video_mvit.data.reading.images import PICTURE_ERRORS, open_picture
from video_mvit.data.reading.reader import LimitChecker, VideoDecodeError, decode_errors
from video_mvit.detection.data.annotations import Annotations, Categories
from video_mvit.detection.data.images import IMAGE_LIMITS, read_upright_size
from video_mvit.detection.data.tables import ImageTable, ObjectTable, Problems, assemble
from video_mvit.errors import MissingFileError, UserError

logger = logging.getLogger(__name__)

MASKS = "masks"
MAX_COLOURS = 256  # of a mask, its background included
NUM_TOGETHER = 2**20  # pixels that are sorted at once


@dataclass(frozen=True, kw_only=True)
class MaskFolderSource:
    """A folder of class folders, each with pictures and their masks.

    Every file counts once; links out of `folder` are ignored unless `follow_links`.
    """

    folder: str
    follow_links: bool = False

    def read(self, categories: Categories | None = None) -> Annotations:
        """Read all masks, with the labels of given categories or of the folders' own names.

        Raises `UserError` for a folder without pictures, or with a class that is not given.
        """
        if not os.path.isdir(self.folder):
            raise MissingFileError(f"{self.folder} is not a folder of class folders")
        walk = FolderWalk(self.folder, PICTURE_SUFFIXES, follow_links=self.follow_links)
        names = walk.list(self.folder)[1]
        if categories is None:
            if not names:
                raise UserError(f"{self.folder} has no class folders of pictures and masks")
            categories = Categories(ids=tuple(range(1, len(names) + 1)), names=tuple(names))
        problems = Problems()
        images, objects = ImageTable(self.folder, problems), ObjectTable(problems)
        for name in names:
            if name not in categories.names:
                known = ", ".join(categories.names)
                raise UserError(f"{self.folder}/{name} is no class of the training: {known}")
            category_id = categories.ids[categories.names.index(name)]
            for picture, mask in self._pairs(walk, name, problems):
                self._add(picture, mask, category_id, images, objects, problems)
        walk.log("data.follow_links=true follows them")
        annotations = assemble(
            path=self.folder,
            root=self.folder,
            categories=categories,
            images=images,
            objects=objects,
            problems=problems,
        )
        for problem in annotations.problems:
            logger.warning("%s: %s", self.folder, problem)
        return annotations

    def _pairs(
        self, walk: FolderWalk, class_name: str, problems: Problems
    ) -> Iterator[tuple[str, str]]:
        """Yield the pictures of a class and their masks, relative to the folder."""
        here = os.path.join(self.folder, class_name)
        pictures, folders = walk.list(here)
        apart = set(os.listdir(os.path.join(here, MASKS))) if MASKS in folders else set()
        beside = set(os.listdir(here))
        for stem, picture in sorted(one_of_each_stem(pictures, PICTURE_SUFFIXES).items()):
            mask = f"{stem}.png"
            if mask in apart:
                yield f"{class_name}/{picture}", f"{class_name}/{MASKS}/{mask}"
            elif mask in beside and mask != picture:
                yield f"{class_name}/{picture}", f"{class_name}/{mask}"
            else:
                problems.note("pictures", "no mask", f"{class_name}/{picture}")

    def _add(
        self,
        picture: str,
        mask: str,
        category_id: int,
        images: ImageTable,
        objects: ObjectTable,
        problems: Problems,
    ) -> None:
        image_id = len(images.names) + 1
        try:
            size = read_upright_size(f"{self.folder}/{picture}")
            found = [
                {"image_id": image_id, "category_id": category_id, **each}
                for each in read_objects(f"{self.folder}/{mask}", size)
            ]
        except VideoDecodeError as error:
            name = os.path.relpath(error.path, self.folder)
            problems.note("pictures", "picture or mask cannot be used", f"{name}: {error.reason}")
            return
        images.add(image_id, picture, size)
        for each in found:
            objects.add(each)


def read_objects(path: str, size: tuple[int, int]) -> Sequence[dict[str, Any]]:
    """Read a mask of a (height, width): -> box, area and RLE of each colour but black.

    Raises `VideoDecodeError`.
    """
    with decode_errors(path, *PICTURE_ERRORS):
        check_regular(path)
        with open_picture(path, LimitChecker(path, IMAGE_LIMITS)) as picture:
            colours = _read_colours(picture)
    if colours.shape != size:
        height, width = colours.shape
        raise VideoDecodeError(
            path, f"the mask has {width}x{height} pixels, its picture {size[1]}x{size[0]}"
        )
    rles = [
        coco_mask.encode(np.asfortranarray(colours == colour, np.uint8))
        for colour in _distinct(path, colours)
        if colour
    ]
    return [
        {
            "bbox": coco_mask.toBbox(rle).tolist(),
            "area": int(coco_mask.area(rle)),
            "segmentation": rle,
        }
        for rle in rles
    ]


def _distinct(path: str, colours: NDArray[Any]) -> list[int]:
    """Return the different colours of a mask, ascending; raises `VideoDecodeError` for many."""
    found: set[int] = set()
    for rows in np.array_split(colours, max(1, colours.size // NUM_TOGETHER)):
        found.update(np.unique(rows).tolist())
        if len(found) > MAX_COLOURS:
            raise VideoDecodeError(
                path,
                f"the mask has more than {MAX_COLOURS} colours; paint objects without smooth edges",
            )
    return sorted(found)


def _read_colours(picture: Image.Image) -> NDArray[Any]:
    """Return a number for the colour of each pixel: (H, W), black and transparent are 0."""
    if picture.mode in ("1", "L") or picture.mode.startswith("I"):
        return np.asarray(picture)
    pixels = np.asarray(picture.convert("RGBA"))
    colours = pixels[..., 0].astype(np.uint32)
    for channel in (1, 2):
        colours <<= 8
        colours |= pixels[..., channel]
    colours[pixels[..., 3] == 0] = 0
    return colours
