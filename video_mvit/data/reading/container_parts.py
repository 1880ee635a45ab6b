"""Walk through the parts of a container by their headers, to find where they must end."""

import io
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

# Boxes that may appear at the top level of an MP4 (ISO/IEC 14496-12).
MP4_BOXES = set(
    b"ftyp moov mdat moof free skip wide mfra uuid meta sidx styp ssix prft pdin".split()
)
# Top-level elements of a Matroska file, and of a segment of unknown size (RFC 9559).
EBML, SEGMENT = 0x1A45DFA3, 0x18538067
MATROSKA_ELEMENTS = {
    *(EBML, SEGMENT, 0x1F43B675, 0x114D9B74, 0x1549A966, 0x1654AE6B),
    *(0x1C53BB6B, 0x1254C367, 0x1043A770, 0x1941A469, 0xEC, 0xBF),
}
GIF_BLOCKS = b",!"  # of a picture, and of anything else
MAX_PARTS = 10_000  # a file may consist of headers only


class Part(NamedTuple):
    """A part of a container; by its header, the next one starts at byte `stop`."""

    name: bytes
    stop: int


def parts(file: BinaryIO) -> Iterator[Part]:
    """Yield the parts of an MP4, Matroska, AVI or Ogg file while they are valid."""
    file.seek(0)
    start = file.read(12)
    walk: Callable[[BinaryIO], Iterator[Part]]
    if start[4:8] in MP4_BOXES:
        walk = _mp4_boxes
    elif start[:4] == EBML.to_bytes(4, "big"):
        walk = _matroska_elements
    elif start[:4] == b"RIFF" and start[8:] == b"AVI ":
        walk = _avi_lists
    elif start[:4] == b"OggS":
        walk = _ogg_pages
    else:
        return
    for _, part in zip(range(MAX_PARTS), walk(file), strict=False):
        yield part


def _mp4_boxes(file: BinaryIO) -> Iterator[Part]:
    place = 0
    while len(header := read_at(file, place, 16)) >= 8 and header[4:8] in MP4_BOXES:
        size = int.from_bytes(header[:4], "big")
        if size == 1:  # a 64-bit size follows
            size = int.from_bytes(header[8:], "big")
        if size < 8:  # 0: up to the end of the file
            yield Part(header[4:8], place + len(header))
            return
        place += size
        yield Part(header[4:8], place)


def _matroska_elements(file: BinaryIO) -> Iterator[Part]:
    place = 0
    while len(header := read_at(file, place, 12)) == 12:
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
        place += 0 if is_segment else size  # descend into a segment


def _avi_lists(file: BinaryIO) -> Iterator[Part]:
    """Yield the lists of an AVI up to that of its frames; outer sizes are often wrong."""
    place = 12
    while len(header := read_at(file, place, 12)) == 12:
        size = int.from_bytes(header[4:8], "little")
        place += 8 + size + size % 2
        if header[:4] == b"LIST" and header[8:] == b"movi":
            if 4 < size < 2**32 - 1:  # otherwise not known while writing
                yield Part(b"movi", place)
            return
        if header[:4] not in (b"LIST", b"JUNK"):
            return


def _ogg_pages(file: BinaryIO) -> Iterator[Part]:
    place = 0
    while len(header := read_at(file, place, 27 + 255)) >= 27 and header[:4] == b"OggS":
        num_segments = header[26]
        place += 27 + num_segments + sum(header[27 : 27 + num_segments])
        yield Part(b"page", place)


def is_cut_gif(file: BinaryIO) -> bool:
    """Return whether a GIF ends within a block; one without the mark of its end may be whole."""
    file.seek(0)
    if file.read(4) != b"GIF8":
        return False
    content = b"GIF8" + file.read()
    place = 13 + _gif_colours(content, 10)
    while place < len(content) and content[place] in GIF_BLOCKS:
        is_picture = content[place : place + 1] == b","
        place += 11 + _gif_colours(content, place + 9) if is_picture else 2
        while place < len(content) and content[place]:
            place += 1 + content[place]
        if place >= len(content):
            return True
        place += 1
    return False


def _gif_colours(content: bytes, place: int) -> int:
    """Return the bytes of a colour table from the flags that announce it."""
    flags = content[place] if place < len(content) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def read_at(file: BinaryIO, place: int, size: int) -> bytes:
    """Read bytes from a place, none behind the end."""
    if place > file.seek(0, io.SEEK_END):  # offsets may be too large to seek to
        return b""
    file.seek(place)
    return file.read(size)
