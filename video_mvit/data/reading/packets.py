"""Plan which packets of a video must be decoded for given frames: pure arithmetic.

Packets are in decoding order, each holds one frame; `pts` is its presentation time. Nothing here
opens a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from video_mvit.errors import UserError

Indices = NDArray[np.int64]
NO_PTS = np.iinfo(np.int64).min
MAX_REORDER = 16  # frames between decoding and presentation, at most (H.264 and HEVC)

# Of a packet: time of presentation, of decoding, whether it is a key frame, hidden, an entry, a
# reset (`PacketTable`).
PacketFacts: TypeAlias = tuple[int, int, bool, bool, bool, bool]

H264_IDR, H264_SEI, SEI_RECOVERY_POINT = 5, 6, 6


class Segment(NamedTuple):
    """Packets [start, stop) in decoding order, decoded in one go from a key frame."""

    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class PacketTable:
    """Properties of packets known without decoding, (N,) each, in decoding order.

    `is_entry`: decoding can start here, and every later frame in presentation order is exact.
    `is_reset`: an entry that discards all earlier state. `is_shown`: a player shows the frame.
    """

    pts: Indices
    is_entry: NDArray[np.bool_]
    is_reset: NDArray[np.bool_]
    is_shown: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def is_timed(self) -> bool:
        """Return whether times distinguish all frames."""
        shown = self.pts[self.is_shown]
        return bool((shown != NO_PTS).all()) and len(np.unique(shown)) == len(shown)

    def with_resets_only(self) -> Self:
        return replace(self, is_entry=self.is_reset)

    def frame_packets(self) -> Indices:
        """Return the packet of each shown frame in presentation order: (num_frames,)."""
        shown = np.flatnonzero(self.is_shown)
        return shown[np.argsort(self.pts[shown], kind="stable")]


def columns(facts: Sequence[PacketFacts]) -> list[NDArray[Any]]:
    """Return the facts of packets as arrays, (N,) each."""
    return [np.array(column) for column in zip(*facts, strict=True)]


def shown_packets(pts: Indices, is_key: NDArray[np.bool_], hidden: Indices) -> NDArray[np.bool_]:
    """Mark the packets whose frame is shown: (N,) bool.

    Not shown: `hidden` ones, and what a stream that starts in mid-sequence cannot decode: packets
    before its first key frame, and those after it that are earlier in time.
    """
    shown = np.ones(len(pts), bool)
    shown[hidden] = False
    if is_key.any():
        first = int(np.argmax(is_key))
        shown[:first] = False
        shown &= (pts >= pts[first]) | (pts == NO_PTS)
    return shown


def plan_segments(table: PacketTable, wanted: Indices) -> list[Segment]:
    """Plan the fewest packets to decode for wanted packets, given in any order.

    Each is reached from the last entry before it in decoding and presentation order; the start of
    the table is the last resort.
    """
    stops: dict[int, int] = {}
    for packet in sorted(map(int, wanted)):
        entry = last_entry(table, packet)
        stops[0 if entry is None else entry] = packet + 1
    segments: list[Segment] = []
    for start, stop in sorted(stops.items()):
        if segments and start < segments[-1].stop:
            segments[-1] = Segment(segments[-1].start, max(stop, segments[-1].stop))
        else:
            segments.append(Segment(start, stop))
    return segments


def last_entry(table: PacketTable, packet: int) -> int | None:
    """Return the last entry before a packet, in decoding and in presentation order."""
    usable = table.is_entry[: packet + 1] & (table.pts[: packet + 1] <= table.pts[packet])
    return int(np.flatnonzero(usable)[-1]) if usable.any() else None


def can_reach(table: PacketTable, frames: Indices) -> bool:
    """Return whether each frame is reachable from an entry of the table."""
    packets = table.frame_packets()[frames].tolist()
    return all(last_entry(table, packet) is not None for packet in packets)


def plan_windows(
    wanted: Indices, key_packets: Indices, num_shown_before: Indices
) -> list[tuple[Segment, Indices]]:
    """Split a long video into windows: packets [start, stop) and the wanted frames inside.

    Frame `i` is within `MAX_REORDER` packets of the `i`-th shown packet; a window starts at a key
    packet far enough before. `wanted` is sorted; `num_shown_before[p]` counts the shown packets
    before packet `p`, (num_packets + 1,).
    """
    windows: list[tuple[Segment, list[int]]] = []
    for frame in map(int, wanted):
        before = key_packets[num_shown_before[key_packets] + MAX_REORDER <= frame]
        start = int(before[-1]) if len(before) else 0
        last = min(frame + 1 + 2 * MAX_REORDER, int(num_shown_before[-1]))
        stop = int(np.searchsorted(num_shown_before, last))
        if windows and start < windows[-1][0].stop:
            windows[-1][1].append(frame)
            windows[-1] = (Segment(windows[-1][0].start, stop), windows[-1][1])
        else:
            windows.append((Segment(start, stop), [frame]))
    return [(segment, np.array(frames)) for segment, frames in windows]


def h264_entry(packet: bytes, length_size: int | None) -> tuple[bool, bool]:
    """Return whether an H.264 access unit is an entry, and whether it is a reset.

    A reset is an IDR picture; an entry is one too, or a recovery point with a frame count of zero
    (ITU-T H.264 D.2.8). `length_size` is the number of bytes before each NAL unit, None for start
    codes.
    """
    units = [unit for unit in _nal_units(packet, length_size) if unit]
    is_reset = any(unit[0] & 31 == H264_IDR for unit in units)
    recovers = any(unit[0] & 31 == H264_SEI and _recovers_at_once(unit) for unit in units)
    return is_reset or recovers, is_reset


def h264_length_size(extradata: bytes | None) -> int | None:
    """Return the bytes before each NAL unit by the stream's header, None for start codes."""
    if extradata and len(extradata) > 4 and extradata[0] == 1:
        return (extradata[4] & 3) + 1
    return None


def _nal_units(packet: bytes, length_size: int | None) -> list[bytes]:
    if length_size is None:
        return packet.split(b"\0\0\1")[1:]
    units, place = [], 0
    while place + length_size < len(packet):
        start = place + length_size
        place = start + int.from_bytes(packet[place:start], "big")
        units.append(packet[start:place])
    return units


def _recovers_at_once(unit: bytes) -> bool:
    """Return whether an SEI unit has a recovery point with a frame count, ue(v), of zero."""
    data, place = unit[1:].replace(b"\0\0\3", b"\0\0"), 0
    while place + 2 < len(data):
        kind, place = _sei_number(data, place)
        size, place = _sei_number(data, place)
        if kind == SEI_RECOVERY_POINT and place < len(data):
            return data[place] >= 0x80  # the code of zero is the single bit 1
        place += size
    return False


def _sei_number(data: bytes, place: int) -> tuple[int, int]:
    """Read a number coded as bytes of 255 plus a rest: -> number, next position."""
    number = 0
    while place < len(data) and data[place] == 255:
        number, place = number + 255, place + 1
    return (number + data[place], place + 1) if place < len(data) else (number, place)


def unique_in_order(frame_indices: Sequence[int] | Indices) -> tuple[Indices, Indices]:
    """Return sorted distinct indices, and the position of each given index among them."""
    wanted, places = np.unique(np.asarray(frame_indices, np.int64), return_inverse=True)
    return wanted, places


def frames_in_order(
    frame_indices: Sequence[int] | Indices, num_frames: int, path: str
) -> tuple[Indices, Indices]:
    """Return what `unique_in_order` does; raises `UserError` for none, or for one outside."""
    wanted, places = unique_in_order(frame_indices)
    if len(wanted) == 0 or wanted[0] < 0 or wanted[-1] >= num_frames:
        raise UserError(f"{path} has frames 0 to {num_frames - 1}, not {wanted}")
    return wanted, places
