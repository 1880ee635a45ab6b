"""Numbers of videos with several classes: against the reference's, and counted by hand."""

import numpy as np
import pytest
from support.paths import ROOT

from video_mvit.errors import UserError
from video_mvit.evaluation.multilabel_metrics import (
    average_precision,
    best_threshold,
    class_numbers,
    mean_average_precision,
    summarize_classes,
)


def test_map_and_ap_of_each_class_are_those_of_the_reference_on_scores_with_ties() -> None:
    golden = np.load(ROOT / "tests" / "golden" / "charades_map_synthetic.npz")
    num_videos, num_classes = golden["shape"]
    truth = np.unpackbits(golden["labels"])[: num_videos * num_classes].astype(bool)
    truth, scores = truth.reshape(num_videos, num_classes), golden["max_preds"] / 100
    found = class_numbers(scores, truth)
    precisions = [each.average_precision for each in found if each.num_videos]
    assert len(precisions) == 135
    np.testing.assert_allclose(precisions, golden["ap_per_class"], rtol=0, atol=1e-12)
    numbers = summarize_classes(found, scores, truth)
    assert numbers.map == pytest.approx(float(golden["map_max"]), abs=1e-12)
    assert mean_average_precision(scores, truth) == pytest.approx(numbers.map, abs=1e-12)
    assert numbers.num_classes == 135


def test_equal_scores_count_together_whatever_their_order() -> None:
    scores, truth = np.array([0.5, 0.5, 0.2]), np.array([True, False, True])
    assert average_precision(scores, truth) == pytest.approx(0.5 / 2 + 0.5 * 2 / 3)
    assert average_precision(scores[[1, 0, 2]], truth[[1, 0, 2]]) == average_precision(
        scores, truth
    )
    assert average_precision(scores, ~truth & False) is None


def test_threshold_is_that_of_the_highest_f1_between_two_scores() -> None:
    scores = np.array([0.9, 0.8, 0.4, 0.3])
    found = best_threshold(scores, np.array([True, True, False, True]))
    assert found is not None
    assert found.f1 == pytest.approx(6 / 7)  # all four predicted
    assert found.threshold == pytest.approx(0.15)
    found = best_threshold(scores, np.array([True, True, False, False]))
    assert found == (pytest.approx(0.6), 1.0)


def test_f1_and_exact_videos_are_counted_from_half_on() -> None:
    scores = np.array([[0.9, 0.6, 0.1], [0.2, 0.5, 0.1], [0.1, 0.1, 0.2]])
    truth = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
    classes = class_numbers(scores, truth)
    assert (classes[1].recall, classes[1].precision, classes[1].f1) == (1, 0.5, 2 / 3)
    assert (classes[2].recall, classes[2].precision, classes[2].f1) == (None, None, None)
    numbers = summarize_classes(classes, scores, truth)
    assert numbers.f1_micro == pytest.approx(4 / 5)
    assert numbers.f1_macro == pytest.approx((1 + 2 / 3) / 2)
    assert numbers.exact == pytest.approx(2 / 3)  # a video without classes counts
    assert numbers.map == pytest.approx((1 + 1 / 2) / 2)
    with pytest.raises(UserError, match="none of the evaluated videos has a class"):
        summarize_classes(class_numbers(scores, truth & False), scores, truth & False)
