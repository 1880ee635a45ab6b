"""The table of predictions, and the notes of an evaluation that still runs."""

from pathlib import Path

import pytest
import torch

from video_mvit.evaluation.predictions import (
    Listed,
    PartialResults,
    VideoResult,
    best_classes,
    evaluated,
    identity_of,
    read_partial_results,
    read_predictions,
    write_predictions,
)

NAMES = ('say "hi", then go', "laufen\nüben", "滑る", "<b>", "e", "f")
ODD = "a, b/\udcff.mp4"  # a file name that is not UTF-8


def rows() -> list[VideoResult]:
    scores = torch.tensor([0.1, 0.3, 0.05, 0.2, 0.25, 0.1])
    classes, values = best_classes(scores)
    motion = {"frozen": 3, "reversed": 0}
    return [
        VideoResult(video=ODD, label=1, classes=classes, scores=values, motion=motion),
        VideoResult(video="bad.mp4", label=2, problem='cut, or "empty"'),
        VideoResult(video="gone.mp4", label=None, problem="missing"),
    ]


def test_best_classes_are_ordered_and_the_first_of_equals_comes_first() -> None:
    assert rows()[0].classes == (1, 4, 3, 0, 5)
    assert best_classes(torch.full((400,), 0.5))[0] == (0, 1, 2, 3, 4)
    assert best_classes(torch.tensor([0.0, 1.0000001]))[1][0] == 1.0


def test_scores_keep_what_float32_tells_apart() -> None:
    a = torch.rand(100, generator=torch.Generator().manual_seed(0))
    for value in a:
        assert torch.tensor(best_classes(value[None])[1][0]) == value


def test_table_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(path, rows(), NAMES)
    assert read_predictions(path, NAMES) == rows()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_table_of_few_classes_without_motion_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    few = [VideoResult(video="a", label=0, classes=(1, 0), scores=(0.75, 0.25))]
    write_predictions(path, few, NAMES[:2])
    assert read_predictions(path, NAMES[:2]) == few


def test_other_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    with pytest.raises(FileNotFoundError, match="no predictions"):
        read_predictions(path, NAMES)
    path.write_text("video,label\na,b\n")
    with pytest.raises(ValueError, match=r"is no predictions\.csv"):
        read_predictions(path, NAMES)
    write_predictions(path, rows(), NAMES)
    with pytest.raises(ValueError, match="is not expected there; was it edited"):
        read_predictions(path, NAMES[:2])


def test_notes_survive_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "0.jsonl"
    notes = PartialResults(path, {"protocol": "5x1"})
    first = rows()[0]
    notes.add(7, first)
    notes.add(2, first)
    listed = Listed(names=[ODD] * 8, labels=[1] * 8, num_classes=6)
    tests = ("frozen", "reversed")
    assert read_partial_results(path, listed, tests) == {7: first, 2: first}  # before it is closed
    notes.close()
    assert identity_of(path) == {"protocol": "5x1"}
    path.write_bytes(path.read_bytes()[:-4])
    assert read_partial_results(path, listed, tests) == {7: first}
    path.write_text('{"proto')
    assert identity_of(path) is None
    assert read_partial_results(path, listed, tests) == {}


@pytest.mark.parametrize("odd", ["return\r.mp4", "two\r\nlines.mp4", " ", '"', "a,b", "x" * 300])
def test_odd_names_and_reasons_are_read_back(tmp_path: Path, odd: str) -> None:
    path = tmp_path / "predictions.csv"
    named = VideoResult(video=odd, label=1, classes=(1, 0), scores=(0.75, 0.25))
    for classes, found in ((("a", "b"), named), (("a", odd), named)):
        write_predictions(path, [found], classes)
        assert read_predictions(path, classes) == [found]
    broken = VideoResult(video="a", label=0, problem=odd)
    write_predictions(path, [named, broken], ("a", "b"))
    assert read_predictions(path, ("a", "b")) == [named, broken]


def test_table_of_nothing_but_problems_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(path, rows()[1:], NAMES)
    assert read_predictions(path, NAMES) == rows()[1:]
    with pytest.raises(ValueError, match="none of the listed videos"):
        evaluated(rows()[1:])
