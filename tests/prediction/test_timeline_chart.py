"""The timeline as a picture: which rows, which times, and that there is something to see."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from video_mvit.prediction.predictor import Prediction
from video_mvit.prediction.timeline import Timeline
from video_mvit.prediction.timeline_chart import clock, draw_strip_chart, shown_classes, time_ticks


def followed(labels: list[int], num_classes: int) -> Timeline:
    scores = torch.full((len(labels), num_classes), 0.01)
    scores[torch.arange(len(labels)), labels] = 0.9
    return Timeline(bounds_s=tuple(map(float, range(len(labels) + 1))), scores=scores)


def test_classes_in_sight_longest_come_first_and_ten_at_most() -> None:
    timeline = followed([7] * 5 + [3] * 10 + [12] * 4, 20)
    assert shown_classes(timeline)[:3] == [3, 7, 12]
    assert len(shown_classes(timeline)) == 10
    assert len(shown_classes(followed([0], 2))) == 2


def test_uncertain_stretches_are_no_class() -> None:
    timeline = replace(followed([7] * 9 + [3] * 9, 20), min_score=0.95)
    assert {s.label for s in timeline.segments} == {None}
    assert set(shown_classes(timeline)[:2]) == {3, 7}  # still the best on average


def test_times_are_round_and_few() -> None:
    assert time_ticks(35.2) == [0, 5, 10, 15, 20, 25, 30, 35]
    assert time_ticks(3600) == [0, 600, 1200, 1800, 2400, 3000, 3600]
    assert all(2 <= len(time_ticks(s)) <= 10 for s in (2.5, 61, 999, 5000, 86_400))
    assert [clock(s) for s in (7, 187, 3723)] == ["0:07", "3:07", "1:02:03"]


def test_picture_shows_the_class_in_sight(tmp_path: Path) -> None:
    timeline = followed([0] * 30 + [1] * 10, 3)
    prediction = Prediction(
        video="$a_b.mp4",
        class_names=("up $x$", "down " * 30, "left"),
        scores=timeline.scores.mean(dim=0),
        num_frames=1200,
        duration_s=40.0,
        timeline=timeline,
    )
    draw_strip_chart(prediction, tmp_path / "a.png")
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    assert picture.shape[1] == 1200
    first, second = np.array([31, 119, 180]), np.array([255, 127, 14])  # of the bar of segments
    widths = [(abs(picture - c).sum(axis=2) < 6).sum(axis=1).max() for c in (first, second)]
    assert widths[0] > 2 * widths[1] > 100
    short = Prediction(video="v.mp4", class_names=("a",), scores=torch.ones(1))
    with pytest.raises(ValueError, match=r"v.mp4 has no timeline to draw"):
        draw_strip_chart(short, tmp_path / "b.png")
