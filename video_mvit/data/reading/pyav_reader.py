"""The default reader: exact frames with PyAV and minimal decoding, in one thread.

A file is demuxed once, without decoding, which gives order and key frames independent of the
header. Decoding starts at the last usable key frame before a wanted frame and stops after the last
wanted one; unreferenced unwanted frames are skipped by the decoder; only wanted frames are
converted to RGB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import chain, dropwhile, islice
from typing import Any, NamedTuple, Never, Self, TypeAlias

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from video_mvit.data.frame_clock import FrameClock
from video_mvit.data.reading.composition_times import read_composition_times
from video_mvit.data.reading.containers import (
    describe_cut,
    open_bytes,
    open_container,
    shown_stream,
)
from video_mvit.data.reading.continuity import find_whole
from video_mvit.data.reading.encryption import IS_ENCRYPTED
from video_mvit.data.reading.header_index import UNKNOWN, HeaderIndex, read_header_index
from video_mvit.data.reading.joints import MAX_GAP_ELSEWHERE_S, MAX_GAP_S, Joints, find_joints
from video_mvit.data.reading.orientation import (
    Orientation,
    OrientationError,
    orientation_of,
    turn_upright,
)
from video_mvit.data.reading.packets import (
    NO_PTS,
    Indices,
    PacketTable,
    Segment,
    can_reach,
    frames_in_order,
    h264_entry,
    h264_length_size,
    plan_segments,
    plan_windows,
    shown_packets,
)
from video_mvit.data.reading.reader import (
    NO_MEMORY,
    DecodeLimits,
    FrameIndices,
    Frames,
    LimitChecker,
    VideoDecodeError,
    decode_errors,
    first_line,
    shown_size,
)
from video_mvit.data.reading.stream_clock import RAW_FORMATS, NoRateError, clock_of_stream

# Frames of these codecs carry the time of their packet; those of others are counted.
TIMED_CODECS = {"h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "ffv1", "prores"}
UNTIMED_FORMATS = {"avi", *RAW_FORMATS}  # their times are guesses
IN_MEMORY_SIZE = 2**26  # bytes; packets of larger files are read again when needed


Packet: TypeAlias = "av.Packet[av.VideoStream]"


class Window(NamedTuple):
    """Adjacent packets of a video; `first_frame` is the number of frames before them."""

    table: PacketTable
    packets: list[Packet]
    first_frame: int


# Of a packet: time of presentation, of decoding, whether it is a key frame, hidden, an entry, a
# reset (`PacketTable`).
PacketFacts: TypeAlias = tuple[int, int, bool, bool, bool, bool]


class PyAVReader:
    """Read a file, or its bytes if given; raises `VideoDecodeError`.

    A header with this `fingerprint` is believed, so that the packets need not be read (see
    `header_index`).
    """

    def __init__(
        self,
        path: str,
        decode_limits: DecodeLimits,
        *,
        content: bytes | None = None,
        num_threads: int = 1,
        fingerprint: int = UNKNOWN,
    ) -> None:
        self._path, self._content, self._num_threads = path, content, num_threads
        self._limit_checker, self._converter = LimitChecker(path, decode_limits), VideoReformatter()
        self._failure: str | None = None
        self._orientation: Orientation | None = None
        self._container, self._stream = self._open()
        try:
            self.codec = self._stream.codec_context.codec.canonical_name
            self._is_long = self._container.size > IN_MEMORY_SIZE
            self._packets: list[Packet] = []  # all packets, unless they are fetched when needed
            self._is_vouched = False  # the header is believed
            self._joints = Joints(starts=(), shifts=np.zeros(0, np.int64))
            self._whole: set[int] = set()  # packets that are marked, but not damaged
            self._last_ticks = 0  # duration of the last frame, if known
            self._dts, self._is_key, self._table = self._look_at_packets(fingerprint)
            self._has_soft_entries = bool((self._table.is_entry & ~self._table.is_reset).any())
            self._num_shown_before = np.concatenate([[0], np.cumsum(self._table.is_shown)])
            if self.num_frames == 0:
                raise VideoDecodeError(path, "no frames")
        except BaseException:
            self._container.close()
            raise

    @property
    def num_frames(self) -> int:
        return int(self._num_shown_before[-1])

    @property
    def num_key_frames(self) -> int:
        return int((self._is_key & self._table.is_shown).sum())

    @property
    def fps(self) -> float:
        return self.clock.fps

    @cached_property
    def clock(self) -> FrameClock:
        """Return the times of the frames."""
        name = self._container.format.name
        # In an AVI, frames are only left out, for which the times of decoding are as good.
        times = self._dts if name == "avi" else self._table.pts
        stamps = np.sort(times[self._table.is_shown])
        try:
            return clock_of_stream(self._stream, name, stamps, self._last_ticks)
        except NoRateError as error:
            raise VideoDecodeError(self._path, str(error)) from None

    @property
    def size(self) -> tuple[int, int]:
        return shown_size(self)

    @property
    def container_name(self) -> str:
        """Return the container, as FFmpeg calls it."""
        return self._container.format.name

    @property
    def num_video_streams(self) -> int:
        """Return the number of videos and cover pictures in the file."""
        return len(self._container.streams.video)

    @property
    def is_simple(self) -> bool:
        """Return whether each frame has a time of its own, and each key frame starts anew.

        Not known of a long video, for which False is returned.
        """
        resets = self._table.is_reset
        return self._is_timed and not self._is_long and np.array_equal(self._is_key, resets)

    def read(self, frame_indices: FrameIndices) -> Frames:
        wanted, places = frames_in_order(frame_indices, self.num_frames, self._path)
        if self._failure:  # a failed decoder may conceal the same damage the next time
            raise VideoDecodeError(self._path, self._failure)
        try:
            with decode_errors(self._path):
                frames = self._read(wanted)
        except VideoDecodeError as error:
            self._failure = error.reason
            raise
        return frames if np.array_equal(places, np.arange(len(wanted))) else frames[places]

    def _read(self, wanted: Indices) -> Frames:
        """Read sorted distinct frames: -> (T, H, W, 3)."""
        frames: Frames | None = None
        for index, rgb in self._upright(self._decode_wanted(wanted)):
            if frames is None:
                self._limit_checker.check_room(len(wanted), *rgb.shape[:2])
                frames = np.empty((len(wanted), *rgb.shape), np.uint8)
            frames[np.searchsorted(wanted, index)] = rgb
        assert frames is not None
        return frames

    def read_each(self, wanted: Indices) -> Iterator[tuple[int, Frames]]:
        """Yield (frame index, frame (H, W, 3)) of sorted distinct indices, without keeping them.

        In any order, some maybe twice. Raises as `read` does.
        """
        return self._upright(self._decode_wanted(wanted))

    def read_in_order(self, wanted: Indices) -> Iterator[tuple[int, Frames]]:
        """Yield the same in order, in one pass from the first frame, for videos of any length."""
        return self._upright(self._count_from_start(wanted))

    def _upright(
        self, pictures: Iterable[tuple[int, av.VideoFrame]]
    ) -> Iterator[tuple[int, Frames]]:
        shape: tuple[int, ...] | None = None
        for index, picture in pictures:
            with decode_errors(self._path):
                rgb = self._upright_rgb(picture)
            shape = shape or rgb.shape
            if rgb.shape != shape:
                raise VideoDecodeError(self._path, "the frame size changes in the middle")
            yield index, rgb

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield all frames in presentation order, neither RGB nor upright yet."""
        for _, picture in self._count_from_start(range(self.num_frames)):
            picture.time_base = self._stream.time_base  # unknown to the decoder
            yield picture

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._packets = []
        self._container.close()

    def _open(self) -> tuple[InputContainer, av.VideoStream]:
        container = open_container(self._path, self._content, self._limit_checker.decode_limits)
        try:
            stream = shown_stream(container, self._path, self._content)
            context = stream.codec_context
            self._limit_checker.check_size(context.height, context.width)
            context.thread_type = "NONE" if self._num_threads == 1 else "AUTO"
            context.thread_count = self._num_threads
            limit = str(self._limit_checker.decode_limits.frame_pixels)
            context.options = {"err_detect": "crccheck+explode", "max_pixels": limit}
        except BaseException:
            container.close()
            raise
        return container, stream

    def _look_at_packets(self, fingerprint: int) -> tuple[Indices, NDArray[np.bool_], PacketTable]:
        """Determine decoding times, key packets, and what is known of the packets."""
        if fingerprint != UNKNOWN and not self._is_long:
            header = self._header_index()
            if header is not None and header.fingerprint() == fingerprint:
                return self._believe(header)
        index = self._stream.index_entries
        if not (self._is_long and self._stream.frames == len(index) > 0):
            return self._scan()
        # The header of an MP4 lists all packets, so that a long file need not be demuxed.
        dts = np.array([entry.timestamp for entry in index], np.int64)
        with open_bytes(self._path, self._content) as file:
            pts = read_composition_times(file, self._stream.id, dts)
        if pts is None:
            return self._scan()
        self._check_index()
        is_key = np.array([entry.is_keyframe for entry in index], bool)
        is_hidden = np.array([entry.is_discard for entry in index], bool)
        table = PacketTable(pts=pts, is_entry=is_key, is_reset=is_key, is_shown=~is_hidden)
        return dts, is_key, table

    def _header_index(self) -> HeaderIndex | None:
        if "mp4" not in self._container.format.name:
            return None
        with open_bytes(self._path, self._content) as file:
            return read_header_index(file, self._stream)

    def _believe(self, header: HeaderIndex) -> tuple[Indices, NDArray[np.bool_], PacketTable]:
        """Take the packets from the header."""
        if header.stop > self._container.size:
            raise VideoDecodeError(self._path, describe_cut(self._container.size, header.stop))
        self._is_vouched, self._last_ticks = True, header.last_ticks
        return header.dts, header.is_key, _table_of(header)

    def fingerprint(self) -> int:
        """Return the fingerprint of a header that lists what was found; `UNKNOWN` for others."""
        if self._is_vouched or not self.is_simple or self._whole:
            return UNKNOWN
        header = self._header_index()
        if header is None or header.last_ticks != self._last_ticks:
            return UNKNOWN
        table, listed = self._table, _table_of(header)
        is_right = (
            np.array_equal(self._dts, header.dts)
            and np.array_equal(table.pts, listed.pts)
            and np.array_equal(table.is_entry, listed.is_entry)
            and np.array_equal(table.is_shown, listed.is_shown)
        )
        return header.fingerprint() if is_right else UNKNOWN

    def _scan(self) -> tuple[Indices, NDArray[np.bool_], PacketTable]:
        """Demux the whole stream, and keep its packets unless they are too large."""
        facts, durations, places = [], [], []
        for packet in self._demux():
            facts.append(self._describe(packet))
            durations.append(packet.duration or 0)
            places.append((packet.pos, packet.is_corrupt))
            if not self._is_long:
                self._packets.append(packet)
        self._check_index()  # complete only now for a fragmented file
        if not facts:
            raise VideoDecodeError(self._path, "no frames")
        pts, dts, is_key, is_hidden, is_entry, is_reset = _columns(facts)
        # Recordings with clocks of their own follow each other.
        max_gap_s = MAX_GAP_S.get(self._container.format.name, MAX_GAP_ELSEWHERE_S)
        max_gap = max_gap_s / float(self._stream.time_base or 1)
        self._joints = find_joints(pts, is_key, (pts != NO_PTS) & ~is_hidden, max_gap)
        pts = np.where(pts == NO_PTS, pts, pts + self._joints.shifts)
        if self._container.format.name == "mpegts":
            with open_bytes(self._path, self._content) as file:
                self._whole = find_whole(file, self._stream.id, places, is_key)
        self._packets = list(self._on_one_clock(self._packets, 0))
        shown = shown_packets(pts, is_key, np.flatnonzero(is_hidden))
        table = PacketTable(pts=pts, is_entry=is_entry, is_reset=is_reset, is_shown=shown)
        self._last_ticks = durations[int(table.frame_packets()[-1])] if shown.any() else 0
        return dts, is_key, table

    def _on_one_clock(self, packets: Iterable[Packet], first: int) -> Iterator[Packet]:
        """Move the times of packets, from number `first` on, behind those of other recordings."""
        for number, packet in enumerate(packets, first):
            if number in self._whole:
                packet.is_corrupt = False
            if packet.pts is not None and self._joints.starts:
                packet.pts += int(self._joints.shifts[number])
            yield packet

    def _check_index(self) -> None:
        """Raise for a truncated MP4, which would be read as a shorter video."""
        size = self._container.size
        needed = max((e.pos + e.size for e in self._stream.index_entries), default=0)
        if "mp4" in self._container.format.name and needed > size:
            raise VideoDecodeError(self._path, describe_cut(size, needed))

    def _demux(self) -> Iterator[Packet]:
        """Yield packets from the current position of the container."""
        try:
            for packet in self._container.demux(self._stream):
                self._limit_checker.count_packet()
                if packet.size:
                    yield packet
        except MemoryError:
            raise VideoDecodeError(self._path, NO_MEMORY) from None
        except (av.FFmpegError, OSError) as error:
            self._limit_checker.check_time()  # FFmpeg gives up at the same limit
            raise VideoDecodeError(self._path, first_line(error)) from error
        except IndexError as error:  # PyAV only knows the streams of the header
            raise VideoDecodeError(self._path, "another stream starts in the middle") from error

    def _fetch(self, segment: Segment) -> list[Packet]:
        """Return packets [start, stop) from memory or by seeking, with a fallback to demuxing."""
        if not self._must_fetch:
            return self._packets[segment.start : segment.stop]
        expected = self._dts[segment.start : segment.stop].tolist()
        packets: list[Packet] = []
        with suppress(av.FFmpegError, OSError):  # some containers cannot seek everywhere
            self._container.seek(expected[0], stream=self._stream)
            after = dropwhile(lambda packet: packet.dts != expected[0], self._demux())
            packets = list(self._on_one_clock(islice(after, len(expected)), segment.start))
        if [packet.dts for packet in packets] != expected:
            packets = list(islice(self._read_again(), segment.start, segment.stop))
        if len(packets) < len(expected):
            raise VideoDecodeError(self._path, "it ends before its header says")
        if self._is_vouched:
            self._check_fetched(segment, packets)
        return packets

    @property
    def _must_fetch(self) -> bool:
        return self._is_long or self._is_vouched

    def _check_fetched(self, segment: Segment, packets: Sequence[Packet]) -> None:
        """Raise if packets are not those that the header lists."""
        facts = [(packet.pts, packet.is_keyframe) for packet in packets]
        pts, is_key = self._table.pts[slice(*segment)], self._is_key[slice(*segment)]
        is_reset = self._describe(packets[0])[-1]
        if facts != list(zip(pts.tolist(), is_key.tolist(), strict=True)) or is_reset != is_key[0]:
            raise VideoDecodeError(self._path, "its packets are not those that its header lists")

    def _read_again(self) -> Iterator[Packet]:
        """Yield all packets from the first one, from memory or from the file."""
        if self._must_fetch or self._joints.starts:  # a new decoder knows no later recording
            self._container.close()
            self._container, self._stream = self._open()
        return self._on_one_clock(self._demux(), 0) if self._must_fetch else iter(self._packets)

    def _describe(self, packet: Packet) -> PacketFacts:
        pts, dts, is_key = packet.pts, packet.dts, packet.is_keyframe
        is_entry = is_reset = is_key
        if is_key and self.codec == "h264":
            length_size = h264_length_size(self._stream.codec_context.extradata)
            is_entry, is_reset = h264_entry(bytes(packet), length_size)
        is_hidden = packet.is_discard  # before the start of an edit
        if self.codec == "vp8":  # may have hidden reference frames
            is_hidden = not memoryview(packet)[0] & 0x10
        return (
            NO_PTS if pts is None else pts,
            NO_PTS if dts is None else dts,
            is_key,
            is_hidden,
            is_entry,
            is_reset,
        )

    def _decode_wanted(self, wanted: Indices) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (frame index, frame) of each wanted frame, some maybe twice."""
        if not self._is_timed:
            yield from self._count_from_start(wanted)
            return
        try:
            yield from self._decode_windows(wanted, resets_only=False)
        except VideoDecodeError:
            if not self._has_soft_entries:
                raise
            # After a non-IDR entry the decoder may lack references.
            yield from self._decode_windows(wanted, resets_only=True)

    def _decode_windows(
        self, wanted: Indices, *, resets_only: bool
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        for window, inside in self._windows(wanted, resets_only=resets_only):
            targets = window.table.frame_packets()[inside - window.first_frame]
            pts = window.table.pts[targets].tolist()
            times = dict(zip(pts, inside.tolist(), strict=True))
            segments = plan_segments(window.table, targets)
            # Fetched before anything is decoded: seeking empties a decoder, which takes time.
            if self._is_vouched:
                parts = [self._fetch(segment) for segment in segments]
            else:
                parts = [window.packets[slice(*segment)] for segment in segments]
            for segment, packets in zip(segments, parts, strict=True):
                segment_pts = window.table.pts[slice(*segment)].tolist()
                for picture in self._decode_segment(packets, segment_pts, times):
                    yield times.pop(picture.pts), picture
            if times:
                self._raise_missing(min(times.values()))

    @property
    def _is_timed(self) -> bool:
        """Return whether the time of a decoded frame identifies its packet."""
        return (
            self.codec in TIMED_CODECS
            and self._container.format.name not in UNTIMED_FORMATS
            and not self._joints.starts  # each may need other headers, which came before it
            and self._table.is_timed
        )

    def _windows(self, wanted: Indices, *, resets_only: bool) -> Iterator[tuple[Window, Indices]]:
        """Yield windows of packets with the wanted frames inside; one unless the video is long."""
        if not self._is_long:
            table = self._table.with_resets_only() if resets_only else self._table
            yield Window(table, self._packets, 0), wanted
            return
        keys = np.flatnonzero(self._is_key)
        for segment, inside in plan_windows(wanted, keys, self._num_shown_before):
            window = self._load(segment, resets_only=resets_only)
            while window.first_frame and not can_reach(window.table, inside - window.first_frame):
                earlier = keys[keys < segment.start]
                segment = Segment(int(earlier[-1]) if len(earlier) else 0, segment.stop)
                window = self._load(segment, resets_only=resets_only)
            yield window, inside

    def _load(self, segment: Segment, *, resets_only: bool) -> Window:
        packets = self._fetch(segment)
        pts, _, _, _, is_entry, is_reset = _columns([self._describe(p) for p in packets])
        table = PacketTable(
            pts=pts,
            is_entry=is_reset if resets_only else is_entry,
            is_reset=is_reset,
            is_shown=self._table.is_shown[segment.start : segment.stop],
        )
        self._has_soft_entries |= bool((is_entry & ~is_reset).any())
        if not table.is_timed:
            raise VideoDecodeError(self._path, "its frames have no times, and it is too long")
        return Window(table, packets, int(self._num_shown_before[segment.start]))

    def _decode_segment(
        self, packets: Sequence[Packet], pts: Sequence[int], times: Mapping[int, int]
    ) -> Iterator[av.VideoFrame]:
        """Decode packets that start at a key frame, and yield the frames of the wanted times."""
        context = self._stream.codec_context  # of a container that fetching may have opened again
        context.flush_buffers()
        for packet, time in chain(zip(packets, pts, strict=True), [(None, pts[0])]):
            context.skip_frame = "DEFAULT" if time in times else "NONREF"
            # Frames shown before the first key frame reference packets outside the segment.
            for picture in self._decode(packet, must_work=time >= pts[0]):
                if picture.pts is None or picture.pts >= pts[0]:
                    self._check_intact(picture)
                if picture.pts in times:
                    yield picture

    def _check_intact(self, picture: av.VideoFrame) -> None:
        if picture.is_corrupt:
            raise VideoDecodeError(self._path, "damaged: parts of a frame are missing")

    def _decode(self, packet: Packet | None, *, must_work: bool) -> list[av.VideoFrame]:
        if must_work and packet is not None and packet.is_corrupt:
            raise VideoDecodeError(self._path, "damaged: a packet is not whole")
        if packet is not None and packet.has_sidedata("encryption_info"):
            raise VideoDecodeError(self._path, IS_ENCRYPTED)
        try:
            with decode_errors(self._path):
                pictures = self._stream.codec_context.decode(packet)
        except (av.FFmpegError, OSError) as error:
            if not must_work:
                return []
            raise VideoDecodeError(self._path, f"damaged: {first_line(error)}") from error
        for picture in pictures:
            self._limit_checker.count_frame(picture.height, picture.width)
            self._check_orientation(picture)
        self._limit_checker.check_time()
        return pictures

    def _count_from_start(self, wanted: FrameIndices) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (frame index, frame) of sorted wanted frames, counting from the first frame."""
        remaining = deque(map(int, wanted))
        shown_pts = self._table.pts[self._table.is_shown]
        index, start = 0, int(shown_pts.min())
        packets = chain(zip(self._read_again(), self._table.is_shown, strict=False), [(None, True)])
        context = self._stream.codec_context
        context.flush_buffers()
        context.skip_frame = "DEFAULT"
        for packet, is_shown in packets:
            for picture in self._decode(packet, must_work=bool(is_shown)):
                if picture.pts is not None and picture.pts < start:
                    continue
                self._check_intact(picture)
                if index == remaining[0]:
                    yield remaining.popleft(), picture
                    if not remaining:
                        return
                index += 1
        self._raise_missing(remaining[0])

    def _upright_rgb(self, picture: av.VideoFrame) -> Frames:
        """Convert a decoded frame as a player shows it: -> (H, W, 3)."""
        # One converter for all frames: creating one costs more than converting.
        plane = self._converter.reformat(picture, format="rgb24", threads=1).planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        rgb = rows[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)
        return turn_upright(rgb, orientation_of(picture))

    def _check_orientation(self, picture: av.VideoFrame) -> None:
        """Raise for a frame that cannot be made upright, or that is turned unlike the others."""
        try:
            orientation = orientation_of(picture)
        except OrientationError as error:
            raise VideoDecodeError(self._path, str(error)) from None
        if self._orientation not in (None, orientation):
            raise VideoDecodeError(self._path, "its orientation changes in the middle")
        self._orientation = orientation

    def _raise_missing(self, frame_index: int) -> Never:
        reason = f"frame {frame_index} of {self.num_frames} cannot be decoded"
        raise VideoDecodeError(self._path, reason)


def _table_of(header: HeaderIndex) -> PacketTable:
    """Return what a header says of packets, each key frame starting anew."""
    keys = header.is_key
    return PacketTable(pts=header.pts, is_entry=keys, is_reset=keys, is_shown=~header.is_hidden)


def _columns(facts: Sequence[PacketFacts]) -> list[NDArray[Any]]:
    return [np.array(column) for column in zip(*facts, strict=True)]
