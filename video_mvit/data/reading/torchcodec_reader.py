"""Read frames with torchcodec."""

import os
from typing import Self

from video_mvit.data.frame_clock import FrameClock
from video_mvit.data.reading.containers import check_for_other_library
from video_mvit.data.reading.packets import unique_in_order
from video_mvit.data.reading.reader import (
    DecodeLimits,
    FrameIndices,
    Frames,
    LimitChecker,
    VideoDecodeError,
    decode_errors,
    first_line,
    import_library,
    shown_size,
)
from video_mvit.errors import UserError

NO_FFMPEG = "Could not load libtorchcodec"


NOT_LOADED = "torchcodec does not find FFmpeg's shared libraries"


TORCHCODEC_ERRORS = (RuntimeError, ValueError, IndexError)


class TorchcodecReader:
    """Read with torchcodec in its exact mode, which needs FFmpeg's shared libraries.

    The frame size is checked before decoding; it has no other limits.
    """

    def __init__(
        self,
        path: str,
        decode_limits: DecodeLimits,
        *,
        content: bytes | None = None,
        num_threads: int = 1,
    ) -> None:
        decoders = import_library("torchcodec.decoders")
        check_for_other_library(path, content, decode_limits)
        self._path = path
        try:
            self._decoder = decoders.VideoDecoder(
                os.path.abspath(path) if content is None else content,
                dimension_order="NHWC",
                num_ffmpeg_threads=num_threads,
                seek_mode="exact",
            )
        except TORCHCODEC_ERRORS as error:
            if NO_FFMPEG in str(error):  # importing succeeds without FFmpeg, decoding does not
                raise UserError(f"reader 'torchcodec': {NOT_LOADED}; use 'pyav'") from error
            raise VideoDecodeError(path, first_line(error)) from error
        about = self._decoder.metadata
        self.num_frames, fps = int(about.num_frames or 0), float(about.average_fps or 0)
        self.codec = str(about.codec)
        if self.num_frames == 0 or fps == 0:
            raise VideoDecodeError(path, "no frames, or no frame rate")
        LimitChecker(path, decode_limits).check_size(about.height or 0, about.width or 0)
        self.clock = FrameClock(num_frames=self.num_frames, fps=fps)
        self.fps = fps

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
