"""Anchors, deltas, matches, draws and suppression, by hand and against plain loops."""

import math

import pytest
import torch
from support.detectors import random_boxes
from torch import Tensor
from torchvision.ops import box_iou

from video_mvit.detection.boxes import (
    anchors_of,
    clip,
    decode,
    encode,
    has_area,
    is_best_of_a_target,
    match,
    sample,
    soft_nms,
    suppress,
)

CPU = torch.device("cpu")


def test_anchors_are_exact_and_start_at_the_corner_of_the_image() -> None:
    anchors = anchors_of((2, 3), 4, 32, CPU)
    assert anchors.shape == (2 * 3 * 3, 4)
    wide, narrow = 16 * math.sqrt(2), 8 * math.sqrt(2)
    expected = torch.tensor(
        [[-wide, -narrow, wide, narrow], [-16, -16, 16, 16], [-narrow, -wide, narrow, wide]]
    )
    torch.testing.assert_close(anchors[:3], expected)
    # Cells follow row by row: the fifth is in the second row and column.
    torch.testing.assert_close(anchors[12:15], expected + 4)


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (30.0, 30.0, 15.0, 15.0)])
def test_decoding_undoes_encoding(weights: tuple[float, ...]) -> None:
    boxes, targets = random_boxes(50, seed=0), random_boxes(50, seed=1)
    deltas = encode(targets, boxes, weights)
    torch.testing.assert_close(decode(deltas, boxes, weights), targets, rtol=1e-4, atol=1e-3)


def test_deltas_move_by_sides_and_scale_by_logarithms() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    targets = torch.tensor([[10.0, 5.0, 30.0, 15.0]])
    expected = [1.5 * 10, 0.0, 5 * math.log(2), -5 * math.log(2)]
    torch.testing.assert_close(encode(targets, boxes, (10, 10, 5, 5))[0], torch.tensor(expected))


def test_decoded_sides_grow_by_a_factor_of_62_at_most() -> None:
    boxes = torch.tensor([[-1.0, -2.0, 1.0, 2.0]])
    huge = decode(torch.tensor([[0.0, 0.0, 1e4, 20.0]]), boxes, (1, 1, 1, 1))
    torch.testing.assert_close(huge, boxes * 1000 / 16)
    half = torch.tensor([[0.0, 0.0, 0.5, 0.0]], dtype=torch.bfloat16)
    assert decode(half, boxes, (1, 1, 1, 1)).dtype == torch.float32


def test_clipped_boxes_without_area_are_told() -> None:
    boxes = clip(torch.tensor([[-5.0, 2, 4, 60], [70, 2, 90, 10], [3, 50, 9, 70]]), (50, 64))
    assert boxes.tolist() == [[0, 2, 4, 50], [64, 2, 64, 10], [3, 50, 9, 50]]
    assert has_area(boxes).tolist() == [True, False, False]


def test_matches_take_the_best_target_and_leave_a_zone_between_the_thresholds() -> None:
    iou = torch.tensor([[0.1, 0.70, 0.3, 0.6, 0.0], [0.2, 0.1, 0.0, 0.65, 0.0]])
    matches = match(iou, 0.7, 0.3)
    assert matches.target[:4].tolist() == [1, 0, 0, 1]
    assert matches.is_positive.tolist() == [False, True, False, False, False]
    assert matches.is_negative.tolist() == [True, False, False, False, True]


def test_every_box_that_ties_the_best_of_a_target_is_told() -> None:
    iou = torch.tensor([[0.2, 0.2, 0.1, 0.0], [0.5, 0.1, 0.0, 0.4], [0.0, 0.0, 0.0, 0.0]])
    # The third target overlaps nothing, so that no box is its best.
    assert is_best_of_a_target(iou).tolist() == [True, True, False, False]


def test_without_targets_every_box_is_negative() -> None:
    iou = torch.zeros(0, 3)
    matches = match(iou, 0.5, 0.5)
    assert matches.target.tolist() == [0, 0, 0]
    assert matches.is_negative.all()
    assert not matches.is_positive.any()
    assert not is_best_of_a_target(iou).any()


@pytest.mark.parametrize(
    ("num_positive", "num_negative", "expected"),
    [(50, 50, (4, 12)), (2, 50, (2, 14)), (50, 3, (4, 3)), (0, 0, (0, 0)), (0, 50, (0, 16))],
)
def test_draws_fill_up_with_negatives(
    num_positive: int, num_negative: int, expected: tuple[int, int]
) -> None:
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    kind = torch.zeros(120)
    kind[order[:num_positive]], kind[order[num_positive : num_positive + num_negative]] = 1, -1
    positive, negative = sample(kind == 1, kind == -1, 16, 0.25)
    assert (len(positive), len(negative)) == expected
    assert (kind[positive] == 1).all()
    assert (kind[negative] == -1).all()
    assert len(torch.cat([positive, negative]).unique()) == sum(expected)


def test_draws_are_random() -> None:
    everything = torch.ones(1000, dtype=torch.bool)
    draws = [sample(everything, ~everything, 16, 1.0)[0] for _ in range(2)]
    assert not torch.equal(*draws)


def soft_nms_by_class(
    boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float
) -> list[tuple[float, int]]:
    """Soft-NMS of each class by itself, as the paper's figure 2 says: score and index."""
    found = []
    for label in labels.unique():
        left = {int(i): float(scores[i]) for i in (labels == label).nonzero()[:, 0]}
        while left:
            best = max(left, key=left.__getitem__)
            found.append((left.pop(best), best))
            for i in left:
                iou = float(box_iou(boxes[best, None], boxes[i, None]))
                left[i] *= 1 - iou if iou > threshold else 1
    return sorted(found, reverse=True)


def test_soft_nms_is_that_of_each_class_by_itself() -> None:
    boxes = random_boxes(60, seed=0, side=12)
    drawn = torch.Generator().manual_seed(1)
    scores, labels = torch.rand(60, generator=drawn), torch.randint(3, (60,), generator=drawn)
    index, lowered = soft_nms(boxes, scores, labels, 0.3, 45)
    expected = soft_nms_by_class(boxes, scores, labels, 0.3)[:45]
    assert index.tolist() == [i for _, i in expected]
    torch.testing.assert_close(lowered, torch.tensor([score for score, _ in expected]))
    assert (lowered < scores[index]).any()


def test_soft_nms_drops_copies_of_a_box_and_takes_nothing() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]])
    labels = torch.tensor([0, 0, 1])
    index, scores = soft_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), labels, 0.5, 10)
    assert index.tolist() == [0, 2]
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.7]))
    index, scores = soft_nms(boxes[:0], torch.zeros(0), labels[:0], 0.5, 10)
    assert len(index) == len(scores) == 0


def test_nms_keeps_what_overlaps_only_across_groups() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [0, 0, 10, 10], [30, 0, 40, 10]])
    scores, groups = torch.tensor([0.2, 0.9, 0.5, 0.7]), torch.tensor([0, 0, 1, 0])
    assert suppress(boxes, scores, groups, 0.5).tolist() == [1, 3, 2]
