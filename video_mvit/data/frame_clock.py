"""When the frames of a video are shown: pure arithmetic on time stamps, no files.

A video has a constant rate if every stamp lies within one tick of its time base of the frame number
over the rate, whatever the first one is. Rounded stamps (milliseconds in WebM and Matroska) are
constant, a freeze or a gap of one frame is not.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Seconds = NDArray[np.float64]

STANDARD_FPS = (
    *(8, 10, 12, 15, 20, 24_000 / 1001, 24, 25, 30_000 / 1001, 30, 48, 50, 60_000 / 1001, 60),
    *(90, 100, 120_000 / 1001, 120, 240),
)
MAX_ROUNDING_S = 1e-3  # stamps rounded to milliseconds stay so when copied into a finer time base
HALVINGS = 48  # of the range in which the interval of frames is searched
SLACK = 1e-6  # ticks or seconds lost in arithmetic


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameClock:
    """The times of the frames of a video, counted from its first frame.

    Attributes:
        num_frames: N, at least 1.
        fps: the nominal rate; of a variable one, that of its median interval.
        times_s: (N + 1,) seconds, not decreasing, at which each frame appears, and the last one
            ends; None for a constant rate.
    """

    num_frames: int
    fps: float
    times_s: Seconds | None = None

    @property
    def is_variable(self) -> bool:
        return self.times_s is not None

    @property
    def duration_s(self) -> float:
        """Return the seconds from the start of the first frame to the end of the last one."""
        return self.num_frames / self.fps if self.times_s is None else float(self.times_s[-1])

    @property
    def rate_text(self) -> str:
        """Describe the rate, as in "30 fps" or "30 fps variable"."""
        return describe_rate(self.fps, is_variable=self.is_variable)

    def time_s(self, frame_index: int) -> float:
        """Return when a frame appears."""
        return frame_index / self.fps if self.times_s is None else float(self.times_s[frame_index])

    def frames_at(self, instants_s: Seconds) -> Indices:
        """Return the frame that a player shows at each instant; the first or last one outside."""
        if self.times_s is None:
            shown = np.floor(instants_s * self.fps + SLACK).astype(np.int64)
        else:
            shown = np.searchsorted(self.times_s[:-1], instants_s + SLACK, side="right") - 1
        return np.clip(shown, 0, self.num_frames - 1)


def describe_rate(fps: float, *, is_variable: bool) -> str:
    """Describe a rate, as in "30 fps" or "30 fps variable"."""
    return f"{fps:.4g} fps variable" if is_variable else f"{fps:.4g} fps"


def clock_of_stamps(
    stamps: Indices, tick_s: float, header_fps: float, last_s: float = 0.0
) -> FrameClock:
    """Return the clock of frames with these time stamps, (N,) sorted, in ticks of `tick_s` seconds.

    A constant rate is that of the header if this puts the end within one frame of its time, else
    the standard rate that fits best, else the measured one. `last_s` is the duration of the last
    frame, 0 if unknown. Without different stamps, the rate is that of the header.
    """
    num_frames, ticks = len(stamps), (stamps - stamps[0]).astype(np.float64)
    if ticks[-1] == 0:
        return FrameClock(num_frames=num_frames, fps=header_fps)
    rounding = _rounding(stamps, tick_s)
    header = 1 / (header_fps * tick_s) if header_fps > 0 else 0.0
    if _is_even(ticks, header, rounding):
        return FrameClock(num_frames=num_frames, fps=header_fps)
    gaps = np.diff(ticks)
    # Even stamps are at most two ticks off, so that their gaps differ by at most four.
    if np.ptp(gaps) <= 4 * rounding + SLACK:
        interval = _find_interval(ticks, rounding)
        if _is_even(ticks, interval, rounding):
            if header and num_frames * abs(header - interval) <= interval:
                return FrameClock(num_frames=num_frames, fps=header_fps)
            return FrameClock(num_frames=num_frames, fps=_measured_fps(ticks, tick_s, rounding))
    usual_s = float(np.median(gaps[gaps > 0])) * tick_s
    times_s = np.append(ticks, ticks[-1]) * tick_s
    times_s[-1] += last_s if last_s > 0 else usual_s
    return FrameClock(num_frames=num_frames, fps=1 / usual_s, times_s=times_s)


def _rounding(stamps: Indices, tick_s: float) -> int:
    """Return the ticks to which the stamps are rounded: one, or up to a millisecond."""
    common = int(np.gcd.reduce(np.diff(stamps)))
    return max(1, min(common, int(MAX_ROUNDING_S / tick_s + SLACK)))


def _spread(ticks: Seconds, interval: float) -> float:
    return float(np.ptp(ticks - interval * np.arange(len(ticks))))


def _is_even(ticks: Seconds, interval: float, rounding: int) -> bool:
    """Return whether stamps are within one tick of even ones; a skipped frame never is."""
    spread = _spread(ticks, interval) if interval > 0 else np.inf
    return bool(spread <= 2 * rounding + SLACK and spread < interval / 2)


def _find_interval(ticks: Seconds, rounding: int) -> float:
    """Return the interval whose multiples are nearest to the stamps: their spread is convex."""
    mean, off = ticks[-1] / (len(ticks) - 1), 2 * rounding / (len(ticks) - 1)
    low, high = mean - off, mean + off
    for _ in range(HALVINGS):
        third = (high - low) / 3
        if _spread(ticks, low + third) <= _spread(ticks, high - third):
            high -= third
        else:
            low += third
    return float(low + high) / 2


def _measured_fps(ticks: Seconds, tick_s: float, rounding: int) -> float:
    """Return the standard rate that fits even stamps best, else the mean one."""
    intervals: dict[float, Any] = {fps: 1 / (fps * tick_s) for fps in STANDARD_FPS}
    best = min(intervals, key=lambda fps: _spread(ticks, intervals[fps]))
    if _is_even(ticks, intervals[best], rounding):
        return best
    return float((len(ticks) - 1) / (ticks[-1] * tick_s))
