"""The packets of an open video: their order and times, and fetching them, without decoding.

A file is demuxed once, which gives order and key frames independent of the header. The header is
believed for a long file, and for one whose header something vouches for (`header_index`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import dropwhile, islice
from typing import Self, TypeAlias

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from video_mvit.data.frame_clock import FrameClock
from video_mvit.data.reading.containers import (
    Source,
    describe_cut,
    open_bytes,
    open_container,
    shown_stream,
)
from video_mvit.data.reading.continuity import find_whole
from video_mvit.data.reading.header_index import (
    UNKNOWN,
    HeaderIndex,
    lists_key_frames_only,
    read_header_index,
    read_packet_list,
)
from video_mvit.data.reading.joints import MAX_GAP_ELSEWHERE_S, MAX_GAP_S, Joints, find_joints
from video_mvit.data.reading.packets import (
    NO_PTS,
    Indices,
    PacketFacts,
    PacketTable,
    Segment,
    columns,
    h264_entry,
    h264_length_size,
    shown_packets,
)
from video_mvit.data.reading.reader import (
    NO_MEMORY,
    LimitChecker,
    VideoDecodeError,
    decode_errors,
    first_line,
)
from video_mvit.data.reading.stream_clock import RAW_FORMATS, NoRateError, clock_of_stream

# Frames of these codecs carry the time of their packet; those of others are counted.
TIMED_CODECS = {"h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "ffv1", "prores"}
UNTIMED_FORMATS = {"avi", *RAW_FORMATS}  # their times are guesses

Packet: TypeAlias = "av.Packet[av.VideoStream]"


class PacketReader:
    """Open a file, or its bytes if given, and look at its packets; raises `VideoDecodeError`.

    Those of a file above `in_memory_size` bytes are read again when needed. A header with this
    `fingerprint` is believed, so that the packets need not be read (see `header_index`).
    """

    def __init__(
        self,
        path: str,
        limit_checker: LimitChecker,
        *,
        content: bytes | None,
        num_threads: int,
        fingerprint: int,
        in_memory_size: int,
    ) -> None:
        self._path, self._content, self._num_threads = path, content, num_threads
        self._limit_checker = limit_checker
        self._in_memory_size = in_memory_size
        header = self._open_by_header(fingerprint)
        if header is None:
            self._container, self._stream = self._open("frames")
        try:
            self.codec = self._stream.codec_context.codec.canonical_name
            self._is_long = self._container.size > self._in_memory_size
            self._packets: list[Packet] = []  # all packets, unless they are fetched when needed
            self._is_vouched = False  # the header is believed
            self._joints = Joints(starts=(), shifts=np.zeros(0, np.int64))
            self._whole: set[int] = set()  # packets that are marked, but not damaged
            self._last_ticks = 0  # duration of the last frame, if known
            known = self._believe(header) if header else self._look_at_packets(fingerprint)
            self._dts, self._is_key, self._table = known
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

    def fingerprint(self) -> int:
        """Return the fingerprint of a header that lists what was found; `UNKNOWN` for others."""
        if self._is_vouched or not self.is_simple or self._whole:
            return UNKNOWN
        header = self._header_index()
        if header is None or not header.lists(self._dts, self._table, self._last_ticks):
            return UNKNOWN
        return header.fingerprint()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._packets = []
        self._container.close()

    def _open_by_header(self, fingerprint: int) -> HeaderIndex | None:
        """Open an H.264 video of key frames only by its header; None if another one was scanned."""
        if fingerprint == UNKNOWN:
            return None
        with decode_errors(self._path, OSError), open_bytes(self._path, self._content) as file:
            if not lists_key_frames_only(file):
                return None
        try:
            self._container, self._stream = self._open("header")
        except VideoDecodeError:  # the first frames may say what the header does not
            return None
        try:
            is_short = self._container.size <= self._in_memory_size
            if is_short and self._stream.codec_context.name == "h264":
                header = self._header_index()
                if header and header.is_key.all() and header.fingerprint() == fingerprint:
                    return header
        except BaseException:
            self._container.close()
            raise
        self._container.close()
        return None

    def _open(self, source: Source) -> tuple[InputContainer, av.VideoStream]:
        limits = self._limit_checker.decode_limits
        container = open_container(self._path, self._content, limits, source)
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
        if not self._is_long:
            return self._scan()
        # The header of an MP4 lists all packets, so that a long file need not be demuxed.
        with open_bytes(self._path, self._content) as file:
            listed = read_packet_list(file, self._stream)
        if listed is None:
            return self._scan()
        self._check_index()
        return listed

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
        return header.dts, header.is_key, header.table()

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
        pts, dts, is_key, is_hidden, is_entry, is_reset = columns(facts)
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
            self._container, self._stream = self._open("frames")
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

    @property
    def _is_timed(self) -> bool:
        """Return whether the time of a decoded frame identifies its packet."""
        return (
            self.codec in TIMED_CODECS
            and self._container.format.name not in UNTIMED_FORMATS
            and not self._joints.starts  # each may need other headers, which came before it
            and self._table.is_timed
        )
