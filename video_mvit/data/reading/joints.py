"""Recordings joined in one file, each with its own clock: pure arithmetic on packets, no files.

Recorders that reconnect, and `cat`, leave such files. FFmpeg shows their recordings one after the
other.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from video_mvit.data.reading.packets import Indices

# The longest time between two frames of one recording, as for FFmpeg. Clocks of broadcasts jump.
MAX_GAP_S = {"mpegts": 10.0, "mpeg": 10.0}
MAX_GAP_ELSEWHERE_S = 30 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Joints:
    """Where recordings begin, in packets in decoding order; the first one is not listed.

    `shifts` (num_packets,) of their times put each recording after the one before it.
    """

    starts: tuple[int, ...]
    shifts: Indices


def find_joints(
    pts: Indices, is_key: NDArray[np.bool_], is_timed: NDArray[np.bool_], max_gap: float
) -> Joints:
    """Find where the clock starts again: at a key frame earlier than one that was decoded before.

    No frame before a key frame in decoding order is shown after it. `is_timed` (N,) leaves out
    hidden packets and those without a time; `max_gap` is the longest time in ticks between two
    frames of a recording.
    """
    keys = np.flatnonzero(is_key & is_timed)
    shifts, starts = np.zeros(len(pts), np.int64), []
    if _may_start_again(pts, keys, is_timed, max_gap):
        shift, latest, first = 0, int(pts[keys[0]]), int(keys[0])
        for key, stop in zip(keys.tolist(), [*keys[1:].tolist(), len(pts)], strict=True):
            times = pts[key:stop][is_timed[key:stop]]
            if pts[key] < latest or float(pts[key]) - latest > max_gap:
                shift += (
                    latest - int(times.min()) + _usual_step(pts[first:key][is_timed[first:key]])
                )
                latest, first = int(times.max()), key
                starts.append(key)
            latest = max(latest, int(times.max()))
            shifts[key:stop] = shift
    return Joints(starts=tuple(starts), shifts=shifts)


def _may_start_again(
    pts: Indices, keys: Indices, is_timed: NDArray[np.bool_], max_gap: float
) -> bool:
    """Return whether a key frame is before, or far after, all that were decoded earlier."""
    times = np.where(is_timed, pts, -np.inf)
    latest = np.maximum.accumulate(times)[keys[1:] - 1]
    return bool(((times[keys[1:]] < latest) | (times[keys[1:]] - latest > max_gap)).any())


def _usual_step(pts: Indices) -> int:
    """Return the median interval of the frames of a recording, at least 1."""
    gaps = np.diff(np.unique(pts))
    return int(np.median(gaps)) if len(gaps) else 1
