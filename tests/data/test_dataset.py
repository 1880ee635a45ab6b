"""Videos to clips: shapes, frames, and one decode for all views."""

import numpy as np
import pytest
import torch
from videos import read_numbers, write_numbered_video

from video_mvit.data.augment import Normalize
from video_mvit.data.cropping import RandomResizedCrop, UniformCrops
from video_mvit.data.datamodule import Split, VideoDataModule
from video_mvit.data.dataset import EvaluationDataset, TrainDataset, Views
from video_mvit.data.decoding import READERS, PyAVReader
from video_mvit.data.manifest import Manifest
from video_mvit.data.sampling import ClipSpec, RandomClip, UniformClips

CLIP = ClipSpec(num_frames=8, frame_stride=2)


class ListSource:
    """A manifest that needs no list."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def read(self, class_names: object = None) -> Manifest:
        return self.manifest


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("videos")
    paths = tuple(write_numbered_video(root / f"{i}.mp4", 40 + i) for i in range(5))
    return Manifest(paths=paths, labels=(0, 1, 2, 1, 0), class_names=("a", "b", "c"))


def test_evaluation_item_is_one_video_with_clips_outside_crops_inside(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setitem(READERS, "pyav", lambda path: opened.append(path) or PyAVReader(path))
    views = Views(
        sampler=UniformClips(clip=CLIP, num_clips=4),
        crop=UniformCrops(size=64, short_side=64, num_crops=3),
    )
    item = EvaluationDataset(manifest, views)[2]
    assert item.clip.shape == (12, 3, 8, 64, 64)
    assert item.clip.dtype == torch.uint8
    assert (item.label, item.video_index) == (2, 2)
    assert opened == [manifest.paths[2]]
    first_frames = [
        read_numbers(item.clip[v, :, :1].permute(1, 2, 3, 0).numpy())[0] for v in range(12)
    ]
    assert first_frames == [0, 0, 0, 8, 8, 8, 16, 16, 16, 24, 24, 24]
    assert read_numbers(item.clip[0].permute(1, 2, 3, 0).numpy()) == [0, 2, 4, 6, 8, 10, 12, 15]


def test_training_item_follows_torch_seed(manifest: Manifest) -> None:
    views = Views(sampler=RandomClip(clip=CLIP), crop=RandomResizedCrop(size=32))
    items = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        items.append(TrainDataset(manifest, views)[0].clip)
    assert items[0].shape == (3, 8, 32, 32)
    assert torch.equal(items[0], items[1])
    assert not torch.equal(items[0], items[2])


def test_unknown_reader_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown reader 'opencv'; choose one of pyav, decord"):
        Views(sampler=RandomClip(clip=CLIP), crop=RandomResizedCrop(size=32), reader="opencv")


def make_data(manifest: Manifest, **overrides: int) -> VideoDataModule:
    train = Views(sampler=RandomClip(clip=CLIP), crop=RandomResizedCrop(size=32))
    test = Views(
        sampler=UniformClips(clip=CLIP, num_clips=2), crop=UniformCrops(size=32, short_side=32)
    )
    source = ListSource(manifest)
    return VideoDataModule(
        train=Split(source=source, views=train, batch_size=2),
        val=Split(source=source, views=test, batch_size=2),
        test=Split(source=source, views=test, batch_size=2),
        **{"num_classes": 3, "num_workers": 0, **overrides},
    )


def test_loaders_give_documented_shapes_and_every_test_video_once(manifest: Manifest) -> None:
    data = make_data(manifest)
    data.setup("fit")
    data.setup("test")
    batches = list(data.train_dataloader())
    assert [tuple(batch.clip.shape) for batch in batches] == [(2, 3, 8, 32, 32)] * 2
    seen = [int(i) for batch in data.test_dataloader() for i in batch.video_index]
    assert seen == [0, 1, 2, 3, 4]
    assert next(iter(data.test_dataloader())).clip.shape == (2, 2, 3, 8, 32, 32)


def test_workers_and_epochs_draw_differently(manifest: Manifest) -> None:
    """One video four times: two batches, each from its own worker, in two epochs."""
    same = Manifest(paths=manifest.paths[:1] * 4, labels=(0,) * 4, class_names=manifest.class_names)
    torch.manual_seed(0)
    data = make_data(same, num_workers=2)
    data.setup("fit")
    loader = data.train_dataloader()
    clips = [clip for _ in range(2) for batch in loader for clip in batch.clip]
    assert len(clips) == 8
    for i, first in enumerate(clips):
        assert not any(torch.equal(first, other) for other in clips[i + 1 :])


def test_wrong_number_of_classes_is_refused_before_training(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="num_classes is 4, but the training list has 3"):
        make_data(manifest, num_classes=4).setup("fit")


def test_too_few_videos_for_a_batch_are_refused(manifest: Manifest) -> None:
    data = make_data(manifest)
    data.splits["train"] = Split(
        source=ListSource(manifest), views=data.splits["train"].views, batch_size=6
    )
    data.setup("fit")
    with pytest.raises(ValueError, match="5 training videos do not fill one batch of 6"):
        data.train_dataloader()


def test_num_videos_takes_some_spread_over_the_list(manifest: Manifest) -> None:
    split = Split(
        source=ListSource(manifest),
        views=make_data(manifest).splits["test"].views,
        batch_size=1,
        num_videos=2,
    )
    assert split.read(None).paths == (manifest.paths[0], manifest.paths[2])


def test_normalize_maps_bytes_to_standard_scores() -> None:
    clip = torch.tensor([0, 255], dtype=torch.uint8).expand(2, 3, 1, 1, 2)
    normal = Normalize(mean=[0.45, 0.5, 0.4], std=[0.225, 0.25, 0.2])(clip)
    expected = [[(0 - m) / s, (1 - m) / s] for m, s in ((0.45, 0.225), (0.5, 0.25), (0.4, 0.2))]
    np.testing.assert_allclose(normal[0, :, 0, 0].numpy(), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="three numbers"):
        Normalize(mean=[0.5], std=[0.5])
