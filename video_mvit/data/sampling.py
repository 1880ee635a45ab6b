"""Choose the frames of clips: pure arithmetic on the times of frames, no files.

Kinetics clips follow SlowFast `datasets/decoder.py` (frame rate scaled to 30 fps, ends included,
frames truncated), Something-Something clips follow `datasets/ssv2.py` (one frame from each of T
segments). They count frames, which is right at a constant rate only. Of a variable one, a clip is
T instants, each with the frame that a player shows then.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from video_mvit.data.frame_clock import FrameClock, Seconds
from video_mvit.errors import UserError

TARGET_FPS = 30.0
FrameIndices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """A clip "16x4" has 16 frames, 4 frames apart at 30 frames per second."""

    num_frames: int
    frame_stride: int

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.frame_stride < 1:
            raise UserError(
                f"num_frames {self.num_frames}, frame_stride {self.frame_stride}: must be positive"
            )

    def span(self, fps: float) -> float:
        """Return the length of the clip in frames of a video with this rate, at least 1."""
        return max(1.0, self.frame_stride * self.num_frames * fps / TARGET_FPS)

    @property
    def span_s(self) -> float:
        """Return the length of the clip in seconds."""
        return self.frame_stride * self.num_frames / TARGET_FPS

    @property
    def instants_s(self) -> Seconds:
        """Return the times of its frames from its start, (T,): a stride at 30 fps apart."""
        return np.arange(self.num_frames, dtype=np.float64) * (self.frame_stride / TARGET_FPS)


# A sampler maps the clock of a video to the frame indices of one or more clips, each (T,).
ClipSampler = Callable[[FrameClock, np.random.Generator], list[FrameIndices]]


def clip_frame_indices(
    start: float, span: float, num_frames: int, num_video_frames: int
) -> FrameIndices:
    """Return the frames of a clip from `start`: T evenly spaced positions, truncated.

    The last frame repeats if the video is too short. The spacing is (span - 1) / (T - 1), not the
    stride: 16x4 at 30 fps is 0, 4, 8, 12, 16, 21, ... 63.
    """
    steps = np.arange(num_frames) / max(num_frames - 1, 1)
    positions = start + np.round(
        (span - 1) * steps, 9
    )  # guard integers against rounding before truncation
    return np.clip(positions, 0, num_video_frames - 1).astype(np.int64)


def latest_start(clock: FrameClock, clip: ClipSpec) -> float:
    """Return the last start of a clip: in frames, or in seconds if the rate is variable."""
    if clock.is_variable:
        return max(clock.duration_s - clip.span_s, 0.0)
    return max(clock.num_frames - clip.span(clock.fps), 0.0)


def clip_frames(clock: FrameClock, clip: ClipSpec, start: float) -> FrameIndices:
    """Return the frames of a clip, (T,), that starts at `start`, in the unit of `latest_start`."""
    if clock.is_variable:
        return clock.frames_at(start + clip.instants_s)
    return clip_frame_indices(start, clip.span(clock.fps), clip.num_frames, clock.num_frames)


@dataclass(frozen=True, kw_only=True)
class RandomClip:
    """One clip at a random position (training)."""

    clip: ClipSpec

    def __call__(self, clock: FrameClock, generator: np.random.Generator) -> list[FrameIndices]:
        start = generator.uniform(0, latest_start(clock, self.clip))
        return [clip_frames(clock, self.clip, start)]


@dataclass(frozen=True, kw_only=True)
class UniformClips:
    """Evenly spaced clips from the first to the last position (testing); one is centred."""

    clip: ClipSpec
    num_clips: int = 1

    @property
    def protocol(self) -> str:
        """Describe frames, stride and placement of the clips."""
        return f"{self.clip.num_frames}x{self.clip.frame_stride} offset"

    def __post_init__(self) -> None:
        if self.num_clips < 1:
            raise UserError(f"num_clips {self.num_clips} must be positive")

    def __call__(self, clock: FrameClock, generator: np.random.Generator) -> list[FrameIndices]:
        latest = latest_start(clock, self.clip)
        if clock.is_variable:
            starts_s = (
                np.linspace(0, latest, self.num_clips) if self.num_clips > 1 else [latest / 2]
            )
            return [clip_frames(clock, self.clip, float(start_s)) for start_s in starts_s]
        starts = uniform_starts(latest, self.num_clips)
        return [clip_frames(clock, self.clip, start) for start in starts]


def uniform_starts(max_start: float, num_clips: int) -> list[int]:
    """Return starts of test clips: 0, step, 2*step, ... with an integer step; one is centred."""
    if num_clips == 1:
        return [int(max_start // 2)]
    return [i * int(max_start // (num_clips - 1)) for i in range(num_clips)]


@dataclass(frozen=True, kw_only=True)
class SegmentFrames:
    """One frame from each of T equally long segments of the video: a random or the middle one.

    Frame rate and `clip.frame_stride` are not used.
    """

    clip: ClipSpec
    at: str
    num_clips: ClassVar[int] = 1

    @property
    def protocol(self) -> str:
        return f"{self.clip.num_frames} segments"

    def __post_init__(self) -> None:
        if self.at not in ("random", "middle"):
            raise UserError(f"at {self.at!r} is none of 'random', 'middle'")

    def __call__(self, clock: FrameClock, generator: np.random.Generator) -> list[FrameIndices]:
        if clock.is_variable:
            edges_s = np.linspace(0, clock.duration_s, self.clip.num_frames + 1)
            middles_s = (edges_s[:-1] + edges_s[1:]) / 2
            is_random = self.at == "random"
            return [
                clock.frames_at(
                    generator.uniform(edges_s[:-1], edges_s[1:]) if is_random else middles_s
                )
            ]
        first, last = segment_bounds(clock.num_frames, self.clip.num_frames)
        if self.at == "random":
            return [generator.integers(first, last, endpoint=True)]
        return [(first + last) // 2]


def segment_bounds(num_video_frames: int, num_segments: int) -> tuple[FrameIndices, FrameIndices]:
    """Return first and last frame of each segment, both included, rounded half to even as numpy."""
    edges = np.round((num_video_frames - 1) / num_segments * np.arange(num_segments + 1)).astype(
        np.int64
    )
    return edges[:-1], edges[1:]


def join_clips(clips: Sequence[FrameIndices]) -> tuple[FrameIndices, list[FrameIndices]]:
    """Merge the frames of all clips, sorted and distinct, with each clip's positions in them."""
    wanted, places = np.unique(np.concatenate(clips), return_inverse=True)
    return wanted, np.split(places, np.cumsum([len(clip) for clip in clips])[:-1])


DEFAULT_STRIDE = 4


PUBLISHED_STRIDES = {32: 3, 40: 3}  # by frames per clip: 16x4, 32x3, 40x3


SHORT_SIDE = 256 / 224  # of the resized frame, relative to the crop


def published_stride(num_frames: int) -> int:
    """Return the published frame stride for clips of this length."""
    return PUBLISHED_STRIDES.get(num_frames, DEFAULT_STRIDE)
