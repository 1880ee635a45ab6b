"""What people and programs read of predictions."""

import csv
import io
import json
from dataclasses import replace

import pytest
import torch

from video_mvit.prediction import timeline
from video_mvit.prediction.predictor import Prediction
from video_mvit.prediction.timeline import Timeline
from video_mvit.prediction.writers import COLUMNS, describe_time, open_writer

NAMES = ("down", "moving left", "right")
GOOD = Prediction(
    video="a b.mp4",
    class_names=NAMES,
    scores=torch.tensor([0.0123456789, 0.95, 0.0376543211]),
    num_frames=1234,
    duration_s=187.21,
)
LONG = Prediction(
    video="long.mp4",
    class_names=NAMES,
    scores=torch.tensor([0.1, 0.5, 0.4]),
    num_frames=2000,
    duration_s=66.7,
    timeline=Timeline(
        bounds_s=(0.0, 5.0, 62.5),
        scores=torch.tensor([[0.75, 0.25, 0.0], [0.0, 1.0, 0.0]]),
        problem="damaged: a packet is not whole",
    ),
)
BAD = Prediction(video="bad.mp4", class_names=NAMES, scores=torch.empty(0), problem="no frames")


def written(kind: str, *predictions: Prediction, num_classes: int = 2) -> str:
    file = io.StringIO()
    writer = open_writer(kind, file, num_classes)
    for prediction in predictions:
        writer.write(prediction)
    return file.getvalue()


def test_text_is_a_block_for_each_video() -> None:
    assert written("text", GOOD, BAD) == (
        "a b.mp4  1,234 frames, 3:07.2\n"
        "  moving left   95.0 %\n"
        "  right          3.8 %\n"
        "\n"
        "bad.mp4  cannot be read: no frames\n"
    )


def test_uncertain_segment_has_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "WEIGHTS", (1.0,))  # no smoothing
    unsure = replace(LONG, timeline=replace(LONG.timeline, min_score=0.8, problem=""))
    assert written("text", unsure, num_classes=1).splitlines()[2:] == [
        "     0.0 -    5.0  uncertain     75.0 %",
        "     5.0 - 1:02.5  moving left  100.0 %",
    ]
    first, second = json.loads(written("json", unsure))["segments"]
    assert (first["label"], first["score"], second["label"]) == (None, 0.75, "moving left")
    rows = list(csv.DictReader(io.StringIO(written("csv", unsure, num_classes=1))))
    assert [row["label"] for row in rows] == ["moving left", "", "moving left"]


def test_segments_are_lines_below_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "WEIGHTS", (1.0,))  # no smoothing
    assert written("text", LONG, num_classes=1) == (
        "long.mp4  2,000 frames, 1:06.7\n"
        "  moving left   50.0 %\n"
        "     0.0 -    5.0  down          75.0 %\n"
        "     5.0 - 1:02.5  moving left  100.0 %\n"
        "  cannot be read from there on: damaged: a packet is not whole\n"
    )
    line = json.loads(written("json", LONG))
    second = {"start_s": 5.0, "end_s": 62.5, "label": "moving left", "score": 1.0}
    assert line["segments"][1] == second
    assert line["problem"] == "damaged: a packet is not whole"
    rows = list(csv.DictReader(io.StringIO(written("csv", LONG, num_classes=1))))
    assert [(row["rank"], row["end_s"], row["label"]) for row in rows] == [
        ("1", "", "moving left"),
        ("", "5.0", "down"),
        ("", "62.5", "moving left"),
        ("", "", ""),
    ]


def test_json_is_an_object_a_line() -> None:
    lines = [json.loads(line) for line in written("json", GOOD, BAD).splitlines()]
    top = [{"label": "moving left", "score": 0.95}, {"label": "right", "score": 0.037654}]
    assert lines == [
        {"video": "a b.mp4", "num_frames": 1234, "duration_s": 187.21, "top": top},
        {"video": "bad.mp4", "problem": "no frames"},
    ]


def test_table_has_a_row_for_each_rank() -> None:
    table = csv.DictReader(io.StringIO(written("csv", GOOD, BAD)))
    assert tuple(table.fieldnames or ()) == COLUMNS
    rows = [{name: value for name, value in row.items() if value} for row in table]
    assert rows == [
        {"video": "a b.mp4", "rank": "1", "label": "moving left", "score": "0.95"},
        {"video": "a b.mp4", "rank": "2", "label": "right", "score": "0.037654"},
        {"video": "bad.mp4", "problem": "no frames"},
    ]


@pytest.mark.parametrize(
    ("time_s", "shown"),
    [(0, "0.0 s"), (7.24, "7.2 s"), (59.96, "1:00.0"), (187.2, "3:07.2"), (3723.44, "1:02:03.4")],
)
def test_time_is_short(time_s: float, shown: str) -> None:
    assert describe_time(time_s) == shown


def test_names_that_are_no_text_can_be_written() -> None:
    odd = Prediction(video="\udcff.mp4", class_names=NAMES, scores=torch.empty(0), problem="x")
    written("json", odd).encode()
