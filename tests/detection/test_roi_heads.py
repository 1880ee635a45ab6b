"""Pooling, samples, cascade stages and selection, by hand and against plain formulas."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.detectors import objects, random_boxes, tiny_detector
from torch import Tensor
from torchvision.ops import roi_align

from video_mvit.detection.boxes import encode
from video_mvit.detection.roi_heads import Candidates, RoIHeads, Samples, box_losses, pool, refine

HW = 128


def heads(**overrides: Any) -> RoIHeads:
    return tiny_detector(**overrides).roi_heads


def features(num_images: int = 1, seed: int = 0) -> list[Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    return [
        torch.randn(num_images, 16, HW // stride, HW // stride, generator=drawn)
        for stride in (4, 8, 16, 32)
    ]


@pytest.mark.parametrize(
    ("side", "level"),
    [(4, 0), (111, 0), (112, 1), (223, 1), (224, 2), (447, 2), (448, 3), (2000, 3)],
)
def test_a_box_is_pooled_from_the_map_that_suits_its_size(side: int, level: int) -> None:
    constant = [torch.full((1, 1, 64, 64), float(i)) for i in range(4)]
    pooled = pool(constant, [torch.tensor([[0.0, 0, side / 2, 2 * side]])], 7)
    assert pooled[..., 0, 0].flatten().tolist() == [level]


def test_pooled_boxes_keep_their_order_and_image() -> None:
    maps = features(num_images=2)
    boxes = [random_boxes(6, 0, HW), random_boxes(5, 1, HW)]
    boxes[0][2] = torch.tensor([0.0, 0, HW, HW])
    pooled = pool(maps, boxes, 7)
    for row, (image, box) in enumerate((i, box) for i in range(2) for box in boxes[i]):
        side = float((box[2:] - box[:2]).prod().sqrt())
        level = 1 if side >= 112 else 0
        x, stride = maps[level][image, None], (4, 8)[level]
        expected = roi_align(x, [box[None]], 7, 1 / stride, sampling_ratio=0, aligned=True)
        torch.testing.assert_close(pooled[row, None], expected)


def test_boxes_that_are_empty_or_nan_are_pooled_without_harm() -> None:
    boxes = torch.tensor([[5.0, 5, 5, 9], [math.nan] * 4, [0, 0, 30, 30]])
    pooled = pool(features(), [boxes], 7)
    assert pooled.isfinite().all()
    torch.testing.assert_close(pooled[2:], pool(features(), [boxes[2:]], 7))


def test_half_precision_maps_are_pooled_at_exact_boxes() -> None:
    box = [torch.tensor([[1001.3, 1002.7, 1030.1, 1040.9]]) / 10]
    maps = [x.bfloat16() for x in features()]
    pooled = pool(maps, box, 7)
    assert pooled.dtype == torch.bfloat16
    expected = pool([x.float() for x in maps], box, 7)
    torch.testing.assert_close(pooled.float(), expected, rtol=1e-2, atol=1e-2)


def test_the_objects_own_boxes_are_drawn_and_a_quarter_at_most_are_objects() -> None:
    target = objects((0, 0, 20, 20), (40, 40, 80, 80))
    near = torch.tensor([[0.0, 0, 20, 22]]).repeat(20, 1)
    far = torch.tensor([[90.0, 90, 120, 120]]).repeat(60, 1)
    samples = heads().draw(torch.cat([near, far]), target)
    is_object = samples.labels < 5
    assert (len(samples.labels), int(is_object.sum())) == (32, 8)
    assert torch.equal(samples.labels[is_object], samples.objects[is_object])
    drawn = heads().draw(far, target)
    assert sorted(drawn.labels[drawn.labels < 5].tolist()) == [0, 1]
    assert torch.equal(drawn.boxes[:2], target.boxes[drawn.objects[:2]])


def test_an_object_needs_more_overlap_in_each_stage() -> None:
    target = objects((0, 0, 10, 10))
    boxes = torch.tensor([[0.0, 0, 10, 2 * 10], [0, 0, 10, 15], [0, 0, 10, 12], [0, 0, 10, 30]])
    labels = [heads().label(boxes, target, stage).labels.tolist() for stage in range(3)]
    assert labels == [[0, 0, 0, 5], [5, 0, 0, 5], [5, 5, 0, 5]]


@pytest.mark.parametrize("num_boxes", [1, 3], ids=["agnostic", "of_each_class"])
def test_box_losses_are_means_over_all_samples(num_boxes: int) -> None:
    boxes, targets = random_boxes(4, 0), random_boxes(4, 1)
    labels, index = torch.tensor([2, 3, 0, 3]), torch.zeros(4, dtype=torch.int64)
    logits, deltas = torch.randn(4, 4), torch.randn(4, num_boxes, 4)
    weights = (10.0, 10.0, 5.0, 5.0)
    parts = [
        Samples(boxes[:3], labels[:3], index[:3], targets[:3]),
        Samples(boxes[3:], labels[3:], index[3:], targets[3:]),
    ]
    loss_cls, loss_box = box_losses(logits, deltas, parts, weights)
    torch.testing.assert_close(loss_cls, F.cross_entropy(logits, labels))
    wanted = encode(targets, boxes, weights)
    rows = [(0, 2), (2, 0)]  # of the objects, and their class
    total = sum((deltas[i, k if num_boxes > 1 else 0] - wanted[i]).abs().sum() for i, k in rows)
    torch.testing.assert_close(loss_box, total / 4)


def test_later_stages_take_all_refined_boxes_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    roi_heads = heads(heads="cascade_layer_norm").train()
    seen: list[list[Tensor]] = []
    predict = roi_heads.predict

    def spy(maps: Any, boxes: list[Tensor], stage: int) -> tuple[Tensor, Tensor]:
        seen.append([*boxes])
        logits, deltas = predict(maps, boxes, stage)
        deltas = torch.zeros_like(deltas)
        deltas[0, 0, 0] = 1e4  # out of the image: empty when clipped
        return logits, deltas

    monkeypatch.setattr(roi_heads, "predict", spy)
    roi_heads.losses(features(), [random_boxes(40, 0)], [objects((0, 0, 20, 20))], [(HW, HW)])
    assert [len(boxes) for [boxes] in seen] == [32, 31, 30]
    torch.testing.assert_close(seen[1][0], seen[0][0][1:])


def test_the_stages_of_a_cascade_share_the_gradient_of_the_features() -> None:
    boxes = [random_boxes(8, 0)]
    gradients = []
    for training in (True, False):
        roi_heads = heads(heads="cascade_layer_norm").train(training)
        maps = [x.requires_grad_() for x in features()]
        logits, _ = roi_heads.predict(maps, boxes, stage=1)
        logits.square().sum().backward()
        gradients.append((maps[0].grad, roi_heads.box_head[1].fc1.weight.grad))
    torch.testing.assert_close(3 * gradients[0][0], gradients[1][0])
    torch.testing.assert_close(gradients[0][1], gradients[1][1])


def test_a_cascade_rates_by_the_mean_of_its_stages_and_keeps_empty_boxes() -> None:
    roi_heads = heads(heads="cascade_layer_norm").eval()
    proposals = [torch.cat([random_boxes(5, 0), torch.tensor([[9.0, 9, 9, 20]])])]
    maps, sizes = features(), [(HW, HW)]
    [found] = roi_heads.classify(maps, proposals, sizes)
    boxes, probabilities = proposals, []
    for stage in range(3):
        logits, deltas = roi_heads.predict(maps, boxes, stage)
        probabilities.append(logits.softmax(1))
        boxes = refine(boxes, deltas, sizes, stage)
    torch.testing.assert_close(found.probabilities, sum(probabilities) / 3)
    assert found.boxes.shape == (6, 1, 4)
    torch.testing.assert_close(found.boxes[:, 0].clamp(0, HW), boxes[0])


def candidates(boxes: list[list[float]], scores: list[list[float]]) -> Candidates:
    background = 1 - torch.tensor(scores).sum(1, keepdim=True)
    return Candidates(
        torch.tensor(boxes)[:, None], torch.cat([torch.tensor(scores), background], dim=1)
    )


def test_selection_suppresses_within_classes_and_drops_what_is_not_finite() -> None:
    roi_heads = heads(num_classes=2)
    boxes = [[0.0, 0, 10, 10], [0, 0, 10, 11], [math.nan, 0, 5, 5], [90, 0, 200, 10], [0, 0, 1, 1]]
    scores = [[0.6, 0.3], [0.5, 0.4], [0.9, 0.0], [0.0, 0.7], [0.04, 0.05]]
    found, rated, labels = roi_heads.select(candidates(boxes, scores), (100, 100))
    assert found.tolist() == [[90, 0, 100, 10], [0, 0, 10, 10], [0, 0, 10, 11]]
    torch.testing.assert_close(rated, torch.tensor([0.7, 0.6, 0.4]))
    assert labels.tolist() == [1, 0, 1]


def test_selection_takes_the_box_of_the_class_and_the_best_detections() -> None:
    roi_heads = heads(num_classes=2, num_detections=1)
    boxes = torch.tensor([[[0.0, 0, 10, 10], [50, 50, 60, 60]]])
    rated = Candidates(boxes, torch.tensor([[0.3, 0.5, 0.2]]))
    found, _, labels = roi_heads.select(rated, (100, 100))
    assert (found.tolist(), labels.tolist()) == ([[50, 50, 60, 60]], [1])


def test_soft_selection_lowers_scores_instead() -> None:
    roi_heads = heads(num_classes=2, suppression="soft_nms")
    boxes, scores = [[0.0, 0, 10, 10], [0, 0, 10, 16]], [[0.8, 0.0], [0.6, 0.0]]
    found, rated, _ = roi_heads.select(candidates(boxes, scores), (100, 100))
    assert found.tolist() == boxes
    torch.testing.assert_close(rated, torch.tensor([0.8, 0.6 * (1 - 10 / 16)]))


def test_masks_are_those_of_the_class_of_each_box() -> None:
    roi_heads = heads().eval()
    maps, boxes, labels = features(2), [random_boxes(3, 0), random_boxes(2, 1)], [2, 0, 4, 1, 1]
    masks = roi_heads.masks(maps, boxes, [torch.tensor(labels[:3]), torch.tensor(labels[3:])])
    assert [mask.shape for mask in masks] == [(3, 28, 28), (2, 28, 28)]
    everything = roi_heads.mask_head(pool(maps, boxes, 14)).sigmoid()
    torch.testing.assert_close(torch.cat(masks), everything[range(5), labels])
