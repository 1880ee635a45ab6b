"""Published lists: what is found, what is missing, and what is said about a wrong line."""

import json
from pathlib import Path

import pytest

from video_mvit.data.manifest import KineticsSource, SomethingSource

HEADER = "label,youtube_id,time_start,time_end,split\n"


def kinetics(root: Path, rows: str, files: list[str], header: str = HEADER) -> KineticsSource:
    (root / "videos").mkdir()
    (root / "train.csv").write_text(header + rows)
    for name in files:
        path = root / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return KineticsSource(manifest=str(root / "train.csv"), folder=str(root / "videos"))


def test_kinetics_files_are_found_in_both_layouts_and_missing_ones_listed(tmp_path: Path) -> None:
    source = kinetics(
        tmp_path,
        'archery,-abc_DEF,3,13,train\n"bee, keeping",xyz,0,10,train\narchery,gone,1,11,train\n',
        ["archery/-abc_DEF_000003_000013.mp4", "xyz_000000_000010.mp4"],
    )
    manifest = source.read()
    assert manifest.class_names == ("archery", "bee, keeping")
    assert [path.name for path in manifest.paths] == [
        "-abc_DEF_000003_000013.mp4",
        "xyz_000000_000010.mp4",
    ]
    assert manifest.labels == (0, 1)
    assert manifest.missing == ("gone_000001_000011",)


def test_given_class_names_decide_the_labels(tmp_path: Path) -> None:
    source = kinetics(tmp_path, "archery,a,0,10,val\n", ["a_000000_000010.mp4"])
    assert source.read(["zumba", "archery"]).labels == (1,)
    with pytest.raises(
        ValueError, match=r"train\.csv line 2: label 'archery' is not among the 1 classes"
    ):
        source.read(["zumba"])


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("path,label\n", "a,b\n", "line 1: no column label|line 1: no column youtube_id"),
        (
            HEADER,
            "archery,a,zero,10,train\n",
            "line 2: 'archery,a,zero,10,train' has no whole seconds",
        ),
        (HEADER, "archery,a\n", "line 2: .* has no whole seconds"),
        (HEADER, "", "lists no videos"),
    ],
)
def test_wrong_line_is_quoted(tmp_path: Path, header: str, rows: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kinetics(tmp_path, rows, [], header).read()


def test_no_video_at_all_is_an_error_that_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError,
        match=r"none of the 1 listed videos is in .*; looked for archery/a_000000_000010\.mp4",
    ):
        kinetics(tmp_path, "archery,a,0,10,train\n", []).read()


def test_missing_list_and_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv does not exist"):
        KineticsSource(manifest=str(tmp_path / "nothing.csv"), folder=str(tmp_path)).read()
    source = kinetics(tmp_path, "archery,a,0,10,train\n", [])
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        KineticsSource(manifest=source.manifest, folder=str(tmp_path / "nowhere")).read()


def something(root: Path, entries: object) -> SomethingSource:
    (root / "videos").mkdir()
    (root / "videos" / "7.webm").touch()
    (root / "labels.json").write_text(
        json.dumps({"Pushing something": "1", "Holding something": "0"})
    )
    (root / "train.json").write_text(json.dumps(entries))
    return SomethingSource(
        labels=str(root / "labels.json"),
        manifest=str(root / "train.json"),
        folder=str(root / "videos"),
    )


def test_something_templates_become_labels(tmp_path: Path) -> None:
    entries = [
        {"id": "7", "template": "Pushing [something]"},
        {"id": "8", "template": "Holding [something]"},
    ]
    manifest = something(tmp_path, entries).read()
    assert manifest.class_names == ("Holding something", "Pushing something")
    assert [
        (path.name, label) for path, label in zip(manifest.paths, manifest.labels, strict=True)
    ] == [("7.webm", 1)]
    assert manifest.missing == ("8",)


@pytest.mark.parametrize(
    "entries",
    [[{"id": "7", "template": "Eating [something]"}], [{"template": "Pushing [something]"}]],
)
def test_unknown_template_is_quoted(tmp_path: Path, entries: object) -> None:
    with pytest.raises(ValueError, match=r"train\.json: .*template"):
        something(tmp_path, entries).read()


def test_file_that_is_no_json_is_named_with_its_line(tmp_path: Path) -> None:
    source = something(tmp_path, [])
    Path(source.manifest).write_text("[\n{oops}]")
    with pytest.raises(ValueError, match=r"train\.json line 2: not JSON"):
        source.read()
