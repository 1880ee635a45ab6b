"""Probes: the grid is what each place alone would be, folding changes nothing, choices are fair."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from video_mvit.errors import UserError
from video_mvit.probing.attentive import AttentiveProbes
from video_mvit.probing.extraction import SplitFeatures
from video_mvit.probing.features_cache import Views
from video_mvit.probing.fitting import Rates
from video_mvit.probing.linear import LinearProbes
from video_mvit.probing.neighbours import Neighbours, Vote
from video_mvit.probing.selection import Selection, Trial, best_of, stratified_folds

NUM_CLASSES, DIM = 3, 5
PROBES = LinearProbes(
    lr=[1e-2, 1e-3], weight_decay=[0.0, 1.0], num_epochs=2, min_steps=20, batch_size=8
)


def made_up(num_videos: int, seed: int, num_views: int = 2) -> SplitFeatures:
    """Videos whose class shifts their features, in odd units: offsets and scales differ."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_videos) % NUM_CLASSES
    centres = torch.randn(NUM_CLASSES, DIM, generator=torch.Generator().manual_seed(9))
    noise = torch.randn(num_videos, num_views, DIM, generator=generator)
    features = (centres[labels][:, None] + 0.5 * noise) * torch.tensor([1, 10, 0.1, 3, 1]) + 7
    return SplitFeatures(
        features=features,
        views=list(map(Views, features)),
        labels=labels,
        indices=torch.arange(num_videos),
        sources=torch.arange(num_videos),
    )


def test_a_probe_of_the_grid_is_what_it_would_be_alone() -> None:
    train, test = made_up(24, 0), made_up(9, 1)
    together = PROBES.fit(train, NUM_CLASSES, PROBES.grid, seed=3)
    assert len(PROBES.grid) == 4
    for number, place in enumerate(PROBES.grid):
        alone = PROBES.fit(train, NUM_CLASSES, [place], seed=3)
        torch.testing.assert_close(
            together.scores(number, test), alone.scores(0, test), rtol=1e-4, atol=1e-5
        )
    assert not torch.allclose(together.scores(0, test), together.scores(3, test), atol=1e-3)


def test_folding_the_standardization_changes_no_logit() -> None:
    train = made_up(24, 0)
    fitted = PROBES.fit(train, NUM_CLASSES, [Rates(0.01, 0.1)], seed=0)
    x = train.features.flatten(0, 1)
    mean, std = x.mean(0), x.std(0, correction=0)
    # The same probe on standardized features: W' std and b' + W' mean.
    weight, bias = fitted.weight[0] * std, fitted.bias[0] + fitted.weight[0] @ mean
    logits = ((train.features - mean) / std) @ weight.T + bias
    torch.testing.assert_close(
        fitted.scores(0, train), logits.softmax(-1).mean(1), rtol=1e-4, atol=1e-5
    )
    assert (fitted.scores(0, train).argmax(1) == train.labels).float().mean() > 0.8


def test_a_channel_that_never_changes_does_no_harm() -> None:
    train = made_up(12, 0)
    train.features[..., 2] = 4.0
    fitted = PROBES.fit(train, NUM_CLASSES, PROBES.grid, seed=0)
    assert fitted.weight.isfinite().all()


def test_same_seed_same_probes() -> None:
    train = made_up(12, 0)
    one, two = (PROBES.fit(train, NUM_CLASSES, PROBES.grid, seed=5) for _ in range(2))
    assert torch.equal(one.weight, two.weight)
    other = PROBES.fit(train, NUM_CLASSES, PROBES.grid, seed=6)
    assert not torch.equal(one.weight, other.weight)


def test_neighbours_vote_by_their_cosine() -> None:
    train, test = made_up(8, 0), made_up(4, 1)
    fitted = Neighbours(k=[3, 50], temperature=[0.1]).fit(
        train, NUM_CLASSES, [Vote(3, 0.1), Vote(50, 0.1)], seed=0
    )
    for number, k in enumerate((3, 8)):  # no more than there are
        for video in range(4):
            votes = [0.0] * NUM_CLASSES
            of_test = test.features[video].mean(0)
            cosines = [
                float(torch.cosine_similarity(of_test, each.mean(0), dim=0))
                for each in train.features
            ]
            nearest = sorted(range(8), key=lambda i: -cosines[i])[:k]
            for i in nearest:
                votes[int(train.labels[i])] += float(torch.tensor(cosines[i] / 0.1).exp())
            expected = torch.tensor(votes) / sum(votes)
            torch.testing.assert_close(
                fitted.scores(number, test)[video], expected, rtol=1e-3, atol=1e-5
            )


def test_folds_have_every_class_and_equal_sizes() -> None:
    labels = torch.tensor([0] * 10 + [1] * 5 + [2] * 7)
    sources = torch.arange(22)
    folds = stratified_folds(labels, sources, 5, seed=0)
    assert sorted(folds.bincount().tolist()) == [4, 4, 4, 5, 5]
    for label in range(3):
        counts = folds[labels == label].bincount(minlength=5)
        assert counts.min() >= 1
        assert counts.max() - counts.min() <= 1
    assert torch.equal(folds, stratified_folds(labels, sources, 5, seed=0))
    assert not torch.equal(folds, stratified_folds(labels, sources, 5, seed=1))
    with pytest.raises(UserError, match=r"num_folds is 23, expected from 2 to the 22 source"):
        stratified_folds(labels, sources, 23, seed=0)


def test_clips_of_a_source_video_are_in_one_fold() -> None:
    """But those of a class of one source video, which could not be learned in its fold."""
    labels = torch.tensor([0] * 8 + [1] * 8 + [2] * 4)
    sources = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6])
    folds = stratified_folds(labels, sources, 2, seed=0)
    for source in range(6):
        assert len(set(folds[sources == source].tolist())) == 1
    for label in range(3):
        assert set(folds[labels == label].tolist()) == {0, 1}


def test_of_equal_accuracies_the_lower_loss_is_chosen() -> None:
    trials = [
        Trial(place=p, top1=t, loss=v) for p, t, v in ((0, 0.5, 1), (1, 0.5, 0.9), (2, 0.4, 0))
    ]
    assert best_of(trials).place == 1


class Recorded:
    """Probes that are right only where `good` says, and record what they were trained on."""

    kind, grid = "recorded", ("bad", "good")

    def __init__(self) -> None:
        self.trained: list[tuple[list[int], list[str]]] = []

    def fit(self, train: SplitFeatures, num_classes: int, places: Sequence[Any], seed: int) -> Any:
        self.trained.append((train.indices.tolist(), list(places)))
        places = list(places)

        class Fitted:
            def scores(self, number: int, split: SplitFeatures) -> Tensor:
                right = torch.nn.functional.one_hot(split.labels, num_classes).float()
                return right if places[number] == "good" else 1 - right

        return Fitted()


def test_folds_never_score_a_video_that_they_were_trained_on() -> None:
    probes, train = Recorded(), made_up(9, 0)
    selection = Selection(train=train, val=None, num_classes=NUM_CLASSES, num_folds=3, seed=0)
    chosen = selection.choose(probes)
    assert chosen.best == Trial(place="good", top1=1.0, loss=chosen.best.loss)
    *of_folds, whole = probes.trained
    assert [len(videos) for videos, _ in of_folds] == [6, 6, 6]
    left_out = [set(range(9)) - set(videos) for videos, _ in of_folds]
    assert set.union(*left_out) == set(range(9))
    assert whole == (list(range(9)), ["good"])  # the chosen place alone, on all videos
    assert chosen.number == 0


def test_a_validation_list_decides_where_there_is_one() -> None:
    probes, train, val = Recorded(), made_up(9, 0), made_up(6, 1)
    chosen = Selection(train=train, val=val, num_classes=NUM_CLASSES, num_folds=0, seed=0).choose(
        probes
    )
    assert probes.trained == [(list(range(9)), ["bad", "good"])]
    assert (chosen.best.place, chosen.number) == ("good", 1)
    assert chosen.scores(val).argmax(1).tolist() == val.labels.tolist()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"lr": []}, r"lr is \[\], expected a list of numbers above 0 to 1000"),
        ({"lr": [0.0]}, "lr is"),
        (
            {"weight_decay": [-1.0]},
            r"weight_decay is \[-1.0\], expected a list of numbers from 0 to",
        ),
        ({"batch_size": 0}, "batch_size 0 must be positive"),
    ],
)
def test_grids_without_sense_are_refused(changes: dict[str, Any], complaint: str) -> None:
    known = {"lr": [1.0], "weight_decay": [0.0], "num_epochs": 1, "min_steps": 1, "batch_size": 1}
    with pytest.raises(UserError, match=complaint):
        LinearProbes(**{**known, **changes})


def test_rates_that_are_too_large_end_in_a_sentence() -> None:
    probes = LinearProbes(lr=[1e3], weight_decay=[1e3], num_epochs=1, min_steps=20, batch_size=8)
    with pytest.raises(UserError, match="a probe has become NaN or Inf; lower the learning rates"):
        probes.fit(made_up(12, 0), NUM_CLASSES, probes.grid, seed=0)


ATTENTIVE = AttentiveProbes(
    lr=[1e-2, 1e-3],
    weight_decay=[0.1],
    num_epochs=1,
    min_steps=20,
    batch_size=8,
    depth=2,
    num_heads=2,
)


def with_tokens(num_videos: int, seed: int) -> SplitFeatures:
    """Videos of 2 views with 3 tokens of 4 channels, one of which tells the class by its sign."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_videos) % 2
    tokens = torch.randn(num_videos, 2, 3, 4, generator=generator)
    tokens[:, :, 1, 0] = (4.0 * labels - 2)[:, None]
    return SplitFeatures(
        features=tokens.mean(2),
        views=[Views(each.mean(1), each.half()) for each in tokens],
        labels=labels,
        indices=torch.arange(num_videos),
        sources=torch.arange(num_videos),
    )


def test_attentive_probes_of_a_grid_are_what_they_would_be_alone() -> None:
    train, test = with_tokens(12, 0), with_tokens(6, 1)
    together = ATTENTIVE.fit(train, 2, ATTENTIVE.grid, seed=3)
    state = torch.get_rng_state()
    alone = [ATTENTIVE.fit(train, 2, [place], seed=3) for place in ATTENTIVE.grid]
    assert torch.equal(state, torch.get_rng_state())
    for number, one in enumerate(alone):
        torch.testing.assert_close(
            together.scores(number, test), one.scores(0, test), rtol=1e-4, atol=1e-5
        )
    assert not torch.allclose(together.scores(0, test), together.scores(1, test), atol=1e-3)
    assert (together.scores(0, train).argmax(1) == train.labels).float().mean() > 0.8


def test_scores_of_attentive_probes_are_averaged_over_views() -> None:
    train = with_tokens(12, 0)
    fitted = ATTENTIVE.fit(train, 2, ATTENTIVE.grid[:1], seed=3)
    scores = fitted.scores(0, train)
    tokens = [views.tokens for views in train.views]
    with torch.inference_mode():
        for video, of_views in enumerate(tokens):
            assert of_views is not None
            expected = fitted.heads[0](of_views.float()).softmax(-1).mean(0)
            torch.testing.assert_close(scores[video], expected, rtol=1e-4, atol=1e-6)


def test_only_heads_that_fit_a_network_can_be_its_head() -> None:
    train = with_tokens(12, 0)
    says, state = ATTENTIVE.fit(train, 2, ATTENTIVE.grid[:1], seed=3).head(0)
    assert says == {"head": "attentive", "head_depth": 2, "head_num_heads": 2}
    assert "pooler.blocks.0.attn.qkv.weight" in state
    votes = Neighbours(k=[1], temperature=[1.0])
    assert votes.fit(train, 2, votes.grid, seed=0).head(0) is None
    with pytest.raises(UserError, match="num_heads is 3, which does not divide the 4 channels"):
        replace(ATTENTIVE, num_heads=3).fit(train, 2, ATTENTIVE.grid, seed=0)
