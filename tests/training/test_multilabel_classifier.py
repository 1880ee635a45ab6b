"""Training on clips with several classes: loss, mixed and smoothed labels, mAP, views."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.paths import ROOT
from support.training import OPTIM, MeanColour, trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from video_mvit.data.transforms.augment import Augment
from video_mvit.data.transforms.mixup import Mixing
from video_mvit.evaluation.multilabel_metrics import mean_average_precision
from video_mvit.evaluation.view_scores import ClipPasses, Scoring, score_videos
from video_mvit.training.classifier import Batch
from video_mvit.training.multilabel_classifier import MeanAveragePrecision, MultiLabelClassifier

K = 4
LOGITS = torch.tensor([[2.0, -1.0, 0.0, 0.5], [-3.0, 0.1, 4.0, -0.2]])
SETS = torch.tensor([[1, 0, 0, 1], [0, 0, 1, 0]]).bool()


def classifier(**options: object) -> MultiLabelClassifier:
    torch.manual_seed(0)
    known = {"num_classes": K, "preprocess": nn.Identity(), "optim": OPTIM, **options}
    return MultiLabelClassifier(MeanColour(K), **known)


def test_loss_is_binary_cross_entropy_of_each_class() -> None:
    by_hand = -torch.where(SETS, LOGITS.sigmoid(), 1 - LOGITS.sigmoid()).log()
    torch.testing.assert_close(classifier().loss(LOGITS, SETS), by_hand.mean())
    weights = [1.0, 2.0, 0.5, 0.0]
    weighted = classifier(class_weights=weights).loss(LOGITS, SETS)
    torch.testing.assert_close(weighted, (by_hand * torch.tensor(weights)).mean())


def test_loss_of_scores_is_binary_cross_entropy_also_of_certain_ones() -> None:
    scores = torch.cat([LOGITS.sigmoid(), torch.tensor([[0.0, 1.0, 0.0, 1.0]])])
    truth = torch.cat([SETS, torch.tensor([[True, False, False, True]])])
    expected = F.binary_cross_entropy(scores, truth.float(), reduction="none").mean(dim=1)
    torch.testing.assert_close(classifier().losses_of_scores(scores, truth), expected)


def test_no_module_uses_what_autocast_on_cuda_refuses() -> None:
    # `F.binary_cross_entropy` and `nn.BCELoss` are all that it does.
    for path in (ROOT / "video_mvit").rglob("*.py"):
        found = re.search(r"(?<!focal_)\b(binary_cross_entropy|BCELoss)\(", path.read_text())
        assert found is None, f"{path}: {found}"


def test_smoothing_moves_each_label_towards_one_half() -> None:
    found = classifier(label_smoothing=0.2).loss(LOGITS, SETS)
    target = torch.where(SETS, 0.9, 0.1)
    torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(LOGITS, target))


def test_mixing_mixes_the_sets_as_it_mixes_the_clips() -> None:
    clips = torch.zeros(2, 2, 3, 8, 8, dtype=torch.uint8)
    clips[0] = 255
    augment = Augment(policy=None, mixing=Mixing(mixup_alpha=0.8, cutmix_alpha=0.0))
    clip, target = augment(
        clips,
        SETS,
        normalize=lambda raw: raw.transpose(1, 2).float() / 255,
        num_classes=K,
        generator=np.random.default_rng(0),
    )
    lam = clip[0].mean()
    assert 0 < lam < 1
    expected = torch.stack(
        [lam * SETS[0] + (1 - lam) * SETS[1], lam * SETS[1] + (1 - lam) * SETS[0]]
    )
    torch.testing.assert_close(target, expected)


def test_views_are_averaged_or_the_highest_counts() -> None:
    views = torch.randn(2, 3, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model, passes = MeanColour(K), ClipPasses(4)

    def of_clips(raw: Tensor) -> Tensor:
        return raw.transpose(1, 2)

    logits = model(of_clips(views.flatten(0, 1))).view(2, 3, K)
    for how, expected in (("mean", logits.sigmoid().mean(1)), ("max", logits.sigmoid().amax(1))):
        scoring = Scoring(task="multi_label", combine_views=how)
        found = score_videos(model, views, of_clips, passes, scoring)
        torch.testing.assert_close(found, expected)


def test_map_is_that_of_all_batches_together() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, truth = torch.rand(20, K, generator=generator), torch.rand(20, K, generator=generator)
    truth = truth > 0.6
    metric = MeanAveragePrecision(K)
    for some in (slice(0, 7), slice(7, 20)):
        metric.update(scores[some], truth[some])
    expected = mean_average_precision(scores.double().numpy(), truth.numpy())
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-6)
    assert {each.dtype for each in (*metric.scores, *metric.truth)} == {metric.dtype, torch.float32}
    metric.scores.append(torch.tensor([]))  # what a rank without videos gives
    metric.truth.append(torch.tensor([]))
    metric._computed = None
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-6)
    metric.reset()
    metric.update(scores, truth & False)
    assert float(metric.compute()) == 0


class SetsOfColours(torch.utils.data.Dataset):
    """Batches of clips, of which a colour that is bright is a class."""

    def __init__(self, num_batches: int, views: int = 0) -> None:
        self.num_batches, self.views = num_batches, views

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, index: int) -> Batch:
        generator = torch.Generator().manual_seed(index)
        label = torch.rand(8, K, generator=generator) > 0.5
        colours = label[:, :3].float() * 2 - 1
        clip = colours.view(8, 3, 1, 1, 1).expand(8, 3, 2, 4, 4)
        if self.views:
            clip = clip[:, None].expand(8, self.views, *clip.shape[1:])
        return Batch(clip, label, 8 * index + torch.arange(8))


def test_training_learns_which_classes_a_clip_has() -> None:
    module = classifier()
    data = DataLoader(SetsOfColours(20), batch_size=None)
    val = DataLoader(SetsOfColours(4, views=2), batch_size=None)
    run = trainer(max_epochs=3)
    run.fit(module, data, val)
    metrics = run.callback_metrics
    assert {"val/map", "val/loss", "train/loss"} <= set(metrics)
    assert float(metrics["val/map"]) > 0.85  # three classes are certain, one is chance
    scores = module.score(module.model, val.dataset[0].clip)
    assert scores.shape == (8, K)
    assert not torch.allclose(scores.sum(1), torch.ones(8))  # each class has its own probability
