"""The generated pictures: exact annotations, the same from the same seed, and the control."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pycocotools")
from pycocotools import mask as coco_mask

from video_mvit.detection.demo_pictures import (
    CLASS_COLORS,
    MIN_VISIBLE,
    SIDE,
    draw_demo_picture,
    write_detection_demo,
)

COUNTS = {"train": 6, "val": 3}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, written = tmp_path_factory.mktemp("demo"), []
    write_detection_demo(folder, COUNTS, 3, written.append)
    assert sum(written) == 9
    return folder


def read(root: Path, split: str) -> dict:
    return json.loads((root / "annotations" / f"instances_{split}.json").read_text())


@pytest.mark.parametrize("split", COUNTS)
def test_annotations_fit_the_pictures(root: Path, split: str) -> None:
    content = read(root, split)
    assert [each["name"] for each in content["categories"]] == list(CLASS_COLORS)
    assert len(content["images"]) == COUNTS[split]
    for image in content["images"]:
        picture = np.asarray(Image.open(root / split / image["file_name"]))
        assert picture.shape == (image["height"], image["width"], 3) == (SIDE, SIDE, 3)
    masks: dict[int, list[np.ndarray]] = {}
    for each in content["annotations"]:
        mask = coco_mask.decode(each["segmentation"]).astype(bool)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        x, y, width, height = each["bbox"]
        assert (x, y) == (columns[0], rows[0])
        assert (x + width, y + height) == (columns[-1] + 1, rows[-1] + 1)
        assert mask.sum() == each["area"] >= MIN_VISIBLE
        masks.setdefault(each["image_id"], []).append(mask)
    assert all(1 <= len(each) <= 4 for each in masks.values())
    assert max(np.sum(each, axis=0).max() for each in masks.values()) == 1  # none overlap


def test_same_seed_gives_the_same_files_and_another_seed_others(root: Path, tmp_path: Path) -> None:
    for name, seed in {"same": 3, "other": 4}.items():
        write_detection_demo(tmp_path / name, COUNTS, seed, lambda _: None)
    names = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    assert len(names) == 11
    assert all((root / n).read_bytes() == (tmp_path / "same" / n).read_bytes() for n in names)
    assert all((root / n).read_bytes() != (tmp_path / "other" / n).read_bytes() for n in names)


def test_colour_tells_the_class() -> None:
    colours = {label: [] for label in range(3)}
    for seed in range(60):
        picture, shapes = draw_demo_picture(np.random.default_rng(seed))
        for label, mask in shapes:
            colours[label].append(picture[mask].mean(axis=0))
    for label, expected in enumerate(CLASS_COLORS.values()):
        np.testing.assert_allclose(np.mean(colours[label], axis=0), expected, atol=12)
        assert 15 < np.std(colours[label], axis=0).mean() < 32


def test_shuffled_labels_change_classes_of_training_alone(root: Path, tmp_path: Path) -> None:
    write_detection_demo(tmp_path, COUNTS, 3, lambda _: None, labels="shuffled")
    assert read(tmp_path, "val") == read(root, "val")
    before, after = read(root, "train")["annotations"], read(tmp_path, "train")["annotations"]
    classes = [[each.pop("category_id") for each in rows] for rows in (before, after)]
    assert before == after
    assert classes[0] != classes[1]
    assert set(classes[1]) == {1, 2, 3}
