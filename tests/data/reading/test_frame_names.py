"""Folders of frames as other tools leave them: which pictures are the frames."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from video_mvit.data.reading.frame_names import frame_place, is_template
from video_mvit.data.reading.open import VideoDecodeError, examine_video, open_video
from video_mvit.prediction.inputs import find_videos

NUM_FRAMES = 12


def write(folder: Path, names: Sequence[str], value: int | None = None) -> Path:
    """Pictures of one grey each: ten times their place, or one value for all."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        grey = 10 * i if value is None else value
        Image.fromarray(np.full((16, 16, 3), grey, np.uint8)).save(folder / name)
    return folder


def numbered(pattern: str, numbers: Sequence[int] = range(1, NUM_FRAMES + 1)) -> list[str]:
    return [pattern.format(i) for i in numbers]


def shown(path: Path | str) -> list[int]:
    """The place of each frame, as `write` paints it."""
    with open_video(path) as video:
        frames = video.read(range(video.num_frames))
    return np.rint(frames.mean(axis=(1, 2, 3)) / 10).astype(int).tolist()


@pytest.mark.parametrize(
    "pattern",
    [
        "{:05}.jpg",
        "{}.jpg",
        "img_{:05}.jpg",
        "image_{:05}.JPG",
        "frame{}.jpeg",
        "v_Archery_g01_c01_{:04}.jpg",
        "{:06}.webp",
        "{:03}.bmp",
        "f-{}.tif",
        "{}.tiff",
        "frame {}.ppm",
    ],
)
@pytest.mark.parametrize("start", [0, 1, 95])
def test_frames_are_read_in_the_order_of_their_numbers(
    tmp_path: Path, pattern: str, start: int
) -> None:
    folder = write(tmp_path / "v", numbered(pattern, range(start, start + NUM_FRAMES)))
    assert shown(folder) == list(range(NUM_FRAMES))
    assert examine_video(folder).num_frames == NUM_FRAMES


def test_gaps_in_the_numbers_are_no_frames(tmp_path: Path) -> None:
    assert shown(write(tmp_path / "v", numbered("{:04}.png", [2, 3, 7, 100]))) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "others",
    [
        numbered("flow_x_{:05}.jpg") + numbered("flow_y_{:05}.jpg"),
        numbered("mask_{:05}.png"),
        numbered("img_{:05}_mask.png"),
        numbered("depth{}.png"),
        ["cover.jpg", "folder.jpg"],
        ["thumb.jpg", "thumbnail_1.jpg", "poster.png"],
        ["preview.jpg"],
    ],
)
def test_pictures_beside_the_frames_never_enter_a_video(
    tmp_path: Path, others: Sequence[str]
) -> None:
    folder = write(tmp_path / "v", numbered("img_{:05}.jpg"))
    write(folder, others, value=250)
    for name in numbered("._img_{:05}.jpg"):
        (folder / name).write_bytes(b"\0\5\x16\7" + bytes(60))
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    write(folder / "masks", numbered("img_{:05}.jpg"), value=250)
    assert shown(folder) == list(range(NUM_FRAMES))


@pytest.mark.parametrize(
    ("one", "other", "template"),
    [
        ("left_{:05}.jpg", "right_{:05}.jpg", "left_{:05}.jpg"),
        ("{:03}.jpg", "{:03}.png", "{:03}.jpg"),
        ("cam1_{}.jpg", "cam2_{}.jpg", "cam1_{}.jpg"),
        ("a{}.jpg", "b{}.jpg", "a%d.jpg"),
        ("x_{:04}.jpg", "y_{:04}.jpg", "x_%04d.jpg"),
    ],
)
def test_frames_of_two_kinds_are_refused_unless_a_template_says_which(
    tmp_path: Path, one: str, other: str, template: str
) -> None:
    folder = write(tmp_path / "v", numbered(one))
    write(folder, numbered(other), value=250)
    with pytest.raises(VideoDecodeError, match=r"choose with a template, '.*%.*d.*': data\."):
        open_video(folder)
    place = f"{folder}/{template}"
    assert shown(place) == list(range(NUM_FRAMES))
    assert find_videos(place) == [place]


def test_part_of_the_frames_is_a_video(tmp_path: Path) -> None:
    folder = write(tmp_path / "v", numbered("img_{:05}.jpg"))
    write(folder, numbered("left_{:05}.jpg"), value=250)
    assert shown(f"{folder}/img_{{:05}}.jpg[0:5]") == [0, 1, 2, 3, 4]
    assert shown(f"{folder}/img_{{:05}}.jpg[10:12]") == [10, 11]
    plain = write(tmp_path / "w", numbered("{}.png"))
    assert shown(f"{plain}[3:5]") == [3, 4]


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("[0:13]", "the list says frames up to 13, the folder has 12"),
        ("[4:4]", "the list says 0 frames"),
        ("/left_{}.jpg", r"no picture is named like left_\{\}\.jpg"),
    ],
)
def test_part_that_is_not_there_is_refused(tmp_path: Path, part: str, reason: str) -> None:
    folder = write(tmp_path / "v", numbered("img_{:05}.jpg"))
    with pytest.raises(VideoDecodeError, match=reason):
        open_video(f"{folder}{part}")


def test_missing_number_is_named_where_the_list_says_more_frames(tmp_path: Path) -> None:
    folder = write(tmp_path / "v", numbered("{}.png", [1, 2, 4, 5]))
    with pytest.raises(VideoDecodeError, match="folder has 4, without number 3"):
        open_video(f"{folder}[0:5]")


def test_folder_without_numbers_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "v", ["b.png", "a.png"])
    with pytest.raises(VideoDecodeError, match=r"pictures without numbers, such as 'a\.png'"):
        open_video(folder)
    with pytest.raises(VideoDecodeError, match=r"'01\.png' and '1\.png' have the same number"):
        open_video(write(tmp_path / "w", ["1.png", "01.png", "2.png"]))
    assert shown(write(tmp_path / "one", ["a.png"])) == [0]


def test_names_that_look_like_places_are_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "v[0:2]", numbered("{}.png"))
    assert shown(folder) == list(range(NUM_FRAMES))
    assert frame_place(f"{tmp_path}/a[0:2]") is None
    assert frame_place(f"{tmp_path}/v[0:2]/1.png") is None
    assert [is_template(text) for text in ("img_{:05}.jpg", "%05d.png", "{:d}.bmp")] == [True] * 3
    for text in ("a.jpg", "{}/1.jpg", "{0}.jpg", "{x}.jpg", "{:05}.txt", "{}{}.jpg", "{:999}.jpg"):
        assert not is_template(text)
