"""Open the container of a video, and explain why it cannot be opened or is truncated.

FFmpeg reads a truncated file as a shorter video, and reports most others as "invalid data". A few
headers are read here, never the whole file.
"""

import io
import os
import re
import stat
from typing import BinaryIO, Literal

import av
from av.container import InputContainer
from av.stream import Discard, Disposition

from video_mvit.data.reading.container_parts import MP4_BOXES, is_cut_gif, parts, read_at
from video_mvit.data.reading.encryption import (
    IS_ENCRYPTED,
    MATROSKA_KEY,
    SAMPLE_ENTRIES,
    has_encryption,
)
from video_mvit.data.reading.file_kinds import explain_no_video, picture_brand, unfinished_suffix
from video_mvit.data.reading.mp4_index import find_excess
from video_mvit.data.reading.reader import (
    NO_MEMORY,
    DecodeLimits,
    VideoDecodeError,
    decode_errors,
    first_line,
)

NOT_A_FILM = Disposition.attached_pic | Disposition.timed_thumbnails
CODECS = {b"braw": "Blackmagic RAW", b"aprn": "ProRes RAW", b"aprh": "ProRes RAW HQ"}
MAX_INDEX = 2**22  # bytes of an index that are searched for the names of codecs
SLACK = 16  # bytes; some writers count one header twice
# How files of single videos begin, other than MP4, AVI and broadcasts.
MAGIC_NUMBERS = (
    *(b"\x1aE\xdf\xa3", b"FLV", b"OggS", b"GIF8", b"0&\xb2u\x8ef\xcf\x11", b"\x06\x0e+4", b".RMF"),
    *(b"\0\0\x01", b"\0\0\0\x01", b"DKIF", b"nut/multimedia container\0"),
)
PLAYLIST_MARKS = (b"#extm3u", b"ffconcat", b"<mpd", b"<compositionplaylist", b"<smoothstreaming")
NUM_CHECKED = 2**16  # bytes; in no video are all of them text
# Containers of a single video. FFmpeg would also follow playlists and render text.
FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,flv,asf,ogg,rm,gif,apng,h264,hevc,ivf,obu,nut,mxf,"
    "dv"
)

# What a container is asked for: what its header says, or also what FFmpeg finds by decoding the
# first frames, which takes most of the time of opening a small one.
Source = Literal["header", "frames"]
HEADER_ONLY = {"codec_whitelist": "none", "probesize": "32", "fpsprobesize": "0"}


def open_container(
    path: str,
    content: bytes | None,
    decode_limits: DecodeLimits,
    source: Source = "frames",
) -> InputContainer:
    """Open for reading; raises `VideoDecodeError`.

    From the "header" alone, pixel format and the number of frames that a decoder holds back are not
    known: for a video whose frames are all key frames, which has none.
    """
    options = {"format_whitelist": FORMATS, "max_pixels": str(decode_limits.frame_pixels)}
    options |= HEADER_ONLY if source == "header" else {}
    try:
        with open_bytes(path, content) as file:
            reason = find_excess(file) or _find_picture(file)
            if not reason and has_encryption(file):
                reason = IS_ENCRYPTED
        if reason:
            raise VideoDecodeError(path, reason)
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
        is_other_format = isinstance(error, av.ArgumentError)  # one that FORMATS lacks
        complaint = None if is_other_format else first_line(error)
        raise VideoDecodeError(path, explain_refusal(path, content, complaint)) from error
    except MemoryError:
        raise VideoDecodeError(path, NO_MEMORY) from None
    has_index = "mp4" in container.format.name and any(s.frames for s in container.streams.video)
    # A missing index is detected more precisely once the stream is known.
    if not has_index and (reason := find_cut(path, content)):
        container.close()
        raise VideoDecodeError(path, _with_suffix(path, reason))
    return container


def check_for_other_library(path: str, content: bytes | None, decode_limits: DecodeLimits) -> None:
    """Check a file before another library than PyAV opens it; raises `VideoDecodeError`.

    Other libraries open whatever FFmpeg knows, playlists that lead to other files included. What
    passes is a video for us, and begins like no format of text.
    """
    open_container(path, content, decode_limits).close()
    with decode_errors(path, OSError), open_bytes(path, content) as file:
        start = file.read(NUM_CHECKED)
    words, nul, _ = start.lower().partition(b"\0")
    if not _begins_like_video(start) or not nul or any(mark in words for mark in PLAYLIST_MARKS):
        raise VideoDecodeError(path, "a format that only the reader 'pyav' opens")


def _begins_like_video(start: bytes) -> bool:
    is_stream = any(start[i : i + 1] == b"G" == start[i + 188 : i + 189] for i in (0, 4))
    is_avi = start[:4] == b"RIFF" and start[8:11] == b"AVI"
    return start[4:8] in MP4_BOXES or is_avi or is_stream or start.startswith(MAGIC_NUMBERS)


def shown_stream(
    container: InputContainer, path: str, content: bytes | None = None
) -> av.VideoStream:
    """Select the stream that a player shows; all others are not read."""
    films = [s for s in container.streams.video if not s.disposition & NOT_A_FILM]
    if not films:
        raise VideoDecodeError(path, _describe_streams(container))
    best = container.streams.best("video")
    stream = next((s for s in films if s.index == getattr(best, "index", None)), films[0])
    if MATROSKA_KEY in stream.metadata:
        raise VideoDecodeError(path, IS_ENCRYPTED)
    if stream.codec_context is None:
        raise VideoDecodeError(path, _explain_codec(path, content))
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    return stream


def _describe_streams(container: InputContainer) -> str:
    """Describe what is in a container without a film."""
    kinds = {stream.type for stream in container.streams}
    if "audio" in kinds:
        return "audio with a cover picture, no video" if "video" in kinds else "audio, no video"
    if "video" in kinds:
        return "a cover picture, no video"
    return "subtitles, no video" if "subtitle" in kinds else "no video stream"


def _explain_codec(path: str, content: bytes | None) -> str:
    """Explain why there is no decoder; the name of a codec stands in the index of an MP4."""
    with decode_errors(path, OSError), open_bytes(path, content) as file:
        names = _sample_entries(file)
    if names & SAMPLE_ENTRIES:
        return IS_ENCRYPTED
    known = [CODECS[name] for name in names if name in CODECS]
    return f"its codec is unknown ({known[0]})" if known else "its codec is unknown"


def _sample_entries(file: BinaryIO) -> set[bytes]:
    """Return how the index of an MP4 names the codecs of its streams."""
    start, names = 0, set()
    for part in parts(file):
        if part.name == b"moov":
            index = read_at(file, start, min(part.stop - start, MAX_INDEX))
            names |= {index[m.end() + 12 : m.end() + 16] for m in re.finditer(b"stsd", index)}
        start = part.stop
    return names


def check_regular(path: str) -> None:
    """Raise `OSError` for anything but a regular file, where opening may block forever."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise OSError(f"not a file, but a {'folder' if stat.S_ISDIR(mode) else 'pipe or device'}")


def explain_refusal(path: str, content: bytes | None, complaint: str | None) -> str:
    """Explain why a file or its bytes cannot be opened.

    `complaint` is FFmpeg's; None for a format that FFmpeg knows and we do not read.
    """
    try:
        with open_bytes(path, content) as file:
            return _with_suffix(path, _explain(file, complaint))
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)


def _with_suffix(path: str, reason: str) -> str:
    suffix = unfinished_suffix(path)
    return f"an unfinished download ({suffix}): {reason}" if suffix else reason


def find_cut(path: str, content: bytes | None) -> str | None:
    """Describe a file that is shorter than its headers say; None otherwise."""
    try:
        with open_bytes(path, content) as file:
            return _find_cut(file)
    except OSError as error:
        return error.strerror or str(error)


def describe_cut(size: int, promised: int) -> str:
    """Describe a truncated file."""
    return f"truncated: {size} of {promised} bytes are there"


def promised_size(file: BinaryIO) -> int | None:
    """Return the size that a file must have by its headers; None if they do not tell.

    The media data of an MP4 does not count: its index says which bytes of it are needed.
    """
    stops = [part.stop for part in parts(file) if part.name != b"mdat"]
    return max(stops, default=None)


def open_bytes(path: str, content: bytes | None) -> BinaryIO:
    """Open a file, or its bytes if given; raises `OSError`."""
    if content is not None:
        return io.BytesIO(content)
    check_regular(path)
    return open(path, "rb")


def _find_cut(file: BinaryIO) -> str | None:
    if is_cut_gif(file):
        return "truncated: it ends within a frame"
    size, promised = file.seek(0, io.SEEK_END), promised_size(file)
    if promised is None or promised <= size + SLACK:
        return None
    return describe_cut(size, promised)


def _explain(file: BinaryIO, complaint: str | None) -> str:
    if kind := explain_no_video(file):
        return kind
    names = [part.name for part in parts(file)]
    if names and names[0] in MP4_BOXES and b"moov" not in names:
        if b"moof" in names:
            return "a segment of a stream, without the header (moov) of its start"
        return "no index (moov): the file was cut off, or is still being written"
    if reason := _find_cut(file):
        return reason
    if _sample_entries(file) & SAMPLE_ENTRIES:
        return IS_ENCRYPTED
    if complaint is None and not names:
        return "damaged, or a format that is not read; convert it to MP4"
    return f"damaged, or no video in a known format: {complaint or 'it is not as it should be'}"


def _find_picture(file: BinaryIO) -> str | None:
    """Describe a picture that FFmpeg reads as a video, or as its tiles; None for a film."""
    kind = picture_brand(read_at(file, 0, 12))
    if kind is None or any(part.name == b"moov" for part in parts(file)):
        return None
    return f"{kind}, not a video"
