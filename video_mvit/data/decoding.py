"""Opening videos: the readers, and the one place where a path becomes a reader.

A path is a video file, a picture, a folder of numbered pictures, or a member of a tar shard
(`<shard>.tar!<offset>+<size>!<name>`).
"""

import importlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import av
import numpy as np

from video_mvit.data.containers import check_regular
from video_mvit.data.packets import unique_in_order
from video_mvit.data.pictures import ImageFolderReader, PictureReader, is_picture
from video_mvit.data.pyav_reader import PyAVReader
from video_mvit.data.shards import is_member, read_member
from video_mvit.data.video import (
    FrameIndices,
    Frames,
    Meter,
    VideoDecodeError,
    VideoReader,
    WorkBudget,
    decode_errors,
    first_line,
    shown_size,
)

__all__ = [
    "READERS",
    "VideoDecodeError",
    "VideoFacts",
    "VideoReader",
    "WorkBudget",
    "examine_video",
    "iterate_frames",
    "open_video",
]

NO_FFMPEG = "Could not load libtorchcodec"
NOT_LOADED = "torchcodec does not find FFmpeg's shared libraries"
TORCHCODEC_ERRORS = (RuntimeError, ValueError, IndexError)


class DecordReader:
    """Reads with decord, whose package exists for x86-64 only; exact for H.264 of 8 bits.

    It knows no budget: a file on which it hangs cannot be stopped.
    """

    codec = "unknown"

    def __init__(
        self, path: str, budget: WorkBudget, *, content: bytes | None = None, num_threads: int = 1
    ) -> None:
        decord = _import_library("decord", "has no wheel for this platform")
        self._path, self._array = path, decord.nd.NDArray
        self._errors = (decord.DECORDError, RuntimeError)
        file = path if content is None else io.BytesIO(content)
        with decode_errors(self._path, *self._errors):
            self._reader = decord.VideoReader(file, num_threads=num_threads)
            self.num_frames, self.fps = len(self._reader), float(self._reader.get_avg_fps())
        if self.num_frames == 0:
            raise VideoDecodeError(path, "no frames")

    @property
    def size(self) -> tuple[int, int]:
        return shown_size(self)

    def read(self, frame_indices: FrameIndices) -> Frames:
        wanted, places = unique_in_order(frame_indices)  # decord is not exact when it goes back
        with decode_errors(self._path, *self._errors):
            batch = self._reader.get_batch(wanted.tolist())
        # Other packages (pytorchvideo.data) make decord give tensors to the whole process.
        frames: Frames = batch.asnumpy() if isinstance(batch, self._array) else np.asarray(batch)
        return frames[places]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        del self._reader


class TorchcodecReader:
    """Reads with torchcodec in its exact mode; it needs FFmpeg's shared libraries.

    The size of a frame is checked before anything is decoded; it knows no other budget.
    """

    def __init__(
        self, path: str, budget: WorkBudget, *, content: bytes | None = None, num_threads: int = 1
    ) -> None:
        decoders = _import_library("torchcodec.decoders", "is not installed")
        self._path = path
        try:
            self._decoder = decoders.VideoDecoder(
                path if content is None else content,
                dimension_order="NHWC",
                num_ffmpeg_threads=num_threads,
                seek_mode="exact",
            )
        except TORCHCODEC_ERRORS as error:
            if NO_FFMPEG in str(error):  # it imports without, and finds out now
                raise ValueError(f"reader 'torchcodec': {NOT_LOADED}; use 'pyav'") from error
            raise VideoDecodeError(path, first_line(error)) from error
        about = self._decoder.metadata
        self.num_frames, self.fps = int(about.num_frames or 0), float(about.average_fps or 0)
        self.codec = str(about.codec)
        if self.num_frames == 0 or self.fps == 0:
            raise VideoDecodeError(path, "no frames, or no frame rate")
        Meter(path, budget).check_size(about.height or 0, about.width or 0)

    @property
    def size(self) -> tuple[int, int]:
        return shown_size(self)

    def read(self, frame_indices: FrameIndices) -> Frames:
        wanted, places = unique_in_order(frame_indices)
        with decode_errors(self._path, *TORCHCODEC_ERRORS):
            frames: Frames = self._decoder.get_frames_at(indices=wanted.tolist()).data.numpy()
        return frames[places]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        del self._decoder


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """What a video is, seen by decoding all of it; `size` is (H, W) as shown."""

    num_frames: int
    fps: float
    duration_s: float
    size: tuple[int, int]
    codec: str
    num_key_frames: int


READERS: dict[str, Callable[..., VideoReader]] = {
    "pyav": PyAVReader,
    "decord": DecordReader,
    "torchcodec": TorchcodecReader,
}
DEFAULT_BUDGET = WorkBudget()


def open_video(
    path: str | Path,
    reader: str = "pyav",
    budget: WorkBudget = DEFAULT_BUDGET,
    num_threads: int = 1,
) -> VideoReader:
    """Open what a path stands for, with one of `READERS`; raises `VideoDecodeError`."""
    name = str(path)
    if is_member(name):
        with decode_errors(name, OSError):
            content = read_member(name)
        if is_picture(name):
            return PictureReader(name, budget, content=content)
        return READERS[reader](name, budget, content=content, num_threads=num_threads)
    if os.path.isdir(name):
        return ImageFolderReader(name, budget)
    with decode_errors(name, OSError):
        check_regular(name)
    if is_picture(name):
        return PictureReader(name, budget)
    return READERS[reader](name, budget, num_threads=num_threads)


def examine_video(path: str | Path, budget: WorkBudget = DEFAULT_BUDGET) -> VideoFacts:
    """Decode all frames of a video and say what it is; raises `VideoDecodeError`."""
    with open_video(path, budget=budget) as video:
        if isinstance(video, PyAVReader):
            num_decoded, num_key_frames = sum(1 for _ in video.frames()), video.num_key_frames
            assert num_decoded == video.num_frames  # frames() raises where one is missing
        else:
            video.read(range(video.num_frames))
            num_key_frames = video.num_frames
        return VideoFacts(
            num_frames=video.num_frames,
            fps=video.fps,
            duration_s=video.num_frames / video.fps,
            size=video.size,
            codec=video.codec,
            num_key_frames=num_key_frames,
        )


def iterate_frames(
    path: str | Path, budget: WorkBudget = DEFAULT_BUDGET
) -> Iterator[av.VideoFrame]:
    """All frames of a video file in presentation order, not in RGB and not upright yet."""
    with open_video(path, budget=budget) as video:
        if not isinstance(video, PyAVReader):
            raise VideoDecodeError(path, "pictures, not a video file")
        yield from video.frames()


def _import_library(name: str, reason: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        library = name.partition(".")[0]
        raise ValueError(f"reader {library!r}: {library} {reason}; use 'pyav'") from error
