"""Read frames with decord."""

import io
import os
from typing import Self

import numpy as np

from video_mvit.data.frame_clock import FrameClock
from video_mvit.data.reading.containers import check_for_other_library
from video_mvit.data.reading.packets import unique_in_order
from video_mvit.data.reading.reader import (
    DecodeLimits,
    FrameIndices,
    Frames,
    VideoDecodeError,
    decode_errors,
    import_library,
    shown_size,
)


class DecordReader:
    """Read with decord, packaged for x86-64 only; exact for 8-bit H.264.

    It has no limits of its own: a file on which it hangs cannot be stopped.
    """

    codec = "unknown"

    def __init__(
        self,
        path: str,
        decode_limits: DecodeLimits,
        *,
        content: bytes | None = None,
        num_threads: int = 1,
    ) -> None:
        decord = import_library("decord")
        check_for_other_library(path, content, decode_limits)
        self._path, self._array = path, decord.nd.NDArray
        self._errors = (decord.DECORDError, RuntimeError)
        file = os.path.abspath(path) if content is None else io.BytesIO(content)
        with decode_errors(self._path, *self._errors):
            self._reader = decord.VideoReader(file, num_threads=num_threads)
            self.num_frames, fps = len(self._reader), float(self._reader.get_avg_fps())
        if self.num_frames == 0:
            raise VideoDecodeError(path, "no frames")
        self.clock = FrameClock(num_frames=self.num_frames, fps=fps)
        self.fps = fps

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
