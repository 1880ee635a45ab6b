"""95 % intervals of shares and of their differences, also where nothing, or everything, is right.

A normal approximation has no width for 8 of 8 correct. These have: they start from Wilson's score
interval, and combine its distances by square-and-add (Newcombe 1998, Statistics in Medicine 17,
pages 857, 2635).

F1 is a function of such a share. The calibration error has a bootstrap over videos.
"""

from collections.abc import Sequence
from math import hypot, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLED = 1000  # sets of videos
OUTER_95 = (0.025, 0.975)  # quantiles
NORMAL_95 = 1.959964  # two-sided 95 % quantile of the normal distribution


class Interval(NamedTuple):
    low: float
    high: float


class PairedCounts(NamedTuple):
    """Videos that both of two evaluations classify correctly, one of them, or neither."""

    both: int
    only_first: int
    only_second: int
    neither: int


def wilson(num_right: int, num_videos: int) -> Interval:
    """Compute Wilson's score interval of a share; (0, 1) without videos."""
    if not num_videos:
        return Interval(0.0, 1.0)
    share, z2 = num_right / num_videos, NORMAL_95**2 / num_videos
    centre = share + z2 / 2
    reach = NORMAL_95 * sqrt(share * (1 - share) / num_videos + z2 / (4 * num_videos))
    # At 0 and 1, rounding must not move the limit off the share.
    low = 0.0 if num_right == 0 else (centre - reach) / (1 + z2)
    high = 1.0 if num_right == num_videos else (centre + reach) / (1 + z2)
    return Interval(low, high)


def mean_interval(counts: Sequence[tuple[int, int]]) -> Interval:
    """Compute the interval of the mean of independent shares, each (right, videos)."""
    shares = [right / n for right, n in counts]
    limits = [wilson(right, n) for right, n in counts]
    mean, number = sum(shares) / len(shares), len(shares)
    below = hypot(*(share - limit.low for share, limit in zip(shares, limits, strict=True)))
    above = hypot(*(limit.high - share for share, limit in zip(shares, limits, strict=True)))
    return Interval(mean - below / number, mean + above / number)


def f1_interval(num_right: int, num_wrong: int) -> Interval:
    """Compute the interval of F1 = 2 right / (2 right + wrong) of a class.

    `num_wrong` are videos of the class that are predicted as another, and of others as this one:
    F1 grows with the share s of correct videos among all these, and is 2 s / (1 + s).
    """
    low, high = wilson(num_right, num_right + num_wrong)
    return Interval(2 * low / (1 + low), 2 * high / (1 + high))


class Scored(NamedTuple):
    """Videos with their top scores, whether these are right, and their bins: (N,) each."""

    scores: NDArray[np.float64]
    is_right: NDArray[np.bool_]
    bins: NDArray[np.int64]

    def error(self, drawn: NDArray[np.int64] | slice = slice(None)) -> float:
        """Compute the expected calibration error of some of the videos."""
        bins, gaps = self.bins[drawn], (self.is_right - self.scores)[drawn]
        return float(np.abs(np.bincount(bins, gaps)).sum()) / len(bins)


def calibration_interval(videos: Scored) -> Interval:
    """Compute the interval of an expected calibration error: resample videos (Efron 1979).

    Chance adds to an absolute gap,
    to resampled ones once more: so their distances to it are taken off, not added (the basic
    interval). It begins at 0 if one of twenty perfectly calibrated models has this error or more
    by chance, with these scores, and ends no earlier than what is known of the overall gap.
    """
    n, draws, error = len(videos.scores), np.random.default_rng(0), videos.error()
    again = [videos.error(draws.integers(n, size=n)) for _ in range(NUM_RESAMPLED)]
    calibrated = [
        videos._replace(is_right=draws.random(n) < videos.scores).error()
        for _ in range(NUM_RESAMPLED)
    ]
    least, most = np.quantile(again, OUTER_95)
    low, high = 2 * error - float(most), 2 * error - float(least)
    if error <= np.quantile(calibrated, 0.95):
        low = 0.0
    limits, mean = wilson(int(videos.is_right.sum()), n), float(videos.scores.mean())
    high = max(high, error, mean - limits.low, limits.high - mean)
    return Interval(min(max(low, 0.0), error), min(high, 1.0))


def calibration_difference(first: Scored, second: Scored) -> Interval:
    """Compute the interval of the second error minus the first: resample the same videos."""
    n, draws = len(first.scores), np.random.default_rng(0)
    again = []
    for _ in range(NUM_RESAMPLED):
        drawn = draws.integers(n, size=n)
        again.append(second.error(drawn) - first.error(drawn))
    least, most = np.quantile(again, OUTER_95)
    difference = second.error() - first.error()
    return Interval(2 * difference - float(most), 2 * difference - float(least))


def paired_difference(counts: PairedCounts) -> Interval:
    """Compute Newcombe's interval of the second share minus the first (his method 10)."""
    both, only_first, only_second, _ = counts
    n = sum(counts)
    first, second = (both + only_first) / n, (both + only_second) / n
    low_1, high_1 = wilson(both + only_first, n)
    low_2, high_2 = wilson(both + only_second, n)
    difference, phi = second - first, _correlation(counts)
    below = _third_side(second - low_2, high_1 - first, phi)
    above = _third_side(high_2 - second, first - low_1, phi)
    return Interval(difference - below, difference + above)


def _third_side(a: float, b: float, phi: float) -> float:
    return sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))


def _correlation(counts: PairedCounts) -> float:
    """Return the correlation of both outcomes, a positive one corrected for continuity."""
    both, only_first, only_second, neither = counts
    margins = (
        (both + only_first)
        * (only_second + neither)
        * (both + only_second)
        * (only_first + neither)
    )
    if not margins:
        return 0.0
    product = float(both * neither - only_first * only_second)
    if product > 0:
        product = max(product - sum(counts) / 2, 0.0)
    return product / sqrt(margins)
