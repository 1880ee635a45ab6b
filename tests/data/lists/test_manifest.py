"""The compact list in memory, and looking up what a list names."""

import gc
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from support.touch import touch

from video_mvit.data.lists.listing import FolderListing
from video_mvit.data.lists.manifest import (
    Manifest,
    PackedStrings,
    Row,
    VideoList,
    find_videos,
)


def make_manifest(names: list[str], root: str = "/videos") -> Manifest:
    return Manifest(
        root=root,
        names=PackedStrings.of(names),
        labels=np.arange(len(names), dtype=np.int32) % 2,
        class_names=("archery", "zumba"),
    )


def test_string_table_gives_back_every_string() -> None:
    strings = ["", " a/b .mp4 ", "Übung.mp4", "弓術/x.webm", os.fsdecode(b"latin-\xe9.avi")]
    table = PackedStrings.of(strings)
    assert list(table) == strings
    assert [table[i - len(strings)] for i in range(len(strings))] == strings
    assert list(table[1:3]) == strings[1:3]
    assert table == PackedStrings.of(iter(strings))
    assert table != PackedStrings.of(["".join(strings)])
    assert os.fsencode(table[4]) == b"latin-\xe9.avi"
    with pytest.raises(IndexError):
        table[5]


def test_path_continues_the_root_and_take_keeps_order() -> None:
    manifest = make_manifest(["a.mp4", "b.mp4", "c.mp4"])
    assert manifest.path(1) == "/videos/b.mp4"
    taken = manifest.take([2, 0, 2])
    assert list(taken.names) == ["c.mp4", "a.mp4", "c.mp4"]
    assert taken.labels.tolist() == [0, 0, 0]
    assert len(taken) == 3


def test_digest_is_the_same_in_another_folder_and_in_shards() -> None:
    digest = make_manifest(["archery/a!1.mp4", "b.mp4"]).digest()
    assert make_manifest(["archery/a!1.mp4", "b.mp4"], root="s3://elsewhere").digest() == digest
    shards = ["shard-0.tar!512+9!archery/a!1.mp4", "shard-7.tar!0+12!b.mp4"]
    assert make_manifest(shards).digest() == digest


@pytest.mark.parametrize(
    "other",
    [
        make_manifest(["a.mp4", "c.mp4"]),
        make_manifest(["b.mp4", "a.mp4"]),
        make_manifest(["x!a.mp4", "b.mp4"]),
        make_manifest(["a.mp4b", ".mp4"]),
        make_manifest(["a.mp4", "b.mp4", "c.mp4"]),
        Manifest(
            root="/videos",
            names=PackedStrings.of(["a.mp4", "b.mp4"]),
            labels=np.array([1, 0], np.int32),
            class_names=("archery", "zumba"),
        ),
        Manifest(
            root="/videos",
            names=PackedStrings.of(["a.mp4", "b.mp4"]),
            labels=np.array([0, 1], np.int32),
            class_names=("archery", "yoga"),
        ),
    ],
)
def test_digest_tells_other_lists_apart(other: Manifest) -> None:
    assert other.digest() != make_manifest(["a.mp4", "b.mp4"]).digest()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 2], np.int32), "video 'b' has label 2; 2 classes have labels 0 to 1"),
        (np.array([-1, 0], np.int32), "video 'a' has label -1"),
        (np.array([0], np.int32), r"shape \(1,\); 2 videos need int32 of shape \(2,\)"),
        (np.array([0, 1], np.int64), "labels are int64"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Manifest(root="", names=PackedStrings.of(["a", "b"]), labels=labels, class_names=("x", "y"))


def private_bytes() -> int:
    """Memory that this process shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024


def growth_in_a_fork(touch_all: object) -> int:
    """Private bytes that a forked process gains by a call."""
    assert callable(touch_all)
    read, write = os.pipe()
    if child := os.fork():
        os.close(write)
        os.waitpid(child, 0)
        with os.fdopen(read) as file:
            return int(file.read())
    gc.disable()  # a collection would touch what all tests before this one have left
    before = private_bytes()
    touch_all()
    os.write(write, str(private_bytes() - before).encode())
    os._exit(0)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_process_adds_no_memory_by_touching_every_entry() -> None:
    names = [f"class {i % 400}/video_{i:011d}_000001_000011.mp4" for i in range(100_000)]
    manifest = make_manifest(names)
    pairs = [(name, int(label)) for name, label in zip(names, manifest.labels, strict=True)]

    def touch_manifest() -> None:
        for i in range(len(manifest)):
            assert manifest.path(i)
            assert manifest.labels[i] < 2

    def touch_pairs() -> None:
        for name, label in pairs:
            assert name
            assert label < 2

    assert growth_in_a_fork(touch_manifest) < 2 * 2**20
    assert growth_in_a_fork(touch_pairs) > 8 * 2**20  # what the buffer is for


def listed(*rows: tuple[str, int]) -> VideoList:
    return VideoList(
        path="train.csv",
        rows=[Row(i, place, label, (place,)) for i, (place, label) in enumerate(rows, 1)],
        class_names=("archery", "zumba"),
    )


def test_first_suffix_of_a_fixed_order_is_taken_in_any_case(tmp_path: Path) -> None:
    touch(tmp_path, "a.webm", "a.MP4", "a.avi", "b.AVI", "b.txt", "c.mp4.part", ".d.mp4")
    folder = FolderListing(str(tmp_path), by="stem")
    assert [folder.find([stem]) for stem in "abc"] == ["a.MP4", "b.AVI", None]
    assert folder.find([".d"]) is None


def test_folder_of_frames_is_found_where_there_is_no_video(tmp_path: Path) -> None:
    touch(tmp_path, "7/1.jpg", "8/1.jpg", "8.webm")
    folder = FolderListing(str(tmp_path), by="stem")
    assert [folder.find([stem]) for stem in "789"] == ["7", "8.webm", None]


def test_full_names_are_not_completed(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.mp4", "x/b.ogv")
    folder = FolderListing(str(tmp_path), by="name")
    assert folder.find(["x/a"]) is None
    assert folder.find(["y/a.mp4", "x/b.ogv"]) == "x/b.ogv"
    assert folder.find(["x/a.mp4/c.mp4"]) is None


def test_linked_folders_are_followed_and_broken_links_are_missing(tmp_path: Path) -> None:
    touch(tmp_path / "disk", "a.mp4")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "videos" / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    for by, places in (("stem", ["linked/a", "gone"]), ("name", ["linked/a.mp4", "gone.mp4"])):
        folder = FolderListing(str(tmp_path / "videos"), by=by)
        assert [folder.find([place]) for place in places] == ["linked/a.mp4", None]


def test_each_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *(f"{i % 3}/{i}.mp4" for i in range(30)))
    asked = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: asked.append(path) or scandir(path))
    rows = [(f"{i % 3}/{i}", 0) for i in range(40)]
    assert len(find_videos(listed(*rows), FolderListing(str(tmp_path), by="stem"))) == 30
    assert len(asked) == 3


def test_missing_videos_are_listed_and_counted_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "a.mp4")
    rows = listed(("gone", 0), ("a", 1), ("gone", 0), ("lost", 1))
    with caplog.at_level(logging.WARNING):
        manifest = find_videos(rows, FolderListing(str(tmp_path), by="stem"))
    assert list(manifest.names) == ["a.mp4"]
    assert manifest.labels.tolist() == [1]
    assert list(manifest.missing) == ["gone", "lost"]
    assert f"2 of the 3 videos that train.csv lists are not in {tmp_path}, first: 'gone'" in (
        caplog.messages
    )


def test_video_listed_twice_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    rows = listed(("a", 0), ("b", 1), ("a", 0), ("a", 0))
    manifest = find_videos(rows, FolderListing(str(tmp_path), by="stem"))
    assert list(manifest.names) == ["a.mp4", "b.mp4"]
    assert caplog.messages == ["train.csv lists 2 videos more than once; each counts once"]


def test_video_of_two_classes_is_refused_with_both_lines(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    rows = listed(("a", 0), ("b", 0), ("a", 1))
    message = r"train\.csv lines 1 and 3: 'a' is of class 'archery' in one and 'zumba' in the other"
    with pytest.raises(ValueError, match=message):
        find_videos(rows, FolderListing(str(tmp_path), by="stem"))


def test_no_video_at_all_is_an_error_that_says_where_it_looked(tmp_path: Path) -> None:
    for by, looked in (("stem", r"a\.mp4"), ("name", "a")):
        message = rf"none of the 2 videos that train\.csv lists is in .*; looked for {looked} first"
        with pytest.raises(FileNotFoundError, match=message):
            find_videos(listed(("a", 0), ("b", 1)), FolderListing(str(tmp_path), by=by))


def test_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        FolderListing(str(tmp_path / "nowhere"), by="stem")
