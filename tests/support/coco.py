"""Small COCO data: generated ground truth with crowds and gaps in its ids, and detections of it."""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from video_mvit.detection.results import DetectionOrigin, RowsOfImages

SIZE = (120, 160)  # height, width
CATEGORY_IDS = (1, 4, 7, 90)
NAMES = ("cat", "dog", "tea pot", "zebra")
Box = tuple[float, float, float, float]  # x, y, width, height

ORIGIN = DetectionOrigin(
    protocol="short96 max128",
    settings={"score_threshold": 0.05, "num_detections": 100},
    precision="32-true",
    evaluator="pycocotools",
    annotations_sha1="aa",
    weights_sha1="bb",
    checkpoint="last.ckpt",
    weights="training checkpoint",
    image_root="pictures",
    class_names=NAMES,
    category_ids=CATEGORY_IDS,
    versions={},
)


def rectangle(box: Box, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    """-> compressed RLE of a filled box."""
    x, y, width, height = (round(value) for value in box)
    mask = np.zeros(size, np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    rle = coco_mask.encode(mask)
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def row(image_id: int, category_id: int, box: Box, score: float) -> dict[str, Any]:
    """A detection whose mask fills its box."""
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(box),
        "score": score,
        "segmentation": rectangle(box),
    }


def annotation(image_id: int, category_id: int, box: Box, iscrowd: int = 0) -> dict[str, Any]:
    """An object whose mask fills its box."""
    x, y, w, h = box
    polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return {
        "id": 0,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(box),
        "area": w * h,
        "iscrowd": iscrowd,
        "segmentation": rectangle(box) if iscrowd else polygon,
    }


def truth(image_ids: list[int], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]}
            for i in image_ids
        ],
        "annotations": annotations,
        "categories": [
            {"id": i, "name": name} for i, name in zip(CATEGORY_IDS, NAMES, strict=True)
        ],
    }


def random_data(num_images: int = 20, seed: int = 0) -> tuple[dict[str, Any], RowsOfImages]:
    """Ground truth, and rows with ties, duplicates, wrong classes; the last two images are empty.

    Without an object of the second category.
    """
    rng = np.random.default_rng(seed)
    image_ids = [3 * i + 5 for i in range(num_images)]
    annotations, found = [], {i: [] for i in image_ids}
    for image_id in image_ids[:-2]:
        for _ in range(rng.integers(0, 6)):
            x, y = rng.integers(0, 80, 2).tolist()
            width, height = np.minimum(rng.integers(5, 70, 2), (79, 39)).tolist()
            category_id = int(rng.choice([1, 7, 90]))
            box = (x, y, width, height)
            annotations.append(annotation(image_id, category_id, box, int(rng.random() < 0.15)))
            for _ in range(rng.integers(0, 4)):
                moved = (*np.maximum(np.array(box[:2]) + rng.integers(-4, 5, 2), 0).tolist(),)
                seen = category_id if rng.random() < 0.8 else 4
                score = round(float(rng.random()), 1)
                found[image_id].append(row(image_id, seen, (*moved, *box[2:]), score))
    return truth(image_ids, annotations), found
