"""Clips as pictures of a page: one WebP of all frames, one below the other, for the page to step.

Unlike an animation, it can be stopped, and stands still where a reader wants no motion.
"""

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from video_mvit.inspection.clips import FilmSize

BUDGET = 5_000_000  # bytes of all pictures of a page, before base64
QUALITIES = (75, 55, 35)  # of WebP, the first that fits the budget
NUM_TRIED = 12  # pictures by which the bytes of all are estimated
# Most pictures of a page, and how large they then are.
SIZES = (
    (80, FilmSize(height=128, num_frames=16)),
    (240, FilmSize(height=96, num_frames=12)),
    (480, FilmSize(height=72, num_frames=8)),
)
SMALLEST = FilmSize(height=56, num_frames=8)


class Film(NamedTuple):
    """A picture of frames, as a data URL; width and height are of one frame in pixels."""

    address: str
    num_frames: int
    width: int
    height: int


def size_of_films(num_films: int) -> FilmSize:
    """Return how large pictures may be, so that so many of them fit a page."""
    return next((size for most, size in SIZES if num_films <= most), SMALLEST)


def make_films(clips: Sequence[NDArray[np.uint8]], budget: int = BUDGET) -> list[Film | None]:
    """Encode clips (T, H, W, 3); None for those at the end that do not fit the budget."""
    tried = clips[:: max(1, len(clips) // NUM_TRIED)]
    share = len(clips) / max(len(tried), 1)
    quality = QUALITIES[-1]
    for candidate in QUALITIES:
        if share * sum(len(_encode(clip, candidate)) for clip in tried) <= budget:
            quality = candidate
            break
    films: list[Film | None] = []
    for clip in clips:
        content = _encode(clip, quality) if budget > 0 else b""
        budget -= len(content)
        films.append(_film(clip, content) if content and budget >= 0 else None)
    return films


def _encode(clip: NDArray[np.uint8], quality: int) -> bytes:
    num_frames, height, width, _ = clip.shape
    file = io.BytesIO()
    Image.fromarray(clip.reshape(num_frames * height, width, 3)).save(
        file, "WEBP", quality=quality, method=4
    )
    return file.getvalue()


def _film(clip: NDArray[np.uint8], content: bytes) -> Film:
    num_frames, height, width, _ = clip.shape
    address = f"data:image/webp;base64,{base64.b64encode(content).decode()}"
    return Film(address, num_frames, width, height)
