"""Slide a window over a long video, decoded once, keeping only the frames that are still needed."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from video_mvit.data.frame_clock import FrameClock
from video_mvit.data.reading.open import VideoDecodeError, VideoReader, open_video
from video_mvit.data.reading.pyav_reader import PyAVReader
from video_mvit.data.reading.reader import Frames
from video_mvit.data.sampling import TARGET_FPS, FrameIndices, clip_frames
from video_mvit.data.transforms.cropping import UniformCrops
from video_mvit.prediction.background import RunAhead
from video_mvit.prediction.clips import cut_frame, decode_limits_for
from video_mvit.prediction.input_spec import InputSpec
from video_mvit.prediction.scorer import Scorer
from video_mvit.prediction.timeline import Timeline, window_bounds, window_starts

MAX_WINDOWS = 1_000_000  # their frames are planned at once


class WindowPlan(NamedTuple):
    """Frames of each window (W, T), and the times at which it hands over to the next (W + 1,)."""

    windows: FrameIndices
    bounds_s: tuple[float, ...]


def slide(
    scorer: Scorer, path: str, step_s: float | None, on_windows: Callable[[int, int], None]
) -> Timeline:
    """Score all windows of a video; of a damaged one, those before the damage.

    `on_windows` is called with the number of finished and of all windows.
    """
    stream = SlidingWindows(path, scorer.spec, step_s)
    scores: list[Tensor] = []
    num_done, problem = 0, ""
    try:
        for clips in _batches(stream, scorer.clips_per_pass):
            scores.append(scorer.score(clips))
            num_done += len(clips)
            on_windows(num_done, len(stream.bounds_s) - 1)
    except VideoDecodeError as error:
        problem = error.reason
    whole = torch.cat(scores) if scores else torch.empty(0, len(scorer.spec.class_names))
    return Timeline(bounds_s=stream.bounds_s[: num_done + 1], scores=whole, problem=problem)


class SlidingWindows:
    """Clips (T, C, H, W) of the windows of a video, in order; raises `VideoDecodeError`.

    `bounds_s` is known with the first clip.
    """

    def __init__(self, path: str, spec: InputSpec, step_s: float | None) -> None:
        self._path, self._spec, self._step_s = path, spec, step_s or spec.step_s
        self.bounds_s: tuple[float, ...] = ()

    def __iter__(self) -> Iterator[Tensor]:
        with open_video(self._path, decode_limits=decode_limits_for(self._path)) as video:
            if video.clock.duration_s > MAX_WINDOWS * self._step_s:
                reason = (
                    f"{video.clock.duration_s:,.0f} s, too long for steps of {self._step_s:g} s"
                )
                raise VideoDecodeError(self._path, reason)
            plan = plan_windows(video.clock, self._spec, self._step_s)
            self.bounds_s = plan.bounds_s
            yield from _cut_windows(video, plan.windows, self._spec.crop())


def plan_windows(clock: FrameClock, spec: InputSpec, step_s: float) -> WindowPlan:
    """Plan the windows of a video; one of a variable rate has them where one of 30 fps has."""
    fps = TARGET_FPS if clock.is_variable else clock.fps
    length = clock.duration_s * fps if clock.is_variable else clock.num_frames
    span = spec.clip.span(fps)
    starts = window_starts(length, span, step_s * fps)
    windows = [
        clip_frames(clock, spec.clip, start / fps if clock.is_variable else start)
        for start in starts.tolist()
    ]
    bounds = window_bounds(starts, span, length) / fps
    return WindowPlan(np.stack(windows), tuple(bounds.tolist()))


def _cut_windows(video: VideoReader, windows: FrameIndices, crop: UniformCrops) -> Iterator[Tensor]:
    """Crop frames as they arrive, and drop them once no later window needs them."""
    kept: dict[int, Tensor] = {}
    next_window = 0
    for index, frame in _in_order(video, np.unique(windows)):
        kept[index] = cut_frame(frame, crop)[0]
        while next_window < len(windows) and windows[next_window, -1] <= index:
            yield torch.stack([kept[int(i)] for i in windows[next_window]])
            next_window += 1
            first = int(windows[next_window, 0]) if next_window < len(windows) else index + 1
            for old in [i for i in kept if i < first]:
                del kept[old]


def _in_order(video: VideoReader, wanted: FrameIndices) -> Iterator[tuple[int, Frames]]:
    if isinstance(video, PyAVReader):
        yield from video.read_in_order(wanted)
        return
    for index in map(int, wanted):
        yield index, video.read([index])[0]


def _batches(stream: SlidingWindows, num_clips: int) -> Iterator[Tensor]:
    """Batch consecutive windows (N, T, C, H, W); on a decoding error, first those before it."""
    waiting: list[Tensor] = []
    try:
        for clip in RunAhead(stream, num_ahead=num_clips):
            waiting.append(clip)
            if len(waiting) == num_clips:
                yield torch.stack(waiting)
                waiting = []
    except VideoDecodeError:
        if waiting:
            yield torch.stack(waiting)
        raise
    if waiting:
        yield torch.stack(waiting)
