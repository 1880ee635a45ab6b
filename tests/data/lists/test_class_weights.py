"""Weights of classes: balanced, as a list, from a file, and what is none."""

import logging
from pathlib import Path

import pytest

from video_mvit.data.lists.class_weights import class_weights
from video_mvit.errors import UserError

NAMES = ("fall", "walk", "swim")
LABELS = [0] * 2 + [1] * 8


def test_balanced_weights_are_one_on_average_over_the_videos(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        weights = class_weights("balanced", NAMES, LABELS)
    assert weights == (2.5, 0.625, 1.0)  # swim has no video
    assert sum(weights[label] for label in LABELS) / len(LABELS) == 1
    assert caplog.messages == ["class weights: from 0.625 (walk) to 2.5 (fall)"]
    assert class_weights(None, NAMES, LABELS) is None


def test_given_weights_are_those_of_the_classes(tmp_path: Path) -> None:
    assert class_weights([1, 2.5, 0], NAMES, LABELS) == (1.0, 2.5, 0.0)
    path = tmp_path / "weights.csv"
    for header in ("", "class,weight\n"):
        path.write_text(f"{header}walk,3\nswim,1e-1\nfall, 2\n")
        assert class_weights(str(path), NAMES, LABELS) == (2.0, 3.0, 0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0], "has 1 weights, but there are 3 classes: 'fall', 'walk', 'swim'"),
        ([1, 1, -1], "must be 0 or more"),
        ([1, 1, float("nan")], "must be 0 or more"),
        ([0, 0, 0], "not all 0"),
        ("walk,1\nfall,1\n", "has no weight for 1 classes, first: 'swim'"),
        ("walk,1\nrun,1\n", "line 2: 'run,1' is not a class of the data and its weight"),
        ("walk,1\nwalk,1\n", "line 2: 'walk,1' is not a class"),
        ("walk,much\n", "line 1: 'walk,much' is not a class"),
        ("walk,1,2\n", "line 1: 'walk,1,2' is not a class"),
        (None, "does not exist"),
    ],
)
def test_what_is_no_weight_of_each_class_is_refused(
    tmp_path: Path, given: list[float] | str | None, message: str
) -> None:
    path = tmp_path / "weights.csv"
    if isinstance(given, str):
        path.write_text(given)
    with pytest.raises(UserError, match=message):
        class_weights(given if isinstance(given, list) else str(path), NAMES, LABELS)
