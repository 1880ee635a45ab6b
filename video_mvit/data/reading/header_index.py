"""The packets of an MP4 as its header lists them, and a number by which a scan vouches for them.

A header may list other packets than a file has, so that a short video is demuxed when it is opened.
A scan does so once and records a fingerprint of a header that was right. Whoever opens the video
later compares the fingerprint with the header of the file: a record of another file, a damaged or
an invented one is not equal, and the video is demuxed as without it.
"""

import hashlib
from dataclasses import dataclass
from typing import BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from video_mvit.data.reading.composition_times import read_composition_times, read_index
from video_mvit.data.reading.packets import Indices, PacketTable

MAX_FINGERPRINT = 2**63 - 1
UNKNOWN = 0  # the fingerprint of a header that nothing vouches for
KEY_FRAMES = b"stss"  # the table of them, which is absent where all frames are


@dataclass(frozen=True, kw_only=True, eq=False)
class HeaderIndex:
    """Packets as listed, (N,) each, in decoding order; times in ticks, places in bytes.

    `last_ticks` is the duration of the frame that is shown last.
    """

    dts: Indices
    pts: Indices
    is_key: NDArray[np.bool_]
    is_hidden: NDArray[np.bool_]
    places: Indices
    sizes: Indices
    last_ticks: int

    @property
    def stop(self) -> int:
        """Return the size that the file must have."""
        return int((self.places + self.sizes).max())

    def table(self) -> PacketTable:
        """Return what the header says of the packets, each key frame starting anew."""
        keys, is_shown = self.is_key, ~self.is_hidden
        return PacketTable(pts=self.pts, is_entry=keys, is_reset=keys, is_shown=is_shown)

    def lists(self, dts: Indices, table: PacketTable, last_ticks: int) -> bool:
        """Return whether these are the packets that the header lists."""
        listed = self.table()
        pairs = (
            (dts, self.dts),
            (table.pts, listed.pts),
            (table.is_entry, listed.is_entry),
            (table.is_shown, listed.is_shown),
        )
        return last_ticks == self.last_ticks and all(np.array_equal(*pair) for pair in pairs)

    def fingerprint(self) -> int:
        """Return a number from 1 to 2**63 - 1 that tells headers of different files apart."""
        digest = hashlib.blake2b(digest_size=8)
        for column in (self.dts, self.pts, self.places, self.sizes):
            digest.update(column.astype("<i8").tobytes())
        digest.update(np.stack([self.is_key, self.is_hidden]).tobytes())
        digest.update(self.last_ticks.to_bytes(8, "little", signed=True))
        return max(int.from_bytes(digest.digest(), "little") & MAX_FINGERPRINT, UNKNOWN + 1)


def lists_key_frames_only(file: BinaryIO) -> bool:
    """Return whether an MP4 says of all frames that they are key frames."""
    content = read_index(file)
    return bool(content) and KEY_FRAMES not in content


def read_header_index(file: BinaryIO, stream: av.VideoStream) -> HeaderIndex | None:
    """Read the index of a stream of an open MP4; None if its header does not list all packets."""
    entries = stream.index_entries
    if not stream.frames == len(entries) > 1:
        return None
    facts = [(e.timestamp, e.pos, e.size, e.is_keyframe, e.is_discard) for e in entries]
    dts, places, sizes, is_key, is_hidden = np.array(facts, np.int64).T
    pts = read_composition_times(file, stream.id, dts)
    if pts is None or is_hidden.all():
        return None
    shown = is_hidden == 0
    if stream.start_time is not None:  # edits move all times alike
        pts = pts + stream.start_time - pts[shown].min()
    durations = np.diff(dts, append=2 * dts[-1] - dts[-2])
    return HeaderIndex(
        dts=dts,
        pts=pts,
        is_key=is_key.astype(bool),
        is_hidden=is_hidden.astype(bool),
        places=places,
        sizes=sizes,
        last_ticks=int(durations[shown][np.argmax(pts[shown])]),
    )


def read_packet_list(
    file: BinaryIO, stream: av.VideoStream
) -> tuple[Indices, NDArray[np.bool_], PacketTable] | None:
    """Read decoding times, key frames and table of the packets that an MP4 lists, if it lists all.

    Times of presentation are up to a constant.
    """
    entries = stream.index_entries
    if not stream.frames == len(entries) > 0:
        return None
    dts = np.array([entry.timestamp for entry in entries], np.int64)
    pts = read_composition_times(file, stream.id, dts)
    if pts is None:
        return None
    is_key = np.array([entry.is_keyframe for entry in entries], bool)
    is_hidden = np.array([entry.is_discard for entry in entries], bool)
    table = PacketTable(pts=pts, is_entry=is_key, is_reset=is_key, is_shown=~is_hidden)
    return dts, is_key, table
