"""Loss, view averaging and the learning rate of each step."""

from dataclasses import replace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from support.training import MeanColour
from torch import Tensor, nn
from torch.utils.data import DataLoader

from video_mvit.errors import UserError
from video_mvit.evaluation.view_scores import clips_at_once
from video_mvit.training.classifier import Batch, VideoClassifier
from video_mvit.training.optim import OptimConfig, learning_rate

OPTIM = OptimConfig(
    name="sgd",
    lr=0.1,
    start_lr=0.01,
    end_lr=0.001,
    num_epochs=2,
    warmup_epochs=0.5,
    weight_decay=0.0,
)


def classifier(**overrides: object) -> VideoClassifier:
    torch.manual_seed(0)
    options = {"num_classes": 6, "preprocess": nn.Identity(), "optim": OPTIM, **overrides}
    return VideoClassifier(MeanColour(6), **options)


def clips(*shape: int) -> Tensor:
    return torch.randn(*shape, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))


class Shuffled(nn.Module):
    """Augmentation that notes what it was given, and gives each clip half of the next class."""

    def forward(
        self,
        clips: Tensor,
        label: Tensor,
        *,
        normalize: nn.Module,
        num_classes: int,
        generator: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        self.drawn = generator.random()
        shares = F.one_hot(label, num_classes) + F.one_hot((label + 1) % num_classes, num_classes)
        return normalize(clips) * 2, shares / 2


def test_augmentation_gives_clips_and_shares() -> None:
    module, clip = classifier(augment=Shuffled(), preprocess=nn.Tanh()), clips(3)
    module.log = lambda *_, **__: None
    loss = module.training_step(Batch(clip, torch.tensor([0, 4, 5]), torch.arange(3)), 0)
    scores = module.model(clip.tanh() * 2).log_softmax(-1)
    picked = [scores[0, 0] + scores[0, 1], scores[1, 4] + scores[1, 5], scores[2, 5] + scores[2, 0]]
    torch.testing.assert_close(loss, -sum(picked) / 6)


def test_what_is_random_in_a_step_follows_from_seed_and_step() -> None:
    seen = {}
    for seed, batch_idx, noise in ((0, 3, 1), (0, 3, 2), (0, 4, 1), (1, 3, 1)):
        module = classifier(augment=Shuffled(), seed=seed)
        module.log = lambda *_, **__: None
        torch.manual_seed(noise)  # whatever happened before
        module.training_step(Batch(clips(2), torch.tensor([0, 1]), torch.arange(2)), batch_idx)
        seen.setdefault((seed, batch_idx), set()).add((module.augment.drawn, float(torch.rand(1))))
    assert [len(values) for values in seen.values()] == [1, 1, 1]
    assert len(set.union(*seen.values())) == 3


def test_views_are_averaged_as_probabilities() -> None:
    module, views = classifier(), clips(2, 3) * 20
    scores = module.score(module.model, views)
    expected = torch.stack([module.model(video).softmax(-1).mean(0) for video in views])
    torch.testing.assert_close(scores, expected)
    logits_mean = torch.stack([module.model(video).mean(0).softmax(-1) for video in views])
    assert not torch.allclose(scores, logits_mean)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_loss_takes_labels_and_class_shares(label_smoothing: float) -> None:
    module, clip = classifier(label_smoothing=label_smoothing), clips(4)
    module.log = lambda *_, **__: None
    labels = torch.tensor([0, 5, 2, 2])
    loss = module.training_step(Batch(clip, labels, torch.arange(4)), 0)
    target = F.one_hot(labels, 6) * (1 - label_smoothing) + label_smoothing / 6
    expected = -(target * module.model(clip).log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(loss, expected)
    if not label_smoothing:
        soft = module.training_step(Batch(clip, target, torch.arange(4)), 0)
        torch.testing.assert_close(soft, expected)


def batches(num_batches: int, *shape: int) -> DataLoader[Batch]:
    items = [
        Batch(clips(*shape), torch.zeros(shape[0], dtype=torch.long), torch.arange(shape[0]))
        for _ in range(num_batches)
    ]
    return DataLoader(items, batch_size=None)


def test_every_step_has_the_scheduled_learning_rate(tmp_path) -> None:
    module, seen = classifier(), []

    class Record(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[Record()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, batches(4, 2))
    assert seen == [learning_rate(OPTIM, step / 4) for step in range(8)]


def test_groups_have_their_share_of_the_scheduled_learning_rate(tmp_path) -> None:
    module, seen = classifier(), []
    module.configure_optimizers = lambda: torch.optim.SGD(
        [
            {"params": [module.model.linear.weight], "lr_scale": 0.5},
            {"params": [module.model.linear.bias], "lr_scale": 1.0},
        ],
        lr=1.0,
    )

    class Record(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
            seen.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[Record()],
        default_root_dir=tmp_path,
        **options,
    )
    trainer.fit(module, batches(2, 2))
    expected = [learning_rate(OPTIM, step / 2) for step in range(2)]
    assert seen == [[lr / 2, lr] for lr in expected]


def test_accuracy_counts_videos_not_views(tmp_path) -> None:
    module = classifier()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    views, labels = clips(5, 3), torch.tensor([0, 1, 2, 3, 4])
    loader = DataLoader([Batch(views, labels, torch.arange(5))], batch_size=None)
    metrics = trainer.validate(module, loader, verbose=False)[0]
    scores = module.score(module.model, views)
    assert metrics["val/top1"] == pytest.approx(float((scores.argmax(1) == labels).float().mean()))
    in_top5 = (scores.topk(5).indices == labels[:, None]).any(1)
    assert metrics["val/top5"] == pytest.approx(float(in_top5.float().mean()))


def test_mixed_precision_trains_with_gradient_clipping(tmp_path) -> None:
    trainer = pl.Trainer(
        max_steps=1,
        accelerator="cpu",
        precision="bf16-mixed",
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    module = classifier(optim=replace(OPTIM, name="adamw", start_lr=0.1))
    before = module.model.linear.weight.clone()
    trainer.fit(module, batches(2, 2))
    assert not torch.equal(before, module.model.linear.weight)


@pytest.mark.parametrize("clips_per_pass", [1, 2, 4, 6, 100])
def test_views_are_the_same_in_any_number_of_passes(clips_per_pass: int) -> None:
    module = classifier(preprocess=nn.Tanh(), clips_per_pass=clips_per_pass)
    views, sizes = clips(2, 3) * 20, []
    module.model.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    expected = torch.stack([module.model(video.tanh()).softmax(-1).mean(0) for video in views])
    sizes.clear()
    torch.testing.assert_close(module.score(module.model, views), expected)
    assert sum(sizes) == 6
    assert max(sizes) == min(clips_per_pass, 6)


def test_passes_of_a_cpu_have_few_large_clips() -> None:
    cpu = torch.device("cpu")
    assert clips_at_once((16, 224, 224), cpu) == 8
    assert clips_at_once((40, 312, 312), cpu) == 1
    assert clips_at_once((80, 448, 448), cpu) == 1
    assert clips_at_once((16, 224, 224), torch.device("cuda")) == 64


class SmallMemory(nn.Module):
    """Fits only so many clips, as a GPU does."""

    def __init__(self, num_clips: int) -> None:
        super().__init__()
        self.num_clips = num_clips

    def forward(self, clips: Tensor) -> Tensor:
        if len(clips) > self.num_clips:
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")
        return clips.flatten(1)[:, :6]


def test_passes_shrink_until_they_fit_the_memory() -> None:
    module, views = classifier(clips_per_pass=10), clips(2, 5)
    scores = module.score(SmallMemory(3), views)
    assert module.passes.clips_per_pass == 2  # of 10, of 5
    expected = SmallMemory(10)(views.flatten(0, 1)).softmax(-1).view(2, 5, 6).mean(1)
    torch.testing.assert_close(scores, expected)
    with pytest.raises(ValueError, match="one clip does not fit into the memory of cpu"):
        module.score(SmallMemory(0), views)


def test_motion_is_tested_on_the_same_views() -> None:
    module, views = classifier(motion_tests={"negative": torch.neg}), clips(2, 3)
    labels, places = torch.tensor([3, 1]), torch.tensor([7, 0])
    found = module.test_step(Batch(views, labels, places), 0)
    assert found.video_index is places
    assert found.label is labels
    torch.testing.assert_close(found.scores, module.score(module.model, views))
    torch.testing.assert_close(found.motion["negative"], module.score(module.model, -views))
    assert module.test_step(Batch(views[:0], labels[:0], places[:0]), 0) is None


def test_label_smoothing_outside_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"label_smoothing 1\.5"):
        classifier(label_smoothing=1.5)


def test_class_weights_multiply_the_loss_of_each_clip() -> None:
    weights = [3.0, 1.0, 1.0, 0.0, 1.0, 0.5]
    module, plain = classifier(class_weights=weights), classifier()
    logits, label = torch.randn(4, 6), torch.tensor([0, 1, 3, 5])
    each = F.cross_entropy(logits, label, reduction="none")
    expected = (each * torch.tensor(weights)[label]).mean()  # not divided by the weights again
    torch.testing.assert_close(module.loss(logits, label), expected)
    torch.testing.assert_close(module.loss(logits, F.one_hot(label, 6).float()), expected)
    assert torch.equal(plain.loss(logits, label), F.cross_entropy(logits, label))
    assert module.state_dict().keys() == plain.state_dict().keys()  # they are in the settings


def test_network_with_another_number_of_logits_is_told_with_both() -> None:
    wrong = classifier(num_classes=5)
    batch = Batch(clips(2), torch.tensor([0, 1]), torch.arange(2))
    with pytest.raises(UserError, match=r"returned \(2, 6\) for 2 clips, expected \(2, 5\)"):
        wrong.training_step(batch, 0)
