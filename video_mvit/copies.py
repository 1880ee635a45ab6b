"""Transcoded copies of videos: how much faster they decode, and which of them would do.

Standard library only: the doctor loads it, too.
"""

import math
from typing import NamedTuple

# Profiles of `prepare mode=transcode`, and how many times faster their copies decode. 2 is the
# least of three kinds of video; 3.5 is more by as much as on generated videos, and was not measured
# on others.
SPEEDS = {"fast_decoding": 2.0, "intra": 3.5}
ROUNDING = 1e-6


class Copy(NamedTuple):
    """A profile, and the loader processes that its videos need."""

    profile: str
    num_workers: int


def workers_for(needed: float, tolerated_shortage: float = ROUNDING) -> int:
    """Round a number of loader processes up, unless hardly more than a whole one is needed."""
    return max(1, math.ceil(needed - tolerated_shortage))


def choose_copy(needed: float, num_cores: int, tolerated_shortage: float = ROUNDING) -> Copy:
    """Return the first copy whose loader processes leave a core for training, or the fastest.

    `needed` is the number of processes that the videos as they are need. A single core does both.
    """
    copies = [
        Copy(profile, workers_for(needed / speed, tolerated_shortage))
        for profile, speed in SPEEDS.items()
    ]
    return next((copy for copy in copies if copy.num_workers < max(num_cores, 2)), copies[-1])
