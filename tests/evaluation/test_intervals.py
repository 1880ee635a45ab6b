"""Intervals of shares: numbers of their papers, and what holds for every count."""

from itertools import product

import numpy as np
import pytest

from video_mvit.evaluation.intervals import (
    PairedCounts,
    Scored,
    calibration_difference,
    calibration_interval,
    f1_interval,
    mean_interval,
    paired_difference,
    wilson,
)


@pytest.mark.parametrize(
    ("right", "number", "low", "high"),
    # Newcombe 1998, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_share_has_the_interval_of_the_paper(
    right: int, number: int, low: float, high: float
) -> None:
    assert wilson(right, number) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson(number - right, number)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_no_interval_collapses_or_leaves_the_scale() -> None:
    for n in (1, 2, 8, 1000):
        for right in {0, 1, n // 2, n}:
            low, high = wilson(right, n)
            assert 0 <= low <= right / n <= high <= 1
            assert high - low > 1 / n / 10
    assert wilson(0, 0) == (0, 1)
    for counts in product((0, 1, 7), repeat=4):
        if sum(counts):
            low, high = paired_difference(PairedCounts(*counts))
            assert -1 <= low < high <= 1
            assert low <= (counts[2] - counts[1]) / sum(counts) <= high


def test_difference_of_pairs_turns_round_with_them() -> None:
    low, high = paired_difference(PairedCounts(36, 2, 12, 0))
    assert paired_difference(PairedCounts(36, 12, 2, 0)) == pytest.approx((-high, -low))
    assert low > 0.05  # 12 improved, 2 became worse
    # Both always right: as uncertain as three videos in a hundred.
    low, high = paired_difference(PairedCounts(100, 0, 0, 0))
    assert (low, high) == pytest.approx((-0.037, 0.037), abs=1e-3)


def test_mean_of_shares_is_narrower_than_each_and_never_a_point() -> None:
    assert mean_interval([(81, 263)]) == pytest.approx(wilson(81, 263))
    low, high = mean_interval([(8, 8)] * 4)
    assert high == 1
    assert low == pytest.approx(1 - (1 - wilson(8, 8).low) / 2)


def test_f1_is_inside_its_interval_which_never_collapses() -> None:
    for right, wrong in product((0, 1, 7, 300), (0, 1, 9)):
        if right + wrong:
            low, high = f1_interval(right, wrong)
            assert 0 <= low <= 2 * right / (2 * right + wrong) <= high <= 1
            assert high - low > 0.001
    # 8 of 8: the share of correct videos begins at 67.6 %.
    assert f1_interval(8, 0) == pytest.approx((2 * 0.6756 / 1.6756, 1), abs=1e-4)


def drawn(num_videos: int, seed: int, overconfidence: float = 0.0) -> Scored:
    """Return videos that are right less often than their scores say."""
    draws = np.random.default_rng(seed)
    scores = 1 - 0.5 * draws.random(num_videos)
    return Scored(
        scores=scores,
        is_right=draws.random(num_videos) < scores - overconfidence,
        bins=np.minimum((scores * 15).astype(np.int64), 14),
    )


@pytest.mark.slow
@pytest.mark.parametrize(("overconfidence", "least"), [(0.0, 0.85), (0.2, 0.75)])
def test_true_calibration_error_is_mostly_inside_its_interval(
    overconfidence: float, least: float
) -> None:
    inside = [
        low <= overconfidence <= high
        for seed in range(25)
        for low, high in [calibration_interval(drawn(200, seed, overconfidence))]
    ]
    assert np.mean(inside) >= least


def test_calibration_of_few_videos_is_not_known_well() -> None:
    certain = Scored(
        scores=np.full(8, 0.99), is_right=np.ones(8, np.bool_), bins=np.full(8, 14, np.int64)
    )
    low, high = calibration_interval(certain)
    assert (low, certain.error()) == (0, pytest.approx(0.01))
    assert high == pytest.approx(0.99 - wilson(8, 8).low)
    assert calibration_interval(certain) == (low, high)  # seeded


def test_calibrations_of_the_same_videos_differ_by_what_they_are_apart() -> None:
    videos = drawn(500, 0)
    sure = videos._replace(scores=np.full(500, 0.99), bins=np.full(500, 14, np.int64))
    low, high = calibration_difference(videos, sure)
    assert 0 < low < sure.error() - videos.error() < high
    assert calibration_difference(videos, videos) == (0, 0)
