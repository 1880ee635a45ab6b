"""A person's own videos: rows of paths, class folders, and which form a list is taken for."""

import json
import logging
import os
from pathlib import Path

import pytest

from video_mvit.data.lists.custom import ListSource, PathListSource
from video_mvit.data.lists.manifest import Manifest

FILES = ["x/a.mp4", "x/my, b.mp4", "y z/c 1.MP4", "y z/frames 2/img_1.jpg", "y z/d.ogv"]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def path_list(root: Path, rows: str, **fields: str) -> PathListSource:
    touch(root, *FILES)
    (root / "train.csv").write_bytes(os.fsencode(rows))
    return PathListSource(manifest=str(root / "train.csv"), **fields)


def shown(manifest: Manifest) -> list[tuple[str, int]]:
    return list(zip(manifest.names, manifest.labels.tolist(), strict=True))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("x/a.mp4 0\ny z/c 1.MP4 2\n", [("x/a.mp4", 0), ("y z/c 1.MP4", 2)]),
        ('x/a.mp4 0\n"y z/c 1.MP4" 2\n', [("x/a.mp4", 0), ("y z/c 1.MP4", 2)]),
        ("x/a.mp4 17 1\ny z/c 1.MP4 300 2", [("x/a.mp4", 1), ("y z/c 1.MP4", 2)]),
        ("y z/frames 2 120 1\nx/a.mp4 0\n", [("y z/frames 2", 1), ("x/a.mp4", 0)]),
        ("x 7\n", [("x", 7)]),
        ('x/a.mp4,0\n"x/my, b.mp4",1\n', [("x/a.mp4", 0), ("x/my, b.mp4", 1)]),
        ("x/a.mp4 , 0\r\ny z/d.ogv, 120, 1\r\n", [("x/a.mp4", 0), ("y z/d.ogv", 1)]),
        ("x/a.mp4\t0\n\nx/my, b.mp4\t1\n", [("x/a.mp4", 0), ("x/my, b.mp4", 1)]),
        ("x/my, b.mp4 1\n", [("x/my, b.mp4", 1)]),
        ("./x//a.mp4 0\n", [("x/a.mp4", 0)]),
    ],
)
def test_rows_of_every_separator_are_read(
    tmp_path: Path, rows: str, expected: list[tuple[str, int]]
) -> None:
    manifest = path_list(tmp_path, rows).read()
    assert shown(manifest) == expected
    assert manifest.root == str(tmp_path)
    assert manifest.class_names == tuple(str(i) for i in range(max(manifest.labels) + 1))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("x/a.mp4 0\nx/a.mp4\n", r"line 2: 'x/a\.mp4' has 1 field; a row is a path and a label"),
        ("x/a.mp4 0 1 2\n", r"line 1: 'x/a\.mp4 0 1 2' has 4 fields"),
        ("x/a.mp4,0\nx/my, b.mp4,9,1\n", r"line 2: 'x/my,b\.mp4,9,1' has 4 fields.*quote a path"),
        ("path,label\nx/a.mp4,0\n", r"line 1: 'path,label' "),
        ("x/a.mp4 archery\n", r"line 1: 'x/a\.mp4 archery' ends in 'archery'; a label is a whole"),
        ("x/a.mp4 0\nx/a.mp4 -1\n", r"line 2: 'x/a\.mp4 -1' ends in '-1'"),
        ("x/a.mp4 0.0\n", "ends in '0.0'"),
        ("x/a.mp4 0\nx/a.mp4,1\n", r"line 2: 'x/a\.mp4,1' has 1 field"),
        ('x/a.mp4,0\n"x/b.mp4,1\n', "line 2: unbalanced quotes"),
        ("x/a.mp4 1600000000\n", "line 1: 1600000000 is too large for a label"),
        ("\n \n", r"train\.csv lists no videos"),
    ],
)
def test_wrong_row_is_quoted(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        path_list(tmp_path, rows).read()


def test_prefix_is_the_folder_where_paths_begin(tmp_path: Path) -> None:
    touch(tmp_path / "disk", "a.mp4")
    source = path_list(tmp_path, "a.mp4 0\n", folder=str(tmp_path / "disk"))
    assert source.read().path(0) == f"{tmp_path}/disk/a.mp4"


def test_absolute_paths_are_kept_and_digest_does_not_depend_on_them(tmp_path: Path) -> None:
    digests = set()
    for place in (tmp_path / "one", tmp_path / "two"):
        touch(place / "videos", "x/a.mp4", "y/b.mp4", "y-z/c.mp4")
        rows = "".join(f"{place}/videos/{n}.mp4 0\n" for n in ("x/a", "y/b", "y-z/c"))
        manifest = path_list(tmp_path, rows, folder="/nowhere").read()
        assert [manifest.path(i) for i in range(3)] == [r[:-2] for r in rows.splitlines()]
        digests.add(manifest.digest())
    assert len(digests) == 1
    outside = path_list(tmp_path / "one", "../two/videos/x/a.mp4 0\nx/a.mp4 1\n").read()
    assert outside.path(0) == f"{tmp_path}/two/videos/x/a.mp4"
    assert outside.path(1) == f"{tmp_path}/one/x/a.mp4"


def test_name_that_is_not_utf8_is_found(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    touch(tmp_path, name)
    manifest = path_list(tmp_path, f"{name} 0\ngone{name} 0\n").read()
    assert Path(manifest.path(0)).exists()
    assert list(manifest.missing) == [f"gone{name}"]


def test_classes_file_names_the_labels(tmp_path: Path) -> None:
    classes = tmp_path / "classes.txt"
    classes.write_text("riding a bike\narchery\n")
    source = path_list(tmp_path, "x/a.mp4 1\n", classes=str(classes))
    assert source.read().class_names == ("riding a bike", "archery")
    assert source.read().labels.tolist() == [1]
    assert source.read(["archery", "riding a bike"]).labels.tolist() == [0]
    with pytest.raises(ValueError, match=r"classes\.txt: its 2 classes are not the 1 classes"):
        source.read(["archery"])
    with pytest.raises(ValueError, match=r"train\.csv line 1: 'x/a\.mp4' has label 2; the data"):
        path_list(tmp_path, "x/a.mp4 2\n", classes=str(classes)).read()
    classes.write_text("archery\nzumba\narchery\n")
    with pytest.raises(ValueError, match=r"classes\.txt lines 1 and 3: 'archery' occurs twice"):
        source.read()


def test_labels_stay_inside_given_class_names(tmp_path: Path) -> None:
    source = path_list(tmp_path, "x/a.mp4 2\n")
    assert source.read(["a", "b", "c"]).class_names == ("a", "b", "c")
    with pytest.raises(ValueError, match=r"line 1: .* has label 2; the data set has 2 classes"):
        source.read(["a", "b"])


KINETICS = "label,youtube_id,time_start,time_end,split\narchery,a,0,10,train\n"


def write_form(root: Path, form: str) -> str:
    """A list of one form in a folder, with its videos; returns what it is called."""
    if form == "class folders":
        touch(root, "train/archery/a.mp4")
        return "train"
    if form.startswith("Something"):
        touch(root, "7.webm")
        (root / "labels.json").write_text(json.dumps({"Eating something": "0"}))
        (root / "train.json").write_text(
            json.dumps([{"id": "7", "template": "Eating [something]"}])
        )
        return "train.json"
    if form.endswith("UCF101"):
        touch(root, "Archery/v_Archery_g01_c01.avi")
        (root / "classInd.txt").write_text("1 Archery\n")
        (root / "trainlist01.txt").write_text("Archery/v_Archery_g01_c01.avi 1\n")
        return "trainlist01.txt"
    if form.startswith("a Kinetics"):
        touch(root, "train/archery/a_000000_000010.mp4")
        (root / "train.csv").write_text(KINETICS)
        return "train.csv"
    separator = {"spaces": " ", "commas": ",", "tabs": "\t"}[form.rpartition(" ")[2]]
    touch(root, "archery/a.mp4")
    (root / "train.txt").write_text(f"archery/a.mp4{separator}0\n")
    return "train.txt"


@pytest.mark.parametrize(
    "form",
    [
        "class folders",
        "Something-Something v2",
        "a split of UCF101",
        "a Kinetics csv",
        "paths and labels separated by spaces",
        "paths and labels separated by commas",
        "paths and labels separated by tabs",
    ],
)
def test_form_is_told_apart_and_logged(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = write_form(tmp_path, form)
    stem = name if "trainlist" in name else "train"
    with caplog.at_level(logging.INFO):
        for manifest, folder in ((name, None), (stem, str(tmp_path))):
            source = ListSource(manifest=str(tmp_path / manifest), folder=folder)
            assert len(source.read()) == 1
    assert f"{tmp_path}/{name}: reading as {form}" in caplog.messages[0]
    assert len(caplog.messages) == 2


def test_list_is_preferred_to_the_folder_of_its_name(tmp_path: Path) -> None:
    write_form(tmp_path, "a Kinetics csv")
    manifest = ListSource(manifest=str(tmp_path / "train"), folder=str(tmp_path)).read()
    assert manifest.path(0) == f"{tmp_path}/train/archery/a_000000_000010.mp4"
    assert manifest.class_names == ("archery",)


def test_list_source_takes_class_names_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("zumba\narchery\n")
    for form, label in (("class folders", 1), ("paths and labels separated by spaces", 0)):
        place = tmp_path / form
        name = write_form(place, form)
        source = ListSource(manifest=str(place / name), classes=str(tmp_path / "classes.txt"))
        manifest = source.read()
        assert manifest.class_names == ("zumba", "archery")
        assert manifest.labels.tolist() == [label]
        with pytest.raises(ValueError, match="are not the 1 classes"):
            source.read(["zumba"])


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        (
            {"train.csv": "video;class\na.mp4;1\n"},
            ValueError,
            r"train\.csv line 1: 'video;class' is not a row of a supported list: Kinetics csv",
        ),
        ({"train.csv": "a.mp4\n"}, ValueError, r"train\.csv line 1: 'a\.mp4' is not a row"),
        ({"train.csv": ""}, ValueError, r"train\.csv lists no videos"),
        ({"train.csv": "", "train.txt": ""}, ValueError, "both exist; give the suffix"),
        ({"train/kick_test_split1.txt": ""}, ValueError, "use data=hmdb51"),
        ({}, FileNotFoundError, r"neither .*train nor a list of that name \(\.csv"),
    ],
)
def test_list_of_no_known_form_is_refused(
    tmp_path: Path, files: dict[str, str], error: type[Exception], message: str
) -> None:
    for name, text in files.items():
        touch(tmp_path, name).joinpath(name).write_text(text)
    with pytest.raises(error, match=message):
        ListSource(manifest=str(tmp_path / "train")).read()


def test_path_of_a_copy_with_another_suffix_is_found(tmp_path: Path) -> None:
    touch(tmp_path, "x/e.mp4", "x/f.webm", "x/f.mkv", "x/g.mp4", "x/v1.5.mp4")
    rows = "x/e.avi 0\nx/f.MOV 0\nx/g 1\nx/a.mp4 0\nx/v1.5 1\nx/h.avi 0\n"
    manifest = path_list(tmp_path, rows).read()
    names = ["x/e.mp4", "x/f.mkv", "x/g.mp4", "x/a.mp4", "x/v1.5.mp4"]
    assert shown(manifest) == list(zip(names, [0, 0, 1, 0, 1], strict=True))
    assert list(manifest.missing) == ["x/h.avi"]


def test_listed_video_stands_in_for_no_other(tmp_path: Path) -> None:
    manifest = path_list(tmp_path, "x/a.webm 1\nx/a.mp4 0\n").read()
    assert shown(manifest) == [("x/a.mp4", 0)]
    assert list(manifest.missing) == ["x/a.webm"]
