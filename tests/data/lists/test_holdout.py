"""Class folders without a list: names decide what is held out, and new videos move no old ones."""

import logging
from pathlib import Path

import pytest
from support.touch import touch

from video_mvit.data.lists.division import held_out, source_of
from video_mvit.data.lists.holdout import CustomSource


def own(root: Path, part: str, **options: str) -> CustomSource:
    lists = {"manifest": f"{root}/train", "other_manifest": f"{root}/val"}
    if part == "val":
        lists = dict(zip(lists, reversed(lists.values()), strict=True))
    return CustomSource(part=part, folder=str(root), **{**lists, **options})


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("v_Fencing_g07_c01.avi", "v_Fencing_g07"),
        ("talk-part2.mp4", "talk"),
        ("day one/talk clip 12.mp4", "day one/talk"),
        ("-b_XYZ_000010_000020.mp4", "-b_XYZ"),
        ("game3_012.mp4", "game3"),
        ("April_09_np1_ba_goo_0.avi", "April_09_np1_ba_goo"),
        ("push_012.mp4", "push_012"),
        ("12.mp4", "12"),
        ("IMG_2034.mov", "IMG_2034"),
        ("2024-05-01.mp4", "2024-05-01"),
        ("VID_20240501_101112.mp4", "VID_20240501_101112"),
        ("music12.mp4", "music12"),
    ],
)
def test_source_is_read_off_the_name(name: str, source: str) -> None:
    assert source_of(name) == source


def test_about_a_fifth_is_held_out_and_at_least_one_and_never_all() -> None:
    assert 0.17 < len(held_out(f"video {i}" for i in range(2000))) / 2000 < 0.23
    for i in range(200):
        pair = {f"{i} a", f"{i} b"}
        assert len(held_out(pair)) == 1
    assert held_out(["alone", "alone"]) == set()


def test_more_videos_move_at_most_the_stand_in_of_a_class() -> None:
    """Where none is below a fifth, the lowest stands in until one is."""
    num_stand_ins = 0
    for i in range(100):
        sources = [f"{i} {j}" for j in range(40)]
        before = held_out(sources[:8])
        now = held_out(sources) & set(sources[:8])
        assert before == now or len(before) == 1 - len(now) == 1
        num_stand_ins += before != now
    assert 5 < num_stand_ins < 35  # 0.8**8 is 17 %


def test_class_folders_are_split_with_clips_of_a_video_on_one_side(tmp_path: Path) -> None:
    names = [f"{kind}/{kind}_g{g:02}_c{c}.mp4" for kind in "ab" for g in range(20) for c in "123"]
    touch(tmp_path, *names)
    parts = {part: own(tmp_path, part).read() for part in ("train", "val")}
    assert sorted([*parts["train"].names, *parts["val"].names]) == sorted(names)
    sources = {part: {name[:-7] for name in parts[part].names} for part in parts}
    assert not sources["train"] & sources["val"]
    for part in parts.values():
        assert part.class_names == ("a", "b")
        assert set(part.labels.tolist()) == {0, 1}
    touch(tmp_path, "a/new_g01_c1.mp4", "c/1.mp4", "c/2.mp4")
    assert set(parts["val"].names) <= set(own(tmp_path, "val").read().names)


def test_same_source_is_on_one_side_in_all_classes(tmp_path: Path) -> None:
    touch(
        tmp_path, *(f"{kind}/match{i}_{n}.mp4" for kind in "abc" for i in range(30) for n in "12")
    )
    sides = [{name[2:-6] for name in own(tmp_path, part).read().names} for part in ("train", "val")]
    assert not sides[0] & sides[1]


def test_class_with_one_source_is_trained_on_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "lonely/g1_c1.mp4", "lonely/g1_c2.mp4", *(f"many/{i}.mp4" for i in range(9)))
    with caplog.at_level(logging.INFO):
        train, val = (own(tmp_path, part).read() for part in ("train", "val"))
    assert {"lonely/g1_c1.mp4", "lonely/g1_c2.mp4"} <= set(train.names)
    assert val.class_names == ("lonely", "many")
    said = caplog.text
    assert f"no list to validate on, so {len(val)} of 11 videos" in said
    assert said.count("1 classes have a single source video") == 1
    assert "lonely" in said


def test_lists_and_split_folders_are_read_as_they_are(tmp_path: Path) -> None:
    names = [f"{part}/{kind}/1.mp4" for part in ("train", "val") for kind in "ab"]
    touch(tmp_path, *names)
    assert list(own(tmp_path, "train").read().names) == ["a/1.mp4", "b/1.mp4"]
    (tmp_path / "mine.csv").write_text("train/a/1.mp4,0\nval/b/1.mp4,1\n")
    listed = own(tmp_path, "train", manifest=f"{tmp_path}/mine").read()
    assert list(listed.names) == ["train/a/1.mp4", "val/b/1.mp4"]
    one_missing = own(tmp_path, "val", manifest=f"{tmp_path}/nowhere")
    with pytest.raises(FileNotFoundError, match=r"neither .*nowhere nor a list of that name"):
        one_missing.read()


def test_named_classes_are_in_the_order_of_their_file(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{kind}/{i}.mp4" for kind in "ab" for i in range(9)))
    (tmp_path / "names.txt").write_text("b\na\n")
    val = own(tmp_path, "val", classes=f"{tmp_path}/names.txt").read()
    assert val.class_names == ("b", "a")
    assert {name[0] for name, label in zip(val.names, val.labels, strict=True) if not label} == {
        "b"
    }


def test_folders_that_cannot_be_split_are_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder of videos"):
        own(tmp_path / "nowhere", "train").read()
    with pytest.raises(ValueError, match="has no class folder with a video"):
        own(tmp_path, "train").read()
    touch(tmp_path, "a/1.mp4", "b/1.mp4")
    with pytest.raises(
        ValueError, match=r"none of the 2 videos in .* can be held out .* val/<class>/"
    ):
        own(tmp_path, "train").read()
