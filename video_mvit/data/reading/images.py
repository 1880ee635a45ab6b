"""Readers of pictures: a file is a video of one frame, a folder of numbered files a longer one.

The content decides how a file is read, not its suffix: some pictures of ImageNet are PNG or CMYK
with the suffix of a JPEG.
"""

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from video_mvit.data.frame_clock import FrameClock
from video_mvit.data.reading.containers import check_regular
from video_mvit.data.reading.file_kinds import explain_no_picture
from video_mvit.data.reading.formats import PICTURE_SUFFIXES
from video_mvit.data.reading.frame_names import FramePlace, choose_frames, frame_place
from video_mvit.data.reading.packets import unique_in_order
from video_mvit.data.reading.reader import (
    MEMORY_ERRORS,
    NO_MEMORY,
    DecodeLimits,
    FrameIndices,
    Frames,
    LimitChecker,
    VideoDecodeError,
    decode_errors,
    first_line,
)
from video_mvit.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")  # fewer formats, less attack surface
SEVERAL_VIEWS = ("MPO",)  # of one scene, as cameras save them; the first is the picture
PICTURE_ERRORS = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
    struct.error,  # of damaged EXIF data
    *MEMORY_ERRORS,
)
IMAGE_FPS = 30.0  # Something-Something frames are extracted at this rate


def is_picture(name: str) -> bool:
    """Return whether a file name is that of a picture."""
    return name.lower().endswith(PICTURE_SUFFIXES)


@contextmanager
def open_picture(file: str | io.BytesIO, limit_checker: LimitChecker) -> Iterator[Image.Image]:
    """Open a picture without decoding it; raises Pillow's errors or `VideoDecodeError`."""
    try:
        opened = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise UnidentifiedImageError(_explain(file)) from None
    with opened as picture:
        num_frames = getattr(picture, "n_frames", 1)
        if num_frames > 1 and picture.format not in SEVERAL_VIEWS:
            raise UnidentifiedImageError(f"{num_frames} frames, not one picture")
        limit_checker.check_size(picture.height, picture.width)
        yield picture


def _explain(file: str | io.BytesIO) -> str:
    if isinstance(file, io.BytesIO):
        return explain_no_picture(file)
    with open(file, "rb") as content:
        return explain_no_picture(content)


def decode_picture(picture: Image.Image, limit_checker: LimitChecker) -> Frames:
    """Decode upright RGB (H, W, 3); grey, palettes and CMYK are converted, alpha is dropped.

    Of 16 bits, the upper 8 are used. Raises Pillow's errors or `VideoDecodeError`.
    """
    limit_checker.count_frame(picture.height, picture.width)
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):  # Pillow would clip values above 255
        upper = (np.asarray(upright) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(upper[:, :, None], 3, axis=2)
    if "transparency" in upright.info:
        upright = upright.convert("RGBA")
    return np.asarray(upright.convert("RGB"))


class PictureReader:
    """Read a picture file as a video of one frame."""

    num_frames, fps = 1, IMAGE_FPS
    clock = FrameClock(num_frames=1, fps=IMAGE_FPS)

    def __init__(
        self, path: str, decode_limits: DecodeLimits, *, content: bytes | None = None
    ) -> None:
        self._path, self._content, self._limit_checker = (
            path,
            content,
            LimitChecker(path, decode_limits),
        )
        self._frame: Frames | None = None
        with (
            decode_errors(path, *PICTURE_ERRORS),
            open_picture(self._file(), self._limit_checker) as file,
        ):
            self.codec = str(file.format).lower()

    @property
    def size(self) -> tuple[int, int]:
        height, width = self._decoded().shape[:2]
        return height, width

    def read(self, frame_indices: FrameIndices) -> Frames:
        wanted, places = unique_in_order(frame_indices)
        if wanted.tolist() != [0]:
            raise UserError(f"{self._path} has frame 0 only, not {list(frame_indices)}")
        return self._decoded()[None][places]

    def _decoded(self) -> Frames:
        if self._frame is None:
            with (
                decode_errors(self._path, *PICTURE_ERRORS),
                open_picture(self._file(), self._limit_checker) as picture,
            ):
                self._frame = decode_picture(picture, self._limit_checker)
        return self._frame

    def _file(self) -> str | io.BytesIO:
        return self._path if self._content is None else io.BytesIO(self._content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._frame = None


class ImageFolderReader:
    """Read a folder of numbered pictures, one per frame, in numeric order (`frame_names`)."""

    codec, fps = "pictures", IMAGE_FPS

    def __init__(self, path: str, decode_limits: DecodeLimits) -> None:
        self._path, self._limit_checker = path, LimitChecker(path, decode_limits)
        place = frame_place(path) or FramePlace(path)
        self._folder = place.folder
        with decode_errors(path, OSError):
            names = os.listdir(self._folder)
        try:
            self._names = choose_frames(names, place)
        except ValueError as error:
            raise VideoDecodeError(path, str(error)) from None

    @property
    def num_frames(self) -> int:
        return len(self._names)

    @property
    def clock(self) -> FrameClock:
        return FrameClock(num_frames=self.num_frames, fps=self.fps)

    @property
    def size(self) -> tuple[int, int]:
        height, width = self._read_picture(0).shape[:2]
        return height, width

    def read(self, frame_indices: FrameIndices) -> Frames:
        wanted, places = unique_in_order(frame_indices)
        first = self._read_picture(int(wanted[0]))
        self._limit_checker.check_room(len(wanted), *first.shape[:2])
        with decode_errors(self._path):  # where there is no room after all
            frames = np.empty((len(wanted), *first.shape), np.uint8)
        frames[0] = first
        for place, index in enumerate(wanted[1:].tolist(), 1):
            frame = self._read_picture(index)
            if frame.shape != first.shape:
                raise VideoDecodeError(self._path, "its pictures differ in size")
            frames[place] = frame
        return frames if np.array_equal(places, np.arange(len(wanted))) else frames[places]

    def _read_picture(self, index: int) -> Frames:
        name = self._names[index]
        path = os.path.join(self._folder, name)
        try:
            check_regular(path)
            with open_picture(path, self._limit_checker) as picture:
                return decode_picture(picture, self._limit_checker)
        except PICTURE_ERRORS as error:
            reason = NO_MEMORY if isinstance(error, MEMORY_ERRORS) else first_line(error)
            raise VideoDecodeError(self._path, f"{name}: {reason}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass
