"""The reader protocol, its one error, and the limits on the work of one video.

A reader is exact: frame `i` is frame `i` in presentation order. What to read is decided elsewhere
(`sampling.py`); readers report all problems of a file as `VideoDecodeError`.
"""

import importlib
import importlib.util
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from video_mvit.data.frame_clock import FrameClock
from video_mvit.errors import UserError, install_command

Frames = NDArray[np.uint8]
MAX_ASPECT = 16  # resizing the short side of a longer strip would exhaust memory
NO_MEMORY = "not enough memory to read it"
MEMORY_ERRORS = (MemoryError, RecursionError)
MAX_READ_BYTES = 2**31  # of the frames that are read at once: 80 frames of 4K
FrameIndices = Sequence[int] | NDArray[np.int64]


class VideoDecodeError(Exception):
    """An unreadable video: `path` and a `reason` of a few words."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(str(path), reason)
        self.path, self.reason = str(path), reason

    def __str__(self) -> str:
        return f"cannot decode {self.path}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """Limits on one opened video; a video that exceeds them counts as unreadable.

    `frame_pixels` is the largest frame, `num_packets` are read from the file, `num_pixels` are
    decoded, `time_s` is processor time, so that a busy machine makes no video unreadable.
    """

    frame_pixels: int = 2**24
    num_packets: int = 1_000_000
    num_pixels: int = 20_000_000_000
    time_s: float = 60.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise UserError(f"{name} {value} must be positive")


class LimitChecker:
    """Count the work on one video; raises `VideoDecodeError` above its limits."""

    def __init__(self, path: str, decode_limits: DecodeLimits) -> None:
        self._path, self.decode_limits = path, decode_limits
        self._end_s = time.thread_time() + decode_limits.time_s
        self._num_packets = self._num_pixels = 0

    def count_packet(self) -> None:
        """Count one packet that was read."""
        self._num_packets += 1
        if self._num_packets > self.decode_limits.num_packets:
            raise VideoDecodeError(
                self._path, f"more than {self.decode_limits.num_packets} packets to read"
            )
        if self._num_packets % 64 == 0:
            self.check_time()

    def count_frame(self, height: int, width: int) -> None:
        """Count one decoded frame."""
        self._num_pixels += height * width
        if self._num_pixels > self.decode_limits.num_pixels:
            raise VideoDecodeError(
                self._path, f"more than {self.decode_limits.num_pixels} pixels to decode"
            )
        self.check_time()

    def check_time(self) -> None:
        """Raise if the time limit is exceeded."""
        if time.thread_time() > self._end_s:
            raise VideoDecodeError(self._path, f"took longer than {self.decode_limits.time_s:g} s")

    def check_room(self, num_frames: int, height: int, width: int) -> None:
        """Raise if frames in RGB need too much memory at once."""
        num_bytes = 3 * num_frames * height * width
        if num_bytes > MAX_READ_BYTES:
            raise VideoDecodeError(
                self._path,
                f"{num_frames} frames of {width}x{height} at once take more than "
                f"{MAX_READ_BYTES:,} bytes",
            )

    def check_size(self, height: int, width: int) -> None:
        """Raise if a frame size is invalid or exceeds the limits."""
        limit = self.decode_limits.frame_pixels
        if height < 1 or width < 1:
            # FFmpeg also drops the size of frames that it may not decode.
            raise VideoDecodeError(self._path, f"no frame size, or one above {limit} pixels")
        if max(height, width) > MAX_ASPECT * min(height, width):
            raise VideoDecodeError(self._path, f"frames of {width}x{height} are a strip")
        if height * width > limit:
            raise VideoDecodeError(
                self._path,
                f"frames of {width}x{height} are larger than {limit} pixels",
            )


class VideoReader(Protocol):
    """An open video; a context manager that closes it."""

    @property
    def num_frames(self) -> int:
        """Return the number of frames, at least 1."""

    @property
    def fps(self) -> float:
        """Return the nominal frames per second."""

    @property
    def clock(self) -> FrameClock:
        """Return when the frames are shown."""

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width of a frame as a player shows it, in pixels."""

    codec: str  # name of the compression, as FFmpeg calls it

    def read(self, frame_indices: FrameIndices) -> Frames:
        """Read frames in the given order, repeats included: -> (T, H, W, 3) uint8 RGB."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


def shown_size(reader: VideoReader) -> tuple[int, int]:
    """Return height and width of the first frame, which is more reliable than a header."""
    height, width = reader.read([0]).shape[1:3]
    return height, width


@contextmanager
def decode_errors(path: str, *complaints: type[Exception]) -> Iterator[None]:
    """Turn the errors of a library, and a lack of memory, into `VideoDecodeError`."""
    try:
        yield
    except MEMORY_ERRORS:
        raise VideoDecodeError(path, NO_MEMORY) from None
    except complaints as error:
        raise VideoDecodeError(path, first_line(error)) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error message."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return (text.strip().splitlines() or [type(error).__name__])[0]


def import_library(name: str) -> Any:
    """Import a reader's library; raises `UserError` if it is not installed, or does not work."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        library = name.partition(".")[0]
        reason = f"cannot be imported ({first_line(error)}); use 'pyav'"
        if importlib.util.find_spec(library) is None:
            # The extra has the name of its library.
            reason = f"is not installed ({install_command(library)}); use 'pyav'"
        raise UserError(f"reader {library!r}: {library} {reason}") from error
