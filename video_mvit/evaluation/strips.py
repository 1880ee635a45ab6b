"""Frames of a video as one picture, which a page plays: small, and within a number of bytes."""

import base64
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from video_mvit.data.reading.open import VideoDecodeError, open_video
from video_mvit.host import num_usable_cores

NUM_FRAMES = 8  # of a strip
SIDES = (224, 160, 112, 80, 48)  # pixels, the most of width and height of a frame
QUALITIES = (70, 45, 20)  # of WebP
BYTES_PER_PIXEL = 0.08  # of a video at the best quality, roughly; sides far above are not tried
MAX_STRIP_BYTES = 40_000
MAX_BYTES = 4_000_000  # of all strips of a page, before base64
MAX_READERS = 8


class Strip(NamedTuple):
    """Frames side by side, as a data URL, with the size of one in pixels."""

    address: str
    width: int
    height: int
    num_frames: int


def read_strips(root: str, videos: Sequence[str]) -> dict[str, Strip]:
    """Read a strip of each video below a root, by video; unreadable ones have none.

    All strips together fit into a page, so that those of many videos are smaller.
    """
    room = room_for(len(videos))

    def strip(video: str) -> Strip | None:
        frames = read_frames(f"{root}/{video}")
        return None if frames is None else encode_strip(frames, room)

    with _pool() as pool:
        found = zip(videos, pool.map(strip, videos), strict=True)
        return {video: each for video, each in found if each is not None}


def room_for(num_strips: int) -> int:
    """Return how many bytes each of so many strips may have."""
    return min(MAX_STRIP_BYTES, MAX_BYTES // max(num_strips, 1))


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """Yield threads that read; on an error or Ctrl-C, those that wait are not started."""
    pool = ThreadPoolExecutor(min(MAX_READERS, num_usable_cores()))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_frames(path: str) -> NDArray[np.uint8] | None:
    """Read evenly spaced frames (T, H, W, 3) of a video; None where it is unreadable."""
    try:
        with open_video(path) as video:
            places = np.linspace(0, video.num_frames - 1, min(NUM_FRAMES, video.num_frames))
            return video.read(places.round().astype(np.int64))
    except VideoDecodeError:
        return None


def encode_strip(frames: NDArray[np.uint8], max_bytes: int) -> Strip | None:
    """Encode frames (T, H, W, 3) side by side, as large as fits; None where nothing does."""
    pictures = [Image.fromarray(frame) for frame in frames]
    for side in SIDES:
        for picture in pictures:
            picture.thumbnail((side, side))
        width, height = pictures[0].size
        if len(pictures) * width * height * BYTES_PER_PIXEL > 2 * max_bytes:
            continue
        sheet = Image.new("RGB", (width * len(pictures), height))
        for place, picture in enumerate(pictures):
            sheet.paste(picture, (place * width, 0))
        for quality in QUALITIES:
            file = io.BytesIO()
            sheet.save(file, "WEBP", quality=quality, method=2)
            if file.tell() <= max_bytes:
                encoded = base64.b64encode(file.getvalue()).decode()
                address = f"data:image/webp;base64,{encoded}"
                return Strip(address, width, height, len(pictures))
    return None
