"""Average precision: hand-computed cases, and the evaluators called directly."""

import contextlib
import copy
import io

import numpy as np
import pytest
import torch
from support.coco import CATEGORY_IDS, SIZE, annotation, random_data, row, truth

pytest.importorskip("pycocotools")
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from video_mvit.detection.coco_ap import Evaluator, Kind, coco_ap, coco_rows, perfect_rows
from video_mvit.detection.instances import Detections
from video_mvit.detection.results import rows_of_file

EVALUATORS = ["pycocotools", "faster-coco-eval"]


@pytest.fixture(params=EVALUATORS)
def evaluator(request: pytest.FixtureRequest) -> Evaluator:
    if request.param == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    return request.param


def test_one_hit_between_two_objects_has_the_ap_of_hand(evaluator: Evaluator) -> None:
    # Two objects; the best detection is wrong, the second hits one of them at IoU 1. Precision is
    # 1/2 up to recall 1/2, and 0 beyond: 51 of the 101 recalls.
    boxes = (10, 10, 40, 40), (80, 10, 40, 40)
    ground_truth = truth([5], [annotation(5, 7, box) for box in boxes])
    rows = [row(5, 7, (10, 70, 40, 40), 0.9), row(5, 7, boxes[0], 0.8)]
    for kind in ("bbox", "segm"):
        found = coco_ap(ground_truth, rows, kind, evaluator).numbers
        assert found.ap == pytest.approx(0.5 * 51 / 101)
        assert found.ap50 == found.ap75 == found.ap
        assert (found.ar1, found.ar10, found.ar100) == (0, 0.5, 0.5)
        assert (found.ap_small, found.ap_large) == (None, None)
        assert found.ap_medium == pytest.approx(found.ap)


def test_iou_of_two_thirds_counts_at_four_of_ten_thresholds(evaluator: Evaluator) -> None:
    ground_truth = truth([5], [annotation(5, 1, (10, 10, 40, 40))])
    rows = [row(5, 1, (18, 10, 40, 40), 0.9)]  # 32 of 48 columns
    found = coco_ap(ground_truth, rows, "bbox", evaluator).numbers
    assert found.ap == pytest.approx(0.4)  # 0.5, 0.55, 0.6, 0.65
    assert (found.ap50, found.ap75) == pytest.approx((1, 0))


def test_size_of_a_mask_is_its_own_not_that_of_its_box(evaluator: Evaluator) -> None:
    # A false detection above 32 x 32 pixels by its box, below by its mask, counts among small ones.
    ground_truth = truth([5], [annotation(5, 1, (100, 10, 20, 20))])
    false = {**row(5, 1, (10, 10, 40, 40), 0.9), "segmentation": row(5, 1, (10, 10, 9, 9), 0)}
    false["segmentation"] = false["segmentation"]["segmentation"]
    rows = [false, row(5, 1, (100, 10, 20, 20), 0.5)]
    assert coco_ap(ground_truth, rows, "bbox", evaluator).numbers.ap_small == pytest.approx(1)
    assert coco_ap(ground_truth, rows, "segm", evaluator).numbers.ap_small == pytest.approx(0.5)


def test_detections_in_a_crowd_are_neither_right_nor_wrong(evaluator: Evaluator) -> None:
    objects = [annotation(5, 1, (10, 10, 20, 20)), annotation(5, 1, (60, 10, 80, 80), iscrowd=1)]
    rows = [row(5, 1, (60 + 10 * i, 20, 20, 20), 0.9) for i in range(4)]
    rows.append(row(5, 1, (10, 10, 20, 20), 0.5))
    result = coco_ap(truth([5], objects), rows, "segm", evaluator)
    assert result.numbers.ap == pytest.approx(1)
    assert result.classes[0].num_objects == 1


def test_uncompressed_crowds_are_read(evaluator: Evaluator) -> None:
    crowd = annotation(5, 1, (0, 0, SIZE[1], SIZE[0]), iscrowd=1)
    crowd["segmentation"] = {"size": list(SIZE), "counts": [0, SIZE[0] * SIZE[1]]}
    ground_truth = truth([5], [crowd, annotation(5, 1, (10, 10, 20, 20))])
    rows = [row(5, 1, (60, 20, 20, 20), 0.9), row(5, 1, (10, 10, 20, 20), 0.5)]
    assert coco_ap(ground_truth, rows, "segm", evaluator).numbers.ap == pytest.approx(1)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_numbers_are_those_of_pycocotools_called_directly(
    kind: Kind,
    evaluator: Evaluator,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    ground_truth, by_image = random_data()
    rows = rows_of_file(ground_truth, by_image)
    before = copy.deepcopy((ground_truth, rows))
    found = coco_ap(ground_truth, rows, kind, evaluator)
    assert (ground_truth, rows) == before
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = {**copy.deepcopy(ground_truth), "info": {}}
        for number, each in enumerate(index.dataset["annotations"], start=1):
            each["id"] = number
        index.createIndex()
        other = "segmentation" if kind == "bbox" else "bbox"
        results = [{name: row[name] for name in row if name != other} for row in rows]
        evaluation = COCOeval(index, index.loadRes(copy.deepcopy(results)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ours = [-1 if value is None else value for value in found.numbers]
    np.testing.assert_allclose(ours, evaluation.stats, atol=1e-6)
    precision = evaluation.eval["precision"][..., 0, 2]
    np.testing.assert_allclose(found.precision, precision, atol=1e-6)
    assert [each.category_id for each in found.classes] == list(CATEGORY_IDS)
    assert found.classes[1].ap is None  # without an object
    for k in (0, 2, 3):
        assert found.classes[k].ap == pytest.approx(precision[:, :, k].mean(), abs=1e-6)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_without_detections_ap_is_zero(kind: Kind, evaluator: Evaluator) -> None:
    ground_truth, _ = random_data()
    numbers = coco_ap(ground_truth, [], kind, evaluator).numbers
    assert (numbers.ap, numbers.ap_small, numbers.ar100, numbers.ap_large) == (0, 0, 0, None)


def test_without_objects_there_is_no_ap(evaluator: Evaluator) -> None:
    rows = [row(5, 1, (10, 10, 20, 20), 0.9)]
    assert set(coco_ap(truth([5, 6], []), rows, "bbox", evaluator).numbers) == {None}
    assert set(coco_ap(truth([5, 6], []), [], "segm", evaluator).numbers) == {None}


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_perfect_rows_have_an_ap_of_one(kind: Kind) -> None:
    ground_truth, found = random_data()
    images = {image["id"] for image in ground_truth["images"]}
    rows = perfect_rows(ground_truth, images)
    assert coco_ap(ground_truth, rows, kind).numbers.ap == pytest.approx(1)
    mixed = rows_of_file(ground_truth, found) + rows
    assert coco_ap(ground_truth, mixed, kind).numbers.ap == pytest.approx(1)


def test_rows_hold_boxes_and_masks_of_the_detector() -> None:
    masks = torch.zeros(2, *SIZE, dtype=torch.bool)
    masks[0, 20:40, 10:50] = True
    masks[1, 5:6, 7:9] = True
    found = Detections(
        boxes=torch.tensor([[10.0, 20.0, 50.0, 40.0], [7.0, 5.0, 9.0, 6.0]]),
        scores=torch.tensor([0.875, 0.1]),
        labels=torch.tensor([3, 0]),
        masks=masks,
    )
    first, second = coco_rows(found, 17, CATEGORY_IDS)
    assert first == row(17, 90, (10, 20, 40, 20), 0.875)
    assert second["bbox"] == [7, 5, 2, 1]
    assert torch.tensor(second["score"]) == found.scores[1]
    nothing = Detections(
        boxes=torch.empty(0, 4),
        scores=torch.empty(0),
        labels=torch.empty(0, dtype=torch.int64),
        masks=torch.empty(0, *SIZE, dtype=torch.bool),
    )
    assert coco_rows(nothing, 17, CATEGORY_IDS) == []


@pytest.mark.parametrize(("image_id", "category_id"), [(6, 1), (5, 2)])
def test_rows_of_unknown_images_or_categories_are_refused(image_id: int, category_id: int) -> None:
    rows = [row(image_id, category_id, (10, 10, 20, 20), 0.9)]
    with pytest.raises(ValueError, match="which the annotations do not list"):
        coco_ap(truth([5], []), rows, "bbox")


def test_unknown_evaluator_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of pycocotools, faster-coco-eval"):
        coco_ap(truth([5], []), [], "bbox", "coco")
