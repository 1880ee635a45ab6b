"""Training on clips with a class in each head: loss, mixed and smoothed labels, accuracies."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.processes import run_ranks
from support.training import OPTIM, MeanColour, trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from video_mvit.data.transforms.augment import Augment
from video_mvit.data.transforms.mixup import Mixing
from video_mvit.evaluation.view_scores import ClipPasses, Scoring, score_videos
from video_mvit.training.classifier import Batch
from video_mvit.training.losses import logit_adjustment
from video_mvit.training.multihead_classifier import HeadAccuracy, MultiHeadClassifier

NAMES = ("verb: a", "verb: b", "noun: x", "noun: y", "noun: z")
HEADS = {"verb": 2, "noun": 3}
K = len(NAMES)
LOGITS = torch.tensor([[2.0, -1.0, 0.0, 0.5, 1.0], [-3.0, 0.1, 4.0, -0.2, 0.3]])
LABELS = torch.tensor([[0, 2], [1, 1]])
VERBS, NOUNS = LOGITS[:, :2], LOGITS[:, 2:]


def classifier(**options: object) -> MultiHeadClassifier:
    torch.manual_seed(0)
    known = {"num_classes": K, "preprocess": nn.Identity(), "optim": OPTIM, "class_names": NAMES}
    return MultiHeadClassifier(MeanColour(K), **{**known, **options})


def by_hand(target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over heads and clips of -sum(target x log softmax x weight), target (B, K)."""
    log_p = torch.cat([VERBS.log_softmax(1), NOUNS.log_softmax(1)], dim=1)
    losses = -target * log_p * (1 if weights is None else weights)
    return (losses[:, :2].sum(1) + losses[:, 2:].sum(1)).mean() / 2


def test_loss_is_the_mean_over_heads_of_cross_entropy() -> None:
    sets = classifier().targets_of(LABELS)
    assert sets.tolist() == [[1, 0, 0, 0, 1], [0, 1, 0, 1, 0]]
    expected = (F.cross_entropy(VERBS, LABELS[:, 0]) + F.cross_entropy(NOUNS, LABELS[:, 1])) / 2
    torch.testing.assert_close(classifier().loss(LOGITS, LABELS), expected)
    torch.testing.assert_close(classifier().loss(LOGITS, sets.float()), expected)
    torch.testing.assert_close(by_hand(sets.float()), expected)


def test_smoothing_is_shared_by_the_classes_of_each_head() -> None:
    target = torch.tensor([[0.85, 0.15, 0.1, 0.1, 0.8], [0.15, 0.85, 0.1, 0.8, 0.1]])
    for labels in (LABELS, classifier().targets_of(LABELS).float()):
        found = classifier(label_smoothing=0.3).loss(LOGITS, labels)
        torch.testing.assert_close(found, by_hand(target))


def test_weights_focal_loss_and_adjustment_are_of_each_head() -> None:
    weights = torch.tensor([1.0, 2.0, 0.5, 0.0, 3.0])
    sets = classifier().targets_of(LABELS).float()
    found = classifier(class_weights=weights.tolist()).loss(LOGITS, LABELS)
    torch.testing.assert_close(found, by_hand(sets, weights))
    p = torch.cat([VERBS.softmax(1), NOUNS.softmax(1)], dim=1)
    focal = classifier(focal_gamma=2.0, class_weights=weights.tolist()).loss(LOGITS, LABELS)
    torch.testing.assert_close(focal, by_hand(sets, weights * (1 - p) ** 2))
    # Menon et al.: the log of the share of each class in its head.
    labels = [0, 0, 0, 1, 2, 3, 3, 4]  # verbs 3 to 1, nouns 1 to 2 to 1
    shift = logit_adjustment(1.0, labels, K)
    shares = torch.tensor([3 / 4, 1 / 4, 1 / 4, 2 / 4, 1 / 4]).log()
    adjusted = classifier().loss(LOGITS + shares, LABELS)
    torch.testing.assert_close(classifier(logit_shift=shift).loss(LOGITS, LABELS), adjusted)


def test_mixing_mixes_every_head_as_it_mixes_the_clips() -> None:
    clips = torch.zeros(2, 2, 3, 8, 8, dtype=torch.uint8)
    clips[0] = 255
    augment = Augment(policy=None, mixing=Mixing(mixup_alpha=0.8, cutmix_alpha=0.0))
    clip, target = augment(
        clips,
        classifier().targets_of(LABELS),
        normalize=lambda raw: raw.transpose(1, 2).float() / 255,
        num_classes=K,
        generator=np.random.default_rng(0),
    )
    lam = float(clip[0].mean())
    assert 0 < lam < 1
    expected = [[lam, 1 - lam, 0, 1 - lam, lam], [1 - lam, lam, 0, lam, 1 - lam]]
    torch.testing.assert_close(target, torch.tensor(expected))
    losses = [classifier().loss(LOGITS[i : i + 1], target[i : i + 1]) for i in range(2)]
    assert float(sum(losses)) / 2 == pytest.approx(float(by_hand(target)))


def test_scores_are_the_softmax_of_each_head_averaged_over_views() -> None:
    views = torch.randn(2, 3, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model, scoring = MeanColour(K), Scoring(task="multi_head", heads=HEADS)

    def of_clips(raw: Tensor) -> Tensor:
        return raw.transpose(1, 2)

    logits = model(of_clips(views.flatten(0, 1))).view(2, 3, K)
    expected = torch.cat([logits[..., :2].softmax(-1), logits[..., 2:].softmax(-1)], -1).mean(1)
    found = score_videos(model, views, of_clips, ClipPasses(4), scoring)
    torch.testing.assert_close(found, expected)
    losses = classifier().losses_of_scores(expected, LABELS)
    p = expected[0, 0] * expected[0, 4]
    assert float(losses[0]) == pytest.approx(-math.log(float(p)) / 2, abs=1e-5)


def test_a_video_counts_where_every_head_is_right() -> None:
    scores = torch.tensor(
        [[0.9, 0.1, 0, 0, 1], [0.9, 0.1, 0, 1, 0], [0.2, 0.8, 1, 0, 0], [0.2, 0.8, 0, 0, 1]]
    )
    labels = torch.tensor([[0, 2], [0, 2], [0, 0], [1, 2]])
    expected = {None: 0.5, 0: 0.75, 1: 0.75}
    for head, share in expected.items():
        metric = HeadAccuracy(HEADS, head)
        metric.update(scores[:1], labels[:1])
        metric.update(scores[1:], labels[1:])
        assert float(metric.compute()) == share
    assert float(HeadAccuracy(HEADS, 0).compute()) == 0


def accuracy_over_ranks() -> list[float]:
    """Accuracies of all heads and of each; the second of two ranks has one video."""
    torch.distributed.init_process_group("gloo")
    rank, found = torch.distributed.get_rank(), []
    scores = torch.tensor([[0.9, 0.1, 0, 0, 1], [0.2, 0.8, 1, 0, 0], [0.2, 0.8, 0, 0, 1]])
    labels = torch.tensor([[0, 2], [0, 0], [1, 1]])
    for head in (None, 0, 1):
        metric = HeadAccuracy(HEADS, head)
        metric.update(scores[2:] if rank else scores, labels[2:] if rank else labels)
        found.append(float(metric.compute()))
    return found


@pytest.mark.slow
def test_accuracies_are_over_all_ranks() -> None:
    first, second = run_ranks(accuracy_over_ranks, 2)
    assert first == second == pytest.approx([1 / 4, 3 / 4, 2 / 4])


def test_without_class_names_all_classes_are_of_one_head() -> None:
    alone = classifier(class_names=())
    assert alone.example_labels(2).shape == (2, 1)
    torch.testing.assert_close(
        alone.loss(LOGITS, LABELS[:, :1]), F.cross_entropy(LOGITS, LABELS[:, 0])
    )


class TwoColours(torch.utils.data.Dataset):
    """Batches of clips whose red tells the verb, and whose blue the noun of two of three."""

    def __init__(self, num_batches: int, views: int = 0) -> None:
        self.num_batches, self.views = num_batches, views

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, index: int) -> Batch:
        label = torch.randint(0, 2, (8, 2), generator=torch.Generator().manual_seed(index))
        colours = torch.stack([label[:, 0], torch.zeros(8), label[:, 1]], dim=1) * 2.0 - 1
        clip = colours.view(8, 3, 1, 1, 1).expand(8, 3, 2, 4, 4)
        if self.views:
            clip = clip[:, None].expand(8, self.views, *clip.shape[1:])
        return Batch(clip, label, 8 * index + torch.arange(8))


def test_training_learns_both_heads() -> None:
    module = classifier()
    data = DataLoader(TwoColours(30), batch_size=None)
    val = DataLoader(TwoColours(4, views=2), batch_size=None)
    run = trainer(max_epochs=4)
    run.fit(module, data, val)
    metrics = run.callback_metrics
    assert {"val/all_top1", "val/verb_top1", "val/noun_top1", "val/loss"} <= set(metrics)
    assert float(metrics["val/all_top1"]) > 0.9
    assert float(metrics["val/noun_top1"]) >= float(metrics["val/all_top1"])
