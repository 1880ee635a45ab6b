"""Render a detection evaluation as one self-contained HTML page.

Order: AP, precision over recall, confusion matrix, false positives, misses, classes; then the setup
and excluded images.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from video_mvit.detection.coco_ap import ApNumbers, GroundTruth
from video_mvit.detection.curves_figure import draw_precision_recall
from video_mvit.detection.mistake_pictures import PictureSource, draw_false_positive, draw_miss
from video_mvit.detection.mistakes import (
    BACKGROUND,
    ClassCounts,
    FalsePositive,
    ImageMatches,
    Miss,
    best_threshold,
    confident_false_positives,
    count_classes,
    count_confusions,
    largest_misses,
    match_images,
)
from video_mvit.detection.results import DetectionResult, RowsOfImages, points
from video_mvit.evaluation.metrics import Confusion
from video_mvit.evaluation.output_folder import REPORT
from video_mvit.evaluation.thumbnails import matrix_picture, order_by_confusion
from video_mvit.files import replace_atomically
from video_mvit.text import printable

NUM_PICTURES = 12  # of false positives, and of misses
NUM_PAIRS = 20
MAX_TABLE_CLASSES = 30  # a larger confusion matrix is a picture
MAX_NAMES = 1000  # of excluded images; results.json has all
BACKGROUND_NAME = "background"

AP_ROWS = {
    "ap": ("AP", "mean over IoU 0.5 to 0.95"),
    "ap50": ("AP50", "IoU 0.5"),
    "ap75": ("AP75", "IoU 0.75"),
    "ap_small": ("AP small", "objects below 32 x 32 pixels"),
    "ap_medium": ("AP medium", "from 32 x 32 to 96 x 96"),
    "ap_large": ("AP large", "above 96 x 96"),
    "ar1": ("AR 1", "recall with one detection an image"),
    "ar10": ("AR 10", "with ten"),
    "ar100": ("AR 100", "with a hundred"),
    "ar_small": ("AR small", "with a hundred, small objects"),
    "ar_medium": ("AR medium", "medium objects"),
    "ar_large": ("AR large", "large objects"),
}
REASONS = {
    "background": "no object there",
    "wrong class": "another class",
    "poor box": "poor box",
    "duplicate": "found twice",
}


class ApRow(NamedTuple):
    name: str
    meaning: str
    box: float | None
    mask: float | None


class DetectionClassRow(NamedTuple):
    """Row of the class table; shares are None where their denominator is zero."""

    name: str
    num_objects: int
    num_detections: int
    ap: float | None
    ap50: float | None
    mask_ap: float | None
    precision: float | None
    recall: float | None
    most_common_error: str
    num_most_common: int


class Card(NamedTuple):
    """A mistake with its picture, if the image could be read."""

    title: str
    detail: str
    image: str
    picture: str | None


class MatrixRow(NamedTuple):
    name: str
    counts: tuple[int, ...]
    shares: tuple[float, ...]


class PairRow(NamedTuple):
    label: int
    predicted: int
    num_objects: int
    share: float
    num_reverse: int


def write_detection_report(
    folder: Path,
    result: DetectionResult,
    ground_truth: GroundTruth,
    found: RowsOfImages,
    *,
    thumbnails: bool = True,
) -> Path:
    """Write `report.html` into a folder; images that were removed since have no pictures.

    `thumbnails` is whether parts of the images are shown.
    """
    page = render_detection_report(result, ground_truth, found, thumbnails=thumbnails)
    path = folder / REPORT
    with replace_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path


def render_detection_report(
    result: DetectionResult,
    ground_truth: GroundTruth,
    found: RowsOfImages,
    *,
    thumbnails: bool = True,
) -> str:
    """Render the page; pictures are read from the images' own files."""
    from markupsafe import Markup

    from video_mvit.evaluation.report import page_environment

    origin = result.origin
    matches = match_images(ground_truth, found)
    threshold = best_threshold(matches)
    confusions = count_confusions(matches, threshold)
    counts = count_classes(matches, threshold)
    source = PictureSource(
        root=origin.image_root,
        file_names={image["id"]: str(image["file_name"]) for image in ground_truth["images"]},
        class_names=origin.class_names,
        category_ids=origin.category_ids,
        thumbnails=thumbnails,
    )
    misses, num_misses = largest_misses(matches, NUM_PICTURES)
    environment = page_environment("detection")
    environment.filters["points"] = points
    return environment.get_template("detection_report.html.j2").render(
        result=result,
        origin=origin,
        has_masks=result.mask is not None,
        threshold=threshold,
        sentence=_sentence(matches, threshold),
        ap_rows=_ap_rows(result.box, result.mask),
        figures={
            {"box": "Boxes", "mask": "Masks"}[name]: Markup(draw_precision_recall(name, curves))
            for name, curves in result.curves.items()
            if curves
        },
        false_positives=[
            _false_positive_card(each, source)
            for each in confident_false_positives(matches, NUM_PICTURES)
        ],
        misses=[_miss_card(each, source) for each in misses],
        num_misses=num_misses,
        classes=_class_rows(result, confusions, counts),
        max_names=MAX_NAMES,
        thumbnails=thumbnails,
        **_confusion_parts(confusions, origin.class_names, origin.category_ids),
    )


def _sentence(matches: Sequence[ImageMatches], threshold: float) -> str:
    """Say what the detector does at the threshold of the best F1."""
    num_objects = sum(len(each.objects) for each in matches)
    above = [
        g
        for each in matches
        for row, g in zip(each.rows, each.partner, strict=True)
        if row["score"] >= threshold
    ]
    num_right = sum(g >= 0 for g in above)
    return (
        f"With detections scored {threshold:.2f} and above, {num_right:,} of {num_objects:,} "
        f"objects are found, and {len(above) - num_right:,} of {len(above):,} detections are "
        "wrong (IoU 0.5)."
    )


def _ap_rows(box: ApNumbers, mask: ApNumbers | None) -> list[ApRow]:
    return [
        ApRow(*words, getattr(box, name), getattr(mask, name) if mask else None)
        for name, words in AP_ROWS.items()
    ]


def _false_positive_card(each: FalsePositive, source: PictureSource) -> Card:
    detail = REASONS[each.reason]
    if each.other is not None:
        name = source.name_of(each.other["category_id"])
        detail = {
            "wrong class": f"annotated as {name}",
            "poor box": f"poor box, IoU {each.iou:.2f}",
            "duplicate": f"found twice, IoU {each.iou:.2f}",
        }[each.reason]
    return Card(
        title=f"{source.name_of(each.row['category_id'])} {100 * each.row['score']:.0f} %",
        detail=detail,
        image=source.file_names[each.image_id],
        picture=draw_false_positive(each, source),
    )


def _miss_card(each: Miss, source: PictureSource) -> Card:
    detail = "nothing detected there"
    if each.nearest is not None:
        name = source.name_of(each.nearest["category_id"])
        detail = f"nearest: {name} {100 * each.nearest['score']:.0f} %, IoU {each.iou:.2f}"
    width, height = each.annotation["bbox"][2:]
    return Card(
        title=f"{source.name_of(each.annotation['category_id'])}, {width:.0f} x {height:.0f} px",
        detail=detail,
        image=source.file_names[each.image_id],
        picture=draw_miss(each, source),
    )


def _class_rows(
    result: DetectionResult,
    confusions: Counter[tuple[int, int]],
    counts: dict[int, ClassCounts],
) -> list[DetectionClassRow]:
    """Return a row for each class, lowest AP first, classes without objects last."""
    names = dict(zip(result.origin.category_ids, result.origin.class_names, strict=True))
    mask_aps = {each.category_id: each.ap for each in result.mask_classes}
    rows = []
    for each in result.box_classes:
        label = each.category_id
        n, num_right = counts.get(label, ClassCounts(0, 0))
        errors = [
            (count, seen)
            for (true, seen), count in confusions.items()
            if true == label and seen != label
        ]
        num_most_common, error = max(errors, default=(0, BACKGROUND))
        rows.append(
            DetectionClassRow(
                name=names[label],
                num_objects=each.num_objects,
                num_detections=n,
                ap=each.ap,
                ap50=each.ap50,
                mask_ap=mask_aps.get(label),
                precision=num_right / n if n else None,
                recall=num_right / each.num_objects if each.num_objects else None,
                most_common_error="missed" if error == BACKGROUND else names[error],
                num_most_common=num_most_common,
            )
        )
    return sorted(rows, key=lambda row: 2 if row.ap is None else row.ap)


def _confusion_parts(
    confusions: Counter[tuple[int, int]], class_names: Sequence[str], category_ids: Sequence[int]
) -> dict[str, Any]:
    """Return the most confused pairs, and the matrix: a table of few classes, an image of many.

    The background is the last row and column.
    """
    names = [*class_names, BACKGROUND_NAME]
    place = {category_id: i for i, category_id in enumerate((*category_ids, BACKGROUND))}
    counts = Counter({(place[a], place[b]): n for (a, b), n in confusions.items()})
    sizes: Counter[int] = Counter()
    for (label, _), n in counts.items():
        sizes[label] += n
    last = len(names) - 1
    pairs = [
        PairRow(label, seen, n, n / sizes[label], counts[seen, label])
        for (label, seen), n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        if label != seen and last not in (label, seen)
    ][:NUM_PAIRS]
    parts: dict[str, Any] = {"names": names, "pairs": pairs, "matrix": None, "map": None}
    if len(names) <= MAX_TABLE_CLASSES:
        every = range(len(names))
        parts["matrix"] = [
            MatrixRow(
                names[label],
                tuple(counts[label, seen] for seen in every),
                tuple(counts[label, seen] / max(sizes[label], 1) for seen in every),
            )
            for label in every
        ]
        return parts
    cells = [Confusion(label, seen, n) for (label, seen), n in sorted(counts.items())]
    inner = [cell for cell in cells if last not in cell[:2]]
    order = [*order_by_confusion(inner, last), last]
    details = {
        "names": [printable(name) for name in names],
        "order": order,
        "cells": cells,
        "items": "objects",
    }
    parts["map"] = {"picture": matrix_picture(cells, order), "details": details}
    return parts
