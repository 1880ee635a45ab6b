"""Read when the frames of an MP4 are shown from its index, so that a long file is not demuxed.

FFmpeg's own index has the times of decoding only.
"""

import io
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from video_mvit.data.reading.mp4_index import MAX_BOXES, MAX_HEADER, Box, read_box
from video_mvit.data.reading.packets import Indices

INDEX, TRACK, TRACK_HEADER = b"moov", b"trak", b"tkhd"
SAMPLE_TABLES = (b"mdia", b"minf", b"stbl")  # one in the other
STEPS, OFFSETS = b"stts", b"ctts"


def read_composition_times(file: BinaryIO, track_id: int, dts: Indices) -> Indices | None:
    """Return when the packets of a track with these times of decoding are shown, plus a constant.

    Both are (N,), in ticks. None if the index lists other packets: FFmpeg follows edits, and may
    have taken some twice or in another order.
    """
    content = read_index(file)
    for track in _inside(content, Box(INDEX, 0, len(content)), TRACK):
        headers = _inside(content, track, TRACK_HEADER)
        if track_id in [_track_id(content, header) for header in headers]:
            return _composition_times(content, track, dts)
    return None


def read_index(file: BinaryIO) -> bytes:
    """Return the content of the index of an MP4, empty if there is none."""
    size, place = file.seek(0, io.SEEK_END), 0
    for _ in range(MAX_BOXES):
        file.seek(place)
        box = read_box(file.read(16), 0, place, size)
        if box is None:
            break
        if box.name == INDEX and box.stop - box.start <= MAX_HEADER:
            file.seek(box.start)
            return file.read(box.stop - box.start)
        place = box.stop
    return b""


def _composition_times(content: bytes, track: Box, dts: Indices) -> Indices | None:
    table: Box | None = track
    for name in SAMPLE_TABLES:
        table = next(_inside(content, table, name), None) if table else None
    if table is None:
        return None
    steps, offsets = (next(_inside(content, table, name), None) for name in (STEPS, OFFSETS))
    steps_of_each = _expand(content, steps, len(dts))
    if steps_of_each is None or not np.array_equal(np.diff(dts), steps_of_each[:-1]):
        return None
    if offsets is None:
        return dts
    offset_of_each = _expand(content, offsets, len(dts))
    return None if offset_of_each is None else dts + offset_of_each


def _inside(content: bytes, outer: Box, name: bytes) -> Iterator[Box]:
    """Yield the boxes of a name directly inside another one."""
    place = outer.start
    while (box := read_box(content, place, 0, outer.stop)) is not None:
        if box.name == name:
            yield box
        place = box.stop


def _track_id(content: bytes, header: Box) -> int:
    place = header.start + (20 if content[header.start : header.start + 1] == b"\1" else 12)
    return int.from_bytes(content[place : place + 4], "big")


def _expand(content: bytes, table: Box | None, num_packets: int) -> Indices | None:
    """Return the value of each packet of a table of (count, value); None for another number."""
    if table is None:
        return None
    rows = content[table.start + 8 : table.stop]
    runs = np.frombuffer(rows[: len(rows) // 8 * 8], ">i4").reshape(-1, 2).astype(np.int64)
    counts = runs[:, 0]
    if (counts < 0).any() or counts.sum() != num_packets:
        return None
    return np.repeat(runs[:, 1], counts)
