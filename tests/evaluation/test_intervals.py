"""Intervals of shares: numbers of their papers, and what holds for every count."""

from itertools import product

import pytest

from video_mvit.evaluation.intervals import (
    PairedCounts,
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
