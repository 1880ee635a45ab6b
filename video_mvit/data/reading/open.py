"""Open videos: the readers, and the one place where a path becomes a reader.

A path is a video file or an animation, a picture, a folder of numbered pictures or a part of it
(`<folder>[<first>:<stop>]`, see `frame_names`), a member of a tar shard
(`<shard>.tar!<offset>+<size>!<name>`), or a part of one of these (`<video>#t=<start>,<end>`, see
`segments`).
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av

from video_mvit.data.reading.animations import AnimatedWebpReader, animation_kind
from video_mvit.data.reading.checked_reader import CheckedReader
from video_mvit.data.reading.containers import check_regular
from video_mvit.data.reading.decord_reader import DecordReader
from video_mvit.data.reading.frame_names import frame_place
from video_mvit.data.reading.header_index import UNKNOWN
from video_mvit.data.reading.images import ImageFolderReader, PictureReader, is_picture
from video_mvit.data.reading.pyav_reader import PyAVReader
from video_mvit.data.reading.reader import (
    DecodeLimits,
    VideoDecodeError,
    VideoReader,
    decode_errors,
)
from video_mvit.data.reading.segments import SegmentReader, segment_at
from video_mvit.data.reading.tar_members import is_member, read_member
from video_mvit.data.reading.torchcodec_reader import TorchcodecReader

__all__ = [
    "READERS",
    "DecodeLimits",
    "VideoDecodeError",
    "VideoFacts",
    "VideoReader",
    "examine_video",
    "iterate_frames",
    "open_video",
]


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """Properties of a video, measured by decoding all of it; `size` is (H, W) as shown.

    `fps` is nominal, with some frames closer or further apart if `is_variable`. `fingerprint` is of
    a header that lists the packets as they are (see `header_index`), 0 for others.
    """

    num_frames: int
    fps: float
    is_variable: bool
    duration_s: float
    size: tuple[int, int]
    codec: str
    num_key_frames: int
    fingerprint: int = UNKNOWN


READERS: dict[str, Callable[..., VideoReader]] = {
    "pyav": PyAVReader,
    "decord": DecordReader,
    "torchcodec": TorchcodecReader,
}
DEFAULT_LIMITS = DecodeLimits()
NUM_AT_ONCE = 16  # frames of a part of a video, read to examine it


def open_video(
    path: str | Path,
    reader: str = "pyav",
    decode_limits: DecodeLimits = DEFAULT_LIMITS,
    num_threads: int = 1,
    fingerprint: int = UNKNOWN,
) -> VideoReader:
    """Open a path with one of `READERS`; raises `VideoDecodeError`.

    `fingerprint` is that of `examine_video`, by which the default reader opens a file faster.
    """
    name = str(path)
    if (segment := segment_at(name)) is not None:
        video = open_video(segment.path, reader, decode_limits, num_threads, fingerprint)
        try:
            return SegmentReader(video, segment)
        except VideoDecodeError:
            video.__exit__()
            raise
    content = None
    if is_member(name):
        with decode_errors(name, OSError):
            content = read_member(name)
    elif frame_place(name) is not None:
        return ImageFolderReader(name, decode_limits)
    with decode_errors(name, OSError):
        kind = _animation_kind(name, content)
    if kind == "webp":
        return AnimatedWebpReader(name, decode_limits, content=content)
    if kind is None and is_picture(name):
        return PictureReader(name, decode_limits, content=content)
    open_one = READERS[reader]
    if open_one is PyAVReader:
        open_one = partial(PyAVReader, fingerprint=fingerprint)
    else:
        open_one = partial(CheckedReader, open_one, reader)
    with decode_errors(name):
        return open_one(name, decode_limits, content=content, num_threads=num_threads)


def _animation_kind(path: str, content: bytes | None) -> str | None:
    if content is not None:
        return animation_kind(io.BytesIO(content))
    check_regular(path)
    with open(path, "rb") as file:
        return animation_kind(file)


def examine_video(path: str | Path, decode_limits: DecodeLimits = DEFAULT_LIMITS) -> VideoFacts:
    """Decode all frames of a video and return its properties; raises `VideoDecodeError`."""
    with open_video(path, decode_limits=decode_limits) as video:
        if isinstance(video, PyAVReader):
            fingerprint = video.fingerprint()
            num_decoded, num_key_frames = sum(1 for _ in video.frames()), video.num_key_frames
            assert num_decoded == video.num_frames  # frames() raises if one is missing
        else:
            # Of a part of a video, many at once: each reading begins at a key frame.
            num_at_once = NUM_AT_ONCE if isinstance(video, SegmentReader) else 1
            parts = _in_parts(video.num_frames, num_at_once)
            sizes = {video.read(some).shape[1:3] for some in parts}
            if len(sizes) > 1:
                raise VideoDecodeError(path, "its pictures differ in size")
            num_key_frames, fingerprint = video.num_frames, UNKNOWN
        return VideoFacts(
            num_frames=video.num_frames,
            fps=video.clock.fps,
            is_variable=video.clock.is_variable,
            duration_s=video.clock.duration_s,
            size=video.size,
            codec=video.codec,
            num_key_frames=num_key_frames,
            fingerprint=fingerprint,
        )


def _in_parts(num_frames: int, num_at_once: int) -> Iterator[range]:
    """Yield the frames of a video, a few at once."""
    for first in range(0, num_frames, num_at_once):
        yield range(first, min(first + num_at_once, num_frames))


def iterate_frames(
    path: str | Path, decode_limits: DecodeLimits = DEFAULT_LIMITS
) -> Iterator[av.VideoFrame]:
    """Yield all frames of a video file in presentation order, neither RGB nor upright yet."""
    with open_video(path, decode_limits=decode_limits) as video:
        if not isinstance(video, PyAVReader | AnimatedWebpReader):
            raise VideoDecodeError(path, "pictures, not a video file")
        yield from video.frames()
