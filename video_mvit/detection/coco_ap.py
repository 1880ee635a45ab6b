"""Compute the COCO average precision of detections: all 12 numbers of boxes and of masks.

pycocotools defines the numbers; faster-coco-eval gives the same ones sooner. Neither reads files
nor prints here. Result rows are those of COCO's result files: `image_id`, `category_id`, `bbox`
(x, y, width, height), `score`, and `segmentation`, a run-length encoded mask.
"""

import contextlib
import importlib
import io
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from video_mvit.detection.instances import Detections
from video_mvit.errors import UserError

Row = dict[str, Any]
GroundTruth = Mapping[str, Any]  # `images`, `annotations`, `categories` as in an annotation file
Kind = Literal["bbox", "segm"]
Evaluator = Literal["pycocotools", "faster-coco-eval"]

IOUS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
RECALLS = np.linspace(0, 1, 101)  # at which precision is read
ALL_SIZES, MOST_DETECTIONS = 0, 2  # places among the size ranges, and among 1, 10, 100 detections


class ApNumbers(NamedTuple):
    """The 12 numbers of COCO, in 0..1; None where no object is of that size.

    `ap` is the mean over IoUs of 0.5 to 0.95, and `ar1` the mean recall with one detection an
    image. Small is below 32 x 32 pixels, large above 96 x 96.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar1: float | None
    ar10: float | None
    ar100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None


class ClassAp(NamedTuple):
    """Numbers of one class, None without an object; crowds are not counted in `num_objects`."""

    category_id: int
    name: str
    num_objects: int
    ap: float | None
    ap50: float | None
    ap75: float | None
    ar100: float | None


@dataclass(frozen=True, kw_only=True)
class CocoAp:
    """Result of one kind.

    Attributes:
        precision: (10 IoUs, 101 recalls, K classes), -1 for classes without objects.
    """

    numbers: ApNumbers
    classes: tuple[ClassAp, ...]
    precision: NDArray[np.float64]


def coco_rows(
    detections: Detections, image_id: int, category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Return the result rows of one image, best score first; masks must be pasted, (N, H, W).

    Boxes have three digits after the point, scores nine, which tell any two float32 apart.
    """
    from pycocotools import mask as coco_mask

    masks = detections.masks.cpu().numpy()
    assert masks.dtype == np.bool_, "ask the detector for pasted masks"
    encoded = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    rows = []
    for box, score, label, rle in zip(
        detections.boxes.tolist(),
        detections.scores.tolist(),
        detections.labels.tolist(),
        encoded,
        strict=True,
    ):
        x0, y0, x1, y1 = box
        rows.append(
            {
                "image_id": image_id,
                "category_id": category_ids[label],
                "bbox": [round(value, 3) for value in (x0, y0, x1 - x0, y1 - y0)],
                "score": float(f"{score:.9g}"),
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
            }
        )
    return rows


def coco_ap(
    ground_truth: GroundTruth,
    rows: Sequence[Mapping[str, Any]],
    kind: Kind,
    evaluator: Evaluator = "pycocotools",
) -> CocoAp:
    """Compute the numbers of all images in the ground truth, which stays as it is.

    Without any row, AP is 0. Raises `UserError` for rows of unknown images or categories, and where
    the evaluator is not installed.
    """
    _check_rows(ground_truth, rows)
    coco_class, eval_class = load_evaluator(evaluator)
    with _silence():
        truth = _index(coco_class, ground_truth, _plain_annotations(ground_truth))
        found = _index(coco_class, ground_truth, _plain_results(rows, kind))
        evaluation = eval_class(truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
    shape = (len(IOUS), len(RECALLS), len(ground_truth["categories"]), 4, 3)
    precision = np.asarray(evaluation.eval["precision"]).reshape(shape)
    recall = np.asarray(evaluation.eval["recall"]).reshape((shape[0], *shape[2:]))
    return CocoAp(
        numbers=_numbers(precision, recall),
        classes=_classes(ground_truth, precision, recall),
        precision=precision[..., ALL_SIZES, MOST_DETECTIONS],
    )


def only_images(ground_truth: GroundTruth, image_ids: Collection[int]) -> GroundTruth:
    """Return the ground truth of some of the images."""
    return {
        "images": [image for image in ground_truth["images"] if image["id"] in image_ids],
        "annotations": [a for a in ground_truth["annotations"] if a["image_id"] in image_ids],
        "categories": ground_truth["categories"],
    }


def has_masks(ground_truth: GroundTruth) -> bool:
    """Return whether all objects have masks, so that their AP can be computed."""
    annotations: Sequence[Mapping[str, Any]] = ground_truth["annotations"]
    return bool(annotations) and all(each.get("segmentation") for each in annotations)


def perfect_rows(ground_truth: GroundTruth, image_ids: Collection[int]) -> list[Row]:
    """Return rows that find every object of some images exactly, ranked before all others."""
    from pycocotools import mask as coco_mask

    sizes = {image["id"]: (image["height"], image["width"]) for image in ground_truth["images"]}
    rows = []
    for each in ground_truth["annotations"]:
        if each["image_id"] not in image_ids or each.get("iscrowd"):
            continue
        row = {name: each[name] for name in ("image_id", "category_id", "bbox")}
        if each.get("segmentation"):
            rle = encode_segmentation(each["segmentation"], *sizes[each["image_id"]])
            row["segmentation"] = coco_mask.merge([rle])
        rows.append({**row, "score": 2.0})
    return rows


def encode_segmentation(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """Return polygons or run lengths of an annotation as one compressed RLE."""
    from pycocotools import mask as coco_mask

    if isinstance(segmentation, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        rle = coco_mask.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    return rle  # type: ignore[no-any-return]


def load_evaluator(name: Evaluator) -> tuple[Any, Any]:
    """Import the index and the evaluation class of a library; raises `UserError` without it."""
    modules = {
        "pycocotools": ("pycocotools.coco", "pycocotools.cocoeval", "COCOeval"),
        "faster-coco-eval": ("faster_coco_eval", "faster_coco_eval", "COCOeval_faster"),
    }
    if name not in modules:
        raise UserError(f"evaluator is {name!r}, expected one of {', '.join(modules)}")
    index, evaluation, eval_class = modules[name]
    try:
        return (
            importlib.import_module(index).COCO,
            getattr(importlib.import_module(evaluation), eval_class),
        )
    except ImportError:
        raise UserError(
            f"evaluator {name} is not installed; pip install {name}, or choose another evaluator"
        ) from None


def _check_rows(ground_truth: GroundTruth, rows: Sequence[Mapping[str, Any]]) -> None:
    for key, table in (("image_id", "images"), ("category_id", "categories")):
        known = {each["id"] for each in ground_truth[table]}
        unknown = next((row[key] for row in rows if row[key] not in known), None)
        if unknown is not None:
            raise UserError(
                f"a detection has the {key} {unknown!r}, which the annotations do not list; "
                "evaluate with the annotation file of these images"
            )


def _index(coco_class: Any, ground_truth: GroundTruth, annotations: list[Row]) -> Any:
    index = coco_class()
    index.dataset = {
        "info": {},
        "images": ground_truth["images"],
        "categories": ground_truth["categories"],
        "annotations": annotations,
    }
    index.createIndex()
    return index


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Drop what pycocotools prints and faster-coco-eval logs of its progress."""
    progress = logging.getLogger("faster_coco_eval")
    level = progress.level
    progress.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        progress.setLevel(level)


def _plain_annotations(ground_truth: GroundTruth) -> list[Row]:
    """Copy the annotations with ids from 1 on: 0 means "no match" to the evaluators."""
    copies = []
    for number, each in enumerate(ground_truth["annotations"], start=1):
        area = each["area"] if "area" in each else each["bbox"][2] * each["bbox"][3]
        crowd = int(each.get("iscrowd", 0))
        copies.append({**each, "id": number, "area": area, "iscrowd": crowd, "ignore": crowd})
    return copies


def _plain_results(rows: Sequence[Mapping[str, Any]], kind: Kind) -> list[Row]:
    """Return result rows with ids and with the area that decides their size: of box or of mask."""
    from pycocotools import mask as coco_mask

    results = []
    for number, row in enumerate(rows, start=1):
        shared = {name: row[name] for name in ("image_id", "category_id", "score")}
        if kind == "bbox":
            box = row["bbox"]
            shape = {"bbox": box, "area": box[2] * box[3]}
        else:
            mask = row["segmentation"]
            shape = {"segmentation": mask, "area": float(coco_mask.area(mask))}
        results.append({**shared, **shape, "id": number, "iscrowd": 0})
    return results


def _numbers(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> ApNumbers:
    """Average precision (T, R, K, A, M) and recall (T, K, A, M) over classes with objects."""
    sizes = range(1, 4)
    every, at_50, at_75 = slice(None), IOUS.index(0.5), IOUS.index(0.75)
    aps = [precision[iou, ..., ALL_SIZES, MOST_DETECTIONS] for iou in (every, at_50, at_75)]
    aps += [precision[..., size, MOST_DETECTIONS] for size in sizes]
    ars = [recall[..., ALL_SIZES, count] for count in range(3)]
    ars += [recall[..., size, MOST_DETECTIONS] for size in sizes]
    return ApNumbers(*(_mean(values) for values in (*aps, *ars)))


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None


def _classes(
    ground_truth: GroundTruth, precision: NDArray[np.float64], recall: NDArray[np.float64]
) -> tuple[ClassAp, ...]:
    """Return the numbers of each class, in the order of the category ids."""
    objects = [a for a in ground_truth["annotations"] if not a.get("iscrowd")]
    num_objects = Counter(a["category_id"] for a in objects)
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    classes = []
    for k, category_id in enumerate(sorted(names)):
        of_class = precision[:, :, k, ALL_SIZES, MOST_DETECTIONS]
        classes.append(
            ClassAp(
                category_id=category_id,
                name=str(names[category_id]),
                num_objects=num_objects[category_id],
                ap=_mean(of_class),
                ap50=_mean(of_class[IOUS.index(0.5)]),
                ap75=_mean(of_class[IOUS.index(0.75)]),
                ar100=_mean(recall[:, k, ALL_SIZES, MOST_DETECTIONS]),
            )
        )
    return tuple(classes)
