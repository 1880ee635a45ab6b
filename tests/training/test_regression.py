"""Training on numbers: loss, standardized and mixed targets, metrics against plain formulas."""

from typing import Any

import numpy as np
import pytest
import torch
from support.processes import run_ranks
from support.training import OPTIM, MeanColour, trainer
from torch import nn
from torch.utils.data import DataLoader

from video_mvit.data.transforms.augment import Augment
from video_mvit.data.transforms.mixup import Mixing
from video_mvit.errors import UserError
from video_mvit.training.classifier import Batch
from video_mvit.training.regression import MeanAbsoluteError, MeanR2, VideoRegressor

MEAN, STD = (1e6, -3.0), (2.0, 0.5)
VALUES = torch.tensor([[1e6 + 1, -3.5], [1e6 - 4, -2.0], [1e6, -3.0]], dtype=torch.float64)
OUTPUTS = torch.tensor([[0.5, -1.0], [0.0, 5.0], [-0.25, 0.0]])


def regressor(**options: Any) -> VideoRegressor:
    torch.manual_seed(0)
    known: dict[str, Any] = {"num_classes": 2, "preprocess": nn.Identity(), "optim": OPTIM}
    known |= {"target_mean": MEAN, "target_std": STD, **options}
    return VideoRegressor(MeanColour(2), **known)


def test_targets_are_standardized_and_values_come_back() -> None:
    module = regressor()
    standardized = module.targets_of(VALUES)
    expected = torch.tensor([[0.5, -1.0], [-2.0, 2.0], [0.0, 0.0]])
    torch.testing.assert_close(standardized, expected)
    torch.testing.assert_close(module.scoring.of_clips(standardized), VALUES)
    assert module.scoring.of_clips(OUTPUTS).dtype == torch.float64


def test_loss_is_the_squared_error_or_that_of_huber() -> None:
    errors = OUTPUTS - regressor().targets_of(VALUES)  # (3, 2)
    target = regressor().targets_of(VALUES)
    torch.testing.assert_close(regressor().loss(OUTPUTS, target), (errors**2).mean())
    size, delta = errors.abs(), 0.75
    by_hand = torch.where(size <= delta, size**2 / 2, delta * (size - delta / 2))
    module = regressor(huber_delta=delta)
    torch.testing.assert_close(module.loss(OUTPUTS, target), by_hand.mean())
    scores = module.scoring.of_clips(OUTPUTS)
    torch.testing.assert_close(module.losses_of_scores(scores, VALUES), by_hand.mean(dim=1))
    for delta in (0, -1, float("nan"), 1000):
        with pytest.raises(UserError, match=r"data\.huber_delta"):
            regressor(huber_delta=delta)


def test_mixing_mixes_the_values_as_it_mixes_the_clips() -> None:
    clips = torch.zeros(2, 2, 3, 8, 8, dtype=torch.uint8)
    clips[0] = 255
    standardized = regressor().targets_of(VALUES[:2])
    augment = Augment(policy=None, mixing=Mixing(mixup_alpha=0.8, cutmix_alpha=0.0))
    clip, target = augment(
        clips,
        standardized,
        normalize=lambda raw: raw.transpose(1, 2).float() / 255,
        num_classes=2,
        generator=np.random.default_rng(0),
    )
    lam = clip[0].mean()
    assert 0 < lam < 1
    first, second = standardized
    expected = torch.stack([lam * first + (1 - lam) * second, lam * second + (1 - lam) * first])
    torch.testing.assert_close(target, expected)


def test_metrics_are_those_of_all_batches_together() -> None:
    draw = torch.Generator().manual_seed(0)
    truth = torch.randn(20, 2, generator=draw, dtype=torch.float64) * 3 + 1e6
    values = truth + torch.randn(20, 2, generator=draw, dtype=torch.float64)
    y, p = truth.numpy(), values.numpy()
    r2 = np.mean(1 - ((y - p) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0))
    for kind, expected in ((MeanR2, r2), (MeanAbsoluteError, np.abs(y - p).mean())):
        metric = kind(2)
        for some in (slice(0, 7), slice(7, 20)):
            metric.update(values[some], truth[some])
        assert float(metric.compute()) == pytest.approx(expected, rel=1e-6)
        metric.scores.append(torch.tensor([], dtype=metric.dtype))  # of a rank without videos
        metric.truth.append(torch.tensor([], dtype=metric.dtype))
        metric._computed = None
        assert metric.dtype == torch.float64
        assert float(metric.compute()) == pytest.approx(expected, rel=1e-6)
        metric.reset()
        metric.update(values[:1], truth[:1])  # one video: R2 is not defined
        of_one = 0 if kind is MeanR2 else np.abs(y - p)[0].mean()
        assert float(metric.compute()) == pytest.approx(of_one, rel=1e-6)


class Colours(torch.utils.data.Dataset[Batch]):
    """Batches of plain clips, whose red and the opposite of whose green are the numbers."""

    def __init__(self, num_batches: int, views: int = 0) -> None:
        self.num_batches, self.views = num_batches, views

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, index: int) -> Batch:
        colours = torch.randn(8, 3, generator=torch.Generator().manual_seed(index))
        scaled = torch.stack([colours[:, 0], -colours[:, 1]], dim=1).double()
        label = scaled * torch.tensor(STD) + torch.tensor(MEAN)
        clip = colours.view(8, 3, 1, 1, 1).expand(8, 3, 2, 4, 4)
        if self.views:
            clip = clip[:, None].expand(8, self.views, *clip.shape[1:])
        return Batch(clip, label, 8 * index + torch.arange(8))


def test_training_learns_the_numbers_and_a_resumed_run_keeps_their_scale() -> None:
    module = regressor()
    data = DataLoader(Colours(20), batch_size=None)
    val = DataLoader(Colours(4, views=2), batch_size=None)
    run = trainer(max_epochs=4)
    run.fit(module, data, val)
    metrics = run.callback_metrics
    assert {"val/r2", "val/mae", "val/loss", "train/loss"} <= set(metrics)
    assert float(metrics["val/r2"]) > 0.95
    assert float(metrics["val/mae"]) < 0.3
    batch = val.dataset[0]
    scores = module.score(module.model, batch.clip)
    assert scores.shape == (8, 2)
    assert (scores - batch.label).abs().max() < 1.5  # in units: the mean is a million
    card = {"target_mean": list(MEAN), "target_std": [2.0, 0.75]}
    with pytest.raises(UserError, match=r"the run to resume has target_std \[2.0, 0.75\]"):
        module.on_load_checkpoint({"card": card})


def metrics_over_ranks(num_with_videos: int) -> tuple[float, float]:
    """R2 and error on a rank; the ranks from `num_with_videos` on have no video."""
    torch.distributed.init_process_group("gloo")
    rank, found = torch.distributed.get_rank(), []
    truth, values = torch.tensor([[1e6], [1e6 + 1]]), torch.tensor([[1e6 + 0.5], [1e6 + 1]])
    for metric in (MeanR2(1), MeanAbsoluteError(1)):
        if rank < num_with_videos:
            metric.update(values.double() + rank, truth.double())
        found.append(float(metric.compute()))
    return found[0], found[1]


@pytest.mark.slow
@pytest.mark.parametrize("num_with_videos", [1, 2])
def test_metrics_are_over_all_ranks_also_those_without_videos(num_with_videos: int) -> None:
    first, second = run_ranks(metrics_over_ranks, 2, num_with_videos)
    errors = np.array([0.5, 0.0, 1.5, 1.0][: 2 * num_with_videos])
    spread = 0.25 * len(errors)  # of true values 0 and 1
    assert first == second
    assert first[0] == pytest.approx(1 - (errors**2).sum() / spread, rel=1e-6)
    assert first[1] == pytest.approx(errors.mean(), rel=1e-6)
