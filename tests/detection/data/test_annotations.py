"""Annotation files: what they mean, what is wrong with them, and one sentence for each."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from support.detection import annotation, image, square, write_coco

from video_mvit.detection.data import json_stream
from video_mvit.detection.data.annotations import Annotations, Categories, decode_run_lengths
from video_mvit.detection.data.coco_json import CocoSource
from video_mvit.errors import UserError

NAN, INF = float("nan"), float("inf")


def read(file: Path, categories: Categories | None = None) -> Annotations:
    return CocoSource(json=str(file), images=str(file.parent / "images")).read(categories)


def bitmap_of(mask: Any, size: tuple[int, int] = (30, 40)) -> np.ndarray:
    if isinstance(mask, np.ndarray):
        return mask
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(mask, *size))).astype(bool)


def test_objects_of_an_image_keep_their_numbers_and_order(tmp_path: Path) -> None:
    entries = [
        annotation(5, image_id=9, category_id=3, bbox=[1.25, 2, 3, 4], area=None),
        annotation(6, image_id=2, segmentation=[square(1, 2, 3), [0.1, 0.2, 9, 1, 5.55, 7]]),
        annotation(9, image_id=9),
    ]
    found = read(write_coco(tmp_path, entries, [image(9), image(4), image(2, (50, 20))]))
    assert found.categories == Categories(ids=(3, 7), names=("dog", "cat"))
    assert found.image_ids.tolist() == [9, 4, 2]
    assert found.sizes.tolist() == [[30, 40], [30, 40], [50, 20]]
    assert [found.objects_of(i).tolist() for i in range(3)] == [[0, 2], [], [1]]
    assert found.labels.tolist() == [0, 1, 1]
    assert found.boxes[0].tolist() == [1.25, 2, 3, 4]
    first, second = found.mask(1, (50, 20))
    assert first.tolist() == square(1, 2, 3)
    assert second.tolist() == [0.1, 0.2, 9, 1, 5.55, 7]
    assert found.num_targets.tolist() == [2, 0, 1]
    assert found.problems == ()


def test_many_objects_of_an_image_stay_in_order(tmp_path: Path) -> None:
    entries = [annotation(i, 1 + i % 2) for i in range(60)]
    found = read(write_coco(tmp_path, entries, [image(1), image(2)]))
    assert found.objects_of(1).tolist() == list(range(1, 60, 2))


def test_ground_truth_of_an_evaluation_is_that_of_the_file(tmp_path: Path) -> None:
    bitmap = np.zeros((30, 40), np.uint8, order="F")
    bitmap[3:9, 5:30] = 1
    rle = coco_mask.encode(bitmap)
    entries = [
        annotation(31, segmentation=[square(0.7, 6.3, 10.1)], area=None),
        annotation(17, segmentation={"size": [30, 40], "counts": rle["counts"].decode()}),
        annotation(8, segmentation={"size": [30, 40], "counts": [0, 30, 1170]}, iscrowd=1),
    ]
    file = write_coco(tmp_path, entries)
    theirs, ours = COCO(str(file)), COCO()
    found = read(file)
    assert found.targets_of(0).tolist() == [0, 1]
    ours.dataset = json.loads(json.dumps(found.coco_ground_truth()))
    ours.createIndex()
    assert ours.cats == theirs.cats
    for mine, other in zip(ours.loadAnns([1, 2, 3]), theirs.loadAnns([31, 17, 8]), strict=True):
        assert mine["bbox"] == other["bbox"]
        assert mine["iscrowd"] == other["iscrowd"]
        assert mine["area"] == other.get("area", coco_mask.area(theirs.annToRLE(other)))
        np.testing.assert_array_equal(ours.annToMask(mine), theirs.annToMask(other))
    for index in range(3):
        np.testing.assert_array_equal(
            bitmap_of(found.mask(index, (30, 40))), theirs.annToMask(entries[index])
        )


@pytest.mark.parametrize("seed", range(3))
def test_compressed_run_lengths_are_decoded_as_pycocotools_encodes_them(seed: int) -> None:
    generator = np.random.default_rng(seed)
    bitmap = generator.random((70, 90)) < generator.uniform(0.001, 0.9)
    lengths = decode_run_lengths(coco_mask.encode(np.asfortranarray(bitmap, np.uint8))["counts"])
    values = np.arange(len(lengths)) % 2
    np.testing.assert_array_equal(np.repeat(values, lengths), bitmap.ravel(order="F"))


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"image_id": 5}, "ignored 1 annotation: unknown image"),
        ({"category_id": 1}, "ignored 1 annotation: unknown category"),
        ({"bbox": [4, 6, 0, 10]}, "ignored 1 annotation: box without area"),
        ({"bbox": [4, 6, -3, 10]}, "ignored 1 annotation: box of negative size"),
        ({"bbox": [40, 6, 3, 10]}, "ignored 1 annotation: box outside the image"),
        ({"bbox": [-9, 6, 9, 10]}, "ignored 1 annotation: box outside the image"),
        ({"bbox": [NAN, 6, 3, 10]}, "ignored 1 annotation: NaN or infinite box or polygon"),
        (
            {"segmentation": [[0, 0, 5, INF, 5, 5]]},
            "ignored 1 annotation: NaN or infinite box or polygon",
        ),
        (
            {"segmentation": [square(1, 1, 5), [0, NAN, 5, 0, 5, 5]]},
            "ignored 1 annotation: NaN or infinite box or polygon",
        ),
        ({"segmentation": [[0, 0, 1e9, 0, 5, 5]]}, "polygon far outside the image"),
        ({"bbox": [4, 6, 10]}, "ignored 1 annotation: malformed"),
        ({"bbox": "4, 6, 10, 10"}, "ignored 1 annotation: malformed"),
        ({"bbox": None}, "ignored 1 annotation: without 'bbox'"),
        ({"image_id": "1"}, "ignored 1 annotation: malformed"),
        ({"segmentation": None}, "ignored 1 annotation: no mask"),
        ({"segmentation": []}, "ignored 1 annotation: no mask"),
        (
            {"segmentation": [[1, 2, 3, 4]]},
            "ignored 1 polygon: fewer than 3 points or half a point",
        ),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "ignored 1 polygon: fewer than 3 points"),
        ({"segmentation": [[1, 2, 3, 4, 5, "6"]]}, "ignored 1 annotation: malformed"),
        (
            {"segmentation": [square(1, 1, 5), [1, 2, 3, 4, 5, "6"]]},
            "ignored 1 annotation: malformed",
        ),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "ignored 1 annotation: malformed"),
        (
            {"segmentation": {"size": [30, 40], "counts": [0, 30]}},
            "ignored 1 annotation: malformed",
        ),
        ({"segmentation": {"size": [30, 40], "counts": "zz"}}, "ignored 1 annotation: malformed"),
        ({"segmentation": {"size": [30, 40], "counts": ""}}, "ignored 1 annotation: malformed"),
        ({"segmentation": {"counts": [0, 1200]}}, "ignored 1 annotation: without 'size'"),
        (
            {"segmentation": {"size": [40, 30], "counts": [0, 1200]}},
            "ignored 1 annotation: mask of another size than the image",
        ),
    ],
)
def test_bad_annotation_is_ignored_with_one_sentence(
    bad: dict[str, Any], sentence: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entries = [annotation(1), annotation(2, **bad), annotation(3)]
    found = read(write_coco(tmp_path, entries))
    assert found.objects_of(0).tolist() in ([0, 2], [0, 1])
    assert [each["segmentation"] for each in found.coco_ground_truth()["annotations"]] == [
        [square(4, 6, 10)]
    ] * 2
    assert any(sentence in str(problem) for problem in found.problems)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == len(found.problems) <= 2
    assert all("\n" not in record.getMessage() for record in warnings)


def test_file_of_boxes_alone_is_ground_truth_for_boxes(tmp_path: Path) -> None:
    """Its areas are those of the boxes where it gives none."""
    entries = [
        annotation(1, segmentation=[], area=None),
        annotation(2, segmentation=None, area=7, bbox=[1, 2, 3, 4]),
    ]
    found = read(write_coco(tmp_path, entries))
    assert not found.has_masks
    assert found.problems == ()
    truth = found.coco_ground_truth()["annotations"]
    assert [(each["area"], each["segmentation"]) for each in truth] == [(100, []), (7, [])]
    assert read(write_coco(tmp_path, [annotation()])).has_masks


def test_digest_depends_on_run_lengths(tmp_path: Path) -> None:
    digests = {
        read(write_coco(tmp_path, [annotation(segmentation=mask)])).digest()
        for mask in (
            {"size": [30, 40], "counts": [100, 50, 1050]},
            {"size": [30, 40], "counts": [100, 51, 1049]},
        )
    }
    assert len(digests) == 2


def test_partly_bad_polygons_leave_the_good_ones(tmp_path: Path) -> None:
    entry = annotation(segmentation=[[1, 2, 3, 4], square(4, 6, 10), [1, 2, 3, 4, 5]])
    found = read(write_coco(tmp_path, [entry]))
    assert [each.tolist() for each in found.mask(0, (30, 40))] == [square(4, 6, 10)]
    assert [problem.count for problem in found.problems] == [2]


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (image(1, file_name="other.png"), "ignored 1 image: id of another image"),
        (image(2, height=0), "ignored 1 image: no size of 1 to 67,108,864 pixels"),
        (image(2, width=10**6, height=10**6), "ignored 1 image: no size"),
        ({"id": 2, "file_name": "2.png"}, "ignored 1 image: no size"),
        (image(2, file_name="gone.png"), "ignored 1 image: not in"),
    ],
)
def test_bad_image_is_counted(bad: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    file = write_coco(tmp_path, [annotation()], [image(1)])
    content = json.loads(file.read_text())
    content["images"].append(bad)
    file.write_text(json.dumps(content))
    found = read(file)
    assert sentence in str(found.problems[0])
    assert found.missing.tolist() == ([1] if "not in" in sentence else [])


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../secret.png", "a/../../b.png", "..\\b.png", "C:\\b.png", "", "a\0b", "a/"],
)
def test_file_name_that_leaves_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    file = write_coco(tmp_path, [annotation()], [image(1)])
    file.write_text(file.read_text().replace('"1.png"', json.dumps(name)))
    with pytest.raises(UserError, match="relative to the folder of images") as error:
        read(file)
    assert "image 1 has the file name" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": []}, "there are no categories"),
        ({"categories": [{"id": 1}]}, "lacks an id or a name"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "have the id 1"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "have the name 'a'"),
        ({"categories": {"1": "a"}}, "lacks an id or a name"),
        ({"images": []}, "lists no usable images"),
        ({"annotations": []}, "has no usable annotations: 0 are listed"),
        ({"annotations": [annotation(image_id=8)]}, "1 are listed; ignored 1 annotation: unknown"),
        ({"images": [{"id": "a", "file_name": "1.png"}]}, "an id must be an integer"),
        ({"images": [{"id": 1}]}, "it lacks 'coco_url'"),
        ({"images": [17]}, "the image 1 is malformed"),
        ({"images": [image(file_name="gone.png")]}, "none of the 1 images that"),
    ],
)
def test_file_that_cannot_be_used_is_refused_with_one_sentence(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = write_coco(tmp_path, [annotation()])
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(UserError, match=message) as error:
        read(file)
    assert "\n" not in str(error.value)


def test_missing_folder_or_file_is_told(tmp_path: Path) -> None:
    file = write_coco(tmp_path, [annotation()])
    with pytest.raises(FileNotFoundError, match=r"the folder .*nowhere of the images of .*train"):
        CocoSource(json=str(file), images=str(tmp_path / "nowhere")).read()
    with pytest.raises(FileNotFoundError, match=r"annotation file .*none\.json does not exist"):
        CocoSource(json=str(tmp_path / "none.json"), images=str(tmp_path)).read()
    with pytest.raises(UserError, match="not a file, but a folder"):
        CocoSource(json=str(tmp_path), images=str(tmp_path)).read()


def test_categories_of_training_hold_for_validation(tmp_path: Path) -> None:
    training = Categories(ids=(3, 7, 8), names=("dog", "cat", "cow"))
    found = read(write_coco(tmp_path, [annotation()]), training)
    assert found.categories is training
    assert found.labels.tolist() == [1]
    with pytest.raises(UserError, match="category 7 is 'cat', but 'horse' in training"):
        read(tmp_path / "train.json", Categories(ids=(3, 7), names=("dog", "horse")))
    with pytest.raises(UserError, match="category 'cat' has the id 7, but 8 in training"):
        read(tmp_path / "train.json", Categories(ids=(3, 8), names=("dog", "cat")))


@pytest.mark.parametrize("area", [None, -3, NAN, INF])
def test_area_that_is_none_is_counted_in_the_mask(area: float | None, tmp_path: Path) -> None:
    found = read(write_coco(tmp_path, [annotation(), annotation(2) | {"area": area}]))
    assert [each["area"] for each in found.coco_ground_truth()["annotations"]] == [100, 100]


def test_lvis_file_is_read_without_the_federated_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    entry = image(1, coco_url="http://images.example.org/train2017/1.png", neg_category_ids=[3])
    (tmp_path / "images" / "train2017").mkdir(parents=True)
    del entry["file_name"]
    file = write_coco(tmp_path, [annotation(iscrowd=None)], [image(1)])
    os.rename(tmp_path / "images" / "1.png", tmp_path / "images" / "train2017" / "1.png")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"images": [entry]}))
    found = read(file)
    assert found.file_names[0] == "train2017/1.png"
    assert "without the federated loss" in caplog.text


# The text


@pytest.fixture(params=[1, 2, 3, 5, 7, 12])
def small_window(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(json_stream, "WINDOW", request.param)


TEXT = (
    ' {"a" : [1, -2.5e3 , "x\\"}]" ,{"b": [[]]}, true,null], "b":[ ],\n "c":{"d":[1]},"e": 123 } '
)


@pytest.mark.usefixtures("small_window")
def test_elements_do_not_depend_on_the_window(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(TEXT)
    assert list(json_stream.read_elements(str(file))) == [
        *(("a", each) for each in (1, -2500.0, 'x"}]', {"b": [[]]}, True, None)),
        ("c", {"d": [1]}),
        ("e", 123),
    ]


@pytest.mark.usefixtures("small_window")
def test_file_cut_anywhere_ends_in_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for length in range(2, len(TEXT.rstrip())):
        file.write_text(TEXT[:length])
        with pytest.raises(UserError, match="the file was cut off; copy or download it again"):
            list(json_stream.read_elements(str(file)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty; an annotation file is a JSON object"),
        (b"[1]", "begins with '\\['; an annotation file is a JSON object"),
        (b'{"a": [1 2]' + b" " * 30 + b"}", "is damaged at character 9: ',' expected in 'a'"),
        (b'{"a": [{"b": x}' + b" " * 30 + b"]}", "is damaged at character 13: Expecting value"),
        (b'{"a": [' + b"[" * 100_000 + b"]}", "is damaged at character 7"),
        (b"{1: [2]" + b" " * 30 + b"}", "a name is not a string"),
        (b'{"\xff": 1}', "is no UTF-8 text"),
        (b'{"a": [' + b"1" * 5000 + b"]}", "is damaged at character 7: Exceeds the limit"),
    ],
)
def test_damaged_file_ends_in_one_sentence(text: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(text)
    with pytest.raises(UserError, match=message) as error:
        list(json_stream.read_elements(str(file)))
    assert "\n" not in str(error.value)
