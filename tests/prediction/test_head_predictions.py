"""Predictions of a model with several heads: the best classes of each, in every form."""

import csv
import io
import json
from types import SimpleNamespace

import pytest
import torch

from video_mvit.errors import UserError
from video_mvit.prediction.annotate import labels_of
from video_mvit.prediction.input_spec import scoring_of
from video_mvit.prediction.predictor import Options, Prediction
from video_mvit.prediction.timeline import Timeline
from video_mvit.prediction.writers import open_writer

NAMES = ("verb: open", "verb: close", "noun: door", "noun: cup", "noun: sink")
HEADS = {"verb": 2, "noun": 3}
TIMELINE = Timeline(
    bounds_s=(0.0, 5.0, 10.0, 15.0, 20.0),
    scores=torch.tensor(
        [
            [0.9, 0.1, 0.4, 0.3, 0.3],
            [0.9, 0.1, 0.4, 0.3, 0.3],
            [0.2, 0.8, 0.15, 0.85, 0.0],
            [0.1, 0.9, 0.15, 0.85, 0.0],
        ]
    ),
    min_score=0.5,
    heads=HEADS,
)
FOUND = Prediction(
    video="a.mp4",
    class_names=NAMES,
    scores=torch.tensor([0.25, 0.75, 0.5, 0.125, 0.375]),
    num_frames=600,
    duration_s=20.0,
    timeline=TIMELINE,
    heads=HEADS,
)
SEGMENTS = [("verb: open", 0, 10), ("verb: close", 10, 20), ("noun: cup", 10, 20)]


def written(kind: str, num_classes: int = 2) -> str:
    file = io.StringIO()
    open_writer(kind, file, num_classes).write(FOUND)
    return file.getvalue()


def test_each_head_has_its_best_classes() -> None:
    assert FOUND.by_head(2) == {
        "verb": [("close", 0.75), ("open", 0.25)],
        "noun": [("door", 0.5), ("sink", 0.375)],
    }
    best = [("verb: close", 0.75), ("noun: door", 0.5)]
    assert FOUND.top(1) == FOUND.seen(1) == best
    with pytest.raises(UserError, match="has no heads"):
        Prediction(video="v", class_names=("a",), scores=torch.ones(1)).by_head()


def test_every_form_of_output_ranks_the_classes_of_each_head() -> None:
    lines = written("text").splitlines()
    assert lines[1:5] == [
        "  verb: close   75.0 %",
        "  verb: open    25.0 %",
        "  noun: door    50.0 %",
        "  noun: sink    37.5 %",
    ]
    rows = list(csv.DictReader(io.StringIO(written("csv"))))
    assert [(row["rank"], row["label"]) for row in rows if row["rank"]] == [
        ("1", "verb: close"),
        ("2", "verb: open"),
        ("1", "noun: door"),
        ("2", "noun: sink"),
    ]
    content = json.loads(written("json", 1))
    assert [each["label"] for each in content["top"]] == ["verb: close", "noun: door"]
    segments = [(each["label"], each["start_s"], each["end_s"]) for each in content["segments"]]
    assert segments == SEGMENTS


def test_timeline_has_the_stretches_of_each_head_that_are_certain() -> None:
    found = [(NAMES[each.label], each.start_s, each.end_s) for each in TIMELINE.segments]
    assert found == SEGMENTS
    labels = labels_of(FOUND)
    assert [label.text.count("%") for label in labels] == [1, 1, 2, 2]
    whole = Prediction(video="v", class_names=NAMES, scores=FOUND.scores, heads=HEADS)
    assert [each.text for each in labels_of(whole)] == ["verb: close 75 %, noun: door 50 %"]


def test_scores_follow_the_card_and_thresholds_are_refused() -> None:
    scoring = scoring_of({"task": "multi_head", "heads": HEADS})
    scores = scoring.of_clips(torch.randn(3, 5))
    torch.testing.assert_close(scores[:, :2].sum(1), torch.ones(3))
    torch.testing.assert_close(scores[:, 2:].sum(1), torch.ones(3))
    spec = SimpleNamespace(scoring=scoring, class_names=NAMES)
    assert Options().thresholds_for(spec) is None
    with pytest.raises(UserError, match="thresholds are for a model of several labels"):
        Options(thresholds={"verb: open": 0.1}).thresholds_for(spec)
