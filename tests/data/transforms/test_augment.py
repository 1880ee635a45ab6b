"""Training augmentation on the device: erasing, MixUp, CutMix, and all of it in order."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from video_mvit.data.transforms.augment import Augment, Normalize, draw_erased, erase
from video_mvit.data.transforms.mixup import Box, Mix, Mixing, cut, draw_mix, mix, one_hot_labels

PUBLISHED = {"policy": "rand-m7-n4-mstd0.5-inc1", "erase_prob": 0.25, "mixing": Mixing()}
NORMALIZE = Normalize(mean=[0.45] * 3, std=[0.225] * 3)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def clips(batch_size: int = 4) -> Tensor:
    values = generator().integers(0, 256, (batch_size, 5, 3, 24, 32), dtype=np.uint8)
    return torch.from_numpy(values)


def augmented(batch: Tensor, seed: int = 0, **options: Any) -> tuple[Tensor, Tensor]:
    augment = Augment(**{"policy": None, "erase_prob": 0.0, **options})
    label = torch.arange(len(batch))
    return augment(batch, label, normalize=NORMALIZE, num_classes=6, generator=generator(seed))


def test_mixup_blends_with_the_clip_from_the_end() -> None:
    batch = torch.tensor([0.0, 1.0, 4.0]).view(3, 1, 1, 1, 1).expand(3, 3, 2, 4, 4)
    mixed, soft_labels = mix(batch, one_hot_labels(torch.tensor([0, 1, 2]), 4), Mix(0.75, None))
    assert mixed[:, 0, 0, 0, 0].tolist() == [1.0, 1.0, 3.0]
    assert soft_labels.tolist() == [[0.75, 0, 0.25, 0], [0, 1, 0, 0], [0.25, 0, 0.75, 0]]


def test_cutmix_takes_one_box_through_all_frames() -> None:
    batch = torch.arange(2.0).view(2, 1, 1, 1, 1).expand(2, 3, 2, 4, 8)
    mixed, soft_labels = mix(
        batch, one_hot_labels(torch.tensor([0, 1]), 2), Mix(0.75, Box(1, 3, 2, 6))
    )
    expected = torch.zeros(4, 8)
    expected[1:3, 2:6] = 1
    assert torch.equal(mixed[0], expected.expand(3, 2, 4, 8))
    assert torch.equal(mixed[1], 1 - mixed[0])
    assert soft_labels.tolist() == [[0.75, 0.25], [0.25, 0.75]]
    assert batch[0].sum() == 0


def test_share_of_a_box_is_what_remains_inside_the_borders() -> None:
    found = [cut(0.5, (20, 30), generator(seed)) for seed in range(200)]
    for lam, box in found:
        assert box is not None
        assert 0 <= box.top <= box.bottom <= 20
        assert 0 <= box.left <= box.right <= 30
        area = (box.bottom - box.top) * (box.right - box.left)
        assert lam == pytest.approx(1 - area / 600)
    whole = [box for _, box in found if (box.bottom - box.top, box.right - box.left) == (14, 20)]
    assert whole  # int(20 / sqrt 2) and int(30 / sqrt 2), halved and doubled
    assert len(whole) < len(found)


def test_draws_of_mixes_have_the_published_distribution() -> None:
    source = generator()
    draws = [draw_mix(Mixing(), 224, 224, source) for _ in range(4000)]
    soft_labels = np.array([draw.lam for draw in draws if draw.box is None])
    assert len(soft_labels) / 4000 == pytest.approx(0.5, abs=0.03)
    assert soft_labels.mean() == pytest.approx(0.5, abs=0.02)
    assert soft_labels.var() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), abs=0.006)  # Beta(0.8, 0.8)
    sometimes = Mixing(prob=0.25, cutmix_alpha=0.0)
    soft_labels = np.array([draw_mix(sometimes, 8, 8, source).lam for _ in range(4000)])
    assert (soft_labels < 1).mean() == pytest.approx(0.25, abs=0.03)
    only_boxes = Mixing(mixup_alpha=0.0, switch_to_cutmix_prob=0.1)
    assert all(draw_mix(only_boxes, 8, 8, source).box for _ in range(20))
    assert draw_mix(Mixing(prob=0.0), 8, 8, source) == Mix(1.0, None)


def test_erased_boxes_have_the_published_distribution() -> None:
    source = generator()
    boxes = [draw_erased((224, 224), 0.25, source) for _ in range(8000)]
    found = [box for box in boxes if box]
    assert len(found) / 8000 == pytest.approx(0.25, abs=0.02)
    heights = np.array([box.bottom - box.top for box in found])
    widths = np.array([box.right - box.left for box in found])
    areas, ratios = heights * widths / 224**2, heights / widths
    assert 0.019 < areas.min() < 0.025
    assert 0.3 < areas.max() < 0.34
    assert np.log(ratios).mean() == pytest.approx(0, abs=0.06)
    assert 0.29 < ratios.min() < 0.33
    assert 3.0 < ratios.max() < 3.45
    assert max(box.bottom for box in found) <= 224
    assert min(box.top for box in found) == 0


def test_erased_pixels_are_noise_of_their_own_in_every_frame() -> None:
    batch = torch.full((2, 3, 5, 24, 32), 9.0)
    found = erase(batch, [Box(2, 12, 5, 25), None], generator())
    inside = found[0, :, :, 2:12, 5:25]
    assert torch.equal(found[1], batch[1])
    assert (found == 9).sum() == batch.numel() - inside.numel()
    assert inside.mean().abs() < 0.1
    assert inside.std() == pytest.approx(1, abs=0.1)
    assert not torch.equal(inside[:, 0], inside[:, 1])
    assert (batch == 9).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batch_is_augmented_anew_and_can_be_repeated(dtype: torch.dtype) -> None:
    normalize = Normalize(mean=[0.45] * 3, std=[0.225] * 3).to(dtype)
    augment, batch, label = Augment(**PUBLISHED), clips(), torch.tensor([3, 0, 5, 1])
    before = batch.clone()
    results = [
        augment(batch, label, normalize=normalize, num_classes=6, generator=generator(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(batch, before)
    for clip, soft_labels in results:
        assert clip.shape == (4, 3, 5, 24, 32)
        assert clip.dtype == dtype
        torch.testing.assert_close(soft_labels.sum(1), torch.ones(4))
    assert torch.equal(results[0].clip, results[1].clip)
    assert torch.equal(results[0].soft_labels, results[1].soft_labels)
    assert not torch.equal(results[0].clip, results[2].clip)


def test_without_anything_it_only_normalizes() -> None:
    clip, soft_labels = augmented(clips())
    torch.testing.assert_close(clip, NORMALIZE(clips()))
    assert torch.equal(soft_labels, torch.eye(6)[:4])


def test_erasing_comes_after_normalization() -> None:
    clip, _ = augmented(torch.full((2, 5, 3, 24, 32), 200, dtype=torch.uint8), erase_prob=1.0)
    erased = clip[clip != NORMALIZE(torch.full((1, 3, 1, 1), 200, dtype=torch.uint8)).max()]
    assert len(erased) > 100
    assert erased.mean().abs() < 0.2
    assert erased.std() == pytest.approx(1, abs=0.2)


def test_moved_clips_leave_the_colour_that_is_set() -> None:
    policy = "rand-m10-n6-inc1"
    grey, _ = augmented(clips(6), policy=policy)
    again, _ = augmented(clips(6), policy=policy, fill=[128, 128, 128])
    other, _ = augmented(clips(6), policy=policy, fill=[124, 116, 104])
    assert torch.equal(grey, again)
    assert not torch.equal(grey, other)


def test_one_clip_cannot_be_mixed() -> None:
    with pytest.raises(ValueError, match="needs at least two clips per step"):
        augmented(clips(1), mixing=Mixing())
    augmented(clips(1), mixing=Mixing(prob=0.0))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Mixing(prob=1.5), "prob 1.5 is outside"),
        (lambda: Mixing(switch_to_cutmix_prob=-1), "switch_to_cutmix_prob -1 is outside"),
        (lambda: Mixing(mixup_alpha=-0.1), "mixup_alpha -0.1 must not be negative"),
        (lambda: Augment(policy=None, erase_prob=2), "erase_prob 2 is outside"),
        (lambda: Augment(policy=None, erase_prob=0, fill=[1, 2, 256]), "fill .* of 0 to 255"),
    ],
)
def test_impossible_values_are_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_it_is_no_part_of_the_saved_model() -> None:
    assert not nn.Sequential(Augment(**PUBLISHED)).state_dict()
