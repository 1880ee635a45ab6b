"""Numbers of a regression against plain formulas, in every case that has no number too."""

import numpy as np
import pytest

from video_mvit.evaluation.regression_metrics import (
    mean_absolute_error,
    mean_r2,
    pearson,
    r2_score,
    ranks,
    resampled,
    spearman,
    target_numbers,
)

DRAW = np.random.default_rng(0)
TRUTH = DRAW.normal(5e4, 3, (200, 2)).round(1)  # with ties, and a mean far from 0
VALUES = (TRUTH + DRAW.normal(0, 2, TRUTH.shape)).round(1)


def places(values: np.ndarray) -> list[float]:
    """The rank of each value by counting: those below it, and half of those that equal it."""
    return [(values < each).sum() + ((values == each).sum() + 1) / 2 for each in values]


def test_numbers_are_those_of_plain_formulas() -> None:
    baseline = (5e4, 5e4 + 1)
    for k, found in enumerate(target_numbers(VALUES, TRUTH, baseline)):
        y, p = TRUTH[:, k], VALUES[:, k]
        assert found.mae == pytest.approx(sum(abs(a - b) for a, b in zip(y, p, strict=True)) / 200)
        assert found.rmse == pytest.approx((sum((y - p) ** 2) / 200) ** 0.5)
        assert found.r2 == pytest.approx(1 - sum((y - p) ** 2) / sum((y - y.mean()) ** 2))
        assert found.pearson == pytest.approx(np.corrcoef(y, p)[0, 1])
        assert found.spearman == pytest.approx(np.corrcoef(places(y), places(p))[0, 1])
        assert found.baseline_mae == pytest.approx(np.abs(y - baseline[k]).mean())
    assert mean_absolute_error(VALUES, TRUTH) == pytest.approx(np.abs(VALUES - TRUTH).mean())
    assert mean_r2(VALUES, TRUTH) == pytest.approx(
        np.mean([r2_score(VALUES[:, k], TRUTH[:, k]) for k in (0, 1)])
    )
    assert ranks(np.array([3.0, 1.0, 3.0, 9.0])).tolist() == [2.5, 1, 2.5, 4]


def test_intervals_are_quantiles_over_the_same_resampled_videos() -> None:
    found = target_numbers(VALUES, TRUTH, (0, 0))[1]
    y, p = TRUTH[:, 1], VALUES[:, 1]
    maes, r2s = [], []
    for weights in resampled(200):
        assert weights.sum() == 200
        drawn = np.repeat(np.arange(200), weights)
        maes.append(np.abs(y - p)[drawn].mean())
        r2s.append(r2_score(p[drawn], y[drawn]))
    assert found.mae_interval == pytest.approx(np.quantile(maes, [0.025, 0.975]))
    assert found.r2_interval == pytest.approx(np.quantile(r2s, [0.025, 0.975]), abs=1e-6)
    assert found.mae_interval.low < found.mae < found.mae_interval.high
    assert found.r2_interval.low < found.r2 < found.r2_interval.high


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_numbers_of_any_size_are_finite(scale: float) -> None:
    truth = np.array([[1.0], [2.0], [4.0]]) * scale
    (found,) = target_numbers(truth[::-1].copy(), truth, (2 * scale,))
    assert found.r2 == pytest.approx(1 - (9 + 0 + 9) / (16 / 9 + 1 / 9 + 25 / 9))
    assert found.pearson == pytest.approx(np.corrcoef([1, 2, 4], [4, 2, 1])[0, 1])
    assert np.isfinite([*found.mae_interval, *found.r2_interval]).all()


def test_what_is_not_defined_is_none() -> None:
    same = np.full((5, 1), 3.0)
    (found,) = target_numbers(same + np.arange(5)[:, None], same, (3.0,))
    assert found.r2 is found.pearson is found.spearman is found.r2_interval is None
    assert found.mae == 2
    assert mean_r2(same, same) is None
    assert mean_absolute_error(same[:0], same[:0]) is None
    assert pearson(np.arange(3.0), np.ones(3)) is None
    assert spearman(np.ones(3), np.arange(3.0)) is None
    one = target_numbers(np.array([[1.0]]), np.array([[2.0]]), (0.0,))[0]
    assert (one.mae, one.r2) == (1, None)
