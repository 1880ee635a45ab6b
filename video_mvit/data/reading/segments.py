"""A part of a video from one time to another, named `<video>#t=<start>,<end>` (seconds).

It is read as if it were a video of its own: its first frame is the one shown at its start, and no
clip reaches beyond its end. (The form is that of Media Fragments, which browsers know.)
"""

import os
import re
from typing import NamedTuple, Self

import numpy as np

from video_mvit.data.frame_clock import FrameClock
from video_mvit.data.reading.reader import (
    FrameIndices,
    Frames,
    VideoDecodeError,
    VideoReader,
)

SECONDS = r"\d{1,6}(?:\.\d{1,6})?"
SEGMENT = re.compile(rf"(?P<whole>.+)#t=(?P<start>{SECONDS}),(?P<end>{SECONDS})", re.DOTALL)
TIME = re.compile(r"(?:(?:(\d{1,3}):)?(\d{1,2}):)?(\d{1,6}(?:\.\d{1,6})?)", re.ASCII)
SLACK_S = 1e-4  # of times that are written with few digits


class Segment(NamedTuple):
    """The path of a video, and the times of a part of it in seconds from its first frame."""

    path: str
    start_s: float
    end_s: float


def segment_at(path: str) -> Segment | None:
    """Return the part of a video that a path stands for; None for a path of another kind."""
    match = SEGMENT.fullmatch(path)
    if match is None or os.path.exists(path):
        return None
    return Segment(match["whole"], float(match["start"]), float(match["end"]))


def seconds_of(text: str) -> float | None:
    """Return a time that is written in seconds, as m:ss or as h:mm:ss; None for other text."""
    match = TIME.fullmatch(text)
    if match is None:
        return None
    hours, minutes, seconds = match.groups(default="0")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def segment_suffix(start: str, end: str) -> str | None:
    """Return what names a part of a video, added to its path; None for times that are none."""
    start_s, end_s = seconds_of(start), seconds_of(end)
    if start_s is None or end_s is None or not start_s < end_s:
        return None
    return f"#t={_plain(start_s)},{_plain(end_s)}"


def _plain(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


class SegmentReader:
    """The frames of a part of an open video; closes it."""

    def __init__(self, video: VideoReader, segment: Segment) -> None:
        """Raise `VideoDecodeError` where the video ends before the part begins."""
        clock = video.clock
        if segment.start_s >= clock.duration_s:
            raise VideoDecodeError(
                segment.path,
                f"the segment from {segment.start_s:g} to {segment.end_s:g} s begins after the "
                f"end of the video at {clock.duration_s:.6g} s",
            )
        instants_s = np.array([segment.start_s + SLACK_S, segment.end_s - SLACK_S])
        first, last = clock.frames_at(instants_s).tolist()
        self._video, self._first, self.codec = video, first, video.codec
        times_s = None
        if clock.times_s is not None:
            times_s = clock.times_s[first : last + 2] - clock.times_s[first]
        self.clock = FrameClock(num_frames=max(last + 1 - first, 1), fps=clock.fps, times_s=times_s)

    @property
    def num_frames(self) -> int:
        return self.clock.num_frames

    @property
    def fps(self) -> float:
        return self.clock.fps

    @property
    def size(self) -> tuple[int, int]:
        return self._video.size

    def read(self, frame_indices: FrameIndices) -> Frames:
        """Read frames of the part in the given order: -> (T, H, W, 3) uint8 RGB."""
        return self._video.read(np.asarray(frame_indices, np.int64) + self._first)

    def __enter__(self) -> Self:
        self._video.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._video.__exit__(*exception)
