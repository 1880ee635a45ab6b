"""Objects of pictures and videos, found by a stand-in for a detector: the bright pixels."""

import csv
import io
import json
import weakref
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from support.videos import write_numbered_video
from torch import Tensor
from torch.nn.functional import interpolate

pytest.importorskip("pycocotools")
from pycocotools import mask as coco_mask

from video_mvit.detection.instances import Detections
from video_mvit.detection.pictures import class_color
from video_mvit.detection.predict import (
    FoundObjects,
    ObjectFinder,
    detect_pictures,
    detect_video,
    write_annotated_picture,
)
from video_mvit.detection.writers import open_detection_writer
from video_mvit.prediction.inputs import find_pictures

NAMES = ("bright", "all")


def find_bright(
    images: Sequence[Tensor], *, output_sizes: Sequence[tuple[int, int]]
) -> list[Detections]:
    """One detection around bright pixels, and a poor one of the whole picture."""
    found = []
    for image, (height, width) in zip(images, output_sizes, strict=True):
        assert image.dtype == torch.uint8
        assert image.ndim == 3
        assert min(image.shape[1:]) in (120, height)
        pixels = interpolate(image[None].float(), (height, width))[0].mean(dim=0)
        bright = pixels > 120
        rows, columns = bright.any(dim=1).nonzero(), bright.any(dim=0).nonzero()
        box = [0.0, 0.0, 0.0, 0.0]
        if len(rows):
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        found.append(
            Detections(
                boxes=torch.tensor([box, [0, 0, width, height]]).float(),
                scores=torch.tensor([0.9, 0.3]),
                labels=torch.tensor([0, 1]),
                masks=torch.stack([bright, torch.ones(height, width, dtype=torch.bool)]),
            )
        )
    return found


FINDER = ObjectFinder(detector=find_bright, class_names=NAMES, short_side=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of a bright box at (20, 10) to (60, 30), a broken one and one in a folder."""
    root = tmp_path_factory.mktemp("pictures")
    pixels = np.full((60, 80, 3), 40, np.uint8)
    pixels[10:30, 20:60] = 200
    Image.fromarray(pixels).save(root / "a.png")
    (root / "b.jpg").write_bytes((root / "a.png").read_bytes()[:90])
    (root / "more").mkdir()
    Image.fromarray(pixels).save(root / "more" / "c.jpeg", quality=95)
    (root / "notes.txt").write_text("no picture")
    return root


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_numbered_video(tmp_path_factory.mktemp("videos") / "a.mp4", 20, size=(48, 64))


def test_folders_and_patterns_stand_for_their_pictures(folder: Path) -> None:
    names = [str(folder / name) for name in ("a.png", "b.jpg", "more/c.jpeg")]
    assert find_pictures(folder) == names
    assert find_pictures([names[1], str(folder / "*.*")]) == [names[1], names[0]]
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        find_pictures("nothing.jpg")
    with pytest.raises(FileNotFoundError, match="no picture matches"):
        find_pictures(str(folder / "*.txt"))
    with pytest.raises(ValueError, match="image is empty"):
        find_pictures([])


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((480, 640), (800, 1067)),
        ((640, 427), (1199, 800)),
        ((333, 500), (800, 1201)),
        ((1000, 300), (1333, 400)),
        ((200, 1000), (267, 1333)),
    ],
)
def test_pictures_are_resized_as_in_the_published_tests(
    size: tuple[int, int], resized: tuple[int, int]
) -> None:
    finder = ObjectFinder(detector=find_bright, class_names=NAMES, short_side=800, max_side=1333)
    assert finder.size_of(size) == resized


def test_pictures_are_found_in_their_own_pixels(folder: Path) -> None:
    first, broken, third = detect_pictures(FINDER, find_pictures(folder))
    for each in (first, third):
        assert each.found.boxes.tolist() == [[20, 10, 60, 30]]
        assert each.found.masks.shape == (1, 60, 80)
        assert each.found.masks.sum() == 800
    assert (broken.found, broken.picture) == (None, None)
    assert broken.problem
    every = ObjectFinder(detector=find_bright, class_names=NAMES, min_score=0)
    assert len(next(detect_pictures(every, [str(folder / "a.png")])).found.scores) == 2


@pytest.mark.parametrize("name", ["out.jpg", "out.png"])
def test_annotated_picture_is_large_enough_to_read(folder: Path, tmp_path: Path, name: str) -> None:
    (each,) = detect_pictures(FINDER, [str(folder / "a.png")])
    write_annotated_picture(FINDER, each, tmp_path / name)
    drawn = np.asarray(Image.open(tmp_path / name)).astype(int)
    assert drawn.shape == (320, 427, 3)
    is_color = np.abs(drawn - class_color(0)).sum(axis=2) < 60
    assert is_color[10 * 320 // 60 : 30 * 320 // 60, 107:320].sum() > 200
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_video_is_examined_at_every_nth_frame(video: Path) -> None:
    found = list(detect_video(FINDER, str(video), every=6))
    assert [each.frame_index for each in found] == [0, 6, 12, 18]
    assert [each.time_s for each in found] == pytest.approx([0, 0.2, 0.4, 0.6], abs=1e-3)
    # Frame 6 is 110 in binary: bars 1 and 2 of 8 pixels each are bright.
    box = found[1].found.boxes[0].tolist()
    assert box == pytest.approx([8, 0, 24, 48], abs=2)
    with pytest.raises(ValueError, match="every is 0"):
        next(detect_video(FINDER, str(video), every=0))


def test_frames_of_a_video_are_let_go_one_after_the_other(video: Path, tmp_path: Path) -> None:
    pictures = []
    for each in detect_video(FINDER, str(video), annotate=tmp_path / "out.mp4"):
        pictures.append(weakref.ref(each.picture))
        assert sum(picture() is not None for picture in pictures) <= 3
    assert len(pictures) == 20


def test_annotated_video_has_all_frames_and_comes_at_the_end(video: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    frames = detect_video(FINDER, str(video), every=6, annotate=target)
    next(frames)
    assert not target.exists()
    assert len(list(frames)) == 3
    with av.open(str(target)) as copy:
        drawn = [frame.to_ndarray(format="rgb24") for frame in copy.decode(video=0)]
    assert len(drawn) == 20
    assert drawn[0].shape == (240, 320, 3)  # enlarged for its labels
    color = np.array(class_color(0))
    middle = [frame[100:140, 45:115].astype(int) for frame in drawn]  # inside the box of frame 6
    near = [(np.abs(part - color).sum(axis=2) < 300).mean() for part in middle]
    assert min(near[6:12]) > 0.5  # held until the next examined frame
    assert max(near[:6]) < 0.5
    interrupted = detect_video(FINDER, str(video), annotate=tmp_path / "stopped.mp4")
    next(interrupted)
    interrupted.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_damaged_video_ends_with_a_problem_and_without_a_copy(video: Path, tmp_path: Path) -> None:
    content = video.read_bytes()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(content[: len(content) // 2])
    found = list(detect_video(FINDER, str(broken), annotate=tmp_path / "out.mp4"))
    assert found[-1].problem
    assert not (tmp_path / "out.mp4").exists()


def written(kind: str, *found: FoundObjects) -> str:
    file = io.StringIO()
    writer = open_detection_writer(kind, file, NAMES)
    for each in found:
        writer.write(each)
    return file.getvalue()


def test_json_has_boxes_and_masks(folder: Path, video: Path) -> None:
    found = [*detect_pictures(FINDER, find_pictures(folder)), *detect_video(FINDER, str(video))]
    first, broken, _, frame, *_ = map(json.loads, written("json", *found).splitlines())
    (only,) = first["objects"]
    assert (first["file"], first["height"], first["width"]) == (str(folder / "a.png"), 60, 80)
    assert (only["label"], only["score"], only["box"]) == ("bright", 0.9, [20, 10, 60, 30])
    assert coco_mask.area(only["mask"]) == 800
    assert set(broken) == {"file", "problem"}
    assert (frame["file"], frame["frame"], frame["time_s"]) == (str(video), 0, 0)


def test_csv_has_a_row_for_each_object_and_each_problem(folder: Path) -> None:
    text = written("csv", *detect_pictures(FINDER, find_pictures(folder)))
    first, broken, _ = csv.DictReader(io.StringIO(text))
    assert [first[name] for name in ("label", "score", "x0", "y1", "mask_area", "frame")] == [
        "bright",
        "0.9",
        "20.0",
        "30.0",
        "800",
        "",
    ]
    assert broken["problem"]
    assert not broken["label"]


def test_text_names_objects_and_frames(folder: Path, video: Path) -> None:
    found = [*detect_pictures(FINDER, find_pictures(folder)), *detect_video(FINDER, str(video))]
    lines = written("text", *found).splitlines()
    assert lines[0] == f"{folder / 'a.png'}  1 object"
    assert lines[1].split() == ["bright", "90.0", "%", "20", "10", "60", "30"]
    assert "b.jpg  cannot be read: " in lines[2]
    assert lines[5].startswith(f"{video}  frame 0, 0.0 s  1 object")


def test_score_outside_of_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="min_score is 50"):
        ObjectFinder(detector=find_bright, class_names=NAMES, min_score=50)
