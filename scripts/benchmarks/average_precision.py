"""How long COCO's AP takes on generated boxes, by each evaluator."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from video_mvit.detection.coco_ap import ApNumbers, Evaluator, coco_ap
from video_mvit.errors import UserError

WIDTH, HEIGHT = 640, 480
OBJECTS_PER_IMAGE = 7.3  # as in COCO
NUM_CATEGORIES = 80
MAX_ID = 90  # category ids have gaps, as in COCO
JITTER = 0.08  # standard deviation of a hit's corners, relative to its sides
PRECISION = 1e-6  # to which the evaluators agree


@dataclass(frozen=True, kw_only=True)
class ApBenchmark:
    """`num_detections` boxes on `num_images` images, evaluated once by each of `evaluators`."""

    output: str
    seed: int = 0
    num_images: int = 5000
    num_detections: int = 500_000
    evaluators: Sequence[Evaluator]

    def __post_init__(self) -> None:
        for name in ("num_images", "num_detections"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} {getattr(self, name)} must be positive")


@dataclass(frozen=True, kw_only=True)
class ApTime:
    """Seconds of one evaluator, and what it found."""

    evaluator: Evaluator
    time_s: float
    ap: float | None
    largest_difference: float  # of the 12 numbers from those of the first evaluator


def run_ap_benchmark(settings: ApBenchmark, console: Console) -> list[ApTime]:
    """Measure, show, and write `ap.json` into `settings.output`."""
    with console.status("generating boxes"):
        ground_truth, rows = generated_boxes(settings)
    times: list[ApTime] = []
    first: ApNumbers | None = None
    for evaluator in settings.evaluators:
        with console.status(evaluator):
            start = time.perf_counter()
            numbers = coco_ap(ground_truth, rows, "bbox", evaluator).numbers
            time_s = time.perf_counter() - start
        first = first or numbers
        times.append(
            ApTime(
                evaluator=evaluator,
                time_s=time_s,
                ap=numbers.ap,
                largest_difference=_largest_difference(numbers, first),
            )
        )
    title = (
        f"{settings.num_images:,} images, {len(ground_truth['annotations']):,} objects, "
        f"{len(rows):,} detections"
    )
    table = Table("evaluator", title=title, title_justify="left")
    for name in ("time", "box AP", "largest difference", "equal"):
        table.add_column(name, justify="right")
    for each in times:
        difference = each.largest_difference
        table.add_row(
            each.evaluator,
            f"{each.time_s:.1f} s",
            f"{each.ap or 0:.4f}",
            f"{difference:.1e}",
            "yes" if difference <= PRECISION else "no",
        )
    console.print(table)
    content = {"settings": asdict(settings), "times": [asdict(each) for each in times]}
    Path(settings.output, "ap.json").write_text(json.dumps(content, indent=2) + "\n")
    return times


def generated_boxes(settings: ApBenchmark) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Generate ground truth, and rows of which some hit an object and most do not."""
    generator = np.random.default_rng(settings.seed)
    category_ids = np.sort(generator.choice(MAX_ID, NUM_CATEGORIES, replace=False)) + 1
    num_objects = max(1, round(OBJECTS_PER_IMAGE * settings.num_images))
    image_ids = generator.integers(settings.num_images, size=num_objects)
    boxes = _random_boxes(num_objects, generator)
    labels = generator.choice(category_ids, num_objects)
    annotations = [
        {"image_id": i, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for i, label, box in zip(image_ids.tolist(), labels.tolist(), boxes.tolist(), strict=True)
    ]
    # A third of the detections are near an object, with higher scores.
    num_near = settings.num_detections // 3
    near = generator.integers(num_objects, size=num_near)
    moved = boxes[near] + np.tile(boxes[near, 2:], 2) * generator.normal(0, JITTER, (num_near, 4))
    num_far = settings.num_detections - num_near
    columns = (
        np.concatenate([image_ids[near], generator.integers(settings.num_images, size=num_far)]),
        np.concatenate([labels[near], generator.choice(category_ids, num_far)]),
        np.concatenate([np.maximum(moved, 1), _random_boxes(num_far, generator)]),
        np.concatenate([generator.beta(4, 3, num_near), generator.beta(1, 8, num_far)]),
    )
    rows = [
        {"image_id": i, "category_id": label, "bbox": box, "score": score}
        for i, label, box, score in zip(*(column.tolist() for column in columns), strict=True)
    ]
    ground_truth = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH}
            for i in range(settings.num_images)
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": f"class {i}"} for i in category_ids.tolist()],
    }
    return ground_truth, rows


def _random_boxes(count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw boxes (x, y, width, height) of 8 to 300 pixels: -> (N, 4)."""
    sides = np.exp(generator.uniform(np.log(8), np.log(300), (count, 2)))
    start = generator.uniform(size=(count, 2)) * ((WIDTH, HEIGHT) - sides)
    return np.concatenate([start, sides], axis=1)


def _largest_difference(ours: ApNumbers, others: ApNumbers) -> float:
    pairs = zip(ours, others, strict=True)
    return max(abs((a or 0.0) - (b or 0.0)) for a, b in pairs)
