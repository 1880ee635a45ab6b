"""What an evaluation takes over from an earlier one, and what it refuses to replace."""

from dataclasses import replace
from pathlib import Path

import pytest

from video_mvit.evaluation.output_folder import (
    PARTIAL_DIR,
    PREDICTIONS,
    RESULTS,
    check_folder,
    clear_folder,
    read_folder,
    read_resumed,
)
from video_mvit.evaluation.predictions import (
    Listed,
    PartialResults,
    VideoResult,
    write_predictions,
)
from video_mvit.evaluation.results import Origin, summarize

NAMES = ("a.mp4", "b.mp4", "c.mp4", "d.mp4")
ORIGIN = Origin(
    protocol="5x1@16x4 offset short256 crop224",
    normalization="mean 0.45 0.45 0.45 std 0.225 0.225 0.225",
    motion=("frozen",),
    precision="32-true",
    list_sha1="aa",
    weights_sha1="bb",
    checkpoint="last.ckpt",
    weights="training checkpoint",
    list_root="videos",
    class_names=("jump", "run"),
    versions={},
)
ROWS = [
    VideoResult(
        video=name, label=i % 2, classes=(0, 1), scores=(0.75, 0.25), motion={"frozen": i % 2}
    )
    for i, name in enumerate(NAMES)
]
ROWS[2] = VideoResult(video="c.mp4", label=0, problem="no frames")
LISTED = Listed(names=NAMES, labels=[0, 1, 0, 1], num_classes=2)


def write(folder: Path) -> None:
    result = summarize(ROWS, ORIGIN, time_s=1, num_clips=20, num_resumed=0)
    result.write(folder / RESULTS)
    write_predictions(folder / PREDICTIONS, ROWS, ORIGIN.class_names)


def note(folder: Path, number: int, origin: Origin, *indices: int) -> Path:
    (folder / PARTIAL_DIR).mkdir(exist_ok=True)
    path = folder / PARTIAL_DIR / f"{number}.jsonl"
    notes = PartialResults(path, origin.identity)
    for index in indices:
        notes.add(index, ROWS[index])
    notes.close()
    return path


def test_finished_evaluation_is_read_back(tmp_path: Path) -> None:
    write(tmp_path)
    result, predictions = read_folder(tmp_path)
    assert predictions == ROWS
    assert result == summarize(ROWS, ORIGIN, time_s=1, num_clips=20, num_resumed=0)


def test_videos_with_a_result_are_known_and_others_tried_again(tmp_path: Path) -> None:
    assert read_resumed(tmp_path, ORIGIN.identity, LISTED) == ({}, 0)
    write(tmp_path)
    known, number = read_resumed(tmp_path, ORIGIN.identity, LISTED)
    assert known == {i: ROWS[i] for i in (0, 1, 3)}
    assert number == 0


def test_notes_of_several_processes_are_known_up_to_a_torn_line(tmp_path: Path) -> None:
    note(tmp_path, 0, ORIGIN, 0, 3)
    torn = note(tmp_path, 11, ORIGIN, 1, 0)
    torn.write_bytes(torn.read_bytes()[:-5])
    other = note(tmp_path, 2, replace(ORIGIN, weights_sha1="cc"), 2)
    known, number = read_resumed(tmp_path, ORIGIN.identity, LISTED)
    assert known == {i: ROWS[i] for i in (0, 1, 3)}
    assert number == 12
    other.write_text("")
    assert read_resumed(tmp_path, ORIGIN.identity, LISTED)[0] == known


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": "1x1@16x4 offset short256 crop224"}, "different views"),
        ({"weights_sha1": "cc"}, "different weights"),
        ({"normalization": "mean 0 0 0 std 1 1 1"}, "a different normalization"),
        (
            {"list_sha1": "cc", "precision": "bf16-mixed"},
            "list of videos, a different precision",
        ),
        ({"motion": ()}, "different ablations"),
    ],
)
def test_another_evaluation_is_not_replaced(tmp_path: Path, change: dict, said: str) -> None:
    now = replace(ORIGIN, **change).identity
    check_folder(tmp_path, now)
    path = note(tmp_path, 0, ORIGIN, 0)
    check_folder(tmp_path, ORIGIN.identity)
    with pytest.raises(ValueError, match=f"holds an evaluation with .*{said}"):
        check_folder(tmp_path, now)
    path.write_text("")  # stopped before it had said what it is
    check_folder(tmp_path, now)
    write(tmp_path)
    check_folder(tmp_path, ORIGIN.identity)
    with pytest.raises(ValueError, match=f"{said}.*overwrite=true replaces it"):
        check_folder(tmp_path, now)
    clear_folder(tmp_path)
    check_folder(tmp_path, now)
    assert not list(tmp_path.iterdir())


def test_path_and_device_do_not_make_another_evaluation(tmp_path: Path) -> None:
    write(tmp_path)
    check_folder(tmp_path, replace(ORIGIN, checkpoint="x", versions={"torch": "3"}).identity)


def test_results_of_another_version_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text('{"top1": 0.5}')
    with pytest.raises(ValueError, match="holds an evaluation with different views"):
        check_folder(tmp_path, ORIGIN.identity)
    with pytest.raises(ValueError, match="evaluate again"):
        read_folder(tmp_path)
    (tmp_path / RESULTS).unlink()
    with pytest.raises(FileNotFoundError, match=r"no results .*results\.json"):
        read_folder(tmp_path)
