"""Windows and segments of long videos, in numbers."""

import numpy as np
import pytest
import torch

from video_mvit.prediction.timeline import (
    Segment,
    find_segments,
    smooth,
    window_bounds,
    window_starts,
)


@pytest.mark.parametrize(
    ("num_frames", "span", "hop", "starts"),
    [
        (100, 32.0, 16.0, [0, 16, 32, 48, 64, 68]),  # the last one ends with the video
        (96, 32.0, 16.0, [0, 16, 32, 48, 64]),
        (20, 32.0, 16.0, [0]),  # shorter than a clip
        (40, 10.0, 20.0, [0, 20, 30]),  # apart from each other
        (4, 1.0, 0.1, [0, 1, 2, 3]),  # no more windows than frames
    ],
)
def test_windows_cover_the_video(
    num_frames: int, span: float, hop: float, starts: list[float]
) -> None:
    found = window_starts(num_frames, span, hop)
    assert found.tolist() == starts
    bounds = window_bounds(found, span, num_frames)
    assert bounds[0] == 0
    assert bounds[-1] == num_frames
    assert (np.diff(bounds) > 0).all()
    assert len(bounds) == len(starts) + 1


def one_hot(labels: list[int], strength: float = 0.9) -> torch.Tensor:
    scores = torch.full((len(labels), 3), (1 - strength) / 2)
    scores[torch.arange(len(labels)), labels] = strength
    return scores


def test_segments_are_runs_with_times_and_mean_scores() -> None:
    scores = one_hot([0, 0, 2, 2, 2])
    scores[1, 0] = 0.7
    bounds = (0.0, 1.0, 2.0, 3.0, 4.0, 5.5)
    first, second = find_segments(scores, bounds)
    assert (first.start_s, first.end_s, first.label) == (0.0, 2.0, 0)
    assert first.score == pytest.approx(0.8)
    assert second == Segment(start_s=2.0, end_s=5.5, label=2, score=pytest.approx(0.9))
    assert find_segments(torch.empty(0, 3), (0.0,)) == ()


def test_single_window_between_others_that_agree_is_smoothed_away() -> None:
    bounds = tuple(map(float, range(6)))
    assert [s.label for s in find_segments(one_hot([1, 1, 0, 1, 1], 0.6), bounds)] == [1]
    assert [s.label for s in find_segments(one_hot([1, 1, 0, 0, 1], 0.6), bounds)] == [1, 0, 1]


def test_stretch_in_which_no_class_has_the_minimum_is_uncertain() -> None:
    scores = one_hot([0] * 4 + [2] * 4 + [0] * 4)
    scores[4:8] = torch.tensor([0.3, 0.32, 0.38])
    bounds = tuple(map(float, range(13)))
    assert [s.label for s in find_segments(scores, bounds)] == [0, 2, 0]
    found = find_segments(scores, bounds, min_score=0.45)
    assert [s.label for s in found] == [0, None, 0]
    assert 0.35 < found[1].score < 0.45
    assert [s.name("abc") for s in found] == ["a", "uncertain", "a"]
    assert (found[0].end_s, found[2].start_s) == (found[1].start_s, found[1].end_s)
    (whole,) = find_segments(scores, bounds, min_score=1.0)
    assert (whole.start_s, whole.end_s, whole.label) == (0.0, 12.0, None)


def test_smoothing_keeps_constant_scores_up_to_both_ends() -> None:
    scores = torch.tensor([[0.2, 0.8]]).repeat(4, 1)
    assert torch.allclose(smooth(scores), scores)
    assert torch.equal(smooth(scores[:1]), scores[:1])
