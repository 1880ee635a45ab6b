"""The default reader: exact frames with PyAV and minimal decoding, in one thread.

Packets are known before anything is decoded (`packet_reader.py`). Decoding starts at the last
usable key frame before a wanted frame and stops after the last wanted one; unreferenced unwanted
frames are skipped by the decoder; only wanted frames are converted to RGB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple, Never

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from video_mvit.data.reading.encryption import IS_ENCRYPTED
from video_mvit.data.reading.header_index import UNKNOWN
from video_mvit.data.reading.orientation import (
    UPRIGHT,
    Orientation,
    OrientationError,
    orientation_of,
    turn_upright,
)
from video_mvit.data.reading.packet_reader import Packet, PacketReader
from video_mvit.data.reading.packets import (
    Indices,
    PacketTable,
    Segment,
    can_reach,
    columns,
    frames_in_order,
    plan_segments,
    plan_windows,
)
from video_mvit.data.reading.reader import (
    DecodeLimits,
    FrameIndices,
    Frames,
    LimitChecker,
    VideoDecodeError,
    decode_errors,
    first_line,
    shown_size,
)

IN_MEMORY_SIZE = 2**26  # bytes; packets of larger files are read again when needed


class Window(NamedTuple):
    """Adjacent packets of a video; `first_frame` is the number of frames before them."""

    table: PacketTable
    packets: list[Packet]
    first_frame: int


class PyAVReader(PacketReader):
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
        self._converter = VideoReformatter()
        self._failure: str | None = None
        self._orientation: Orientation | None = None
        super().__init__(
            path,
            LimitChecker(path, decode_limits),
            content=content,
            num_threads=num_threads,
            fingerprint=fingerprint,
            in_memory_size=IN_MEMORY_SIZE,
        )

    @property
    def size(self) -> tuple[int, int]:
        return shown_size(self)

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
        pts, _, _, _, is_entry, is_reset = columns([self._describe(p) for p in packets])
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
        """Convert a decoded frame, whose orientation was checked, as a player shows it.

        -> (H, W, 3).
        """
        # One converter for all frames: creating one costs more than converting.
        plane = self._converter.reformat(picture, format="rgb24", threads=1).planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        rgb = rows[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)
        return turn_upright(rgb, self._orientation or UPRIGHT)

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
