"""Other libraries than PyAV decode where they show the same frames; elsewhere PyAV does.

decord and torchcodec refuse some containers and lose frames in others, decord shows frames before
the start of an edit, and neither mirrors frames. The default reader counts the frames and knows
their times; only the decoding is the other library's.
"""

import logging
from collections.abc import Callable
from functools import cache
from typing import Self

from video_mvit.data.frame_clock import FrameClock
from video_mvit.data.reading.orientation import UPRIGHT, orientation_of
from video_mvit.data.reading.packets import unique_in_order
from video_mvit.data.reading.pyav_reader import PyAVReader
from video_mvit.data.reading.reader import (
    DecodeLimits,
    FrameIndices,
    Frames,
    VideoDecodeError,
    VideoReader,
)

logger = logging.getLogger(__name__)

SHARED_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}  # as FFmpeg names them
OTHER_FRAMES = {"decord": ("hevc",)}  # by codec
BITS = 8  # of a colour; each release of FFmpeg converts deeper ones in its own way


class CheckedReader:
    """Read with a library's reader what it reads as PyAV does, all else with PyAV.

    Raises `VideoDecodeError`, and `UserError` for a library that is not installed.
    """

    def __init__(
        self,
        open_other: Callable[..., VideoReader],
        library: str,
        path: str,
        decode_limits: DecodeLimits,
        *,
        content: bytes | None = None,
        num_threads: int = 1,
    ) -> None:
        self._path, self._library = path, library
        self._plain = PyAVReader(path, decode_limits, content=content, num_threads=num_threads)
        self.codec = self._plain.codec
        self._other: VideoReader | None = None
        try:
            if reason := _find_difference(library, self._plain):
                _tell_once(library, reason)
                return
            try:
                self._other = open_other(
                    path, decode_limits, content=content, num_threads=num_threads
                )
            except VideoDecodeError:
                self._drop("files that it refuses")
                return
            if self._other.num_frames != self.num_frames:
                self._drop("files in which it counts other frames")
        except BaseException:
            self.__exit__()
            raise

    @property
    def num_frames(self) -> int:
        return self._plain.num_frames

    @property
    def fps(self) -> float:
        return self._plain.fps

    @property
    def clock(self) -> FrameClock:
        return self._plain.clock

    @property
    def size(self) -> tuple[int, int]:
        return self._plain.size

    def read(self, frame_indices: FrameIndices) -> Frames:
        wanted, _ = unique_in_order(frame_indices)
        is_inside = len(wanted) and wanted[0] >= 0 and wanted[-1] < self.num_frames
        if self._other is not None and is_inside:
            try:
                return self._other.read(frame_indices)
            except VideoDecodeError:
                self._drop("files that it fails to decode")
        return self._plain.read(frame_indices)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close_other()
        self._plain.__exit__(*exception)

    def _drop(self, reason: str) -> None:
        _tell_once(self._library, reason)
        self._close_other()

    def _close_other(self) -> None:
        if self._other is not None:
            self._other.__exit__(None, None, None)
            self._other = None


def _find_difference(library: str, plain: PyAVReader) -> str | None:
    """Name what a library reads in another way; None for a file that it reads alike."""
    if plain.container_name not in SHARED_CONTAINERS:
        return "other containers than MP4, MOV, MKV and WebM"
    if plain.num_video_streams > 1:
        return "files of several videos"
    if not plain.is_simple:
        return "files with open groups of frames or unclear times, and large ones"
    if plain.codec in OTHER_FRAMES.get(library, ()):
        return f"{plain.codec} video"
    picture = next(plain.frames())
    if orientation_of(picture) != UPRIGHT:
        return "turned and mirrored videos"
    if picture.interlaced_frame:
        return "interlaced videos"
    if any(component.bits > BITS for component in picture.format.components):
        return "videos of more than 8 bits"
    return None


@cache
def _tell_once(library: str, reason: str) -> None:
    """Tell once in a process that PyAV takes over."""
    logger.info("data.reader=%s: PyAV reads %s", library, reason)
