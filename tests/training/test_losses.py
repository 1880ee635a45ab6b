"""Focal losses and adjusted logits, against PyTorch's losses and by hand."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from support.commands import composed
from support.training import classifier

from video_mvit.cli.auto_hardware import resolve_hardware
from video_mvit.cli.build import classifier_arguments
from video_mvit.errors import UserError
from video_mvit.training.losses import (
    focal_binary_cross_entropy,
    focal_cross_entropy,
    logit_adjustment,
    soft_targets,
)

LOGITS = torch.tensor([[2.0, -1.0, 0.0, 30.0], [-3.0, 0.1, 4.0, -0.2]], requires_grad=True)
LABEL = torch.tensor([3, 1])
WEIGHT = torch.tensor([1.0, 2.0, 0.5, 1.5])


def test_gamma_zero_is_cross_entropy_with_weights_and_smoothing() -> None:
    for smoothing in (0.0, 0.1):
        found = focal_cross_entropy(LOGITS, soft_targets(LABEL, 4, smoothing), 0.0, WEIGHT)
        expected = F.cross_entropy(
            LOGITS, LABEL, WEIGHT, label_smoothing=smoothing, reduction="none"
        )
        torch.testing.assert_close(found, expected.mean())
    sets = torch.tensor([[1.0, 0, 0, 1], [0, 0.3, 1, 0]])
    torch.testing.assert_close(
        focal_binary_cross_entropy(LOGITS, sets, 0.0, WEIGHT),
        F.binary_cross_entropy_with_logits(LOGITS, sets, WEIGHT),
    )


def test_a_right_clip_counts_by_the_power_of_its_error() -> None:
    p = LOGITS.softmax(dim=1)[1, 1]
    found = focal_cross_entropy(LOGITS[1:], soft_targets(LABEL[1:], 4, 0.0), 2.0)
    torch.testing.assert_close(found, -((1 - p) ** 2) * p.log())
    q = torch.tensor(0.8)
    logit = torch.logit(q).view(1, 1)
    ones, zeros = torch.ones(1, 1), torch.zeros(1, 1)
    torch.testing.assert_close(focal_binary_cross_entropy(logit, ones, 2.0), -0.04 * q.log())
    torch.testing.assert_close(focal_binary_cross_entropy(logit, zeros, 2.0), -0.64 * (1 - q).log())


def test_gradients_are_finite_where_a_clip_is_certain() -> None:
    logits = torch.tensor([[100.0, -100.0], [-100.0, 100.0]], requires_grad=True)
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    for loss in (focal_cross_entropy, focal_binary_cross_entropy):
        for gamma in (0.5, 1.5):
            (gradient,) = torch.autograd.grad(loss(logits, target, gamma), logits)
            assert gradient.isfinite().all(), (loss, gamma)


def test_loss_of_a_video_is_finite_where_the_true_class_scores_nothing() -> None:
    scores = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    found = classifier().losses_of_scores(scores, torch.tensor([2]))
    assert found.tolist() == [100.0]


def test_shift_is_the_logarithm_of_the_shares_and_acts_in_training_alone() -> None:
    shift = logit_adjustment(1.0, [0, 0, 0, 1], 3)
    assert shift == pytest.approx([math.log(3 / 4), math.log(1 / 4), math.log(1 / 4)])
    assert logit_adjustment(None, [0, 1], 2) == []
    module = classifier(logit_shift=[0.0, 1.0, 2.0, -1.0])
    logits = LOGITS.detach()
    expected = F.cross_entropy(logits + torch.tensor([0.0, 1.0, 2.0, -1.0]), LABEL)
    torch.testing.assert_close(module.loss(logits, LABEL), expected)
    views = torch.rand(2, 1, 3, 2, 4, 4)
    torch.testing.assert_close(
        module.score(module.model, views), classifier().score(module.model, views)
    )


def test_impossible_values_and_two_corrections_are_refused() -> None:
    with pytest.raises(UserError, match="focal_gamma 0 must be above 0"):
        classifier(focal_gamma=0)
    corrections = ("class_weights=balanced", "data.balanced=true", "logit_adjustment=1")
    for two in itertools.combinations(corrections, 2):
        cfg = composed(
            "config", "experiment=demo", "data.root=/d", "run_dir=/r", "trainer=cpu", *two
        )
        resolve_hardware(cfg)
        with pytest.raises(UserError, match="both correct for rare classes"):
            classifier_arguments(cfg)
