"""What the page shows is what a training gets: the same frames, windows, mixing and labels."""

from pathlib import Path

import numpy as np
import pytest
import torch

from video_mvit.data.dataset import ClipKey, ClipPipeline, TrainDataset
from video_mvit.data.lists.manifest import Manifest
from video_mvit.data.lists.published import KineticsSource
from video_mvit.data.preparation.demo import write_demo_dataset
from video_mvit.data.sampling import ClipSpec, RandomClip
from video_mvit.data.transforms.augment import Augment, Normalize
from video_mvit.data.transforms.cropping import RandomResizedCrop
from video_mvit.data.transforms.mixup import Mixing
from video_mvit.inspection.clips import Augmentation, ClipPair, FilmSize, pair_clips

MEAN, STD = (0.45, 0.4, 0.5), (0.225, 0.2, 0.25)
SIZE = FilmSize(height=32, num_frames=8)
PIPELINE = ClipPipeline(
    sampler=RandomClip(clip=ClipSpec(num_frames=8, frame_stride=4)),
    crop=RandomResizedCrop(size=32),
)
pytestmark = pytest.mark.slow  # videos are written


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Two videos of each of eight classes, the first of which is broken."""
    root = tmp_path_factory.mktemp("clips")
    write_demo_dataset(root, {"train": 16}, 0, lambda _: None)
    found = KineticsSource(manifest=f"{root}/train.csv", folder=f"{root}/train").read()
    Path(found.path(0)).write_bytes(b"no video")
    return found


def pairs_of(
    manifest: Manifest, augment: Augment | None, num_each: int = 1, seed: int = 5
) -> list[ClipPair]:
    return pair_clips(
        manifest,
        PIPELINE,
        Augmentation(augment=augment, normalize=Normalize(mean=MEAN, std=STD), mean=MEAN, std=STD),
        num_each=num_each,
        seed=seed,
        size=SIZE,
        on_progress=lambda _: None,
    )


def test_clips_are_those_of_the_first_epoch(manifest: Manifest) -> None:
    pairs = pairs_of(manifest, None, num_each=2)
    labels = sorted([*range(8), *range(8)])
    labels.remove(int(manifest.labels[0]))  # of the broken one
    assert [pair.label for pair in pairs] == labels
    assert 0 not in {pair.video_index for pair in pairs}
    dataset = TrainDataset(manifest, PIPELINE, seed=5)
    for pair in pairs:
        trained = dataset[ClipKey(0, pair.video_index)]
        assert np.array_equal(pair.after, trained.clips[0].permute(0, 2, 3, 1).numpy())
        assert [(each.class_name, each.share) for each in pair.target] == [
            (manifest.class_names[pair.label], 1.0)
        ]
        assert pair.before.shape == (8, 32, 32, 3)


def test_mixed_clips_have_the_labels_of_both(manifest: Manifest) -> None:
    mixing = Mixing(mixup_alpha=0.8, cutmix_alpha=0)
    augment = Augment(policy=None, erase_prob=0, mixing=mixing)
    pairs, plain = pairs_of(manifest, augment), pairs_of(manifest, None)
    assert {len(pair.target) for pair in pairs} <= {1, 2}
    assert any(len(pair.target) == 2 for pair in pairs)
    by_label = {pair.label: pair.after.astype(float) for pair in plain}
    for pair in pairs:
        assert sum(each.share for each in pair.target) == pytest.approx(1, abs=1e-5)
        parts = [
            each.share * by_label[manifest.class_names.index(each.class_name)]
            for each in pair.target
        ]
        assert np.abs(sum(parts) - pair.after).max() <= 1.01  # of 255: rounded once more


@pytest.mark.parametrize("kinds", [{"cutmix_alpha": 0}, {"mixup_alpha": 0}])
def test_mixed_clip_stands_under_the_class_of_its_larger_part(
    manifest: Manifest, kinds: dict[str, float]
) -> None:
    augment = Augment(policy=None, erase_prob=0, mixing=Mixing(**kinds))
    shares = set()
    for seed in range(4):
        for pair in pairs_of(manifest, augment, seed=seed):
            assert pair.target[0].class_name == manifest.class_names[pair.label]
            shares.add(round(pair.target[0].share, 3))
    assert len(shares) > 2


def test_same_seed_gives_the_same_page(manifest: Manifest) -> None:
    augment = Augment(policy="rand-m7-n4-mstd0.5-inc1", erase_prob=0.25, mixing=Mixing())
    state = torch.get_rng_state()
    first, second = pairs_of(manifest, augment), pairs_of(manifest, augment)
    assert all(np.array_equal(a.after, b.after) for a, b in zip(first, second, strict=True))
    assert torch.equal(state, torch.get_rng_state())
