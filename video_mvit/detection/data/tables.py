"""Growing tables of images and objects, and the checks that turn them into `Annotations`."""

import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from video_mvit.data.lists.listing import FolderListing
from video_mvit.data.lists.manifest import PackedStrings
from video_mvit.detection.data.annotations import (
    Annotations,
    Categories,
    Problem,
    check_run_lengths,
    decode_run_lengths,
)
from video_mvit.detection.data.images import IMAGE_LIMITS
from video_mvit.errors import MissingFileError, UserError
from video_mvit.text import short

MIN_POLYGON = 6  # numbers: three points
MALFORMED = (AttributeError, KeyError, TypeError, ValueError, OverflowError)
MAX_FAR = 1  # lengths of an image that a polygon may reach beyond it


class Problems:
    """Count what is wrong with entries of a file, with the first example of each kind."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], tuple[int, str]] = {}

    def note(self, entries: str, what: str, first: str, count: int = 1) -> None:
        """Count entries that are ignored."""
        before, example = self._counts.get((entries, what), (0, first))
        self._counts[entries, what] = before + count, example

    def list(self) -> tuple[Problem, ...]:
        """Return one problem of each kind."""
        return tuple(
            Problem(entries=entries, what=what, count=count, first=first)
            for (entries, what), (count, first) in self._counts.items()
        )


class ImageTable:
    """Images of a file: ids, names and sizes."""

    def __init__(self, path: str, problems: Problems) -> None:
        self._path, self._problems = path, problems
        self.ids, self.sizes, self.names = array("q"), array("i"), list[str]()
        self._seen: set[int] = set()

    def add(self, image_id: int, name: str, size: tuple[int, int]) -> None:
        """Add an image of a (height, width).

        Raises `UserError` for a name that leads out of the folder of images.
        """
        check_relative(self._path, image_id, name)
        height, width = size
        if image_id in self._seen:
            self._problems.note("images", "id of another image", f"{name!r}, id {image_id}")
        elif min(size) < 1 or height * width > IMAGE_LIMITS.frame_pixels:
            what = f"no size of 1 to {IMAGE_LIMITS.frame_pixels:,} pixels"
            self._problems.note("images", what, f"{name!r}, {width}x{height}")
        else:
            self._seen.add(image_id)
            self.ids.append(image_id)
            self.names.append(name)
            self.sizes.extend(size)


def check_relative(path: str, image_id: int, name: str) -> None:
    """Raise `UserError` for a file name that is no place below the folder of images."""
    parts = re.split(r"[/\\]", name)
    if not parts[0] or not parts[-1] or ".." in parts or ":" in parts[0] or "\0" in name:
        raise UserError(
            f"{path}: image {image_id} has the file name {short(name)}; names must be relative to "
            "the folder of images and must not leave it"
        )


class ObjectTable:
    """Objects of a file, as they come; nothing is known yet of their images and categories."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._num_seen = 0
        self.ids, self.image_ids, self.category_ids = array("q"), array("q"), array("q")
        self.boxes, self.areas, self.is_crowd = array("d"), array("d"), array("b")
        self.polygon_stops, self.coordinate_stops = array("q", [0]), array("q", [0])
        self.coordinates = array("d")
        self.runs, self.run_stops, self.mask_sizes = bytearray(), array("q", [0]), array("i")

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add an annotation in COCO's form, or count it as malformed."""
        self._num_seen += 1
        num_stops = len(self.coordinate_stops)
        try:
            numbers = array("q", (entry["image_id"], entry["category_id"]))
            box = array("d", entry["bbox"])
            area = entry.get("area")
            area = np.nan if area is None else float(area)
            is_crowd = entry.get("iscrowd", 0)
            if is_crowd not in (0, 1, None):
                raise ValueError("iscrowd is neither 0 nor 1")
            if len(box) != 4:
                raise ValueError(f"a box of {len(box)} numbers")
            size = self._add_mask(entry.get("segmentation") or ())
        except MALFORMED as error:
            del self.coordinate_stops[num_stops:]
            del self.coordinates[self.coordinate_stops[-1] :]
            what = f"without {error}" if isinstance(error, KeyError) else "malformed"
            self._problems.note("annotations", what, f"annotation {self._num_seen}: {error}")
            return
        id_ = entry.get("id")
        self.ids.append(id_ if type(id_) is int and abs(id_) < 2**63 else len(self) + 1)
        self.image_ids.append(numbers[0])
        self.category_ids.append(numbers[1])
        self.boxes.extend(box)
        self.areas.append(area)
        self.is_crowd.append(bool(is_crowd))
        self.polygon_stops.append(len(self.coordinate_stops) - 1)
        self.run_stops.append(len(self.runs))
        self.mask_sizes.extend(size)

    def _add_mask(self, segmentation: Any) -> tuple[int, int]:
        """Add polygons, or an RLE of a (height, width)."""
        if isinstance(segmentation, Mapping):
            height, width = map(int, segmentation["size"])
            self.runs += _compressed(segmentation["counts"], height, width)
            return height, width
        for polygon in segmentation:
            if len(polygon) < MIN_POLYGON or len(polygon) % 2:
                what = "fewer than 3 points or half a point"
                self._problems.note("polygons", what, f"of {len(polygon)} numbers")
            else:
                self.coordinates.fromlist(polygon)
                self.coordinate_stops.append(len(self.coordinates))
        return 0, 0


def _compressed(counts: Any, height: int, width: int) -> bytes:
    """Return COCO's compressed RLE; raises `ValueError` unless it covers the image."""
    if not 0 < height * width <= IMAGE_LIMITS.frame_pixels:
        raise ValueError(f"an RLE of {width}x{height} pixels")
    if isinstance(counts, list):
        check_run_lengths(array("q", counts), height * width)
        whole = {"size": [height, width], "counts": counts}
        return coco_mask.frPyObjects(whole, height, width)["counts"]  # type: ignore[no-any-return]
    runs: bytes = counts if isinstance(counts, bytes) else counts.encode()
    check_run_lengths(decode_run_lengths(runs), height * width)
    return runs


@dataclass(frozen=True, kw_only=True)
class _Masks:
    """What is checked of the masks of N objects, each (N,)."""

    is_missing: NDArray[np.bool_]
    is_finite: NDArray[np.bool_]
    lowest: NDArray[np.float64]  # coordinate of its polygons
    highest: NDArray[np.float64]


def assemble(
    *,
    path: str,
    root: str,
    categories: Categories,
    images: ImageTable,
    objects: ObjectTable,
    problems: Problems,
) -> Annotations:
    """Match objects with images and categories, and leave out what cannot be used.

    Raises `UserError` if there are no images or no usable objects, and `MissingFileError` if no
    image is on disk.
    """
    if not images.names:
        raise UserError(f"{path} lists no usable images{_because(problems)}")
    image_ids, sizes = np.frombuffer(images.ids, np.int64), np.frombuffer(images.sizes, np.int32)
    sizes = sizes.reshape(-1, 2)
    image_index = _find(np.array(objects.image_ids), image_ids)
    labels = _find(np.array(objects.category_ids), np.array(categories.ids))
    is_usable = _check(objects, image_index, labels, sizes, problems)
    usable = np.flatnonzero(is_usable)
    if not len(usable):
        raise UserError(
            f"{path} has no usable annotations: {len(objects):,} are listed{_because(problems)}"
        )
    order = usable[np.argsort(image_index[usable], kind="stable")]
    areas = np.frombuffer(objects.areas)
    per_image = np.bincount(image_index[usable], minlength=len(images.names))
    return Annotations(
        path=path,
        root=root,
        categories=categories,
        file_names=PackedStrings.of(images.names),
        image_ids=image_ids,
        sizes=sizes,
        objects=order,
        first_object=np.concatenate([[0], np.cumsum(per_image)]),
        boxes=np.frombuffer(objects.boxes).reshape(-1, 4),
        areas=np.where(np.isfinite(areas) & (areas >= 0), areas, np.nan),
        labels=labels.astype(np.int32),
        is_crowd=np.frombuffer(objects.is_crowd, np.bool_),
        first_polygon=np.frombuffer(objects.polygon_stops, np.int64),
        first_coordinate=np.frombuffer(objects.coordinate_stops, np.int64),
        coordinates=np.frombuffer(objects.coordinates),
        run_lengths=PackedStrings(bytes(objects.runs), np.array(objects.run_stops)),
        missing=_find_missing(path, root, images.names, problems),
        problems=problems.list(),
    )


def _because(problems: Problems) -> str:
    found = problems.list()
    return "".join(f"; {problem}" for problem in found)


def _find(values: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of each value in an array of different ones, or -1."""
    order = np.argsort(among)
    place = np.searchsorted(among, values, sorter=order).clip(max=len(among) - 1)
    return np.where(among[order[place]] == values, order[place], -1)


def _check(
    objects: ObjectTable,
    image_index: NDArray[np.int64],
    labels: NDArray[np.int64],
    sizes: NDArray[np.int32],
    problems: Problems,
) -> NDArray[np.bool_]:
    """Return which objects are usable: (N,); each other one counts for its first problem."""
    boxes, masks = np.frombuffer(objects.boxes).reshape(-1, 4), _look_at_masks(objects)
    mask_sizes = np.array(objects.mask_sizes).reshape(-1, 2)
    own_sizes = sizes[image_index]  # of the last image where there is none
    height, width = own_sizes.T
    far = (1 + MAX_FAR) * np.maximum(height, width)
    with np.errstate(invalid="ignore", over="ignore"):
        (x, y, w, h), stop = boxes.T, boxes[:, :2] + boxes[:, 2:]
        is_outside = (x >= width) | (y >= height) | (stop <= 0).any(axis=1)
        is_far = (masks.highest > far) | (masks.lowest < -MAX_FAR * np.maximum(height, width))
        is_other_size = (mask_sizes > 0).any(axis=1) & (mask_sizes != own_sizes).any(axis=1)
        kinds = [
            ("unknown image", image_index < 0),
            ("unknown category", labels < 0),
            ("NaN or infinite box or polygon", ~np.isfinite(stop).all(axis=1)),
            ("NaN or infinite box or polygon", ~masks.is_finite),
            ("box of negative size", (w < 0) | (h < 0)),
            ("box without area", (w == 0) | (h == 0)),
            ("box outside the image", is_outside),
            ("no mask", masks.is_missing & ~masks.is_missing.all()),
            ("polygon far outside the image", is_far),
            ("mask of another size than the image", is_other_size),
        ]
    is_usable = np.ones(len(objects), np.bool_)
    for what, is_bad in kinds:
        if len(bad := np.flatnonzero(is_bad & is_usable)):
            first = f"id {objects.ids[bad[0]]} of image {objects.image_ids[bad[0]]}"
            problems.note("annotations", what, first, len(bad))
            is_usable[bad] = False
    return is_usable


def _look_at_masks(objects: ObjectTable) -> _Masks:
    coordinates = np.frombuffer(objects.coordinates)
    first_coordinate = np.frombuffer(objects.coordinate_stops, np.int64)
    polygon_stops = np.frombuffer(objects.polygon_stops, np.int64)
    num_polygons = polygon_stops[1:] - polygon_stops[:-1]
    num_runs = np.diff(np.frombuffer(objects.run_stops, np.int64))
    owner = np.repeat(np.arange(len(objects)), num_polygons)

    def extreme(function: np.ufunc, start: float) -> NDArray[np.float64]:
        """Reduce coordinates to polygons, and these to objects; NaN stays NaN."""
        result = np.full(len(objects), start)
        if len(coordinates):
            with np.errstate(invalid="ignore"):
                function.at(result, owner, function.reduceat(coordinates, first_coordinate[:-1]))
        return result

    lowest, highest = extreme(np.minimum, 0.0), extreme(np.maximum, 0.0)
    return _Masks(
        is_missing=(num_polygons == 0) & (num_runs == 0),
        is_finite=np.isfinite(lowest) & np.isfinite(highest),
        lowest=lowest,
        highest=highest,
    )


def _find_missing(
    path: str, root: str, names: Sequence[str], problems: Problems
) -> NDArray[np.int64]:
    """Return the images that are not on disk; each folder is listed once."""
    try:
        listing = FolderListing(root, by="name")
    except MissingFileError as error:
        raise MissingFileError(f"the folder {root} of the images of {path} is missing") from error
    missing = [i for i, name in enumerate(names) if listing.find([name]) is None]
    if len(missing) == len(names):
        raise MissingFileError(
            f"none of the {len(names):,} images that {path} lists is in {root}; "
            f"looked for {names[0]} first"
        )
    if missing:
        problems.note("images", f"not in {root}", names[missing[0]], len(missing))
    return np.array(missing, np.int64)
