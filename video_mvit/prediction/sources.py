"""Videos that are not files of this machine: addresses, bytes, open files and arrays of frames.

Each becomes a temporary file, so that all of them are read, limited and refused as files are. An
address is fetched only where a person names it: lists of videos hold paths.
"""

import contextlib
import glob
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias
from urllib.parse import unquote, urlsplit

import av
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from video_mvit.data.reading.images import is_picture
from video_mvit.data.reading.reader import Frames
from video_mvit.data.reading.remote import fetch, is_address
from video_mvit.data.reading.tar_members import is_member
from video_mvit.errors import MissingFileError, UserError

VideoSource: TypeAlias = str | Path | bytes | BinaryIO | NDArray[Any] | Tensor

EXPECTED = (
    "a path, an address, bytes, a file opened for reading bytes, or frames (T, H, W, 3) of uint8 "
    "with fps="
)
PICTURE_STARTS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png"}
LARGEST = 2**36  # bytes of an open file or an address
CHUNK = 2**20
LONGEST_NAME = 100  # characters that a temporary file keeps of a name
NO_CAMERA = "cameras are not read; record a file, for example with ffmpeg, and name that"


class LocalFile(NamedTuple):
    """A path that can be opened, and what to call it."""

    path: str
    name: str


@contextlib.contextmanager
def local_files(
    sources: Sequence[VideoSource], fps: float | None = None
) -> Iterator[list[LocalFile]]:
    """Provide a file for each source during the block, in order.

    Args:
        fps: frames per second of sources that are arrays.

    Raises:
        UserError, FileNotFoundError: for the first source that is none, by its type alone.
    """
    with tempfile.TemporaryDirectory(prefix="video_mvit_") as folder:
        yield [
            LocalFile(*_local_file(source, fps, Path(folder, str(number))))
            for number, source in enumerate(sources)
        ]


@contextlib.contextmanager
def fetched(places: Sequence[str]) -> Iterator[list[LocalFile]]:
    """Fetch the addresses among paths for the block; -> a file for each place, in order."""
    addresses = [place for place in places if is_address(place)]
    with local_files(addresses) as files:
        local = {file.name: file for file in files}
        yield [local.get(place, LocalFile(place, place)) for place in places]


def local_path(address: str) -> str:
    """Return the path that a `file://` address stands for."""
    path = address.partition("://")[2]
    path = path[len("localhost") :] if path.startswith("localhost/") else path
    return path if os.path.lexists(path) else unquote(path)


def is_camera(name: str) -> bool:
    """Return whether a name is the number or the device of a camera, as other programs take it."""
    return name.isdecimal() or name.startswith("/dev/video")


def _local_file(source: Any, fps: float | None, folder: Path) -> tuple[str, str]:
    if isinstance(source, np.ndarray | Tensor):
        return _write_frames(_frames_of(source), _rate_of(fps), folder), "<array>"
    if fps is not None:
        raise UserError("fps is the rate of an array of frames; a file has its own")
    if isinstance(source, str | os.PathLike):
        return _path_of(os.fspath(source), folder)
    if isinstance(source, bytes | bytearray | memoryview):
        return _write_bytes(source, folder), "<bytes>"
    if hasattr(source, "read"):
        name = getattr(source, "name", None)
        return _copy_file(source, folder), name if isinstance(name, str) else "<file object>"
    if isinstance(source, int) and not isinstance(source, bool):
        raise UserError(f"video is the number {source}: {NO_CAMERA}")
    raise UserError(f"video is of type {type(source).__name__}, expected {EXPECTED}")


def _path_of(name: str | bytes, folder: Path) -> tuple[str, str]:
    name = os.fsdecode(name)
    if not name:
        raise UserError(f"video is an empty text, expected {EXPECTED}")
    if is_member(name):
        return name, name
    if is_address(name):
        if name.startswith("file://"):
            return local_path(name), name
        folder.mkdir()
        target = folder / _file_name(name)
        fetch(name, target, LARGEST)
        return str(target), name
    path = name if os.path.lexists(name) else os.path.expanduser(name)
    if not os.path.exists(path):
        hint = f"; {NO_CAMERA}" if is_camera(name) else ""
        hint = (
            "; for a pattern, pass find_videos(pattern) of video_mvit.prediction.inputs"
            if glob.has_magic(name)
            else hint
        )
        raise MissingFileError(f"no file or folder {name}{hint}")
    if os.path.isdir(path) and not any(map(is_picture, os.listdir(path))):
        raise UserError(
            f"{name} is a folder without pictures; name a video, or a list of them such as "
            "find_videos(folder) of video_mvit.prediction.inputs"
        )
    return path, name


def _file_name(address: str) -> str:
    """Return the name of the file behind an address: its suffix tells pictures from videos."""
    name = unquote(urlsplit(address).path).rpartition("/")[2].replace("\0", "")
    stem, suffix = os.path.splitext(name)
    return f"{stem[:LONGEST_NAME]}{suffix[:10]}" if name not in ("", ".", "..") else "video"


def _write_bytes(content: bytes | bytearray | memoryview, folder: Path) -> str:
    folder.mkdir()
    start = bytes(content[:8])
    suffix = next((PICTURE_STARTS[each] for each in PICTURE_STARTS if start.startswith(each)), "")
    path = folder / f"video{suffix}"
    path.write_bytes(content)
    return str(path)


def _copy_file(file: Any, folder: Path) -> str:
    """Copy what an open file has left to read."""
    try:
        start = file.read(CHUNK)
        if not isinstance(start, bytes):
            kind = "text" if isinstance(start, str) else type(start).__name__
            raise UserError(f"the open file gives {kind}, expected bytes: open it with mode 'rb'")
        if not start:
            raise UserError(
                "the open file has nothing left to read; file.seek(0) goes to its start"
            )
        path, size = _write_bytes(start, folder), len(start)
        with open(path, "ab") as copy:
            while chunk := file.read(CHUNK):
                copy.write(chunk)
                size += len(chunk)
                if size > LARGEST:
                    raise UserError(f"the open file gives more than {LARGEST:,} bytes")
    except UserError:
        raise
    except (OSError, ValueError) as error:  # closed, or open for writing
        raise UserError(f"the open file cannot be read: {error}") from None
    return path


def _frames_of(array: NDArray[Any] | Tensor) -> Frames:
    """Return frames (T, H, W, 3) uint8; raises `UserError` for an array of another kind."""
    shape, kind = tuple(array.shape), str(array.dtype).removeprefix("torch.")
    if kind != "uint8" or len(shape) != 4 or shape[3] != 3 or 0 in shape:
        shown = "x".join(map(str, shape)) or "no dimension"
        raise UserError(f"video is an array of {kind}, {shown}; expected uint8 (T, H, W, 3), RGB")
    return array.detach().cpu().numpy() if isinstance(array, Tensor) else array


def _rate_of(fps: Any) -> Fraction:
    is_number = isinstance(fps, int | float) and not isinstance(fps, bool)
    if not is_number or not math.isfinite(fps) or fps <= 0:
        given = "is not given" if fps is None else f"is {fps!r}" if is_number else "is no number"
        raise UserError(f"fps {given}, and an array needs its frames per second: fps=30")
    return Fraction(fps).limit_denominator(100_000)


def _write_frames(frames: Frames, rate: Fraction, folder: Path) -> str:
    """Write frames as they are, uncompressed."""
    folder.mkdir()
    path = str(folder / "frames.avi")
    try:
        with av.open(path, "w") as container:
            stream = container.add_stream("rawvideo", rate=rate)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "bgr24"
            stream.codec_context.time_base = 1 / rate
            for index, pixels in enumerate(frames):
                bgr = np.ascontiguousarray(pixels[..., ::-1])
                frame = av.VideoFrame.from_ndarray(bgr, format="bgr24")
                frame.pts, frame.time_base = index, 1 / rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (av.FFmpegError, ValueError, OverflowError) as error:
        raise UserError(f"the array cannot be used as a video: {error}") from None
    return path
