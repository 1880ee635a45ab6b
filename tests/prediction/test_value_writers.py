"""What predictions of numbers look like as text, JSON and CSV, with a timeline and without."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from video_mvit.prediction.annotate import labels_of
from video_mvit.prediction.predictor import Prediction
from video_mvit.prediction.timeline import Timeline
from video_mvit.prediction.timeline_chart import draw_strip_chart
from video_mvit.prediction.writers import open_writer

PLAIN = Prediction(
    video="a.mp4",
    class_names=("angle", "=speed"),
    scores=torch.tensor([12.345678901, -2e6], dtype=torch.float64),
    num_frames=60,
    duration_s=2.0,
    task="regression",
)
TIMELINE = Timeline(
    bounds_s=(0.0, 0.5, 2.0), scores=torch.tensor([[1.0, -3.0], [2.5, 4.0]]), problem="cut off"
)
LONG = replace(PLAIN, timeline=TIMELINE)
BROKEN = Prediction(
    video="b.mp4",
    class_names=PLAIN.class_names,
    scores=torch.empty(0),
    problem="no frames",
    task="regression",
)


def written(kind: str, *predictions: Prediction) -> str:
    file = io.StringIO()
    writer = open_writer(kind, file, 5, PLAIN.class_names)
    for prediction in predictions:
        writer.write(prediction)
    return file.getvalue()


def test_text_has_a_line_for_each_target() -> None:
    assert written("text", PLAIN, BROKEN) == (
        "a.mp4  60 frames, 2.0 s\n  angle   12.35\n  =speed  -2e+06\n\n"
        "b.mp4  cannot be read: no frames\n"
    )
    lines = written("text", LONG).splitlines()
    assert lines[1] == "  angle   12.35  (1 to 2.5 in 2 windows)"
    assert lines[3] == "  cannot be read from there on: cut off"


def test_json_has_values_by_name_and_those_of_windows() -> None:
    plain, broken = map(json.loads, written("json", PLAIN, BROKEN).splitlines())
    assert plain["values"] == {"angle": 12.3456789, "=speed": -2e6}
    assert "windows" not in plain
    assert broken == {"video": "b.mp4", "problem": "no frames"}
    long = json.loads(written("json", LONG))
    assert long["windows"][1] == {
        "start_s": 0.5,
        "end_s": 2.0,
        "values": {"angle": 2.5, "=speed": 4.0},
    }
    assert long["problem"] == "cut off"


def test_csv_has_a_column_for_each_target() -> None:
    rows = list(csv.reader(io.StringIO(written("csv", LONG, BROKEN))))
    assert rows == [
        ["video", "start_s", "end_s", "angle", "'=speed", "problem"],
        ["a.mp4", "", "", "12.3456789", "-2000000.0", ""],
        ["a.mp4", "0.0", "0.5", "1.0", "-3.0", ""],
        ["a.mp4", "0.5", "2.0", "2.5", "4.0", ""],
        ["a.mp4", "", "", "", "", "cut off"],
        ["b.mp4", "", "", "", "", "no frames"],
    ]


def test_a_copy_is_labelled_with_the_values_of_each_time(tmp_path: Path) -> None:
    assert [each.text for each in labels_of(PLAIN)] == ["angle 12.35, =speed -2e+06"]
    assert [(each.end_s, each.text) for each in labels_of(LONG)] == [
        (0.5, "angle 1, =speed -3"),
        (2.0, "angle 2.5, =speed 4"),
    ]
    draw_strip_chart(LONG, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 5000


def test_values_are_those_of_targets_only() -> None:
    assert PLAIN.values() == {"angle": pytest.approx(12.345678901), "=speed": -2e6}
    assert BROKEN.values() == {}
    assert LONG.segments == ()
