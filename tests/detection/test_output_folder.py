"""What a detection evaluation writes, resumes from, and refuses to replace."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.coco import CATEGORY_IDS, ORIGIN, SIZE, annotation, random_data, row, truth

pytest.importorskip("pycocotools")

from video_mvit.detection.coco_ap import coco_ap
from video_mvit.detection.instances import Detections
from video_mvit.detection.keep_detections import BatchDetections, KeepDetections
from video_mvit.detection.output_folder import (
    DETECTIONS,
    check_detection_folder,
    read_detections,
    read_finished,
    read_resumed_detections,
    write_detections,
)
from video_mvit.detection.results import (
    DetectionResult,
    read_detection_result,
    rows_of_file,
    summarize_detections,
    summarize_detections_again,
)
from video_mvit.errors import UserError
from video_mvit.evaluation.output_folder import PARTIAL_DIR, RESULTS

BOXES = [(10, 10, 40, 40), (80, 10, 40, 40)]
TRUTH = truth([5, 9, 12], [annotation(i, 1, box) for i in (5, 9) for box in BOXES])
FOUND = {i: [row(i, 1, BOXES[0], 0.9)] for i in (5, 9)} | {12: []}


def summarized(found: Any = FOUND, problems: Any = None) -> DetectionResult:
    return summarize_detections(TRUTH, found, problems or {}, ORIGIN, time_s=2, num_resumed=1)


def write(folder: Path) -> None:
    summarized().write(folder / RESULTS)
    write_detections(folder / DETECTIONS, TRUTH, FOUND)


def test_finished_evaluation_is_read_back(tmp_path: Path) -> None:
    write(tmp_path)
    assert read_finished(tmp_path, TRUTH) == (summarized(), FOUND)
    rows = json.loads((tmp_path / DETECTIONS).read_text())
    assert coco_ap(TRUTH, rows, "segm").numbers == summarized().mask
    content = json.loads((tmp_path / RESULTS).read_text())
    assert content["box"]["ap50"] == pytest.approx(51 / 101)
    assert content["settings"] == ORIGIN.settings
    assert content["protocol"] == ORIGIN.protocol
    assert content["box_classes"][0]["name"] == "cat"


def test_empty_evaluation_is_written_and_read_back(tmp_path: Path) -> None:
    found = {i: [] for i in FOUND}
    summarized(found).write(tmp_path / RESULTS)
    write_detections(tmp_path / DETECTIONS, TRUTH, found)
    result, again = read_finished(tmp_path, TRUTH)
    assert (again, result.box.ap, result.mask.ap) == (found, 0, 0)


def test_left_out_images_are_named_with_what_they_could_change() -> None:
    result = summarized({5: FOUND[5], 12: []}, {9: "truncated"})
    assert (result.missing, dict(result.unreadable)) == ((), {"9.png": "truncated"})
    assert result.box.ap == pytest.approx(51 / 101)  # one of two objects
    low, high = result.bounds["box"]
    assert low == pytest.approx(26 / 101)  # one of four objects: recall 0.25
    assert high == pytest.approx(76 / 101)  # three of four
    assert result.bounds["mask"] == pytest.approx((low, high))
    assert (result.num_images, result.num_listed, result.num_objects) == (2, 3, 2)
    lines = result.lines()
    assert lines["images"] == "2 of 3: 0 missing, 1 unreadable"
    assert lines["box AP of all listed"] == "25.7 to 75.2"
    assert summarize_detections_again(result, TRUTH, {5: FOUND[5], 12: []}) == result


def test_summary_fits_a_terminal_of_80_columns() -> None:
    ground_truth, found = random_data()
    problems = {5: "missing", 8: "truncated"}
    kept = {i: rows for i, rows in found.items() if i not in problems}
    result = summarize_detections(
        ground_truth, kept, problems, ORIGIN, time_s=123456, num_resumed=0
    )
    lines = [f"  {name:<22} {text}" for name, text in result.lines().items()]
    assert len(lines) == 13
    assert max(map(len, lines)) <= 80
    assert all(name == name[:22] for name in result.lines())


def test_images_without_a_result_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 3 images were not evaluated"):
        summarized({5: [], 9: []})
    with pytest.raises(ValueError, match="none of the listed images"):
        summarized({}, dict.fromkeys(FOUND, "missing"))


def test_boxes_alone_are_evaluated_without_masks() -> None:
    annotations = [{**each, "segmentation": []} for each in TRUTH["annotations"]]
    ground_truth = {**TRUTH, "annotations": annotations}
    result = summarize_detections(ground_truth, FOUND, {}, ORIGIN, time_s=0, num_resumed=0)
    assert (result.mask, result.mask_classes, list(result.bounds)) == (None, (), ["box"])
    assert not [name for name in result.lines() if "mask" in name]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": "short800 max1333"}, "a different size of images"),
        ({"settings": {"score_threshold": 0.1}}, "different settings of the detector"),
        ({"weights_sha1": "x", "annotations_sha1": "x"}, "different annotations, different wei"),
    ],
)
def test_another_evaluation_is_not_replaced(tmp_path: Path, change: dict, said: str) -> None:
    now = replace(ORIGIN, **change).identity
    check_detection_folder(tmp_path, now)
    write(tmp_path)
    check_detection_folder(tmp_path, replace(ORIGIN, evaluator="faster-coco-eval").identity)
    with pytest.raises(ValueError, match=f"{said}.*overwrite=true replaces it"):
        check_detection_folder(tmp_path, now)


def test_results_of_another_kind_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text('{"top1": 0.5}')
    with pytest.raises(ValueError, match="holds an evaluation with a different size"):
        check_detection_folder(tmp_path, ORIGIN.identity)
    with pytest.raises(ValueError, match="evaluate again"):
        read_detection_result(tmp_path / RESULTS)
    with pytest.raises(FileNotFoundError, match="no detections"):
        read_detections(tmp_path / DETECTIONS, [], TRUTH)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("evaluator", "mine"),
        ("versions", ["a"]),
        ("bounds", {"box": [0.5]}),
        ("curves", {"keypoints": {}}),
        ("box", {"ap": 0.5}),
        ("class_names", []),
        ("num_images", -1),
    ],
)
def test_hostile_results_are_one_sentence(tmp_path: Path, field: str, value: object) -> None:
    write(tmp_path)
    path = tmp_path / RESULTS
    content = json.loads(path.read_text())
    assert field in content
    read_detection_result(path)
    path.write_text(json.dumps({**content, field: value}))
    with pytest.raises(UserError, match=r"results\.json is not .*evaluate again"):
        read_detection_result(path)


# Keeping detections


def kept(folder: Path, rank: int = 0) -> tuple[KeepDetections, Any]:
    data: Any = SimpleNamespace(already_tested=set())
    keep = KeepDetections(folder, ORIGIN.identity, TRUTH, data)
    keep.setup(SimpleNamespace(is_global_zero=True, global_rank=rank), None, "test")
    return keep, data


def batch(*indices: int) -> BatchDetections:
    masks = torch.zeros(1, *SIZE, dtype=torch.bool)
    masks[0, 10:50, 10:50] = True
    one = Detections(
        boxes=torch.tensor([[10.0, 10.0, 50.0, 50.0]]),
        scores=torch.tensor([0.875]),
        labels=torch.tensor([0]),
        masks=masks,
    )
    return BatchDetections(image_index=torch.tensor(indices), detections=[one] * len(indices))


def test_stopped_evaluation_resumes_and_counts_each_image_once(tmp_path: Path) -> None:
    first, data = kept(tmp_path)
    assert data.already_tested == set()
    first.on_test_batch_end(None, None, batch(2, 0))
    first.teardown(None, None, "test")
    path = tmp_path / PARTIAL_DIR / "0.jsonl"
    path.write_bytes(path.read_bytes() + b'[9, [{"image')  # killed while it wrote
    second, data = kept(tmp_path)
    assert (data.already_tested, second.num_resumed) == ({0, 2}, 2)
    second.on_test_batch_end(None, None, batch(1, 0))
    second.on_test_batch_end(None, None, None)
    second.teardown(None, None, "test")
    found = second.collect()
    rows = rows_of_file(TRUTH, found)
    assert [each["image_id"] for each in rows] == [5, 9, 12]
    assert rows[0] == row(5, CATEGORY_IDS[0], BOXES[0], 0.875)
    other = replace(ORIGIN, weights_sha1="other").identity
    assert read_resumed_detections(tmp_path, other, TRUTH) == {}


def test_finished_evaluation_is_not_computed_again(tmp_path: Path) -> None:
    write(tmp_path)
    keep, data = kept(tmp_path)
    assert data.already_tested == {0, 1, 2}
    assert keep.collect() == FOUND


def test_scores_that_are_nan_are_refused(tmp_path: Path) -> None:
    keep, _ = kept(tmp_path)
    found = batch(0)
    found.detections[0].scores[0] = float("nan")
    with pytest.raises(ValueError, match="image 5: the model gives NaN or Inf scores"):
        keep.on_test_batch_end(None, None, found)
