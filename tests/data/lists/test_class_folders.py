"""Class folders: which files count, what is left out, and folders that are splits, not classes."""

import logging
import os
import unicodedata
from pathlib import Path

import av
import pytest
from support.touch import touch
from support.videos import write_numbered_video

from video_mvit.data.lists.class_folders import ClassFolderSource
from video_mvit.data.lists.holdout import CustomSource
from video_mvit.data.lists.manifest import Manifest
from video_mvit.data.reading.containers import FORMATS
from video_mvit.data.reading.formats import VIDEO_SUFFIXES
from video_mvit.doctor.examine import find_videos as find_for_doctor
from video_mvit.prediction.inputs import find_videos


def shown(manifest: Manifest) -> list[tuple[str, int]]:
    return list(zip(manifest.names, manifest.labels.tolist(), strict=True))


def read_parts(root: Path) -> dict[str, list[str]]:
    """Names of the training and validation videos, as data=custom reads them."""
    parts = {}
    for part, other in (("train", "val"), ("val", "train")):
        source = CustomSource(
            part=part,  # type: ignore[arg-type]
            manifest=f"{root}/{part}",
            other_manifest=f"{root}/{other}",
            folder=str(root),
        )
        manifest = source.read(("run", "walk"))
        parts[part] = [os.path.relpath(manifest.path(i), root) for i in range(len(manifest))]
    return parts


def test_class_folders_are_read_at_any_depth(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "root"
    touch(root, "b/2.mp4", "b/1.webm", "b/part/3.avi", "a/x.MOV", "a/x.mp4", "a/._x.mp4")
    touch(root, "empty/notes.txt", ".hidden/4.mp4", "loose.mp4")
    (root / "b" / "circle").symlink_to(root / "b")
    touch(tmp_path / "disk", "5.mp4")
    (root / "c").symlink_to(tmp_path / "disk")
    source = ClassFolderSource(folder=str(root), follow_links=True)
    manifest = source.read()
    assert manifest.class_names == ("a", "b", "c")
    assert shown(manifest) == [
        ("a/x.MOV", 0),
        ("a/x.mp4", 0),
        ("b/1.webm", 1),
        ("b/2.mp4", 1),
        ("b/part/3.avi", 1),
        ("c/5.mp4", 2),
    ]
    assert caplog.messages == [
        f"1 links in {root} lead to what is listed already; each file counts once",
        f"1 folders of {root} contain no video and are ignored: 'empty'",
    ]
    assert source.read(["c", "x", "b", "a"]).labels.tolist() == [3, 3, 2, 2, 2, 0]
    with pytest.raises(ValueError, match=r"1 class is not among the 2 classes .*first: 'b'"):
        source.read(["a", "c"])


def test_class_folders_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    names = [f"{label}/{i}.mp4" for label in "bca" for i in (5, 1, 9, 3, 7)]
    manifest = ClassFolderSource(folder=str(touch(tmp_path, *names))).read()
    assert list(manifest.names) == sorted(names)


def test_class_folders_of_pictures(tmp_path: Path) -> None:
    names = ["n02/a.JPEG", "n01/b.jpg", "n01/c.png", "n01/b.png", "n01/film.mp4", "n03/film.mp4"]
    root = str(touch(tmp_path / "train", *names))
    manifest = ClassFolderSource(folder=root, of="picture").read()
    assert manifest.class_names == ("n01", "n02")
    assert shown(manifest) == [
        ("n01/b.jpg", 0),
        ("n01/b.png", 0),
        ("n01/c.png", 0),
        ("n02/a.JPEG", 1),
    ]
    assert ClassFolderSource(folder=root).read().class_names == ("n01", "n03")
    flat = str(touch(tmp_path / "val", "a.JPEG", "b.JPEG"))
    with pytest.raises(ValueError, match="class folder with a picture; 2 are directly in it"):
        ClassFolderSource(folder=flat, of="picture").read()


def test_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no class folder with a video"):
        ClassFolderSource(folder=str(touch(tmp_path, "a.mp4"))).read()
    with pytest.raises(FileNotFoundError, match="is not a folder of class folders"):
        ClassFolderSource(folder=str(tmp_path / "nowhere")).read()


# Extensions of sound, subtitles and pictures in containers that videos have too.
NOT_VIDEOS = {".y4m", ".m4a", ".m4b", ".mka", ".mks", ".avif", ".heic", ".heif", ".isma", ".psp"}


def test_table_of_suffixes_covers_every_container_that_is_opened() -> None:
    for name in FORMATS.split(","):
        suffixes = {f".{each}" for each in av.ContainerFormat(name, "r").extensions}
        assert suffixes <= {*VIDEO_SUFFIXES, *NOT_VIDEOS}, name
    assert len(set(VIDEO_SUFFIXES)) == len(VIDEO_SUFFIXES)


def test_every_suffix_counts_wherever_videos_are_found(tmp_path: Path) -> None:
    names = [f"walk/{i}{suffix}" for i, suffix in enumerate(VIDEO_SUFFIXES)]
    names += ["walk/a.MTS", "walk/b.Ts", "run/c.m2ts"]
    touch(tmp_path, *names, "walk/._d.mp4")
    assert sorted(ClassFolderSource(folder=str(tmp_path)).read().names) == sorted(names)
    everything = sorted(f"{tmp_path}/{name}" for name in names)
    assert sorted(find_videos(tmp_path)) == everything
    assert sorted(find_videos(f"{tmp_path}/*/*")) == everything
    assert find_for_doctor(tmp_path / "run") == [f"{tmp_path}/run/c.m2ts"]


def test_class_of_broadcasts_is_read(tmp_path: Path) -> None:
    write_numbered_video(tmp_path / "run/a.ts", 2)
    write_numbered_video(tmp_path / "walk/a.mp4", 2)
    assert ClassFolderSource(folder=str(tmp_path)).read().class_names == ("run", "walk")


def test_videos_that_differ_in_suffix_only_all_count_and_stay_on_one_side(tmp_path: Path) -> None:
    names = ["run/1.mkv", "run/1.mp4", "walk/1.avi", "walk/1.mov", "walk/1.mp4"]
    touch(tmp_path, *names, "run/2.mp4", "run/3.mp4", "walk/2.mp4")
    touch(tmp_path, "run/4.mp4", "run/4.mov.mp4")  # as a transcoded copy has them
    parts = read_parts(tmp_path)
    together = [{"run/1.mkv", "run/1.mp4"}, {"walk/1.avi", "walk/1.mov", "walk/1.mp4"}]
    together.append({"run/4.mp4", "run/4.mov.mp4"})
    for videos in together:
        assert sum(videos <= set(names) for names in parts.values()) == 1
    assert len(parts["train"]) + len(parts["val"]) == 10


def test_what_is_left_out_is_counted_with_an_example(tmp_path: Path) -> None:
    touch(tmp_path, "walk/1.mp4", "walk/2.y4m", "walk/sub/3.y4m", "run/1.mp4", "run/notes.txt")
    touch(tmp_path, "loose.mp4", "run/Thumbs.db", "run/.DS_Store", "empty/x.y4m")
    touch(tmp_path, "classes.txt", "train.scan.jsonl")
    manifest = ClassFolderSource(folder=str(tmp_path)).read()
    assert manifest.summary() == (
        "2 videos, 2 classes, 5 files left out: 4 with a suffix that is not of a video: .y4m, "
        ".txt (such as empty/x.y4m); 1 outside of the class folders (such as loose.mp4)"
    )
    some = manifest.take([0]).summary()
    assert some.startswith("1 video, 1 of 2 classes (none of 'walk'), 5 files left out")
    whole = ClassFolderSource(folder=str(touch(tmp_path / "b", "walk/1.mp4"))).read()
    assert whole.summary() == "1 video, 1 class, 0 files left out"


def test_class_folders_without_videos_say_what_they_hold(tmp_path: Path) -> None:
    source = ClassFolderSource(folder=str(touch(tmp_path, "a/v1/img_1.jpg", "b/v2/img_1.jpg")))
    with pytest.raises(ValueError, match=r"2 pictures, such as a/v1/img_1\.jpg; folders of frames"):
        source.read()
    (tmp_path / "c").mkdir()
    source = ClassFolderSource(folder=str(touch(tmp_path / "c", "a/1.y4m").resolve()))
    with pytest.raises(ValueError, match=r"it holds 1 with a suffix that is not of a video: \.y4m"):
        source.read()


def test_classes_that_differ_in_case_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["Walk", "walk", unicodedata.normalize("NFD", "\xe9"), "\xe9"]
    touch(tmp_path, *(f"{name}/1.mp4" for name in names))
    assert len(ClassFolderSource(folder=str(tmp_path)).read().class_names) == 4
    assert "2 classes of" in caplog.text
    assert "differ from another only in case" in caplog.text


def test_validation_class_that_training_lacks_is_refused_with_the_nearest(tmp_path: Path) -> None:
    source = ClassFolderSource(folder=str(touch(tmp_path, "Walk/1.mp4", "run/1.mp4", "jog/1.mp4")))
    with pytest.raises(ValueError, match=r"2 classes are not among the 2 .* nearest is 'walk'"):
        source.read(("run", "walk"))


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("Train", "Val"),
        ("TRAIN", "VALIDATION"),
        ("training", "validation"),
        ("train", "test"),
        ("train", "valid"),
        ("Training", "testing"),
        ("train_set", "test_set"),
        ("train_videos", "val_videos"),
    ],
)
def test_splits_of_every_usual_name_are_read(tmp_path: Path, train: str, val: str) -> None:
    for name in (train, val):
        touch(tmp_path, f"{name}/run/{name}1.mp4", f"{name}/walk/{name}2.mp4")
    assert read_parts(tmp_path) == {
        "train": [f"{train}/run/{train}1.mp4", f"{train}/walk/{train}2.mp4"],
        "val": [f"{val}/run/{val}1.mp4", f"{val}/walk/{val}2.mp4"],
    }


def test_lists_of_every_usual_name_are_read(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "Training.csv").write_text("a.mp4,0\n")
    (tmp_path / "test_list.txt").write_text("b.mp4 1\n")
    assert read_parts(tmp_path) == {"train": ["a.mp4"], "val": ["b.mp4"]}


def test_validation_comes_before_testing_which_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(
        tmp_path,
        *(
            f"{part}/{name}/{part}.mp4"
            for part in ("train", "val", "test")
            for name in ("run", "walk")
        ),
    )
    with caplog.at_level(logging.INFO):
        assert read_parts(tmp_path)["val"] == ["val/run/val.mp4", "val/walk/val.mp4"]
    assert f"{tmp_path}/test is not read; data.val_list={tmp_path}/test validates on" in caplog.text


def test_splits_inside_class_folders_are_read(tmp_path: Path) -> None:
    for name in ("run", "walk"):
        touch(
            tmp_path,
            *(f"{name}/{part}/{part}{i}.mp4" for part in ("train", "Test") for i in range(2)),
        )
    assert read_parts(tmp_path) == {
        "train": [f"{name}/train/train{i}.mp4" for name in ("run", "walk") for i in range(2)],
        "val": [f"{name}/Test/Test{i}.mp4" for name in ("run", "walk") for i in range(2)],
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["Train/a/1.mp4", "training/a/2.mp4", "val/a/3.mp4"], "'?Train'? and training; choose"),
        (["train/run/1.mp4", "a/2.mp4"], "has 'train' but no folder or list 'val'"),
        (["data/train/run/1.mp4", "data/val/run/2.mp4", "x/y/3.mp4"], r"set data\.root=.*/data"),
        (["data/train/1.mp4", "data/val/2.mp4"], "1 of the 1 class folders .* hold splits"),
        (["run/train/1.mp4", "run/val/1.mp4", "walk/2.mp4"], "1 of the 2 class folders .* splits"),
        (["run/train/1.mp4", "run/val/1.mp4", "walk/train/2.mp4", "walk/3.mp4"], "walk/3.mp4 does"),
    ],
)
def test_folders_that_look_like_splits_never_become_classes(
    tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_parts(touch(tmp_path, *names))


def test_splits_given_as_class_folders_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "Train/run/1.mp4", "validation/run/2.mp4", "other/3.mp4")
    with pytest.raises(ValueError, match="'Train', 'validation' look like splits of a data set"):
        ClassFolderSource(folder=str(tmp_path)).read()
    touch(tmp_path / "b", "run/train/1.mp4", "run/val/1.mp4", "walk/train/1.mp4", "walk/val/1.mp4")
    with pytest.raises(ValueError, match=r"2 of the 2 class folders of .* hold splits"):
        ClassFolderSource(folder=str(tmp_path / "b")).read()


def test_vehicle_is_a_class_named_train(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{i}.mp4" for name in ("bus", "train") for i in range(6)))
    source = CustomSource(
        part="train",
        manifest=f"{tmp_path}/train",
        other_manifest=f"{tmp_path}/val",
        folder=str(tmp_path),
    )
    assert source.read().class_names == ("bus", "train")


def test_list_that_was_named_is_never_replaced_by_a_part_held_out(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{i}.mp4" for name in "ab" for i in range(6)))
    source = CustomSource(
        part="train",
        manifest=f"{tmp_path}/trian.csv",
        other_manifest=f"{tmp_path}/val",
        folder=str(tmp_path),
    )
    with pytest.raises(FileNotFoundError, match=r"neither .*trian\.csv nor a list"):
        source.read()
