"""Annotation files in COCO's form: the lists images, annotations and categories.

Ids may have gaps and any order; masks are polygons or RLE, compressed or not. LVIS's files are read
in the same way. A file of 400 MB is never in memory as a whole.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from video_mvit.detection.data.annotations import Annotations, Categories
from video_mvit.detection.data.json_stream import read_elements
from video_mvit.detection.data.tables import ImageTable, ObjectTable, Problems, assemble
from video_mvit.errors import UserError
from video_mvit.text import short

logger = logging.getLogger(__name__)

LVIS_KEYS = ("neg_category_ids", "not_exhaustive_category_ids")


@dataclass(frozen=True, kw_only=True)
class CocoSource:
    """An annotation file `json`, and the folder that its file names are relative to."""

    json: str
    images: str

    def read(self, categories: Categories | None = None) -> Annotations:
        """Read the file, with the labels of given categories or of its own.

        Raises `UserError` for a file without usable annotations, or with other categories.
        """
        problems = Problems()
        images, objects = ImageTable(self.json, problems), ObjectTable(problems)
        own: list[Any] = []
        is_lvis = False
        for name, element in read_elements(self.json):
            if name == "annotations":
                objects.add(element)
            elif name == "images":
                is_lvis |= self._add_image(images, element)
            elif name == "categories":
                own.append(element)
        if is_lvis:
            logger.info(
                "%s is an LVIS file: read like COCO's, without the federated loss, so that "
                "classes which were not looked for in an image count as absent",
                self.json,
            )
        annotations = assemble(
            path=self.json,
            root=self.images,
            categories=self._check_same(_read_categories(self.json, own), categories),
            images=images,
            objects=objects,
            problems=problems,
        )
        for problem in annotations.problems:
            logger.warning("%s: %s", self.json, problem)
        return annotations

    def _add_image(self, images: ImageTable, entry: Any) -> bool:
        """Add an image; returns whether it is one of LVIS."""
        try:
            image_id, name = entry["id"], entry.get("file_name")
            is_lvis = name is None or any(key in entry for key in LVIS_KEYS)
            if name is None:  # the last two parts: http://.../train2017/000000000009.jpg
                name = "/".join(urlsplit(entry["coco_url"]).path.split("/")[-2:])
            if type(image_id) is not int or abs(image_id) >= 2**63 or not isinstance(name, str):
                raise TypeError("an id must be an integer, a file name a string")
            size = (_side(entry.get("height", 0)), _side(entry.get("width", 0)))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            place = f"the image {len(images.names) + 1}"
            raise UserError(f"{self.json}: {place} is malformed: {what}") from error
        images.add(image_id, name, size)
        return is_lvis

    def _check_same(self, own: Categories, wanted: Categories | None) -> Categories:
        """Return the wanted categories; raises `UserError` if one has another id or name here."""
        if wanted is None:
            return own
        names = dict(zip(wanted.ids, wanted.names, strict=True))
        ids = dict(zip(wanted.names, wanted.ids, strict=True))
        for id_, name in zip(own.ids, own.names, strict=True):
            if names.get(id_, name) != name:
                raise UserError(
                    f"{self.json}: category {id_} is {name!r}, but {names[id_]!r} in training"
                )
            if ids.get(name, id_) != id_:
                raise UserError(
                    f"{self.json}: category {name!r} has the id {id_}, but {ids[name]} in training"
                )
        return wanted


def _side(value: Any) -> int:
    """Return a height or width, which some tools write as a float."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise TypeError(f"a side of {short(value)} pixels")
    return int(value)


def _read_categories(path: str, entries: list[Any]) -> Categories:
    """Sort the categories by id. Raises `UserError` where one is malformed or given twice."""
    names: dict[int, str] = {}
    for number, entry in enumerate(entries, 1):
        is_whole = isinstance(entry, Mapping) and type(entry.get("id")) is int
        if not is_whole or not isinstance(entry.get("name"), str):
            raise UserError(f"{path}: the category {number} lacks an id or a name")
        if entry["id"] in names:
            raise UserError(f"{path}: two categories have the id {entry['id']}")
        names[entry["id"]] = entry["name"]
    try:
        return Categories(ids=tuple(sorted(names)), names=tuple(names[i] for i in sorted(names)))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
