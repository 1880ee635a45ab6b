"""Animated pictures are videos of their frames, whatever their suffix.

FFmpeg reads GIF and APNG as it reads any video. It does not read animated WebP, which Pillow does.
"""

import io
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal, Self

import av
import numpy as np
from PIL import Image

from video_mvit.data.frame_clock import FrameClock, clock_of_stamps
from video_mvit.data.reading.containers import describe_cut
from video_mvit.data.reading.images import PICTURE_ERRORS, decode_picture
from video_mvit.data.reading.packets import frames_in_order
from video_mvit.data.reading.reader import (
    DecodeLimits,
    FrameIndices,
    Frames,
    LimitChecker,
    VideoDecodeError,
    decode_errors,
)

PNG_START = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 256  # before the first image of a PNG
ANIMATION_FLAG = 0x02
# Browsers show a frame of at most 10 ms for 100 ms: so many animations say 0 and mean that.
SHORTEST_MS, SHOWN_INSTEAD_MS = 10, 100


def animation_kind(file: BinaryIO) -> Literal["gif", "apng", "webp"] | None:
    """Return which animation a file holds; None for anything else."""
    file.seek(0)
    start = file.read(32)
    if start.startswith(b"GIF8"):
        return "gif"
    if start[:4] == b"RIFF" and start[8:16] == b"WEBPVP8X":
        return "webp" if start[20] & ANIMATION_FLAG else None
    return "apng" if start.startswith(PNG_START) and _has_animation(file) else None


def _has_animation(file: BinaryIO) -> bool:
    """Return whether a PNG announces an animation before its first image."""
    file.seek(len(PNG_START))
    for _ in range(MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8 or header[4:] == b"IDAT":
            return False
        if header[4:] == b"acTL":
            return True
        file.seek(int.from_bytes(header[:4], "big") + 4, io.SEEK_CUR)
    return False


class AnimatedWebpReader:
    """Read an animated WebP, or its bytes if given; raises `VideoDecodeError`."""

    codec = "webp"

    def __init__(
        self, path: str, decode_limits: DecodeLimits, *, content: bytes | None = None
    ) -> None:
        self._path, self._limit_checker = path, LimitChecker(path, decode_limits)
        with decode_errors(path, *PICTURE_ERRORS):
            content = Path(path).read_bytes() if content is None else content
            self._durations_ms = self._read_durations(content)
            self._picture = Image.open(io.BytesIO(content), formats=["WEBP"])
        if getattr(self._picture, "n_frames", 1) != self.num_frames:
            raise VideoDecodeError(path, "damaged: frames are missing")

    @property
    def num_frames(self) -> int:
        return len(self._durations_ms)

    @property
    def fps(self) -> float:
        return self.clock.fps

    @cached_property
    def clock(self) -> FrameClock:
        durations = np.array(self._durations_ms, np.int64)
        last_s = float(durations[-1]) / 1000
        if self.num_frames == 1:
            return FrameClock(num_frames=1, fps=1 / last_s)
        return clock_of_stamps(np.cumsum(durations) - durations, 0.001, 0.0, last_s)

    @property
    def size(self) -> tuple[int, int]:
        height, width = self._decode(0).shape[:2]
        return height, width

    def read(self, frame_indices: FrameIndices) -> Frames:
        wanted, places = frames_in_order(frame_indices, self.num_frames, self._path)
        first = self._decode(int(wanted[0]))
        self._limit_checker.check_room(len(wanted), *first.shape[:2])
        return np.stack([first, *(self._decode(i) for i in wanted[1:].tolist())])[places]

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield all frames with their times, in RGB and upright."""
        time_ms = 0
        for index, duration_ms in enumerate(self._durations_ms):
            picture = av.VideoFrame.from_ndarray(self._decode(index), format="rgb24")
            picture.pts, picture.time_base = time_ms, Fraction(1, 1000)
            yield picture
            time_ms += duration_ms

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._picture.close()

    def _decode(self, index: int) -> Frames:
        """Decode frame `index`; those before it are decoded, too, unless the last one was."""
        with decode_errors(self._path, *PICTURE_ERRORS):
            self._picture.seek(index)
            return np.ascontiguousarray(decode_picture(self._picture, self._limit_checker))

    def _read_durations(self, content: bytes) -> list[int]:
        """Return how long each frame is shown, in ms."""
        width, height = (1 + int.from_bytes(content[at : at + 3], "little") for at in (24, 27))
        self._limit_checker.check_size(height, width)  # before Pillow makes room for a frame
        durations_ms, place = [], 12
        while place + 8 <= len(content):
            size = int.from_bytes(content[place + 4 : place + 8], "little")
            if content[place : place + 4] == b"ANMF":
                self._limit_checker.count_packet()
                duration_ms = int.from_bytes(content[place + 20 : place + 23], "little")
                is_shown = duration_ms > SHORTEST_MS
                durations_ms.append(duration_ms if is_shown else SHOWN_INSTEAD_MS)
            place += 8 + size
            if place > len(content):
                raise VideoDecodeError(self._path, describe_cut(len(content), place))
            place += size % 2
        if not durations_ms:
            raise VideoDecodeError(self._path, "no frames")
        return durations_ms
