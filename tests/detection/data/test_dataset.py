"""From files to batches: pictures of any kind, masks, order, ranks, and what is unreadable."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from support.detection import annotation, image, square, write_coco, write_noise
from torch import Tensor

from video_mvit.data.datamodule import LoaderConfig
from video_mvit.data.reading.reader import VideoDecodeError
from video_mvit.detection.data.annotations import Annotations, Categories
from video_mvit.detection.data.coco_json import CocoSource
from video_mvit.detection.data.datamodule import DetectionDataModule, DetectionSplit
from video_mvit.detection.data.dataset import (
    DetectionDataset,
    TrainDetectionDataset,
    collate,
    collate_training,
)
from video_mvit.detection.data.images import read_image, read_upright_size
from video_mvit.detection.data.mask_folder import MaskFolderSource
from video_mvit.detection.data.sampling import (
    GroupedSampler,
    ImageKey,
    TrainingImages,
    repeat_factors,
)
from video_mvit.detection.data.sources import FolderSource
from video_mvit.detection.data.transforms import LargeScaleJitter, MultiScaleCrop, ResizeShortSide
from video_mvit.detection.instances import DetectionBatch
from video_mvit.errors import UserError

TRAIN = LargeScaleJitter(side=32, scale=(0.8, 1.2))
TEST = ResizeShortSide(short_side=24, long_side=40)


def make_set(root: Path, num_images: int = 12, split: str = "train") -> Annotations:
    """Two landscape pictures to each portrait; picture i has i % 3 objects, and a crowd."""
    images = [image(i, (30, 40) if i % 3 else (40, 30)) for i in range(1, num_images + 1)]
    entries = [
        annotation(10 * i + k, i, category_id=7 if i % 2 else 3)
        for i in range(1, num_images + 1)
        for k in range(i % 3)
    ]
    entries += [annotation(10 * i + 9, i, iscrowd=1) for i in range(1, num_images + 1)]
    file = write_coco(root, entries, images, split=split)
    return CocoSource(json=str(file), images=str(root / "images")).read()


# Pictures


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    picture = Image.fromarray(pixels)
    (picture.convert(mode, palette=Image.Palette.ADAPTIVE) if mode else picture).save(
        path, **options
    )
    return path


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.jpg", "CMYK"), ("a.png", "P"), ("a.png", "L"), ("a.png", "RGBA"), ("a.png", "LA")],
)
def test_pictures_of_all_modes_become_rgb(name: str, mode: str, tmp_path: Path) -> None:
    grey = np.repeat(np.linspace(0, 255, 40).astype(np.uint8)[None, :, None], 30, axis=0)
    pixels = np.repeat(grey, 3, axis=2)
    found = read_image(str(save(tmp_path / name, pixels, mode)))
    assert found.shape == (30, 40, 3)
    assert np.abs(found.astype(int) - pixels).max() < 12


def test_sixteen_bits_and_orientation(tmp_path: Path) -> None:
    deep = (np.arange(1200).reshape(30, 40) * 54).astype(np.uint16)
    np.testing.assert_array_equal(
        read_image(str(save(tmp_path / "a.png", deep)))[:, :, 0], deep >> 8
    )
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned = save(tmp_path / "b.png", pixels, exif=exif)
    np.testing.assert_array_equal(read_image(str(turned)), np.rot90(pixels, -1))
    assert read_upright_size(str(turned)) == (40, 30)
    write_coco(tmp_path, [annotation()], [image(size=(40, 30))])
    save(tmp_path / "images" / "1.png", pixels, exif=exif)
    found = CocoSource(json=f"{tmp_path}/train.json", images=f"{tmp_path}/images").read()
    item = DetectionDataset(found, ResizeShortSide(short_side=30, long_side=40))[0]
    assert item.original_size == (40, 30)
    np.testing.assert_array_equal(item.image.permute(1, 2, 0), np.rot90(pixels, -1))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "an empty file"),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 40, ""),
        ("cut", "truncated"),
        ("folder", "not a file, but a folder"),
        ("other size", "it has 20x10 pixels, its annotations are for 40x30"),
    ],
)
def test_unreadable_picture_is_listed_in_evaluation_and_replaced_in_training(
    content: object, reason: str, tmp_path: Path
) -> None:
    annotations = make_set(tmp_path, 6)
    path = tmp_path / "images" / "2.png"
    whole = path.read_bytes()
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content == "other size":
        write_noise(path, (10, 20))
    elif content is not None:
        path.write_bytes(whole[: len(whole) // 2] if content == "cut" else content)
    item = DetectionDataset(annotations, TEST)[1]
    assert item.image is None
    assert reason in item.unreadable[0].reason
    batch = collate([item, DetectionDataset(annotations, TEST)[0]])
    assert batch.image_index.tolist() == [0]
    assert [note.video_index for note in batch.unreadable] == [1]
    assert collate([item]).images == []
    training = TrainDetectionDataset(annotations, np.array([0, 1, 3, 4]), TRAIN, seed=0)
    replaced = training[ImageKey(0, 1, 0)]
    assert replaced.image_index in (0, 3, 4)
    assert replaced.unreadable[0].video_index == 1
    with pytest.raises(VideoDecodeError, match="neither can 9 replacements"):
        TrainDetectionDataset(annotations, np.array([1]), TRAIN, seed=0)[ImageKey(0, 1, 0)]


def test_training_item_is_a_function_of_seed_epoch_index_and_place(tmp_path: Path) -> None:
    annotations = make_set(tmp_path)

    def pixels(seed: int, *key: int) -> Tensor:
        data = TrainDetectionDataset(annotations, np.arange(12), TRAIN, seed)
        return data[ImageKey(*key)].image

    first = pixels(0, 3, 1, 5)
    assert first.shape == (3, 32, 32)
    assert first.dtype == torch.uint8
    assert torch.equal(first, pixels(0, 3, 1, 5))
    for other in ((1, 3, 1, 5), (0, 4, 1, 5), (0, 3, 2, 5), (0, 3, 1, 6)):
        assert not torch.equal(first, pixels(*other))


def test_batches_hold_objects_without_crowds_or_nothing(tmp_path: Path) -> None:
    annotations = make_set(tmp_path)
    plain = MultiScaleCrop(short_sides=(30,), crop_prob=0, flip_prob=0)
    data = TrainDetectionDataset(annotations, np.arange(12), plain, seed=0)
    batch = collate_training([data[ImageKey(0, i, 0)] for i in (0, 1, 2)])
    assert [len(target.labels) for target in batch.targets] == [1, 2, 0]
    assert [target.labels.tolist() for target in batch.targets] == [[1], [0, 0], []]
    assert batch.targets[2].boxes.shape == (0, 4)
    assert batch.targets[0].boxes.tolist() == [[4, 6, 14, 16]]
    assert batch.targets[0].masks[0][0].tolist() == square(4, 6, 10)
    assert batch.original_sizes == [(30, 40), (30, 40), (40, 30)]
    evaluated = collate([DetectionDataset(annotations, TEST)[i] for i in (2, 0)])
    assert evaluated.targets == []
    assert [tuple(each.shape) for each in evaluated.images] == [(3, 32, 24), (3, 24, 32)]
    assert evaluated.image_index.tolist() == [2, 0]


# Order


def training_images(num_landscape: int, num_portrait: int, repeats: float = 1) -> TrainingImages:
    total = num_landscape + num_portrait
    return TrainingImages(
        indices=np.arange(total) + 100,
        is_landscape=np.arange(total) < num_landscape,
        repeats=np.full(total, repeats),
    )


def ranks(
    images: TrainingImages, num_ranks: int, epoch: int = 0, **options: Any
) -> list[list[Any]]:
    orders = []
    for rank in range(num_ranks):
        sampler = GroupedSampler(images, rank=rank, num_ranks=num_ranks, seed=3, **options)
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert len(orders[-1]) == len(sampler)
    return orders


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_batches_have_one_orientation_and_ranks_share_an_epoch(num_ranks: int) -> None:
    images = training_images(37, 22)
    orders = ranks(images, num_ranks, batch_size=4)
    seen = [key.image_index for order in orders for key in order]
    assert len({len(order) for order in orders}) == 1
    assert len(seen) == len(set(seen)) == 59 // (4 * num_ranks) * 4 * num_ranks
    mixed = 0
    for order in orders:
        for start in range(0, len(order), 4):
            wide = [images.is_landscape[key.image_index - 100] for key in order[start : start + 4]]
            mixed += len(set(wide)) > 1
    assert mixed <= 1
    assert orders != ranks(images, num_ranks, epoch=1, batch_size=4)
    assert orders == ranks(images, num_ranks, batch_size=4)


def test_accumulated_batches_fill_whole_steps() -> None:
    orders = ranks(training_images(37, 22), 2, batch_size=4, batches_per_step=3)
    assert [len(order) for order in orders] == [24, 24]


def test_epoch_goes_on_after_the_images_that_are_done() -> None:
    sampler = GroupedSampler(training_images(9, 9), batch_size=3, seed=0)
    whole = list(sampler)
    sampler.skip_once(6)
    assert list(sampler) == whole[6:]
    assert list(sampler) == whole


def test_repeated_images_come_as_often_as_their_factor_says() -> None:
    images = training_images(20, 20, repeats=2.3)
    counts = np.zeros(40)
    for epoch in range(20):
        (order,) = ranks(images, 1, epoch, batch_size=1)
        assert len(order) == 92
        assert len({key.place for key in order}) == 92
        seen = np.bincount([key.image_index - 100 for key in order], minlength=40)
        assert set(seen.tolist()) <= {1, 2, 3}
        counts += seen
    np.testing.assert_allclose(counts / 20, 2.3, atol=0.35)


def test_repeat_factor_is_that_of_the_rarest_class_in_an_image(tmp_path: Path) -> None:
    entries = [annotation(i, i) for i in range(1, 10)] + [annotation(90, 9, category_id=3)]
    file = write_coco(tmp_path, entries, [image(i) for i in range(1, 10)])
    found = CocoSource(json=str(file), images=str(tmp_path / "images")).read()
    factors = repeat_factors(found, np.arange(9), 0.5)
    np.testing.assert_allclose(factors, [1] * 8 + [np.sqrt(0.5 * 9)])


# Folders


def paint(path: Path, size: tuple[int, int], *colours: Sequence[int]) -> None:
    """A mask with a square of 6 pixels for each colour."""
    pixels = np.zeros((*size, len(colours[0]) if colours else 3), np.uint8)
    for i, colour in enumerate(colours):
        pixels[2:8, 8 * i : 8 * i + 6] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels).save(path)


def painted(root: Path) -> Path:
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
    write_noise(root / "cat" / "tom.jpg", (30, 40))
    paint(root / "cat" / "tom.png", (30, 40), (255, 0, 0), (255, 0, 1), (0, 200, 0))
    write_noise(root / "dog" / "rex.png", (40, 30))
    paint(root / "dog" / "masks" / "rex.png", (40, 30), (5,), (200,))
    return root


def test_painted_masks_become_objects(tmp_path: Path) -> None:
    found = MaskFolderSource(folder=str(painted(tmp_path / "train"))).read()
    assert found.categories == Categories(ids=(1, 2), names=("cat", "dog"))
    assert list(found.file_names) == ["cat/tom.jpg", "dog/rex.png"]
    assert found.labels.tolist() == [0, 0, 0, 1, 1]
    assert sorted(found.boxes[:3].tolist()) == [[x, 2, 6, 6] for x in (0, 8, 16)]
    assert found.mask(4, (40, 30)).sum() == found.areas[4] == 36
    item = TrainDetectionDataset(found, np.arange(2), TRAIN, seed=0)[ImageKey(0, 1, 0)]
    assert item.image.shape == (3, 32, 32)
    assert all(mask.shape == (32, 32) for mask in item.target.masks)


@pytest.mark.parametrize(
    ("name", "write", "sentence"),
    [
        ("cat/a", None, "ignored 1 picture: no mask"),
        ("cat/b", lambda path: paint(path, (20, 40)), "the mask has 40x20 pixels, its picture"),
        ("cat/c", lambda path: write_noise(path, (30, 40)), "colours; paint objects without"),
        ("cat/d", lambda path: path.write_bytes(b"no"), "text, not a picture"),
    ],
)
def test_bad_mask_is_counted(name: str, write: Any, sentence: str, tmp_path: Path) -> None:
    root = painted(tmp_path / "train")
    write_noise(root / f"{name}.jpg", (30, 40))
    if write:
        write(root / f"{name}.png")
    found = MaskFolderSource(folder=str(root)).read()
    assert len(found) == 2
    assert sentence in str(found.problems[0])
    assert f"{name}." in str(found.problems[0])


def test_black_mask_is_a_picture_without_objects_and_transparent_is_black(tmp_path: Path) -> None:
    root = painted(tmp_path / "train")
    write_noise(root / "cat" / "z.jpg", (30, 40))
    paint(root / "cat" / "z.png", (30, 40), (9, 9, 9, 0), (9, 9, 9, 255))
    write_noise(root / "cat" / "zz.jpg", (30, 40))
    paint(root / "cat" / "zz.png", (30, 40))
    found = MaskFolderSource(folder=str(root)).read()
    assert found.num_targets.tolist() == [3, 1, 0, 2]
    assert found.areas[found.objects_of(1)].tolist() == [36]


def test_unknown_class_folder_is_refused(tmp_path: Path) -> None:
    root = painted(tmp_path / "val")
    with pytest.raises(UserError, match=r"val/dog is no class of the training: cat, cow"):
        MaskFolderSource(folder=str(root)).read(Categories(ids=(1, 2), names=("cat", "cow")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no class folders"):
        MaskFolderSource(folder=str(tmp_path / "empty")).read()
    with pytest.raises(FileNotFoundError, match="is not a folder of class folders"):
        MaskFolderSource(folder=str(tmp_path / "none")).read()


def test_form_of_a_data_folder_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def read(name: str, split: Any = "train") -> Annotations:
        return FolderSource(root=str(tmp_path / name), split=split).read()

    write_coco(tmp_path / "own", [annotation()])
    assert read("own").root.endswith("own/images")
    coco, export = tmp_path / "coco", tmp_path / "export"
    file = write_coco(coco, [annotation()])
    (coco / "annotations").mkdir()
    file.rename(coco / "annotations" / "instances_train2017.json")
    (coco / "images").rename(coco / "train2017")
    assert read("coco").root.endswith("coco/train2017")
    file = write_coco(export, [annotation()])
    (export / "images").rename(export / "valid")
    file.rename(export / "valid" / "_annotations.coco.json")
    assert read("export", "val").root.endswith("export/valid")
    painted(tmp_path / "painted" / "train")
    assert len(read("painted")) == 2
    assert "reading train as class folders of pictures and masks" in caplog.text
    with pytest.raises(FileNotFoundError, match=r"has no val data: looked for annotations/inst"):
        read("coco", "val")
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        read("nowhere")
    with pytest.raises(UserError, match="split 'test' is none of train, val"):
        read("own", "test")


# The data module


def make_data(root: Path, **changes: Any) -> DetectionDataModule:
    options = {"batch_size": 2, **changes}
    loader = {"num_workers": 0, **options.pop("loader", {})}
    splits = {
        name: DetectionSplit(
            source=FolderSource(root=str(root), split=name), transform=transform, **options
        )
        for name, transform in (("train", TRAIN), ("val", TEST))
    }
    return DetectionDataModule(**splits, num_classes=2, loader=LoaderConfig(**loader))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_set(tmp_path, 12)
    make_set(tmp_path, 7, split="val")
    return tmp_path


class Recorder(pl.LightningModule):
    """Notes the images that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.automatic_optimization = True
        self.trained: list[tuple[list[int], float]] = []
        self.evaluated: list[int] = []

    def training_step(self, batch: DetectionBatch, _: int) -> Tensor:
        pixels = sum(float(each.sum()) for each in batch.images)
        self.trained.append((batch.image_index.tolist(), pixels))
        return self.weight * 1

    def validation_step(self, batch: DetectionBatch, _: int) -> None:
        self.evaluated += batch.image_index.tolist()

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def make_trainer(**options: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )


def test_run_goes_on_in_mid_epoch_with_the_same_batches(root: Path, tmp_path: Path) -> None:
    whole, second, stopped = Recorder(), Recorder(), tmp_path / "stopped.ckpt"

    class SaveInMidEpoch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
            if trainer.global_step == 6:
                trainer.save_checkpoint(stopped)

    make_trainer(max_epochs=3, callbacks=[SaveInMidEpoch()]).fit(whole, make_data(root))
    assert len(whole.trained) == 3 * 4  # of 12 images, 8 have objects
    assert whole.evaluated == list(range(7)) * 3
    assert {len(indices) for indices, _ in whole.trained} == {2}
    make_trainer(max_epochs=3).fit(second, make_data(root), ckpt_path=stopped)
    assert second.trained == whole.trained[6:]
    with pytest.raises(UserError, match="batches of 2 images on all devices; now they have 4"):
        make_trainer(max_epochs=3).fit(Recorder(), make_data(root, batch_size=4), ckpt_path=stopped)


@pytest.mark.slow
def test_workers_give_the_batches_of_this_process(root: Path) -> None:
    batches = []
    for num_workers in (0, 2):
        data = make_data(root, loader={"num_workers": num_workers})
        data.setup("fit")
        batches.append(list(data.train_dataloader()))
    for one, other in zip(*batches, strict=True):
        assert one.image_index.tolist() == other.image_index.tolist()
        assert all(map(torch.equal, one.images, other.images))
        for mine, theirs in zip(one.targets, other.targets, strict=True):
            assert torch.equal(mine.boxes, theirs.boxes)
            assert len(mine.masks) == len(theirs.masks)


def test_each_image_is_evaluated_on_one_rank(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for rank in range(3):
        data = make_data(root)
        data.setup("test")
        monkeypatch.setattr(data, "_rank", lambda rank=rank: (rank, 3))
        data.already_tested = {4}
        seen += [i for batch in data.test_dataloader() for i in batch.image_index.tolist()]
    assert sorted(seen) == [0, 1, 2, 3, 5, 6]


def test_categories_come_from_training_or_from_outside(root: Path) -> None:
    data = make_data(root)
    assert data.class_names == []
    data.setup("fit")
    assert (data.class_names, data.category_ids) == (["dog", "cat"], [3, 7])
    assert data.annotations("val").categories is data.annotations("train").categories
    other = make_data(root)
    other.categories = Categories(ids=(3, 7), names=("dog", "horse"))
    with pytest.raises(UserError, match="category 7 is 'cat', but 'horse' in training"):
        other.setup("validate")
    data.num_classes = 80
    with pytest.raises(UserError, match=r"num_classes is 80, but .*json has 2 categories"):
        data.setup("validate")


def test_unreadable_images_are_logged_and_stop_training_above_a_share(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (root / "images" / "4.png").write_bytes(b"no picture")
    recorder, data = Recorder(), make_data(root, loader={"max_unreadable_fraction": 0.2})
    make_trainer(max_epochs=2).fit(recorder, data)
    assert set(data.unreadable["train"]) == set(data.unreadable["val"]) == {3}
    assert set(recorder.evaluated) == {0, 1, 2, 4, 5, 6}
    assert caplog.text.count("replaced by another image") == 1
    assert caplog.text.count("excluded from the result") == 1
    with pytest.raises(UserError, match=r"1 of 12 training images are unreadable so far.*4\.png"):
        make_trainer(max_epochs=2).fit(Recorder(), make_data(root))


def test_missing_images_count_as_unreadable(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "images" / "4.png").unlink()
    recorder, data = Recorder(), make_data(root, loader={"max_unreadable_fraction": 0.2})
    make_trainer(max_epochs=1).fit(recorder, data)
    assert data.unreadable == {"train": {}, "val": {3: "not on disk"}}
    assert caplog.text.count("ignored 1 image: not in") == 2
    assert "cannot read" not in caplog.text
    assert all(3 not in indices for indices, _ in recorder.trained)
    with pytest.raises(UserError, match=r"1 of 12 training images.*4\.png: not on disk"):
        make_data(root).setup("fit")


def test_images_are_checked_before_a_run(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    data = make_data(root, loader={"max_unreadable_fraction": 1.0})
    data.setup("fit")
    data.sanity_check()
    assert "checked 8 of 8 training images: 8 readable; 12 objects" in caplog.text
    assert data.train_image_path(3).endswith("images/4.png")
    for path in (root / "images").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(UserError, match="none of 8 training images can be read"):
        data.sanity_check()


def test_too_few_images_are_told(root: Path) -> None:
    data = make_data(root, batch_size=9)
    data.setup("fit")
    with pytest.raises(UserError, match="8 training images do not fill one batch of 9"):
        data.check_shares("fit", 1)
    with pytest.raises(UserError, match="has 7 images, fewer than one for each of 8 devices"):
        data.check_shares("test", 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"batch_size": 0}, "batch_size 0"), ({"repeat_threshold": 2.0}, "repeat_threshold 2.0")],
)
def test_impossible_split_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_data(Path(), **changes)
