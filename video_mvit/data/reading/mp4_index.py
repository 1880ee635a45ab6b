"""Count what the index of an MP4 lists, before FFmpeg builds it in memory.

A few bytes can name millions of samples: a table with one size for all, or one run of a fragment.
The boxes are walked as FFmpeg's demuxer does: it takes tables wherever they stand, sizes may be
wrong, and what it does not know it skips.
"""

import io
import struct
from collections import defaultdict
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

MAX_ENTRIES = 4_000_000  # ten hours at 60 frames a second, with sound
MAX_HEADER = 2**27  # bytes of an index
MAX_BOXES = 200_000  # of a file, those inside an index not counted
MAX_DEPTH = 10
CONTAINERS = set(
    b"moov trak mdia minf stbl edts dinf tref udta meta ilst mvex moof traf wave sinf schi iprp"
    b" jp2h".split()
)
SAMPLE_SIZES, COMPACT_SIZES, RUN = b"stsz", b"stz2", b"trun"
TIMES, FORMATS, HANDLER, CHUNKS = b"stts", b"stsd", b"hdlr", b"stsc"
CHUNK_PLACES = (b"stco", b"co64")
TABLES = {SAMPLE_SIZES, COMPACT_SIZES, RUN, TIMES, FORMATS, HANDLER, CHUNKS, *CHUNK_PLACES}
COMPRESSED = (b"cmov", b"cmvd")
NESTED = b"in a format"  # stands for a table inside of FORMATS
IS_COMPRESSED = "its index is compressed, which is not read"
# Sound without compression is read in blocks: FFmpeg lists one for each 1,024 samples of a chunk.
PCM = {
    *b"NONE twos sowt in24 in32 fl32 fl64 lpcm ipcm fpcm alaw ulaw".split(),
    b"raw ",
}
PCM_BLOCK = 1024
NUM_READ = 16  # bytes of a table that tell its length


class Box(NamedTuple):
    """A box and its content, bytes [start, stop)."""

    name: bytes
    start: int
    stop: int


Tables = dict[bytes, list[bytes]]  # contents of the tables of a track, by name


def find_excess(file: BinaryIO) -> str | None:
    """Describe an index that lists too much; None for one within bounds and for other files."""
    try:
        _check(file, file.seek(0, io.SEEK_END))
    except _ExcessError as error:
        return str(error)
    return None


class _ExcessError(Exception):
    """An index that lists too much, and how."""


def _check(file: BinaryIO, size: int) -> None:
    place = num_entries = 0
    for _ in range(MAX_BOXES):
        file.seek(place)
        if (box := read_box(file.read(16), 0, place, size)) is None:
            return
        if box.name in CONTAINERS or box.name in TABLES:
            if box.stop - box.start > MAX_HEADER:
                raise _ExcessError(f"its index has more than {MAX_HEADER:,} bytes")
            file.seek(box.start)
            num_entries += _count(box.name, file.read(box.stop - box.start), size)
            if num_entries > MAX_ENTRIES:
                raise _ExcessError(
                    f"its index lists {num_entries:,} samples, more than {MAX_ENTRIES:,}"
                )
        elif box.name in (b"free", b"hoov"):  # FFmpeg looks for an index there, too
            file.seek(box.start + 4)
            if file.read(4) in COMPRESSED:
                raise _ExcessError(IS_COMPRESSED)
        place = box.stop
    raise _ExcessError(f"it has more than {MAX_BOXES:,} parts")


def _count(name: bytes, content: bytes, file_size: int) -> int:
    """Count the samples that an index lists."""
    tracks: list[Tables] = [defaultdict(list)]
    for box in _tables(content, Box(name, 0, len(content)), 0):
        if box.name in COMPRESSED:
            raise _ExcessError(IS_COMPRESSED)
        if box.name == b"trak":
            tracks.append(defaultdict(list))
        stop = box.stop if box.name == CHUNKS else min(box.stop, box.start + NUM_READ)
        tracks[-1][box.name].append(content[box.start : stop])
    return sum(
        _count_blocks(track) if _is_pcm(track) else _count_samples(track, file_size)
        for track in tracks
    )


def _tables(content: bytes, box: Box, depth: int) -> Iterator[Box]:
    """Yield the tables below a box, and the start of each track, in their order."""
    if box.name in TABLES or box.name in COMPRESSED or box.name == b"trak":
        yield box._replace(stop=box.start) if box.name == b"trak" else box
    if box.name == FORMATS:  # may hold tables behind headers of many forms
        yield from _named_tables(content, box)
    if box.name not in CONTAINERS or depth == MAX_DEPTH:
        return
    place = box.start
    if box.name == b"meta":  # with a header of four bytes, or without one
        words = range(place, box.stop - 4, 4)
        place = next((i - 4 for i in words if content[i : i + 4] == HANDLER and i > place), place)
    while (inner := read_box(content, place, 0, box.stop)) is not None:
        yield from _tables(content, inner, depth + 1)
        place = inner.stop


def _named_tables(content: bytes, box: Box) -> Iterator[Box]:
    """Yield all that may be a table inside a box, by their names."""
    for name in (*TABLES - {FORMATS}, *COMPRESSED):
        place = content.find(name, box.start, box.stop)
        while place >= 0:
            yield Box(NESTED, place, place)
            yield Box(name, place + 4, min(place + 4 + NUM_READ, box.stop))
            place = content.find(name, place + 4, box.stop)


def read_box(content: bytes, place: int, offset: int, stop: int) -> Box | None:
    """Read the header of a box at a place of `content`, itself at `offset`; None at the end."""
    header = content[place : min(place + 16, max(stop - offset, 0))]
    if len(header) < 8:
        return None
    size, start = int.from_bytes(header[:4], "big"), 8
    if size == 1 and len(header) == 16:
        size, start = int.from_bytes(header[8:], "big"), 16
    if size == 0:
        size = stop
    if size < start:
        return None
    first = offset + place
    return Box(header[4:8], min(first + start, stop), min(first + size, stop))


def _count_samples(track: Tables, file_size: int) -> int:
    for table in track[SAMPLE_SIZES]:
        if _number(table, 4) * _number(table, 8) > file_size:
            raise _ExcessError("its index lists more than the file can hold")
    sizes = track[SAMPLE_SIZES] + track[COMPACT_SIZES]
    num_in_runs = sum(_number(table, 4) for table in track[RUN])
    return num_in_runs + sum(_number(table, 8) for table in sizes)


def _is_pcm(track: Tables) -> bool:
    """Return whether FFmpeg takes a track for uncompressed sound, with one duration of 1."""
    times, formats, handlers = track[TIMES], track[FORMATS], track[HANDLER]
    if len(times) != 1 or len(formats) != 1 or track[RUN] or track[NESTED]:
        return False
    is_sound = any(table[8:12] == b"soun" for table in handlers)
    is_other = any(table[8:12] not in (b"soun", b"url ", b"alis", b"mdir") for table in handlers)
    one_each = _number(times[0], 4) == 1 and _number(times[0], 12) == 1
    return is_sound and not is_other and one_each and formats[0][12:16] in PCM


def _count_blocks(track: Tables) -> int:
    """Count the blocks of uncompressed sound, as if all chunks were as large as the largest."""
    num_chunks = sum(_number(table, 4) for name in CHUNK_PLACES for table in track[name])
    sizes = [n for table in track[CHUNKS] for n in _chunk_sizes(table)]
    return num_chunks * -(-max(sizes, default=0) // PCM_BLOCK)


def _chunk_sizes(table: bytes) -> Iterator[int]:
    rows = table[8 : 8 + len(table[8:]) // 12 * 12]
    return (size for _, size, _ in struct.iter_unpack(">III", rows))


def _number(table: bytes, place: int) -> int:
    """Read a 32-bit number of a table, 0 behind its end."""
    return int.from_bytes(table[place : place + 4].ljust(4, b"\0"), "big")
