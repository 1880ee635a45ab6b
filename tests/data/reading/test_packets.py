"""Which packets are decoded for which frames, on tables small enough to check by hand."""

import numpy as np
import pytest

from video_mvit.data.reading.packets import (
    NO_PTS,
    PacketTable,
    Segment,
    can_reach,
    h264_entry,
    h264_length_size,
    plan_segments,
    plan_windows,
    shown_packets,
)


def table(pts: list[int], entries: list[int]) -> PacketTable:
    is_entry = np.isin(np.arange(len(pts)), entries)
    shown = np.ones(len(pts), bool)
    return PacketTable(pts=np.array(pts), is_entry=is_entry, is_reset=is_entry, is_shown=shown)


# I P B B, twice; the second I (packet 4) is an open one: packets 5 and 6 are shown before it.
OPEN = table([0, 3, 1, 2, 6, 4, 5, 9, 7, 8], [0, 4])


def test_frames_are_in_the_order_of_their_times() -> None:
    assert OPEN.frame_packets().tolist() == [0, 2, 3, 1, 5, 6, 4, 8, 9, 7]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([0], [(0, 1)]),
        ([2], [(0, 3)]),
        ([4], [(4, 5)]),
        ([9], [(4, 10)]),
        ([5], [(0, 6)]),  # shown before the key frame: needs the group before
        ([1, 8], [(0, 2), (4, 9)]),  # nothing between is decoded
        ([5, 8], [(0, 9)]),  # the first segment reaches into the second
        ([9, 0, 4], [(0, 1), (4, 10)]),
    ],
)
def test_fewest_packets_are_planned(wanted: list[int], expected: list[tuple[int, int]]) -> None:
    assert plan_segments(OPEN, np.array(wanted)) == [Segment(*pair) for pair in expected]


def test_a_frame_shown_before_the_first_entry_cannot_be_reached() -> None:
    late = table(OPEN.pts.tolist(), [4])
    frames = {int(packet): frame for frame, packet in enumerate(late.frame_packets())}
    assert can_reach(late, np.array([frames[4], frames[9]]))
    assert not can_reach(late, np.array([frames[4], frames[5]]))  # 5 is decoded later, shown before
    assert not can_reach(late, np.array([frames[1]]))


def test_without_an_entry_decoding_starts_at_the_first_packet() -> None:
    assert plan_segments(table([0, 1, 2], []), np.array([2])) == [Segment(0, 3)]


def test_what_a_cut_stream_cannot_decode_is_not_shown() -> None:
    pts = np.array([1, 2, 6, 4, 5, 9, NO_PTS])
    is_key = np.array([False, False, True, False, False, False, False])
    shown = shown_packets(pts, is_key, np.array([], np.int64))
    assert shown.tolist() == [False, False, True, False, False, True, True]
    assert shown_packets(pts, is_key, np.array([5])).sum() == 2
    assert shown_packets(pts, is_key & False, np.array([], np.int64)).all()


def test_times_must_tell_frames_apart() -> None:
    assert OPEN.is_timed
    assert not table([0, 1, 1], [0]).is_timed
    assert not table([0, NO_PTS], [0]).is_timed


def test_windows_of_a_long_video_start_at_key_packets_well_before() -> None:
    keys, before = np.arange(0, 1000, 50), np.arange(1001)
    windows = plan_windows(np.array([0, 60, 70, 500, 999]), keys, before)
    assert [(tuple(segment), frames.tolist()) for segment, frames in windows] == [
        ((0, 103), [0, 60, 70]),
        ((450, 533), [500]),
        ((950, 1000), [999]),
    ]


IDR, NON_IDR = b"\x65\x88", b"\x41\x9a"
RECOVERY, LATE_RECOVERY = b"\x06\x06\x01\x80\x80", b"\x06\x06\x01\x44\x80"


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ([IDR], (True, True)),
        ([RECOVERY, NON_IDR], (True, False)),
        ([LATE_RECOVERY, NON_IDR], (False, False)),
        ([NON_IDR], (False, False)),
        ([b"\x06\x05\x01\x00" + RECOVERY[1:], NON_IDR], (True, False)),  # after another message
        ([], (False, False)),
    ],
)
def test_entries_are_read_off_the_units(units: list[bytes], expected: tuple[bool, bool]) -> None:
    lengths = b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)
    codes = b"".join(b"\0\0\0\1" + unit for unit in units)
    assert h264_entry(lengths, 4) == expected
    assert h264_entry(codes, None) == expected


def test_length_size_is_that_of_the_header() -> None:
    assert h264_length_size(b"\x01\x64\x00\x0d\xff\xe1") == 4
    assert h264_length_size(b"\x01\x64\x00\x0d\xfd\xe1") == 2
    assert h264_length_size(b"\0\0\0\1\x67\x64") is None
    assert h264_length_size(None) is None
