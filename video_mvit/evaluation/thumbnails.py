"""Images inside reports: pictures, and the confusion matrix of many classes."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from video_mvit.evaluation.metrics import Confusion

RIGHT, WRONG = (37, 116, 200), (217, 95, 22)  # readable on light and dark pages
FAINTEST = 0.45  # lowest opacity, of a cell with a single video


def jpeg_address(frame: NDArray[np.uint8], size: tuple[int, int]) -> str:
    """Encode a picture (H, W, 3), of at most `size` (width, height), as a data URL."""
    picture = Image.fromarray(frame)
    picture.thumbnail(size)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=72, optimize=True)
    return _address(file, "jpeg")


def matrix_picture(pairs: Sequence[Confusion], order: Sequence[int]) -> str:
    """Draw a confusion matrix, one pixel per cell; the darker, the larger its share of the row.

    `pairs` hold all counts, including the diagonal; `order` is that of rows and columns.
    """
    place = {label: i for i, label in enumerate(order)}
    counts = np.zeros((len(order), len(order)))
    for label, predicted, num_videos in pairs:
        counts[place[label], place[predicted]] = num_videos
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    opacity = np.where(counts > 0, FAINTEST + (1 - FAINTEST) * np.sqrt(shares), 0)
    pixels = np.empty((*counts.shape, 4), np.uint8)
    pixels[..., :3] = np.where(np.eye(len(order), dtype=bool)[..., None], RIGHT, WRONG)
    pixels[..., 3] = (255 * opacity).round()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return _address(file, "png")


def order_by_confusion(pairs: Sequence[Confusion], num_classes: int) -> list[int]:
    """Order classes so that often confused ones are adjacent.

    Merges the groups of the most confused pairs first (single-linkage clustering).
    """
    both: dict[tuple[int, int], int] = {}
    for label, predicted, num_videos in pairs:
        if label != predicted:
            pair = min(label, predicted), max(label, predicted)
            both[pair] = both.get(pair, 0) + num_videos
    groups = {label: [label] for label in range(num_classes)}
    for first, second in sorted(both, key=lambda pair: -both[pair]):
        a, b = groups[first], groups[second]
        if a is not b:
            a.extend(b)
            groups.update(dict.fromkeys(b, a))
    seen: set[int] = set()
    order: list[int] = []
    for label in range(num_classes):
        if label not in seen:
            order += groups[label]
            seen.update(groups[label])
    return order


def _address(file: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
