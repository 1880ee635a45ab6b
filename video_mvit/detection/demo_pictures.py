"""A small generated COCO data set: circles, squares and triangles that hide each other.

Every picture has a gradient with noise behind one to four shapes, turned by any angle. A shape is
drawn over those before it, so its mask is what is left visible: exact, as run lengths. Each class
has a colour of its own that varies from shape to shape.

Layout: `<root>/annotations/instances_<split>.json` beside the folders `<root>/<split>`.
"""

import json
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from video_mvit.files import replace_atomically

SIDE = 96  # of a picture, in pixels
MAX_SHAPES = 4
DIAMETER_MIN, DIAMETER_MAX = 16.0, 44.0  # pixels
MIN_VISIBLE = 40  # pixels; of a shape with fewer, nothing is annotated
COLOR_STD, NOISE_STD = 25.0, 8.0  # of 255
CLASS_COLORS: Mapping[str, tuple[int, int, int]] = {
    "circle": (210, 80, 70),
    "square": (70, 180, 90),
    "triangle": (75, 100, 215),
}
# Sides, and their distance from the centre for a radius of 1, so that areas are alike.
POLYGONS = {"square": (4, 0.85), "triangle": (3, 0.65)}
CATEGORY_IDS = (1, 2, 3)  # of the classes, in order
CHUNK = 50  # pictures written by one task of a worker process
Labels = Literal["true", "shuffled"]


class Shape(NamedTuple):
    """One visible shape: index of its class, and its visible pixels (H, W)."""

    label: int
    mask: NDArray[np.bool_]


def write_detection_demo(
    root: Path,
    num_pictures: Mapping[str, int],
    seed: int,
    on_progress: Callable[[int], None],
    labels: Labels = "true",
) -> None:
    """Write the pictures of each split and its annotations below `root`, deterministically.

    With "shuffled" labels every object of the first split has a random class, which nothing in the
    pictures tells: a control that must not be learnt. The annotations are written last, so that a
    folder with them is complete. `on_progress` receives the number of newly written pictures.
    """
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    found: dict[str, list[tuple[str, list[Shape]]]] = {}
    with ProcessPoolExecutor() as pool:
        for place, (split, count) in enumerate(num_pictures.items()):
            (root / split).mkdir(exist_ok=True)
            paths = [root / split / f"{number:06d}.png" for number in range(count)]
            seeds = [(seed, place, number) for number in range(count)]
            found[split] = []
            shapes = pool.map(_write_picture, paths, seeds, chunksize=CHUNK)
            for path, each in zip(paths, shapes, strict=True):
                found[split].append((path.name, each))
                on_progress(1)
    for place, (split, pictures) in enumerate(found.items()):
        is_control = labels == "shuffled" and place == 0
        generator = np.random.default_rng((seed, place)) if is_control else None
        path = root / "annotations" / f"instances_{split}.json"
        with replace_atomically(path) as temporary:
            temporary.write_text(json.dumps(_annotations(pictures, generator)) + "\n")


def draw_demo_picture(
    generator: np.random.Generator,
) -> tuple[NDArray[np.uint8], list[Shape]]:
    """Draw one picture (H, W, 3), and return it with its visible shapes."""
    picture = _background(generator)
    covers: list[tuple[int, NDArray[np.bool_]]] = []
    for _ in range(generator.integers(1, MAX_SHAPES + 1)):
        label = int(generator.integers(len(CLASS_COLORS)))
        cover = _cover(list(CLASS_COLORS)[label], generator)
        color = list(CLASS_COLORS.values())[label] + generator.normal(0, COLOR_STD, 3)
        picture[cover] = color
        covers = [(other, mask & ~cover) for other, mask in covers] + [(label, cover)]
    picture += generator.normal(0, NOISE_STD, picture.shape)
    shapes = [Shape(label, mask) for label, mask in covers if mask.sum() >= MIN_VISIBLE]
    return picture.round().clip(0, 255).astype(np.uint8), shapes


def _background(generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw a gradient from one grey-ish colour to another, in any direction: -> (H, W, 3)."""
    angle = generator.uniform(0, 2 * math.pi)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    share = (x * math.cos(angle) + y * math.sin(angle)) / math.sqrt(2) + 0.5  # (H, W) in 0..1
    start, end = generator.uniform(90, 190, (2, 3))
    return np.asarray(start + share[..., None] * (end - start), np.float64)


def _cover(name: str, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Return the pixels of a shape of random size, place and angle: -> (H, W)."""
    radius = generator.uniform(DIAMETER_MIN, DIAMETER_MAX) / 2
    angle = generator.uniform(0, 2 * math.pi)
    center_x, center_y = generator.uniform(radius, SIDE - radius, 2)
    pixel = np.arange(SIDE) + 0.5
    dx, dy = pixel[None, :] - center_x, pixel[:, None] - center_y  # (1, W), (H, 1)
    if name == "circle":
        return np.asarray(np.hypot(dx, dy) <= radius, np.bool_)
    # A regular polygon: inside of each of its sides.
    num_sides, reach = POLYGONS[name]
    inside = np.ones((SIDE, SIDE), np.bool_)
    for turn in angle + 2 * math.pi * np.arange(num_sides) / num_sides:
        inside &= dx * math.cos(turn) + dy * math.sin(turn) <= reach * radius
    return inside


def _write_picture(path: Path, seed: tuple[int, ...]) -> list[Shape]:
    picture, shapes = draw_demo_picture(np.random.default_rng(seed))
    Image.fromarray(picture).save(path)
    return shapes


def _annotations(
    pictures: list[tuple[str, list[Shape]]], generator: np.random.Generator | None
) -> dict[str, Any]:
    """Return the content of an annotation file; a generator draws classes anew."""
    from pycocotools import mask as coco_mask

    annotations: list[dict[str, Any]] = []
    for number, (_, shapes) in enumerate(pictures, start=1):
        for label, mask in shapes:
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            if generator is not None:
                label = int(generator.integers(len(CLASS_COLORS)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": CATEGORY_IDS[label],
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                }
            )
    images = [
        {"id": number, "file_name": name, "height": SIDE, "width": SIDE}
        for number, (name, _) in enumerate(pictures, start=1)
    ]
    categories = [
        {"id": category_id, "name": name}
        for category_id, name in zip(CATEGORY_IDS, CLASS_COLORS, strict=True)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}
