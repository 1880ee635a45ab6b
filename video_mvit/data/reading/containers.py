"""Opening the container of a video, and what its headers say: is it one, is all of it there?

FFmpeg reads a file that was cut off as a shorter video, and says of most others "invalid data".
Here a few headers are looked at, never the whole file.
"""

import io
import os
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import av
from av.container import InputContainer
from av.stream import Discard

from video_mvit.data.reading.reader import DecodeLimits, VideoDecodeError, first_line

# Boxes of an MP4 that may lie beside each other at its top (ISO/IEC 14496-12).
MP4_BOXES = set(
    b"ftyp moov mdat moof free skip wide mfra uuid meta sidx styp ssix prft pdin".split()
)
# Elements of a Matroska file at its top, and inside a segment of unknown size (RFC 9559).
EBML, SEGMENT = 0x1A45DFA3, 0x18538067
MATROSKA_ELEMENTS = {
    *(EBML, SEGMENT, 0x1F43B675, 0x114D9B74, 0x1549A966, 0x1654AE6B),
    *(0x1C53BB6B, 0x1254C367, 0x1043A770, 0x1941A469, 0xEC, 0xBF),
}
SLACK = 16  # bytes; some writers count a header too many
MAX_PARTS = 10_000  # looked at; a file may consist of nothing but headers
TEXT_LENGTH = 24  # characters quoted
# Containers of one video. FFmpeg would also follow playlists and read text as pictures.
FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,flv,asf,ogg,rm,gif,h264,hevc,ivf,obu,nut,mxf,dv"
)


class Part(NamedTuple):
    """A part of a container; the next one starts at byte `stop`, by what its header says."""

    name: bytes
    stop: int


def open_container(path: str, content: bytes | None, decode_limits: DecodeLimits) -> InputContainer:
    """Open for reading; raises `VideoDecodeError`."""
    options = {"format_whitelist": FORMATS, "max_pixels": str(decode_limits.frame_pixels)}
    try:
        if content is None:
            check_regular(path)
        container = av.open(
            f"file:{path}" if content is None else io.BytesIO(content),
            "r",
            options=options,
            timeout=decode_limits.time_s,
            metadata_errors="replace",
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, av.ExitError):
            raise VideoDecodeError(path, f"took longer than {decode_limits.time_s:g} s") from error
        raise VideoDecodeError(path, explain_refusal(path, content, first_line(error))) from error
    has_index = "mp4" in container.format.name and any(s.frames for s in container.streams.video)
    # What an index lacks is seen more exactly when the stream is known.
    if not has_index and (reason := find_cut(path, content)):
        container.close()
        raise VideoDecodeError(path, reason)
    return container


def shown_stream(container: InputContainer, path: str) -> av.VideoStream:
    """The stream that a player shows; all others are not even read."""
    best = container.streams.best("video")
    stream = next((s for s in container.streams.video if best in (None, s)), None)
    if stream is None:
        raise VideoDecodeError(path, "no video stream")
    if stream.codec_context is None:
        raise VideoDecodeError(path, "its codec is unknown")
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    return stream


def check_regular(path: str) -> None:
    """Refuse what is no file on a disk, where opening may wait for ever; raises `OSError`."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise OSError(f"not a file, but a {'folder' if stat.S_ISDIR(mode) else 'pipe or device'}")


def explain_refusal(path: str, content: bytes | None, complaint: str) -> str:
    """Why a file, or the bytes in its place, cannot be opened; `complaint` is FFmpeg's."""
    try:
        with _open_bytes(path, content) as file:
            return _explain(file, complaint)
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)


def find_cut(path: str, content: bytes | None) -> str | None:
    """What is said of a file that ends before its headers say; None where it does not."""
    try:
        with _open_bytes(path, content) as file:
            return _find_cut(file)
    except OSError as error:
        return error.strerror or str(error)


def describe_cut(size: int, promised: int) -> str:
    return f"truncated: {size} of {promised} bytes are there"


def promised_size(file: BinaryIO) -> int | None:
    """Bytes that the file must have for its frames by its headers, None where they do not say.

    Media data of an MP4 is not asked for: its index says which bytes of it are needed.
    """
    stops = [part.stop for part in parts(file) if part.name != b"mdat"]
    return max(stops, default=None)


def _open_bytes(path: str, content: bytes | None) -> BinaryIO:
    if content is not None:
        return io.BytesIO(content)
    check_regular(path)
    return open(path, "rb")


def _find_cut(file: BinaryIO) -> str | None:
    size, promised = file.seek(0, io.SEEK_END), promised_size(file)
    if promised is None or promised <= size + SLACK:
        return None
    return describe_cut(size, promised)


def _explain(file: BinaryIO, complaint: str) -> str:
    start = file.read(64)
    if not start:
        return "an empty file"
    if text := _as_text(start):
        return f"text, not a video: it begins with {text!r}"
    names = [part.name for part in parts(file)]
    if names and names[0] in MP4_BOXES and b"moov" not in names:
        return "no index (moov): the file was cut off, or is still being written"
    return _find_cut(file) or f"damaged, or no video in a known format: {complaint}"


def parts(file: BinaryIO) -> Iterator[Part]:
    """Parts of an MP4, Matroska or AVI file, as far as they make sense; of others none."""
    file.seek(0)
    start = file.read(12)
    walk: Callable[[BinaryIO], Iterator[Part]]
    if start[4:8] in MP4_BOXES:
        walk = _mp4_boxes
    elif start[:4] == EBML.to_bytes(4, "big"):
        walk = _matroska_elements
    elif start[:4] == b"RIFF" and start[8:] == b"AVI ":
        walk = _avi_lists
    else:
        return
    for _, part in zip(range(MAX_PARTS), walk(file), strict=False):
        yield part


def _mp4_boxes(file: BinaryIO) -> Iterator[Part]:
    place = 0
    while len(header := _read_at(file, place, 16)) >= 8 and header[4:8] in MP4_BOXES:
        size = int.from_bytes(header[:4], "big")
        if size == 1:  # the real size follows
            size = int.from_bytes(header[8:], "big")
        if size < 8:  # 0: it lasts to the end of the file
            yield Part(header[4:8], place + len(header))
            return
        place += size
        yield Part(header[4:8], place)


def _matroska_elements(file: BinaryIO) -> Iterator[Part]:
    place = 0
    while len(header := _read_at(file, place, 12)) == 12:
        id_length = 9 - header[0].bit_length()
        size_length = 9 - header[min(id_length, 4)].bit_length()
        name = header[:id_length]
        if size_length > 8 or int.from_bytes(name, "big") not in MATROSKA_ELEMENTS:
            return
        mask = (1 << 7 * size_length) - 1
        place += id_length + size_length
        size = int.from_bytes(header[id_length : id_length + size_length], "big") & mask
        is_known, is_segment = size < mask, int.from_bytes(name, "big") == SEGMENT
        if is_known:
            yield Part(name, place + size)
        elif not is_segment:
            return  # of unknown size, as in a live recording
        place += 0 if is_segment else size  # a segment is looked into


def _avi_lists(file: BinaryIO) -> Iterator[Part]:
    """Lists of an AVI up to the one of its frames; the sizes around it are often wrong."""
    place = 12
    while len(header := _read_at(file, place, 12)) == 12:
        size = int.from_bytes(header[4:8], "little")
        place += 8 + size + size % 2
        if header[:4] == b"LIST" and header[8:] == b"movi":
            if 4 < size < 2**32 - 1:  # not yet known while it is written
                yield Part(b"movi", place)
            return
        if header[:4] not in (b"LIST", b"JUNK"):
            return


def _read_at(file: BinaryIO, place: int, size: int) -> bytes:
    if place > file.seek(0, io.SEEK_END):  # a place may be too large to seek to
        return b""
    file.seek(place)
    return file.read(size)


def _as_text(start: bytes) -> str | None:
    """The first words of a text, None where the bytes are none."""
    text = start.decode("utf-8", "ignore")  # a character may be cut at the end
    if b"\0" in start or len(text.encode()) < len(start) - 3:
        return None
    if not all(character.isprintable() or character.isspace() for character in text):
        return None
    return " ".join(text.split())[:TEXT_LENGTH] or None
