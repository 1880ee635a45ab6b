"""Videos to clips: shapes, frames, one decode for all views, and what happens to broken ones."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from support.videos import read_numbers, write_numbered_video

from video_mvit.data import dataset
from video_mvit.data.datamodule import LoaderConfig, Split, VideoDataModule
from video_mvit.data.dataset import (
    ClipKey,
    ClipPipeline,
    EvaluationDataset,
    NearbyOrder,
    TrainDataset,
    TrainSampler,
    collate_train,
    collate_views,
    read_views,
)
from video_mvit.data.lists.manifest import Manifest, PackedStrings
from video_mvit.data.lists.shards import ShardSource, write_shards
from video_mvit.data.preparation.scan import scan
from video_mvit.data.reading.open import DecodeLimits, VideoDecodeError, open_video
from video_mvit.data.reading.pyav_reader import PyAVReader
from video_mvit.data.sampling import ClipSpec, RandomClip, UniformClips
from video_mvit.data.transforms.augment import Normalize
from video_mvit.data.transforms.cropping import RandomResizedCrop, UniformCrops
from video_mvit.errors import UserError
from video_mvit.training.classifier import VideoClassifier
from video_mvit.training.optim import OptimConfig

CLIP = ClipSpec(num_frames=8, frame_stride=2)
TRAIN = ClipPipeline(sampler=RandomClip(clip=CLIP), crop=RandomResizedCrop(size=32))
TEST = ClipPipeline(
    sampler=UniformClips(clip=CLIP, num_clips=2), crop=UniformCrops(size=32, short_side=32)
)


IN_PROCESS = LoaderConfig(num_workers=0)


class ListSource:
    """A manifest that needs no list."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def read(self, class_names: object = None) -> Manifest:
        return self.manifest


def make_manifest(root: Path, names: list[str], labels: list[int]) -> Manifest:
    return Manifest(
        root=str(root),
        names=PackedStrings.of(names),
        labels=np.array(labels, np.int32),
        class_names=("a", "b", "c"),
    )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("videos")
    names = [write_numbered_video(root / f"{i}.mp4", 40 + i).name for i in range(5)]
    return make_manifest(root, names, [0, 1, 2, 1, 0])


@pytest.fixture
def broken(tmp_path: Path) -> Manifest:
    """Sixty videos, of which number 7 is empty and number 30 is a text."""
    good = write_numbered_video(tmp_path / "good.mp4", 40).read_bytes()
    for i in range(60):
        (tmp_path / f"{i}.mp4").write_bytes({7: b"", 30: b"no video"}.get(i, good))
    return make_manifest(tmp_path, [f"{i}.mp4" for i in range(60)], [i % 3 for i in range(60)])


def test_evaluation_item_is_one_video_with_clips_outside_crops_inside(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(
        dataset, "open_video", lambda path, *more: opened.append(path) or open_video(path, *more)
    )
    pipeline = ClipPipeline(
        sampler=UniformClips(clip=CLIP, num_clips=4),
        crop=UniformCrops(size=64, short_side=64, num_crops=3),
    )
    item = EvaluationDataset(manifest, pipeline, {})[2]
    assert len(item.clips) == 12
    assert all(clip.shape == (8, 3, 64, 64) and clip.dtype == torch.uint8 for clip in item.clips)
    assert (item.label, item.video_index, item.unreadable) == (2, 2, ())
    assert opened == [manifest.path(2)]
    numbers = [read_numbers(clip.permute(0, 2, 3, 1).numpy()) for clip in item.clips]
    assert [shown[0] for shown in numbers] == [0, 0, 0, 8, 8, 8, 16, 16, 16, 24, 24, 24]
    assert numbers[0] == [0, 2, 4, 6, 8, 10, 12, 15]


def test_training_item_is_a_function_of_seed_epoch_and_index(manifest: Manifest) -> None:
    def clip(seed: int, epoch: int, index: int) -> torch.Tensor:
        return TrainDataset(manifest, TRAIN, seed)[ClipKey(epoch, index)].clips[0]

    first = clip(0, 3, 1)
    assert first.shape == (8, 3, 32, 32)
    assert torch.equal(first, clip(0, 3, 1))
    for other in (clip(1, 3, 1), clip(0, 4, 1), clip(0, 3, 2)):
        assert not torch.equal(first, other)


def test_repeated_samples_share_the_frames_and_not_the_crop(manifest: Manifest) -> None:
    pipeline = ClipPipeline(
        sampler=RandomClip(clip=CLIP), crop=RandomResizedCrop(size=64), num_samples=3
    )
    clips = TrainDataset(manifest, pipeline, 0)[ClipKey(0, 4)].clips
    assert len(clips) == 3
    assert not torch.equal(clips[0], clips[1])
    whole = RandomResizedCrop(size=64, scale=(1, 1), ratio=(1, 1), flip_prob=0)
    same = ClipPipeline(sampler=RandomClip(clip=CLIP), crop=whole, num_samples=2)
    clips = TrainDataset(manifest, same, 0)[ClipKey(0, 4)].clips
    assert torch.equal(clips[0], clips[1])


def test_samples_of_one_video_are_neighbours_in_the_batch(manifest: Manifest) -> None:
    pipeline = ClipPipeline(
        sampler=RandomClip(clip=CLIP), crop=RandomResizedCrop(size=32), num_samples=2
    )
    items = [TrainDataset(manifest, pipeline, 0)[ClipKey(0, index)] for index in (2, 0)]
    batch = collate_train(items)
    assert batch.clip.shape == (4, 8, 3, 32, 32)
    assert batch.label.tolist() == [2, 2, 0, 0]
    assert batch.video_index.tolist() == [2, 2, 0, 0]
    assert torch.equal(batch.clip[1], items[0].clips[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reader": "opencv"}, "unknown reader 'opencv'; choose one of pyav, decord, torchcodec"),
        ({"num_samples": 0}, "num_samples 0 must be positive"),
        ({"num_threads": 0}, "num_threads 0 must be positive"),
    ],
)
def test_impossible_views_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipPipeline(sampler=RandomClip(clip=CLIP), crop=RandomResizedCrop(size=32), **changes)


def test_each_epoch_has_its_own_order_and_ranks_share_it() -> None:
    orders = []
    for epoch in (0, 1):
        ranks = [TrainSampler(11, seed=5, rank=rank, num_ranks=2) for rank in (0, 1)]
        for sampler in ranks:
            sampler.set_epoch(epoch)
        keys = [list(sampler) for sampler in ranks]
        assert [len(part) for part in keys] == [len(ranks[0]), len(ranks[1])] == [5, 5]
        assert all(key.epoch == epoch for part in keys for key in part)
        orders.append([key.video_index for part in keys for key in part])
        assert len(set(orders[-1])) == 10
    assert orders[0] != orders[1]
    again = TrainSampler(11, seed=5, rank=0, num_ranks=2)
    assert [key.video_index for key in again] == orders[0][:5]
    other_seed = TrainSampler(11, seed=6, rank=0, num_ranks=2)
    assert [key.video_index for key in other_seed] != orders[0][:5]


SHARDS = np.repeat(np.arange(6), (40, 10, 30, 25, 55, 40))  # 200 videos


def nearby(rank: int = 0, num_ranks: int = 1, num_buffered: int = 8) -> TrainSampler:
    near = NearbyOrder(shards=SHARDS, num_buffered=num_buffered)
    return TrainSampler(200, seed=5, rank=rank, num_ranks=num_ranks, num_together=2, order=near)


def videos_of(sampler: TrainSampler, epoch: int = 0) -> list[int]:
    sampler.set_epoch(epoch)
    return [key.video_index for key in sampler]


def test_shards_are_read_from_start_to_end_in_another_order_each_epoch() -> None:
    order = videos_of(nearby())
    assert sorted(order) == list(range(200))
    firsts = list(dict.fromkeys(SHARDS[videos_of(nearby(num_buffered=1))].tolist()))
    exact = [i for shard in firsts for i in np.flatnonzero(shard == SHARDS).tolist()]
    assert videos_of(nearby(num_buffered=1)) == exact  # a buffer of one does not shuffle
    moved = [abs(place - exact.index(video)) for place, video in enumerate(order)]
    assert 0 < max(moved) < 8
    assert videos_of(nearby(), epoch=1) != order == videos_of(nearby())


def test_each_rank_reads_a_piece_of_its_own() -> None:
    ranks = [videos_of(nearby(rank, num_ranks=3)) for rank in range(3)]
    assert [len(part) for part in ranks] == [66, 66, 66]
    assert len({video for part in ranks for video in part}) == 198
    num_shards = [len(set(SHARDS[part].tolist())) for part in ranks]
    assert max(num_shards) < 6  # of all six, one rank opens some


def test_nearby_order_goes_on_where_it_stopped() -> None:
    for rank in range(2):
        whole = videos_of(nearby(rank, num_ranks=2), epoch=3)
        resumed = nearby(rank, num_ranks=2)
        resumed.skip_once(34)
        assert videos_of(resumed, epoch=3) == whole[34:]
        assert videos_of(resumed, epoch=3) == whole  # the next pass is whole


def test_shuffle_buffer_is_for_shards(manifest: Manifest) -> None:
    data = make_data(manifest, LoaderConfig(num_workers=0, shuffle_buffer=4))
    data.setup("fit")
    with pytest.raises(UserError, match=r"data\.shuffle_buffer is for videos in shards"):
        data.train_dataloader()
    with pytest.raises(UserError, match="shuffle_buffer 0 must be positive"):
        LoaderConfig(shuffle_buffer=0)


def test_shuffle_buffer_reads_every_video_of_shards(manifest: Manifest, tmp_path: Path) -> None:
    folder, size = tmp_path / "shards", Path(manifest.path(0)).stat().st_size
    write_shards(manifest, folder, left_out={}, max_bytes=3 * size, on_progress=[].append)
    packed = ShardSource(address=str(folder)).read()
    assert len({name.partition("!")[0] for name in packed.names}) > 1
    data = make_data(packed, LoaderConfig(num_workers=0, shuffle_buffer=2))
    data.setup("fit")
    found = [i for batch in data.train_dataloader() for i in batch.video_index.tolist()]
    assert len(found) == len(set(found)) == 4  # of five, in batches of two


@pytest.mark.slow
def test_clips_are_the_same_after_a_scan_and_less_of_files_is_read(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "train.scan.jsonl"
    limits = DecodeLimits()
    scan(manifest, report, num_workers=1, decode_limits=limits, on_progress=[].append)
    num_scans = []
    look = PyAVReader._scan
    monkeypatch.setattr(PyAVReader, "_scan", lambda self: num_scans.append(1) or look(self))
    clips = []
    for path in (None, str(report)):
        source, parts = ListSource(manifest), {}
        for name, pipeline in (("train", TRAIN), ("val", TEST), ("test", TEST)):
            parts[name] = Split(source=source, pipeline=pipeline, batch_size=2, scan_report=path)
        data = make_data(manifest, **parts)
        data.setup("fit")
        batches = [*data.train_dataloader(), *data.val_dataloader()]
        clips.append(torch.cat([batch.clip.flatten() for batch in batches]))
        assert len(num_scans) == 9  # four to train on, five to validate; after a scan none more
    assert torch.equal(*clips)


def test_training_takes_another_video_for_a_broken_one_and_says_so(broken: Manifest) -> None:
    data = TrainDataset(broken, TRAIN, 0)
    item = data[ClipKey(0, 7)]
    assert item.video_index not in (7, 30)
    assert item.label == item.video_index % 3
    assert [bad.video_index for bad in item.unreadable] == [7]
    assert item.unreadable[0].reason
    assert data[ClipKey(0, 7)].video_index == item.video_index
    assert data[ClipKey(1, 7)].video_index != item.video_index
    assert collate_train([item, data[ClipKey(0, 1)]]).unreadable == item.unreadable


def test_training_gives_up_where_nothing_can_be_read(tmp_path: Path) -> None:
    nothing = make_manifest(tmp_path, ["a.mp4", "b.mp4"], [0, 1])
    with pytest.raises(VideoDecodeError, match=r"a\.mp4: No such file.*neither can 9 replacements"):
        TrainDataset(nothing, TRAIN, 0)[ClipKey(0, 0)]


def test_evaluation_never_replaces_a_video(broken: Manifest) -> None:
    data = EvaluationDataset(broken, TEST, {5: "known from the scan report"})
    batch = collate_views([data[i] for i in (4, 5, 6, 7)])
    assert batch.clip.shape == (2, 2, 8, 3, 32, 32)
    assert batch.video_index.tolist() == [4, 6]
    assert batch.label.tolist() == [1, 0]
    assert [bad.video_index for bad in batch.unreadable] == [5, 7]
    assert batch.unreadable[0].reason == "known from the scan report"
    nothing = collate_views([data[5], data[7]])
    assert len(nothing.label) == len(nothing.clip) == 0
    assert len(nothing.unreadable) == 2


def test_decode_limits_reaches_the_reader(manifest: Manifest) -> None:
    pipeline = ClipPipeline(
        sampler=TRAIN.sampler, crop=TRAIN.crop, decode_limits=DecodeLimits(num_pixels=64 * 64 * 3)
    )
    with pytest.raises(VideoDecodeError, match="more than 12288 pixels"):
        read_views(manifest.path(0), pipeline, np.random.default_rng(0))


def make_data(
    manifest: Manifest, loader: LoaderConfig = IN_PROCESS, **overrides: object
) -> VideoDataModule:
    source = ListSource(manifest)
    splits = {
        "train": Split(source=source, pipeline=TRAIN, batch_size=2),
        "val": Split(source=source, pipeline=TEST, batch_size=2),
        "test": Split(source=source, pipeline=TEST, batch_size=2),
    }
    return VideoDataModule(**{**splits, "num_classes": 3, "loader": loader, **overrides})


def make_classifier() -> VideoClassifier:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 32 * 32, 3))
    preprocess = Normalize(mean=[0.45] * 3, std=[0.225] * 3)
    rates = {"lr": 1e-4, "start_lr": 1e-4, "end_lr": 1e-4, "weight_decay": 0.0}
    optim = OptimConfig(name="sgd", num_epochs=1, warmup_epochs=0, **rates)
    return VideoClassifier(model, num_classes=3, preprocess=preprocess, optim=optim)


def make_trainer(folder: Path, max_epochs: int = 1, **options: object) -> pl.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        default_root_dir=folder,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        **quiet,
        **options,
    )


class CountVideos(pl.Callback):
    """Keeps the number of every video whose scores a test gives."""

    def __init__(self) -> None:
        self.videos: list[int] = []

    def on_test_batch_end(self, trainer, model, outputs, batch, batch_idx, dataloader_idx=0):
        self.videos += outputs.video_index.tolist()


def test_loaders_give_documented_shapes_and_every_test_video_once(manifest: Manifest) -> None:
    data = make_data(manifest)
    data.setup("fit")
    data.setup("test")
    batches = list(data.train_dataloader())
    assert [tuple(batch.clip.shape) for batch in batches] == [(2, 8, 3, 32, 32)] * 2
    seen = [int(i) for batch in data.test_dataloader() for i in batch.video_index]
    assert seen == [0, 1, 2, 3, 4]
    assert next(iter(data.test_dataloader())).clip.shape == (2, 2, 8, 3, 32, 32)


def test_epochs_reach_workers_that_live_on(manifest: Manifest) -> None:
    data = make_data(manifest, LoaderConfig(num_workers=2))
    data.setup("fit")
    loader = data.train_dataloader()
    epochs = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        epochs.append([batch.clip for batch in loader])
    assert not any(torch.equal(a, b) for a in epochs[0] for b in epochs[1])
    plain = make_data(manifest)
    plain.setup("fit")
    same = plain.train_dataloader()
    same.sampler.set_epoch(1)
    for ours, theirs in zip(epochs[1], same, strict=True):
        assert torch.equal(ours, theirs.clip)


def test_the_trainer_tells_the_sampler_its_epoch(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[ClipKey] = []
    plain = TrainDataset.__getitem__
    monkeypatch.setattr(
        TrainDataset, "__getitem__", lambda self, key: keys.append(key) or plain(self, key)
    )
    trainer = make_trainer(tmp_path, max_epochs=3, num_sanity_val_steps=0)
    trainer.fit(make_classifier(), datamodule=make_data(manifest))
    assert sorted({key.epoch for key in keys}) == [0, 1, 2]
    orders = [[key.video_index for key in keys if key.epoch == epoch] for epoch in range(3)]
    assert len(set(map(tuple, orders))) > 1


@pytest.mark.slow
def test_broken_videos_are_logged_once_and_evaluation_lists_them(
    broken: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_data(broken, LoaderConfig(num_workers=1, max_unreadable_fraction=0.05))
    with caplog.at_level(logging.WARNING, "video_mvit"):
        make_trainer(tmp_path, max_epochs=2).fit(make_classifier(), datamodule=data)
        fitted = [record.getMessage() for record in caplog.records]
        caplog.clear()
        counted = CountVideos()
        make_trainer(tmp_path, callbacks=[counted]).test(
            make_classifier(), datamodule=data, verbose=False
        )
        tested = [record.getMessage() for record in caplog.records]
    for name, effect in (
        ("7.mp4", "replaced by another sample"),
        ("30.mp4", "replaced by another sample"),
        ("7.mp4", "excluded from the result"),
    ):
        told = [line for line in fitted if f"/{name}: " in line and line.endswith(effect)]
        assert len(told) == 1
    assert len(tested) == 2
    assert data.unreadable["train"].keys() == {7, 30}
    assert data.unreadable["test"].keys() == {7, 30}
    assert sorted(counted.videos) == [i for i in range(60) if i not in (7, 30)]


def test_batch_without_a_readable_video_counts_for_nothing(
    broken: Manifest, tmp_path: Path
) -> None:
    alone = make_data(
        broken.take([7, 1, 2, 3]), LoaderConfig(num_workers=0, max_unreadable_fraction=1.0)
    )
    alone.splits = {name: replace(split, batch_size=1) for name, split in alone.splits.items()}
    model, trainer = make_classifier(), make_trainer(tmp_path)
    trainer.fit(model, datamodule=alone)
    assert float(trainer.callback_metrics["val/loss"]) > 0
    whole = make_data(broken.take([1, 2, 3]))
    expected = make_trainer(tmp_path).validate(model, datamodule=whole, verbose=False)[0]
    found = make_trainer(tmp_path).validate(model, datamodule=alone, verbose=False)[0]
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_evaluation_of_nothing_but_broken_videos_is_an_error(
    broken: Manifest, tmp_path: Path, stage: str
) -> None:
    data = make_data(broken.take([7, 30]))
    run = getattr(make_trainer(tmp_path), stage)
    with pytest.raises(ValueError, match=r"none of the 2 videos of the \w+ list can be read"):
        run(make_classifier(), datamodule=data, verbose=False)


def test_scan_report_with_too_many_unreadable_videos_stops_training(
    broken: Manifest, tmp_path: Path
) -> None:
    scan_report = tmp_path / "train.scan.jsonl"
    scan(
        broken, scan_report, num_workers=1, decode_limits=DecodeLimits(), on_progress=lambda _: None
    )
    train = Split(
        source=ListSource(broken), pipeline=TRAIN, batch_size=2, scan_report=str(scan_report)
    )
    with pytest.raises(ValueError, match="2 of 60 training videos are unreadable so far"):
        make_data(broken, train=train).setup("fit")


def test_training_stops_above_the_stated_share(broken: Manifest, tmp_path: Path) -> None:
    data = make_data(broken)
    with pytest.raises(
        ValueError,
        match=r"1 of 60 training videos are unreadable so far, more than "
        r"data.max_unreadable_fraction=0.01; the first is .*\.mp4: .*mode=scan",
    ):
        make_trainer(tmp_path, num_sanity_val_steps=0).fit(make_classifier(), datamodule=data)


def test_a_scan_report_spares_training_and_evaluation_what_is_known(
    broken: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scan_report = tmp_path / "train.scan.jsonl"
    scan(
        broken, scan_report, num_workers=1, decode_limits=DecodeLimits(), on_progress=lambda _: None
    )
    split = Split(
        source=ListSource(broken), pipeline=TEST, batch_size=2, scan_report=str(scan_report)
    )
    train = Split(
        source=ListSource(broken), pipeline=TRAIN, batch_size=2, scan_report=str(scan_report)
    )
    tolerant = LoaderConfig(num_workers=0, max_unreadable_fraction=0.05)
    data = make_data(broken, tolerant, train=train, test=split)
    with caplog.at_level(logging.INFO, "video_mvit"):
        data.setup("fit")
        data.setup("test")
    assert len(data.manifests["train"]) == 58
    assert "7.mp4" not in list(data.manifests["train"].names)
    assert data.known_bad["test"].keys() == {7, 30}
    assert "60 videos, " in caplog.text
    assert "2 unreadable" in caplog.text
    data.sanity_check()  # none of the broken ones is left to be found


def test_sanity_check_says_what_the_videos_are(
    broken: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_data(broken, LoaderConfig(num_workers=0, seed=1, max_unreadable_fraction=1.0))
    data.setup("fit")
    with caplog.at_level(logging.INFO, "video_mvit"):
        data.sanity_check()
    assert "checked 32 of 60 training videos: " in caplog.text
    assert "40 frames" in caplog.text
    for part in ("30 fps", "64x64", "h264"):
        assert part in caplog.text


def test_sanity_check_counts_what_cannot_be_read(
    broken: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    some = broken.take([5, 6, 7, 30])
    data = make_data(some, LoaderConfig(num_workers=0, max_unreadable_fraction=1.0))
    data.setup("fit")
    with caplog.at_level(logging.INFO, "video_mvit"):
        data.sanity_check()
    assert "checked 4 of 4 training videos: 2 unreadable; 40 frames" in caplog.text
    assert data.unreadable["train"].keys() == {2, 3}


def test_nothing_readable_stops_before_the_first_step(tmp_path: Path) -> None:
    nothing = make_manifest(tmp_path, ["a.mp4"] * 2, [0, 1])
    data = make_data(nothing, LoaderConfig(num_workers=0, max_unreadable_fraction=1.0))
    data.setup("fit")
    with pytest.raises(ValueError, match=r"none of 2 training videos can be read; .*a\.mp4: No"):
        data.sanity_check()


def test_given_class_names_need_no_training_list(manifest: Manifest) -> None:
    data = make_data(manifest)
    data.class_names = ("a", "b", "c")
    data.setup("test")
    assert data.manifests.keys() == {"test"}


def test_wrong_number_of_classes_is_refused_before_training(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="num_classes is 4, but the training list has 3"):
        make_data(manifest, num_classes=4).setup("fit")


def test_balanced_training_reads_rare_classes_again_and_says_so_once(
    manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    uneven = replace(manifest, labels=np.array([0, 1, 1, 1, 1], np.int32))
    split = Split(source=ListSource(uneven), pipeline=TRAIN, batch_size=2)
    splits = {"train": split, "val": split, "test": split}
    data = VideoDataModule(**splits, num_classes=None, loader=IN_PROCESS, balanced=True)
    with caplog.at_level(logging.INFO):
        for _ in range(2):  # the trainer does it again
            data.setup("fit")
    assert caplog.text.count("data.balanced: each of 2 classes is in 2 of 5 samples") == 1
    batches = list(data.train_dataloader())
    assert sorted(label for batch in batches for label in batch.label.tolist()) == [0, 0, 1, 1]
    clips = [c for b in batches for c, i in zip(b.clip, b.video_index, strict=True) if i == 0]
    assert not torch.equal(*clips)  # of one video


def test_too_few_videos_for_a_batch_are_refused(manifest: Manifest) -> None:
    data = make_data(
        manifest, train=Split(source=ListSource(manifest), pipeline=TRAIN, batch_size=6)
    )
    data.setup("fit")
    with pytest.raises(ValueError, match="5 training videos do not fill one batch of 6"):
        data.train_dataloader()


def test_num_videos_takes_some_spread_over_the_list(manifest: Manifest) -> None:
    split = Split(source=ListSource(manifest), pipeline=TEST, batch_size=1, num_videos=2)
    assert list(split.read(None).names) == ["0.mp4", "2.mp4"]


def test_normalize_maps_bytes_to_standard_scores() -> None:
    clip = torch.tensor([0, 255], dtype=torch.uint8).expand(4, 5, 3, 1, 2)
    normal = Normalize(mean=[0.45, 0.5, 0.4], std=[0.225, 0.25, 0.2])(clip)
    assert normal.shape == (4, 3, 5, 1, 2)
    assert normal.is_contiguous()
    expected = [[(0 - m) / s, (1 - m) / s] for m, s in ((0.45, 0.225), (0.5, 0.25), (0.4, 0.2))]
    np.testing.assert_allclose(normal[0, :, 4, 0].numpy(), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="three numbers"):
        Normalize(mean=[0.5], std=[0.5])


def test_resumed_epoch_goes_on_in_its_own_order() -> None:
    sampler = TrainSampler(11, seed=3, rank=1, num_ranks=2)
    sampler.set_epoch(4)
    whole = list(sampler)
    sampler.skip_once(2)
    assert list(sampler) == whole[2:]
    assert list(sampler) == whole
    assert len(sampler) == len(whole) == 5
