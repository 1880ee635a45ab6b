"""Rows of a path and a label in Python: pairs, mappings, frames, and what is no such row."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.touch import touch

from video_mvit.data.lists.rows import Rows, RowsSource
from video_mvit.errors import UserError


class Frame:
    """What a pandas frame offers of itself; also iterates over its columns, as that does."""

    def __init__(self, **columns: list[Any]) -> None:
        self.table, self.columns = columns, list(columns)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def itertuples(self, *, index: bool, name: None) -> Iterator[tuple[Any, ...]]:
        assert not index
        return zip(*self.table.values(), strict=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return touch(tmp_path_factory.mktemp("videos"), "a.mp4", "b.mp4", "sub/c.mov")


def shown(rows: Rows | RowsSource, class_names: Any = None) -> list[tuple[str, str]]:
    manifest = rows.read(class_names)
    labels = manifest.labels.tolist()
    return [(n, manifest.class_names[i]) for n, i in zip(manifest.names, labels, strict=True)]


NAMED = [("a.mp4", "walk"), ("b.mp4", "run"), ("sub/c.mov", "walk")]


@pytest.mark.parametrize(
    "rows",
    [
        NAMED,
        (pair for pair in NAMED),
        np.array(NAMED),
        [(Path(path), label) for path, label in NAMED],
        [{"path": path, "label": label, "fps": 30} for path, label in NAMED],
        [{"Class Name": label, "file_name": path} for path, label in NAMED],
        Frame(id=[1, 2, 3], path=["a.mp4", "b.mp4", "sub/c.mov"], label=["walk", "run", "walk"]),
        [("a", "walk"), ("b.avi", "run"), ("sub\\c.mp4", "walk")],  # found as those of lists are
    ],
)
def test_rows_of_every_kind_are_read_with_classes_sorted_by_name(root: Path, rows: Any) -> None:
    source = Rows(rows, root)
    assert shown(source) == NAMED
    assert source.read().class_names == ("run", "walk")  # again, also from a generator
    assert source.read(["walk", "jump", "run"]).labels.tolist() == [0, 2, 0]


def test_paths_are_below_the_current_folder_or_absolute(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    assert shown(Rows(NAMED)) == NAMED
    monkeypatch.chdir(root.parent)
    below = [(f"{root.name}/{path}", label) for path, label in NAMED]
    assert shown(Rows(below, root.name)) == NAMED  # as a glob of the folder gives them
    absolute = Rows([(root / path, label) for path, label in NAMED], "/")
    assert [Path(absolute.read().path(i)) for i in range(3)] == [root / path for path, _ in NAMED]


@pytest.mark.parametrize("numbers", [[0, 1, 2], np.arange(3), [0.0, 1.0, 2.0]])
def test_numbers_are_the_places_of_classes(root: Path, numbers: Any) -> None:
    paths = [path for path, _ in NAMED]
    rows = Frame(file=paths, target=list(numbers))
    assert Rows(rows, root).read().labels.tolist() == [0, 1, 2]
    assert shown(Rows(rows, root), ["x", "y", "z"]) == list(zip(paths, "xyz", strict=True))
    with pytest.raises(UserError, match="rows entry 3 has the label 2, which is too large; there"):
        Rows(rows, root).read(["x", "y"])


def test_columns_say_what_columns_with_other_names_are(root: Path) -> None:
    rows = [{"clip": path, "what": label, "path": "x", "label": 3} for path, label in NAMED]
    assert shown(Rows(rows, root, {"path": "clip", "label": "what"})) == NAMED
    other = Frame(clip=["a.mp4"], what=["walk"])
    with pytest.raises(UserError, match=r"has no column 'label' for label; its columns are 'clip'"):
        Rows(other, root).read()


def test_missing_and_repeated_videos_are_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        manifest = Rows([*NAMED, ("a.mp4", "walk"), ("z.mp4", "run")], root).read()
    assert list(manifest.missing) == ["z.mp4"]
    assert len(manifest) == 3
    assert "rows lists 1 videos more than once" in caplog.text
    with caplog.at_level(logging.WARNING):
        assert Rows([("a.mp4", 0), ("b.mp4", 3)], root).read().class_names == tuple("0123")
    assert "labels are 0 to 3, so that the head gets 4 outputs, 2 of them without" in caplog.text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "there are no rows; expected a path and a label, such as"),
        ("labels.csv", "rows are of type str; expected a list of pairs"),
        (7, "rows are of type int; expected a list of pairs"),
        ([("a.mp4", "x"), "b.mp4"], "rows entry 2 is 'b.mp4'; expected a path and a label"),
        ([("a.mp4", "x", 30)], r"rows entry 1 is \('a.mp4', 'x', 30\)"),
        ([{"path": "a.mp4", "label": 1}, {"path": "b.mp4"}], "rows entry 2 has no 'label'"),
        ([(None, "x")], "rows entry 1 has the path None"),
        ([("s3://b/a.mp4", "x")], "has the path 's3://b/a.mp4'; expected that of a file"),
        ([("a.mp4", "")], "rows entry 1 has the label ''; a label is the name of a class, or"),
        ([("a.mp4", float("nan"))], "rows entry 1 has the label nan"),
        ([("a.mp4", 1.5)], "has the label 1.5"),
        ([("a.mp4", -1)], "has the label -1"),
        ([("a.mp4", True)], "has the label True"),
        ([("a.mp4", 10**9)], "has the label 1000000000, which is too large"),
        ([("a.mp4", "x"), ("b.mp4", 0)], "numbers such as 0 and names such as 'x' as labels"),
        ([("a.mp4", "x"), ("a.mp4", "y")], "rows entries 1 and 2: 'a.mp4' is of class 'x' in one"),
        ([("../a.mp4\0", "x")], "leads out of the folder of videos"),
        ([("\ud800.mp4", "x")], r"has the path '\\ud800.mp4'; expected that of a file"),
        ([("no.mp4", "x")], "none of the 1 videos that rows lists is in"),
    ],
)
def test_what_is_no_row_is_told_in_one_sentence(root: Path, rows: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Rows(rows, root).read()


def test_classes_that_a_model_does_not_have_are_named(root: Path) -> None:
    with pytest.raises(UserError, match=r"rows: 1 class is not among the 2 classes .*first: 'run'"):
        Rows(NAMED, root).read(["walk", "jump"])


def test_an_error_in_ones_own_generator_stays_what_it_is(root: Path) -> None:
    def broken() -> Iterator[tuple[str, str]]:
        yield "a.mp4", "x"
        raise KeyError("of mine")

    with pytest.raises(KeyError, match="of mine"):
        Rows(broken(), root).read()


def test_rows_are_divided_unless_there_are_others_to_validate_on(root: Path) -> None:
    touch(root, *(f"{kind}/{i}.mp4" for kind in "xy" for i in range(10)))
    rows = [(f"{kind}/{i}.mp4", kind) for kind in "xy" for i in range(10)]
    options = {"rows": rows, "root": str(root), "num_folds": 5, "fold": 1}
    train, val = (RowsSource(part=part, **options).read() for part in ("train", "val"))
    assert sorted([*train.names, *val.names]) == sorted(path for path, _ in rows)
    assert np.bincount(val.labels).tolist() == [2, 2]
    options = {"rows": rows, "root": str(root), "val_rows": [("a.mp4", "x")]}
    assert len(RowsSource(part="train", **options).read()) == 20
    assert shown(RowsSource(part="val", **options), ["x", "y"]) == [("a.mp4", "x")]
    with pytest.raises(UserError, match=r"data.val_share=0.5 divides .* data.val_rows is one"):
        RowsSource(part="val", **options, val_share=0.5).read()


@pytest.mark.parametrize("options", [{}, {"val_share": 0.3, "val_seed": 1}])
def test_videos_are_held_out_however_rows_write_their_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    pairs = [(f"{name}/{i}.mp4", name) for name in ("walk", "run") for i in range(20)]
    touch(tmp_path / "data/videos", *(path for path, _ in pairs))

    def held_out(folder: str, root: str | None = None) -> list[str]:
        rows = [(f"{folder}{path}", label) for path, label in pairs]
        found = RowsSource(part="val", rows=rows, root=root, **options).read()
        return ["/".join(name.split("/")[-2:]) for name in found.names]

    monkeypatch.chdir(tmp_path / "data")
    expected = held_out("videos/")
    assert 4 <= len(expected) <= 16
    assert held_out("./videos/") == held_out("../data/videos/") == expected
    assert held_out("", "videos") == held_out("videos/", "videos") == expected
    assert held_out(f"{tmp_path}/data/videos/") == expected
    monkeypatch.chdir(tmp_path)
    assert held_out("data/videos/") == held_out(f"{tmp_path}/data/videos/", "/") == expected
