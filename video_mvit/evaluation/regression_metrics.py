"""Compute how far predicted numbers are from the true ones, and how sure that is.

Letters: N videos, K targets. The 95 % intervals are quantiles over sets of as many videos drawn
with replacement (bootstrap).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from video_mvit.evaluation.intervals import NUM_RESAMPLED, OUTER_95, Interval
from video_mvit.schema import MAX_NUMBER

Values = NDArray[np.float64]  # (N,) or (N, K)


class TargetNumbers(NamedTuple):
    """Numbers of one target, in its units; those that are not defined are None.

    Attributes:
        mae: mean absolute error.
        rmse: root of the mean squared error.
        r2: 1 - (sum of squared errors) / (that of the mean of the true values); None where all
            true values are equal, as the two below, which are also None for equal predictions.
        pearson: correlation of predicted and true values.
        spearman: correlation of their ranks, equal values with their mean rank.
        baseline_mae: the error of always saying the mean of the training list.
    """

    mae: float
    rmse: float
    r2: float | None
    pearson: float | None
    spearman: float | None
    baseline_mae: float
    mae_interval: Interval
    r2_interval: Interval | None


def mean_absolute_error(values: Values, truth: Values) -> float | None:
    """Average absolute errors: (N, K), (N, K) -> (); None without videos."""
    return float(np.abs(values - truth).mean()) if values.size else None


def r2_score(values: Values, truth: Values) -> float | None:
    """Compute the coefficient of determination: (N,), (N,) -> (); None for equal true values."""
    if not len(truth) or truth.min() == truth.max():
        return None
    return 1 - float(((truth - values) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())


def mean_r2(values: Values, truth: Values) -> float | None:
    """Average `r2_score` over the targets that have one: (N, K), (N, K) -> (); None without."""
    found = [r2_score(*pair) for pair in zip(values.T, truth.T, strict=True)]
    known = [each for each in found if each is not None]
    return sum(known) / len(known) if known else None


def pearson(first: Values, second: Values) -> float | None:
    """Compute the linear correlation: (N,), (N,) -> (); None where one of them is constant."""
    if not len(first) or first.min() == first.max() or second.min() == second.max():
        return None
    a, b = first - first.mean(), second - second.mean()
    a, b = a / np.abs(a).max(), b / np.abs(b).max()  # so that no square overflows or vanishes
    return float(np.clip((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()), -1, 1))


def ranks(values: Values) -> Values:
    """Rank values from 1 on, equal ones with their mean rank: (N,) -> (N,)."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    found: Values = (ends - (counts - 1) / 2)[places]
    return found


def spearman(first: Values, second: Values) -> float | None:
    """Compute the correlation of ranks: (N,), (N,) -> (); None where one of them is constant."""
    return pearson(ranks(first), ranks(second))


def target_numbers(values: Values, truth: Values, baseline: Sequence[float]) -> list[TargetNumbers]:
    """Compute the numbers of every target, in order: (N, K), (N, K), (K,) -> K of them."""
    mae_intervals, r2_intervals = _intervals(values, truth)
    found = []
    for k, mean in enumerate(baseline):
        predicted, true = values[:, k], truth[:, k]
        errors, r2 = predicted - true, r2_score(predicted, true)
        found.append(
            TargetNumbers(
                mae=float(np.abs(errors).mean()),
                rmse=float(np.sqrt((errors**2).mean())),
                r2=r2,
                pearson=pearson(predicted, true),
                spearman=spearman(predicted, true),
                baseline_mae=float(np.abs(true - mean).mean()),
                mae_interval=mae_intervals[k],
                r2_interval=None if r2 is None else r2_intervals[k],
            )
        )
    return found


def _intervals(values: Values, truth: Values) -> tuple[list[Interval], list[Interval]]:
    """Return the intervals of MAE and R2 of each target: (N, K), (N, K) -> K of each."""
    errors, centred = values - truth, truth - truth.mean(axis=0)
    scale = np.abs(centred).max(axis=0)
    squares, centred = (
        (errors / np.where(scale, scale, 1)) ** 2,
        centred / np.where(scale, scale, 1),
    )
    maes, r2s = [], []
    for weights in resampled(len(truth)):
        maes.append(weights @ np.abs(errors) / len(truth))
        spread = weights @ centred**2 - (weights @ centred) ** 2 / len(truth)
        is_varied = spread > 1e-12 * len(truth)  # one video drawn again and again has none
        ratio = np.divide(weights @ squares, spread, where=is_varied, out=np.ones_like(spread))
        r2s.append(np.where(is_varied, 1 - ratio, np.nan))
    return quantiles(np.array(maes)), quantiles(np.array(r2s))


def resampled(num_videos: int) -> Iterator[NDArray[np.int64]]:
    """Yield how often each video counts in sets drawn with replacement: (N,), always the same."""
    draws = np.random.default_rng(0)
    for _ in range(NUM_RESAMPLED):
        yield np.bincount(draws.integers(num_videos, size=num_videos), minlength=num_videos)


def quantiles(samples: Values) -> list[Interval]:
    """Return the 95 % interval of each column, NaN left out: (samples, K) -> K of them."""
    found = []
    for column in samples.T:
        known = column[~np.isnan(column)]
        low, high = np.quantile(known, OUTER_95) if len(known) else (-MAX_NUMBER, 1.0)
        found.append(Interval(float(low), float(high)))
    return found
