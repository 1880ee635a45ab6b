"""The result of a detection evaluation: COCO numbers with their setup, as JSON and as text.

Images that could not be evaluated are named, never replaced: the numbers are of the others, and
`bounds` say what all listed images could give.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from video_mvit.detection.coco_ap import (
    IOUS,
    ApNumbers,
    ClassAp,
    CocoAp,
    Evaluator,
    GroundTruth,
    Kind,
    Row,
    coco_ap,
    has_masks,
    only_images,
    perfect_rows,
)
from video_mvit.detection.result_schema import DETECTION_RESULT
from video_mvit.errors import MissingFileError, UserError
from video_mvit.evaluation.predictions import MISSING
from video_mvit.files import replace_atomically
from video_mvit.schema import MismatchError, parse_json

# What two evaluations must share for one to resume from the detections of the other, and how a
# difference is called.
IDENTITY = {
    "protocol": "a different size of images",
    "settings": "different settings of the detector",
    "annotations_sha1": "different annotations",
    "weights_sha1": "different weights",
    "precision": "a different precision",
}
KINDS: Mapping[str, Kind] = {"box": "bbox", "mask": "segm"}
NUM_CURVE_DIGITS = 4
RowsOfImages = dict[int, list[Row]]  # by image id; an image without detections has an empty list


@dataclass(frozen=True, kw_only=True)
class DetectionOrigin:
    """Inputs and setup of an evaluation, independent of its result.

    Attributes:
        protocol: size of the images, such as "short800 max1333".
        settings: of the detector, such as the score threshold and the number of detections.
        annotations_sha1: hash of the annotations of the listed images.
        weights_sha1: hash of the weights, independent of the file format.
        weights: what was in the checkpoint, EMA or raw.
        image_root: folder that image names are relative to.
        class_names: in the order of `category_ids`, which is sorted.
        evaluator: library that computed the numbers.
        versions: of Python, PyTorch and this package; and the device.
    """

    protocol: str
    settings: Mapping[str, Any]
    precision: str
    evaluator: Evaluator
    annotations_sha1: str
    weights_sha1: str
    checkpoint: str
    weights: str
    image_root: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    versions: Mapping[str, str]

    @property
    def identity(self) -> dict[str, Any]:
        """Return what identifies the evaluation, in plain JSON values."""
        return json.loads(json.dumps({name: getattr(self, name) for name in IDENTITY}))  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class DetectionResult:
    """Numbers of the evaluated images; `mask` is None where the annotations have no masks.

    Attributes:
        box_classes: numbers of each class, in the order of the category ids.
        bounds: "box" and "mask" -> the least and the highest AP that all listed images can have.
        curves: "box" and "mask" -> IoU ("0.5", "0.75", "mean") -> precision at 101 recalls.
        missing: names of images without a file; `unreadable` maps names to reasons.
        time_s: of the last run, which resumed with `num_resumed` images.
    """

    box: ApNumbers
    mask: ApNumbers | None
    box_classes: tuple[ClassAp, ...]
    mask_classes: tuple[ClassAp, ...]
    bounds: Mapping[str, tuple[float, float]]
    curves: Mapping[str, Mapping[str, tuple[float, ...]]]
    num_images: int
    num_listed: int
    num_objects: int
    num_detections: int
    missing: tuple[str, ...]
    unreadable: Mapping[str, str]
    time_s: float
    images_per_s: float
    num_resumed: int
    origin: DetectionOrigin

    def to_json(self) -> str:
        """Serialize to one object: protocol and numbers first, then the setup."""
        content = asdict(self)
        origin = content.pop("origin")
        for name in ("box", "mask"):
            numbers = getattr(self, name)
            content[name] = None if numbers is None else numbers._asdict()
            content[f"{name}_classes"] = [
                each._asdict() for each in getattr(self, f"{name}_classes")
            ]
        return json.dumps({"protocol": origin.pop("protocol"), **content, **origin}, indent=2)

    def write(self, path: Path) -> None:
        with replace_atomically(path) as temporary:
            temporary.write_text(self.to_json() + "\n", encoding="utf-8")

    def lines(self) -> dict[str, str]:
        """Return name and text of each line of the terminal summary."""
        lines: dict[str, str] = {}
        for name, n in (("box", self.box), ("mask", self.mask)):
            if n is None:
                continue
            lines[f"{name} AP"] = f"{points(n.ap)}  (AP50 {points(n.ap50)}, AP75 {points(n.ap75)})"
            lines[f"{name} AP by size"] = (
                f"small {points(n.ap_small)}, medium {points(n.ap_medium)}, "
                f"large {points(n.ap_large)}"
            )
            lines[f"{name} AR"] = (
                f"{points(n.ar100)}  (1 detection {points(n.ar1)}, 10 {points(n.ar10)})"
            )
        lines["images"] = f"{self.num_images:,}"
        if self.num_images < self.num_listed:
            lines["images"] += (
                f" of {self.num_listed:,}: {len(self.missing)} missing, "
                f"{len(self.unreadable)} unreadable"
            )
            for name, (low, high) in self.bounds.items():
                lines[f"{name} AP of all listed"] = f"{points(low)} to {points(high)}"
        lines["objects"] = f"{self.num_objects:,}, {self.num_detections:,} detections"
        lines["protocol"] = self.origin.protocol
        lines["time"] = f"{self.time_s:.0f} s, {self.images_per_s:.1f} images/s"
        if self.num_resumed:
            lines["time"] += f"  ({self.num_resumed:,} resumed from an earlier run)"
        lines["checkpoint"] = self.origin.checkpoint
        if "EMA" in self.origin.weights:
            lines["checkpoint"] += "  (EMA weights)"
        return lines


def summarize_detections(
    ground_truth: GroundTruth,
    found: RowsOfImages,
    problems: Mapping[int, str],
    origin: DetectionOrigin,
    *,
    time_s: float,
    num_resumed: int,
) -> DetectionResult:
    """Summarize the rows of all listed images.

    Args:
        problems: image id -> why it has no rows: `MISSING`, or the reason it is unreadable.

    Raises `UserError` where images have neither rows nor a problem, or where none has rows.
    """
    _check_complete(ground_truth, found, problems)
    truth = only_images(ground_truth, found.keys())
    rows = rows_of_file(ground_truth, found)
    results = {
        name: coco_ap(truth, rows, kind, origin.evaluator)
        for name, kind in KINDS.items()
        if name == "box" or has_masks(ground_truth)
    }
    names = {image["id"]: str(image["file_name"]) for image in ground_truth["images"]}
    return DetectionResult(
        box=results["box"].numbers,
        mask=results["mask"].numbers if "mask" in results else None,
        box_classes=results["box"].classes,
        mask_classes=results["mask"].classes if "mask" in results else (),
        bounds={
            name: _bounds(ground_truth, rows, problems, KINDS[name], origin.evaluator)
            if problems
            else (result.numbers.ap or 0.0,) * 2
            for name, result in results.items()
        },
        curves={name: _curves(result) for name, result in results.items()},
        num_images=len(found),
        num_listed=len(names),
        num_objects=sum(each.num_objects for each in results["box"].classes),
        num_detections=len(rows),
        missing=tuple(names[i] for i, problem in problems.items() if problem == MISSING),
        unreadable={names[i]: problem for i, problem in problems.items() if problem != MISSING},
        time_s=time_s,
        images_per_s=(len(found) - num_resumed) / time_s if time_s else 0.0,
        num_resumed=num_resumed,
        origin=origin,
    )


def summarize_detections_again(
    before: DetectionResult, ground_truth: GroundTruth, found: RowsOfImages
) -> DetectionResult:
    """Recompute a result from its rows, with the setup and time of the earlier run."""
    reasons = {**dict.fromkeys(before.missing, MISSING), **before.unreadable}
    problems = {
        image["id"]: reasons[image["file_name"]]
        for image in ground_truth["images"]
        if image["file_name"] in reasons
    }
    return summarize_detections(
        ground_truth,
        found,
        problems,
        before.origin,
        time_s=before.time_s,
        num_resumed=before.num_resumed,
    )


def rows_of_file(ground_truth: GroundTruth, found: RowsOfImages) -> list[Row]:
    """Return all rows in the order of the listed images."""
    return [row for image in ground_truth["images"] for row in found.get(image["id"], ())]


def read_detection_result(path: Path) -> DetectionResult:
    """Read what `DetectionResult.write` wrote; raises `FileNotFoundError` or `UserError`."""
    if not path.is_file():
        raise MissingFileError(f"no results {path}; video-mvit evaluate writes them")
    try:
        content = DETECTION_RESULT(parse_json(path.read_bytes()))
    except MismatchError as error:
        raise UserError(
            f"{path} is not a detection results.json of this version of video-mvit evaluate: "
            f"{error}; evaluate again"
        ) from None
    origin = {field.name: content.pop(field.name) for field in fields(DetectionOrigin)}
    for name in KINDS:
        numbers, classes = content[name], content[f"{name}_classes"]
        content[name] = None if numbers is None else ApNumbers(**numbers)
        content[f"{name}_classes"] = tuple(ClassAp(**each) for each in classes)
    return DetectionResult(origin=DetectionOrigin(**origin), **content)


def points(share: float | None) -> str:
    """Format an AP or AR as papers do, in hundredths: 0.5183 -> 51.8."""
    return "-" if share is None else f"{100 * share:.1f}"


def _check_complete(
    ground_truth: GroundTruth, found: RowsOfImages, problems: Mapping[int, str]
) -> None:
    listed = [image["id"] for image in ground_truth["images"]]
    num_left = sum(i not in found and i not in problems for i in listed)
    if num_left:
        raise UserError(
            f"{num_left:,} of {len(listed):,} images were not evaluated; remove "
            "trainer.limit_test_batches"
        )
    if not found:
        raise UserError("none of the listed images could be evaluated")


def _bounds(
    ground_truth: GroundTruth,
    rows: list[Row],
    problems: Mapping[int, str],
    kind: Kind,
    evaluator: Evaluator,
) -> tuple[float, float]:
    """Compute AP over all listed images, objects of the left out ones all missed and all found."""
    perfect = perfect_rows(ground_truth, problems.keys())
    low = coco_ap(ground_truth, rows, kind, evaluator).numbers.ap
    high = coco_ap(ground_truth, rows + perfect, kind, evaluator).numbers.ap
    return low or 0.0, high or 0.0


def _curves(result: CocoAp) -> dict[str, tuple[float, ...]]:
    """Average precision over classes with objects, at single IoUs and over all of them."""
    known = result.precision[:, :, (result.precision > -1).any(axis=(0, 1))]  # (T, R, K')
    if not known.size:
        return {}
    by_iou = known.mean(axis=2)  # (T, R)
    lines = {
        "0.5": by_iou[IOUS.index(0.5)],
        "0.75": by_iou[IOUS.index(0.75)],
        "mean": by_iou.mean(axis=0),
    }
    return {name: tuple(np.round(line, NUM_CURVE_DIGITS).tolist()) for name, line in lines.items()}
