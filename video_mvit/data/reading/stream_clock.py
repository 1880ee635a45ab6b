"""The clock of an open stream: the time stamps of its frames, and a rate that can be believed."""

import av

from video_mvit.data.frame_clock import FrameClock, Indices, clock_of_stamps
from video_mvit.data.reading.packets import NO_PTS

RAW_FORMATS = {"h264", "hevc", "m4v", "mpegvideo", "obu"}  # without times
RAW_FPS = 25.0  # FFmpeg's, for a raw stream that does not say its rate
MIN_FPS, MAX_FPS = 0.01, 50_000.0  # below the clock of MPEG, which stands for no rate
CLOSE = (0.9, 1.1)  # of the header's rate to the measured one, to be believed


class NoRateError(Exception):
    """A stream without a rate, and why."""


def clock_of_stream(
    stream: av.VideoStream, container_name: str, stamps: Indices, last_ticks: int
) -> FrameClock:
    """Return the clock of frames with these time stamps, (N,) sorted, in ticks of the stream.

    `last_ticks` is the duration of the last frame, 0 if unknown. A rate of the header that the
    stamps contradict is not believed. Raises `NoRateError`.
    """
    num_frames, stamps = len(stamps), stamps.copy()
    if container_name in RAW_FORMATS:  # the average is that of guessed times
        return FrameClock(num_frames=num_frames, fps=float(stream.guessed_rate or RAW_FPS))
    if container_name == "avi" and num_frames > 2:  # starts at 0, maybe before its pictures
        stamps[0] = max(stamps[0], 2 * stamps[1] - stamps[2])
    header = float(stream.average_rate or stream.guessed_rate or 0)
    tick_s = float(stream.time_base or 0)
    duration_s = 0.0 if stamps[0] == NO_PTS else (int(stamps[-1]) - int(stamps[0])) * tick_s
    measured = (num_frames - 1) / duration_s if duration_s > 0 else 0.0
    if not MIN_FPS <= header <= MAX_FPS or (
        measured and not CLOSE[0] < header / measured < CLOSE[1]
    ):
        header = 0.0
    rate = header or measured
    if rate >= MIN_FPS and duration_s > 0:
        clock = clock_of_stamps(stamps, tick_s, header, last_ticks * tick_s)
        if MIN_FPS <= clock.fps <= MAX_FPS:
            return clock
        rate = clock.fps
    if not MIN_FPS <= rate <= MAX_FPS:
        raise NoRateError(f"no frame rate, or an absurd one ({rate:g})")
    return FrameClock(num_frames=num_frames, fps=rate)
