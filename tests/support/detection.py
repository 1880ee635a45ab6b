"""Small sets of annotated pictures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]


def square(x: float, y: float, side: float) -> list[float]:
    """The polygon of a square."""
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def annotation(id_: int = 1, image_id: int = 1, **changes: Any) -> dict[str, Any]:
    """A square of 10 pixels at (4, 6), with changes; None takes an entry away."""
    values = {
        "id": id_,
        "image_id": image_id,
        "category_id": 7,
        "bbox": [4, 6, 10, 10],
        "area": 100,
        "iscrowd": 0,
        "segmentation": [square(4, 6, 10)],
        **changes,
    }
    return {name: value for name, value in values.items() if value is not None}


def image(id_: int = 1, size: tuple[int, int] = (30, 40), **changes: Any) -> dict[str, Any]:
    """An image of a (height, width)."""
    height, width = size
    return {"id": id_, "file_name": f"{id_}.png", "height": height, "width": width, **changes}


def write_coco(
    root: Path,
    annotations: Sequence[dict[str, Any]],
    images: Sequence[dict[str, Any]] | None = None,
    *,
    split: str = "train",
    **changes: Any,
) -> Path:
    """Write a file in COCO's form, and noise for its images, into `root`."""
    images = [image()] if images is None else images
    content = {
        "info": {"year": 2026},
        "images": images,
        "annotations": annotations,
        "categories": CATEGORIES,
        **changes,
    }
    (root / "images").mkdir(exist_ok=True, parents=True)
    for each in images:
        path = root / "images" / str(each.get("file_name"))
        if not path.exists() and path.is_relative_to(root) and ".." not in path.parts:
            write_noise(path, (each.get("height", 8), each.get("width", 8)))
    file = root / f"{split}.json"
    file.write_text(json.dumps(content))
    return file


def write_noise(path: Path, size: tuple[int, int]) -> None:
    """Write a picture of random pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
