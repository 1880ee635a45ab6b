"""Proposals and their losses, by hand."""

import math

import torch
import torch.nn.functional as F
from support.detectors import TINY, objects
from torch import Tensor

from video_mvit.detection.config import DetectorConfig
from video_mvit.detection.instances import Instances
from video_mvit.detection.rpn import Level, ProposalGenerator


def generator(**overrides: int) -> ProposalGenerator:
    torch.manual_seed(0)
    return ProposalGenerator(DetectorConfig(**(TINY | {"fpn_channels": 8} | overrides)))


def level(boxes: list[list[float]], logits: list[float], deltas: Tensor | None = None) -> Level:
    """A map of an image whose anchors, at deltas of 0, are its proposals."""
    anchors = torch.tensor(boxes)
    deltas = torch.zeros(1, len(boxes), 4) if deltas is None else deltas
    return Level(anchors, torch.tensor([logits]), deltas)


def test_anchors_follow_their_three_outputs_at_each_position() -> None:
    rpn = generator()
    head = rpn.rpn_head
    x = torch.randn(2, 8, 3, 4, generator=torch.Generator().manual_seed(0))
    logits, deltas = head(x)
    hidden = F.relu(F.conv2d(x, head.conv.weight, head.conv.bias, padding=1))
    rated, moved = head.objectness_logits(hidden), head.anchor_deltas(hidden)
    row, column, anchor = 1, 2, 2
    index = (row * 4 + column) * 3 + anchor
    torch.testing.assert_close(logits[:, index], rated[:, anchor, row, column])
    torch.testing.assert_close(deltas[:, index], moved[:, 4 * anchor : 4 * anchor + 4, row, column])


def test_levels_have_the_anchors_of_their_strides() -> None:
    sides = (16, 8, 4, 2, 1)
    levels = generator()([torch.zeros(1, 8, side, side) for side in sides])
    assert [len(each.anchors) for each in levels] == [3 * side**2 for side in sides]
    square = [each.anchors[1] for each in levels]  # of the first cell, which is at the corner
    assert [float(box[2]) for box in square] == [16, 32, 64, 128, 256]
    assert [float(each.anchors[4, 2]) for each in levels[:4]] == [20, 40, 80, 160]


def test_proposals_are_clipped_to_the_image_and_suppressed_within_their_level() -> None:
    fine = level([[0, 0, 10, 10], [0, 0, 10, 11], [20, 20, 40, 40]], [1.0, 2.0, 0.5])
    coarse = level([[0, 0, 10, 10], [60, 0, 80, 10]], [3.0, 4.0])
    [proposals] = generator().eval().propose([fine, coarse], [(30, 50)])
    # The last box is beyond the width of 50, though padding may hold it.
    assert proposals.tolist() == [[0, 0, 10, 10], [0, 0, 10, 11], [20, 20, 40, 30]]


def test_proposals_are_limited_on_each_level_and_in_all() -> None:
    boxes = [[20.0 * i, 0.0, 20.0 * i + 10, 10.0] for i in range(4)]
    levels = [level(boxes, [1.0, 4.0, 3.0, 2.0]), level(boxes, [0.1, 0.2, 0.3, 0.4])]
    limited = generator(num_candidates_train=2, num_candidates_test=3, num_proposals=4)
    starts = {
        mode: limited.train(mode).propose(levels, [(100, 100)])[0][:, 0].tolist()
        for mode in (True, False)
    }
    assert starts == {True: [20, 40, 60, 40], False: [20, 40, 60, 60]}


def test_boxes_that_are_not_finite_are_dropped_and_make_the_losses_nan() -> None:
    deltas = torch.zeros(1, 2, 4)
    deltas[0, 0, 0] = math.nan
    levels = [level([[0, 0, 10, 10], [20, 0, 30, 10]], [1.0, 2.0], deltas)]
    for rpn in (generator().eval(), generator().train()):
        assert rpn.propose(levels, [(50, 50)])[0].tolist() == [[20, 0, 30, 10]]
        losses = rpn.losses(levels, [objects()])  # no anchor is drawn for its deltas
        assert all(loss.isnan() for loss in losses.values())


def test_losses_are_sums_over_drawn_anchors_divided_by_the_number_to_draw() -> None:
    # The first anchor is the object, the second too far for either, the third background; the last
    # is the best of a small object, at an IoU that would leave it out.
    anchors = [[0.0, 0, 10, 10], [0, 0, 10, 20], [50, 50, 60, 60], [80, 80, 90, 90]]
    target = objects((0, 0, 10, 10), (80, 80, 82, 90))
    deltas = torch.arange(16.0).reshape(1, 4, 4) / 16
    logits = [0.5, -3.0, 1.5, -0.25]
    losses = generator().losses([level(anchors, logits, deltas)], [target])
    positive, negative = torch.tensor([0.5, -0.25]), torch.tensor([1.5])
    loss_cls = F.softplus(-positive).sum() + F.softplus(negative).sum()
    torch.testing.assert_close(losses["loss_rpn_cls"], loss_cls / 256)
    wanted = torch.tensor([[0.0, 0, 0, 0], [-0.4, 0, math.log(0.2), 0]])
    loss_loc = (deltas[0, [0, 3]] - wanted).abs().sum()
    torch.testing.assert_close(losses["loss_rpn_loc"], loss_loc / 256)


def test_losses_of_a_batch_are_those_of_its_images_on_average() -> None:
    anchors = [[0.0, 0, 10, 10], [50, 50, 60, 60]]
    logits, deltas = torch.tensor([[0.5, 1.0], [2.0, 0.0]]), torch.ones(2, 2, 4)
    targets: list[Instances] = [objects((0, 0, 10, 12)), objects()]
    rpn = generator()
    both = rpn.losses([Level(torch.tensor(anchors), logits, deltas)], targets)
    single = [
        rpn.losses([Level(torch.tensor(anchors), logits[i, None], deltas[i, None])], [targets[i]])
        for i in range(2)
    ]
    for name, loss in both.items():
        torch.testing.assert_close(loss, (single[0][name] + single[1][name]) / 2)
