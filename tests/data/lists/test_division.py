"""Shares and folds to validate on: as exact as sources allow, sources whole, no class left out."""

import logging
from collections import Counter
from pathlib import Path

import pytest
from support.touch import touch

from video_mvit.data.lists.class_folders import ClassFolderSource
from video_mvit.data.lists.division import Division, source_of, take_part
from video_mvit.data.lists.holdout import CustomSource
from video_mvit.data.lists.manifest import Manifest
from video_mvit.data.lists.shards import choose_source
from video_mvit.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty sources of one to three clips of `a`, ten of `b`, two of `c`, one of `d`."""
    names = [f"a/a{i}_c{clip}.mp4" for i in range(40) for clip in range(1 + i % 3)]
    names += [f"b/{i}.mp4" for i in range(50, 60)]
    names += ["c/c1.mp4", "c/c2.mp4", "d/d1_c1.mp4", "d/d1_c2.mp4"]
    return touch(tmp_path_factory.mktemp("videos"), *names)


def parts(folder: Path, **options: float) -> tuple[Manifest, Manifest]:
    lists = {"manifest": f"{folder}/train", "other_manifest": f"{folder}/val"}
    swapped = {"manifest": f"{folder}/val", "other_manifest": f"{folder}/train"}
    train = CustomSource(part="train", folder=str(folder), **lists, **options)
    return train.read(), CustomSource(part="val", folder=str(folder), **swapped, **options).read()


def sources(manifest: Manifest) -> set[str]:
    return set(map(source_of, manifest.names))


def counts(manifest: Manifest) -> dict[str, int]:
    return Counter(name[0] for name in manifest.names)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_each_class_gives_its_share_and_sources_stay_whole(folder: Path, share: float) -> None:
    whole = ClassFolderSource(folder=str(folder)).read()
    train, val = parts(folder, val_share=share)
    assert sorted([*train.names, *val.names]) == sorted(whole.names)
    assert not sources(train) & sources(val)
    assert abs(counts(val)["a"] - share * counts(whole)["a"]) <= 1
    assert counts(val)["b"] == 10 * share
    assert counts(val)["c"] == 1
    assert counts(val)["d"] == 0


def test_seed_draws_other_videos_and_says_which(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        train, val = parts(folder, val_share=0.2, val_seed=3)
    (said,) = (text for text in caplog.messages if "held out" in text)
    percent = 100 * len(val) / (len(train) + len(val))
    assert f"{len(val)} of {len(train) + len(val)} videos ({percent:.3g} %, " in said
    assert said.endswith("of a class) are held out (data.val_share=0.2 data.val_seed=3)")
    assert "1 classes have a single source video" in caplog.text
    drawn = [set(parts(folder, val_seed=seed)[1].names) for seed in (0, 1, 3, 3)]
    assert drawn[2] == drawn[3] == set(val.names)  # a fifth is the default
    assert len({frozenset(names) for names in drawn}) == 3


def test_every_video_of_classes_with_enough_sources_is_in_one_fold(folder: Path) -> None:
    folds = [parts(folder, num_folds=5, fold=fold, val_seed=1) for fold in range(5)]
    seen = Counter(name for _, val in folds for name in val.names)
    assert set(seen.values()) == {1}
    assert {name[0] for name in seen} == {"a", "b", "c"}
    assert len(seen) == len(folds[0][0]) + len(folds[0][1]) - 2  # d is trained on in all
    for train, val in folds:
        assert counts(val)["b"] == 2
        assert abs(counts(val)["a"] - counts(train)["a"] / 4) <= 2
        assert set(counts(train)) == set("abcd")


def test_source_in_several_classes_is_on_one_side(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{kind}/match{i}_{n}.mp4" for kind in "ab" for i in range(20) for n in "12"))
    for seed in range(5):
        train, val = parts(tmp_path, val_share=0.25, val_seed=seed)
        matches = [{name[2:-6] for name in part.names} for part in (train, val)]
        assert not matches[0] & matches[1]
        assert counts(val) == {"a": 10, "b": 10}


def test_no_class_loses_its_last_source_to_validation() -> None:
    """A source that one class shares with another one that needs it."""
    groups = {"x": {0: 1, 1: 1}, "y": {0: 1}, "z": {1: 1}, "alone": {2: 1}}
    for seed in range(50):
        for division in (
            Division(val_share=0.9, val_seed=seed),
            Division(val_share=0.01, val_seed=seed),
            Division(num_folds=2, fold=1, val_seed=seed),
        ):
            chosen = division.choose(groups)
            for label in (0, 1, 2):
                assert any(label in groups[source] for source in groups.keys() - chosen)
            if division.num_folds is None:
                assert chosen


def test_list_without_one_to_validate_on_is_divided(tmp_path: Path) -> None:
    rows = [f"{kind}/{i}.mp4,{kind}" for kind in "ab" for i in range(10, 20)]
    touch(tmp_path, *(row.partition(",")[0] for row in rows))
    (tmp_path / "all.csv").write_text("\n".join([*rows, "a/99.mp4,a"]) + "\n")
    named = {"folder": str(tmp_path), "val_share": 0.3}
    for val_list in (f"{tmp_path}/val", None):
        train = CustomSource(
            part="train", manifest=f"{tmp_path}/all.csv", other_manifest=val_list, **named
        ).read()
        val = CustomSource(
            part="val", manifest=val_list, other_manifest=f"{tmp_path}/all.csv", **named
        ).read(train.class_names)
        assert counts(val) == {"a": 3, "b": 3}
        assert counts(train) == {"a": 7, "b": 7}
        assert list(train.missing) == ["a/99.mp4"]
        assert not val.missing
    (tmp_path / "all.csv").rename(tmp_path / "train.csv")
    assert counts(parts(tmp_path, val_share=0.3)[1]) == {"a": 3, "b": 3}
    with pytest.raises(FileNotFoundError, match=r"hold out a part of each class with data.val_sh"):
        parts(tmp_path)


def test_videos_that_have_a_list_to_validate_on_are_not_divided(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{part}/a/{i}.mp4" for part in ("training", "testing") for i in "12"))
    with pytest.raises(UserError, match=r"^data.val_share=0.5 divides videos .*/testing is one"):
        parts(tmp_path, val_share=0.5)
    inside = touch(
        tmp_path / "b", *(f"{kind}/{part}/1.mp4" for kind in "ab" for part in ("train", "val"))
    )
    with pytest.raises(UserError, match=r"the class folders of .* hold splits; remove the option"):
        parts(inside, num_folds=2, fold=0)
    divided = CustomSource(part="val", manifest=None, other_manifest=None, folder="x", val_seed=1)
    with pytest.raises(UserError, match=r"data.val_seed=1 divides .* data.shards=/s is read"):
        choose_source(divided, "/s", "val")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_share": 0}, "data.val_share 0 is not between 0 and 1"),
        ({"val_share": 1.0}, "data.val_share 1 is not between 0 and 1"),
        ({"val_seed": -1}, "data.val_seed -1 must be 0 or more"),
        ({"num_folds": 1, "fold": 0}, "data.num_folds 1 is not from 2 to 1,000"),
        (
            {"num_folds": 5},
            "data.num_folds=5 needs data.fold, the one to validate on, from 0 to 4$",
        ),
        ({"num_folds": 5, "fold": 5}, "from 0 to 4, not 5"),
        ({"fold": 0}, "data.fold=0 needs data.num_folds"),
        ({"num_folds": 5, "fold": 0, "val_share": 0.2}, "exclude each other"),
    ],
)
def test_impossible_divisions_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Division(**options)


def test_frames_of_one_folder_are_one_source(tmp_path: Path) -> None:
    assert source_of("walk/a1[0:250]") == source_of("walk/a1[250:500]") == "walk/a1"
    assert source_of("walk/a/img_%05d.jpg[0:9]") == "walk/a"
    touch(tmp_path, "a/1.mp4")
    alone = ClassFolderSource(folder=str(tmp_path)).read()
    with pytest.raises(UserError, match="none of the 1 videos in here can be held out"):
        take_part(alone, "val", Division(val_seed=0), "here")
