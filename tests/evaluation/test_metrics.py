"""Numbers of an evaluation, counted by hand and against torchmetrics."""

import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from video_mvit.evaluation.metrics import (
    calibration_bins,
    class_results,
    confusion_matrix,
    measure,
    most_confident_mistakes,
    most_confused,
)
from video_mvit.evaluation.predictions import VideoResult, best_classes


def row(video: str, label: int, *classes: int, score: float = 0.5, frozen: int = 0) -> VideoResult:
    scores = (score, *(0.01 for _ in classes[1:]))
    return VideoResult(
        video=video, label=label, classes=classes, scores=scores, motion={"frozen": frozen}
    )


ROWS = [
    row("a", 0, 0, 1, 2, 3, 4),
    row("b", 0, 1, 2, 3, 4, 0, score=0.9),
    row("c", 0, 1, 2, 3, 4, 5, score=0.7),
    row("d", 2, 2, 0, 1, 3, 4, frozen=2),
    row("e", 5, 2, 5, 0, 1, 3, score=0.8),
    VideoResult(video="f", label=5, problem="no frames"),
    VideoResult(video="g", label=None, problem="missing"),
]


def test_numbers_are_those_of_the_evaluated_videos() -> None:
    found = measure(ROWS, 6)
    assert found.top1 == 2 / 5
    assert found.top5 == 4 / 5
    assert found.mean_class_accuracy == pytest.approx((1 / 3 + 1 + 0) / 3)
    assert found.motion == {"frozen": 4 / 5}
    with pytest.raises(ValueError, match="none of the listed videos could be evaluated"):
        measure(ROWS[-2:], 6)


def test_classes_and_confusions_are_counted() -> None:
    confusion = confusion_matrix(ROWS, 6)
    assert confusion.sum() == 5
    assert (confusion[0, 1], confusion[5, 2], confusion[2, 2]) == (2, 1, 1)
    first, *_, last = class_results(ROWS, 6)
    assert (first.num_videos, first.num_right, first.num_right_in_top5) == (3, 1, 2)
    assert first.taken_for == ((1, 2),)
    assert (last.num_videos, last.num_right, last.taken_for) == (1, 0, ((2, 1),))
    assert class_results(ROWS, 6)[2].num_predicted == 2
    assert most_confused(ROWS, 6) == [(0, 1, 2), (5, 2, 1)]
    assert [p.video for p in most_confident_mistakes(ROWS, 2)] == ["b", "e"]


def test_calibration_error_is_that_of_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for i in range(500):
        classes, scores = best_classes((3 * torch.randn(7, generator=generator)).softmax(0))
        rows.append(VideoResult(video=str(i), label=i % 7, classes=classes, scores=scores))
    confidence = torch.tensor([p.scores[0] for p in rows])
    right = torch.tensor([p.is_right for p in rows])
    expected = binary_calibration_error(confidence, right, n_bins=15, norm="l1")
    assert measure(rows, 7).calibration_error == pytest.approx(float(expected), abs=1e-6)
    assert sum(b.num_videos for b in calibration_bins(rows)) == 500


def test_sure_scores_lie_in_the_last_bin() -> None:
    rows = [row("a", 0, 0, score=1.0), row("b", 1, 0, score=1.0)]
    last = calibration_bins(rows)[-1]
    assert (last.num_videos, last.confidence, last.accuracy) == (2, 1.0, 0.5)
    assert measure(rows, 2).calibration_error == 0.5


def test_one_class_can_be_evaluated() -> None:
    found = measure([row("a", 0, 0, score=1.0)], 1)
    assert (found.top1, found.mean_class_accuracy, found.calibration_error) == (1.0, 1.0, 0.0)


def test_the_most_frequent_confusions_come_first() -> None:
    pairs = [(0, 2), (0, 1), (0, 1), (2, 0), (2, 0), (2, 0)]
    rows = [row(str(i), label, predicted) for i, (label, predicted) in enumerate(pairs)]
    assert class_results(rows, 3)[0].taken_for == ((1, 2), (2, 1))
    assert most_confused(rows, 3) == [(2, 0, 3), (0, 1, 2), (0, 2, 1)]


def test_a_score_on_an_edge_lies_in_the_bin_below() -> None:
    bins = calibration_bins([row("a", 0, 0, score=10 / 15), row("b", 0, 1, score=0.7)])
    assert bins[9] == (9 / 15, 10 / 15, 1, 10 / 15, 1.0)
    assert bins[10] == (10 / 15, 11 / 15, 1, 0.7, 0.0)
