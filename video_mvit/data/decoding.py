"""Reading frames out of video files: the only module that opens them.

A reader gives exact frames: frame `i` is frame `i` in presentation order. What to read is decided
elsewhere (`sampling.py`); what is wrong with a file is said here, always as `VideoDecodeError`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import av
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]


class VideoDecodeError(Exception):
    """A video that cannot be read: `path` and a `reason` of a few words."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"cannot decode {self.path}: {self.reason}"


class VideoReader(Protocol):
    """An open video file; a context manager that closes it."""

    @property
    def num_frames(self) -> int:
        """Number of frames, at least 1."""

    @property
    def fps(self) -> float:
        """Average frames per second."""

    def read(self, frame_indices: Sequence[int] | NDArray[np.int64]) -> Frames:
        """Frames in the given order, repeats included: -> (T, H, W, 3) uint8 RGB."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class PyAVReader:
    """Reads with PyAV: decodes from the first frame to the last one wanted, in one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._container = av.open(str(path))
        except (av.FFmpegError, OSError) as error:
            raise VideoDecodeError(path, _reason(error)) from error
        try:
            self._stream = self._open_stream()
            self._num_frames = self._count_packets()
        except BaseException:
            self._container.close()
            raise

    @property
    def num_frames(self) -> int:
        return self._num_frames

    @property
    def fps(self) -> float:
        rate = self._stream.average_rate or self._stream.guessed_rate
        if not rate:
            raise VideoDecodeError(self._path, "no frame rate in its header")
        return float(rate)

    def read(self, frame_indices: Sequence[int] | NDArray[np.int64]) -> Frames:
        wanted = set(map(int, frame_indices))
        last = max(wanted)
        found: dict[int, Frames] = {}
        try:
            self._container.seek(0, stream=self._stream)
            for index, frame in enumerate(self._container.decode(self._stream)):
                if index in wanted:
                    found[index] = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                if index == last:
                    break
        except (av.FFmpegError, OSError) as error:
            raise VideoDecodeError(self._path, _reason(error)) from error
        if len(found) < len(wanted):
            missing = min(wanted - set(found))
            raise VideoDecodeError(
                self._path, f"frame {missing} of {self._num_frames} cannot be decoded"
            )
        return np.stack([found[int(index)] for index in frame_indices])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._container.close()

    def _open_stream(self) -> av.VideoStream:
        if not self._container.streams.video:
            raise VideoDecodeError(self._path, "no video stream")
        best = self._container.streams.best("video")  # the one a player shows
        stream = next(s for s in self._container.streams.video if best in (None, s))
        stream.thread_type = "NONE"
        return stream

    def _count_packets(self) -> int:
        """Count packets that are shown: headers may lie or be silent. Nothing is decoded."""
        try:
            num_packets = sum(
                packet.size > 0 and not packet.is_discard  # not shown: before the start of a cut
                for packet in self._container.demux(self._stream)
            )
        except (av.FFmpegError, OSError) as error:
            raise VideoDecodeError(self._path, _reason(error)) from error
        if num_packets == 0:
            raise VideoDecodeError(self._path, "no frames")
        return num_packets


class DecordReader:
    """Reads with decord, in one thread; its package exists for x86-64 only. Exact for H.264."""

    def __init__(self, path: Path) -> None:
        try:
            import decord
        except ImportError as error:
            raise ValueError(
                "reader 'decord' needs the package decord, which has no wheel here; use 'pyav'"
            ) from error
        self._path, self._errors = path, (decord.DECORDError, RuntimeError)
        try:
            self._reader = decord.VideoReader(str(path), num_threads=1)
        except self._errors as error:
            raise VideoDecodeError(path, _reason(error)) from error
        if len(self._reader) == 0:
            raise VideoDecodeError(path, "no frames")

    @property
    def num_frames(self) -> int:
        return len(self._reader)

    @property
    def fps(self) -> float:
        return float(self._reader.get_avg_fps())

    def read(self, frame_indices: Sequence[int] | NDArray[np.int64]) -> Frames:
        wanted, places = np.unique(
            np.asarray(frame_indices), return_inverse=True
        )  # decord is not exact when it goes back
        try:
            frames: Frames = self._reader.get_batch(wanted.tolist()).asnumpy()
        except self._errors as error:
            raise VideoDecodeError(self._path, _reason(error)) from error
        return frames[places]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        del self._reader


READERS: dict[str, Callable[[Path], VideoReader]] = {"pyav": PyAVReader, "decord": DecordReader}


def _reason(error: BaseException) -> str:
    """First line of a decoder's complaint."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.strip().splitlines()[0]
