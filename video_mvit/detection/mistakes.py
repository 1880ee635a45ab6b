"""Match detections to objects at IoU 0.5: confusions, false positives and misses.

As in COCO's AP, detections of a class choose among its objects, best score first, each object once;
those inside a crowd of their class do not count. What is left of a class is then compared with
what is left of the others.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from video_mvit.detection.coco_ap import GroundTruth, Row
from video_mvit.detection.results import RowsOfImages

MIN_IOU = 0.5
MIN_OVERLAP = 0.1  # IoU below which a detection has nothing to do with an object
MAX_DETECTIONS = 100  # of an image, as AP counts them
BACKGROUND = -1  # the label of no object, in confusions
NO_THRESHOLD = 0.5  # shown where nothing was detected

Reason = Literal["background", "wrong class", "poor box", "duplicate"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageMatches:
    """Objects (G) and detections (D, best score first) of one image.

    Attributes:
        rows: result rows, without those inside crowds.
        objects: annotations, without crowds.
        ious: (D, G) of the boxes.
        partner: (D,) index of the object of its class that a detection found, else -1.
    """

    image_id: int
    rows: Sequence[Row]
    objects: Sequence[Mapping[str, Any]]
    ious: NDArray[np.float64]
    partner: NDArray[np.int64]


class FalsePositive(NamedTuple):
    """A wrong detection; `other` is the object that it is compared with, if any."""

    image_id: int
    row: Row
    reason: Reason
    other: Mapping[str, Any] | None
    iou: float


class Miss(NamedTuple):
    """An object that no detection of its class overlaps; `nearest` is the best one of any class."""

    image_id: int
    annotation: Mapping[str, Any]
    nearest: Row | None
    iou: float


class ClassCounts(NamedTuple):
    """Detections of a class above the threshold, and how many of them are right."""

    num_detections: int
    num_right: int


def match_images(ground_truth: GroundTruth, found: RowsOfImages) -> list[ImageMatches]:
    """Match all evaluated images, in the order of the list."""
    annotations = defaultdict(list)
    for each in ground_truth["annotations"]:
        annotations[each["image_id"]].append(each)
    return [
        _match_image(image["id"], found[image["id"]], annotations[image["id"]])
        for image in ground_truth["images"]
        if image["id"] in found
    ]


def best_threshold(matches: Sequence[ImageMatches]) -> float:
    """Return the score above which detections of all classes have the highest F1."""
    scores = np.array([row["score"] for each in matches for row in each.rows])
    if not scores.size:
        return NO_THRESHOLD
    is_right = np.concatenate([each.partner >= 0 for each in matches])
    num_objects = sum(len(each.objects) for each in matches)
    order = np.argsort(-scores, kind="stable")
    scores, num_right = scores[order], np.cumsum(is_right[order])
    f1 = 2 * num_right / (np.arange(1, len(scores) + 1) + num_objects)
    f1[:-1][scores[:-1] == scores[1:]] = 0  # equal scores are above or below together
    return float(scores[f1.argmax()])


def count_confusions(matches: Sequence[ImageMatches], threshold: float) -> Counter[tuple[int, int]]:
    """Count (category of the object, category detected) above a threshold.

    `BACKGROUND` stands for no object, and for no detection.
    """
    counts: Counter[tuple[int, int]] = Counter()
    for each in matches:
        rows = [row for row in each.rows if row["score"] >= threshold]
        partner = each.partner[: len(rows)].copy()
        is_free = np.ones(len(each.objects), np.bool_)
        is_free[partner[partner >= 0]] = False
        overlaps = (each.ious[: len(rows)] >= MIN_IOU).any(axis=1)
        for d in np.flatnonzero((partner < 0) & overlaps):
            partner[d] = _choose(each.ious[d], is_free)
        for row, g in zip(rows, partner, strict=True):
            label = each.objects[int(g)]["category_id"] if g >= 0 else BACKGROUND
            counts[label, row["category_id"]] += 1
        for g in np.flatnonzero(is_free):
            counts[each.objects[int(g)]["category_id"], BACKGROUND] += 1
    return counts


def count_classes(matches: Sequence[ImageMatches], threshold: float) -> dict[int, ClassCounts]:
    """Count detections above a threshold: category id -> counts."""
    counts: dict[int, ClassCounts] = defaultdict(lambda: ClassCounts(0, 0))
    for each in matches:
        for row, g in zip(each.rows, each.partner, strict=True):
            if row["score"] >= threshold:
                n, num_right = counts[row["category_id"]]
                counts[row["category_id"]] = ClassCounts(n + 1, num_right + int(g >= 0))
    return counts


def confident_false_positives(matches: Sequence[ImageMatches], count: int) -> list[FalsePositive]:
    """Return the wrong detections with the highest scores."""
    wrong = [(each, int(d)) for each in matches for d in np.flatnonzero(each.partner < 0)[:count]]
    wrong.sort(key=lambda pair: -pair[0].rows[pair[1]]["score"])
    return [_explain(each, d) for each, d in wrong[:count]]


def largest_misses(matches: Sequence[ImageMatches], count: int) -> tuple[list[Miss], int]:
    """Return the largest objects without a detection of their class, and how many there are."""
    missed = []
    for each in matches:
        is_found = np.zeros(len(each.objects), np.bool_)
        is_found[each.partner[each.partner >= 0]] = True
        missed += [(each, int(g)) for g in np.flatnonzero(~is_found)]
    missed.sort(key=lambda pair: -float(_area(pair[0].objects[pair[1]])))
    return [_nearest(each, g) for each, g in missed[:count]], len(missed)


def _match_image(
    image_id: int, rows: Sequence[Row], annotations: Sequence[Mapping[str, Any]]
) -> ImageMatches:
    from pycocotools import mask as coco_mask

    rows = sorted(rows, key=lambda row: -row["score"])[:MAX_DETECTIONS]
    objects = [each for each in annotations if not each.get("iscrowd")]
    crowds = [each for each in annotations if each.get("iscrowd")]
    boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)

    def overlaps(others: Sequence[Mapping[str, Any]], crowd: int) -> NDArray[np.float64]:
        if not rows or not others:
            return np.zeros((len(rows), len(others)))
        other_boxes = np.array([each["bbox"] for each in others], np.float64)
        return np.asarray(coco_mask.iou(boxes, other_boxes, [crowd] * len(others)))

    ious = overlaps(objects, 0)  # (D, G)
    own_ious = np.where(_equal(rows, objects), ious, 0)
    partner = np.full(len(rows), -1)
    is_free = np.ones(len(objects), np.bool_)
    for d in np.flatnonzero((own_ious >= MIN_IOU).any(axis=1)):
        partner[d] = _choose(own_ious[d], is_free)
    inside = ((overlaps(crowds, 1) >= MIN_IOU) & _equal(rows, crowds)).any(axis=1)
    counts = np.flatnonzero((partner >= 0) | ~inside)
    return ImageMatches(
        image_id=image_id,
        rows=[rows[d] for d in counts],
        objects=objects,
        ious=ious[counts],
        partner=partner[counts],
    )


def _equal(rows: Sequence[Row], others: Sequence[Mapping[str, Any]]) -> NDArray[np.bool_]:
    """Return which rows and annotations have the same class: (D, G)."""
    ours, theirs = ([each["category_id"] for each in items] for items in (rows, others))
    return np.equal.outer(np.array(ours, np.int64), np.array(theirs, np.int64))


def _choose(ious: NDArray[np.float64], is_free: NDArray[np.bool_]) -> int:
    """Choose the free object of highest IoU (G,), and mark it as taken; -1 where none fits."""
    g = int(np.where(is_free, ious, 0).argmax())
    if not is_free[g] or ious[g] < MIN_IOU:
        return -1
    is_free[g] = False
    return g


def _explain(each: ImageMatches, d: int) -> FalsePositive:
    """Say why a detection is wrong: by an object of its class, else by the nearest other one."""
    row, ious = each.rows[d], each.ious[d]
    same = np.array([o["category_id"] == row["category_id"] for o in each.objects], np.bool_)

    def best(among: NDArray[np.bool_]) -> tuple[int, float]:
        if not among.any():
            return -1, 0.0
        g = int(np.where(among, ious, -1).argmax())
        return g, float(ious[g])

    (own, own_iou), (other, other_iou) = best(same), best(~same)
    reason: Reason
    if own_iou >= MIN_IOU:
        reason, g, iou = "duplicate", own, own_iou
    elif other_iou >= MIN_IOU:
        reason, g, iou = "wrong class", other, other_iou
    elif own_iou >= MIN_OVERLAP:
        reason, g, iou = "poor box", own, own_iou
    else:
        reason, g, iou = "background", -1, 0.0
    return FalsePositive(each.image_id, row, reason, each.objects[g] if g >= 0 else None, iou)


def _nearest(each: ImageMatches, g: int) -> Miss:
    ious = each.ious[:, g]
    if not ious.size or ious.max() < MIN_OVERLAP:
        return Miss(each.image_id, each.objects[g], None, 0.0)
    d = int(ious.argmax())
    return Miss(each.image_id, each.objects[g], each.rows[d], float(ious[d]))


def _area(annotation: Mapping[str, Any]) -> float:
    return float(annotation.get("area", annotation["bbox"][2] * annotation["bbox"][3]))
