"""A person's own videos: rows of paths, class folders, and which form a list is taken for."""

import json
import logging
from pathlib import Path

import pytest
from support.touch import touch

from video_mvit.data.lists.custom import ListSource

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
            {"train.csv": "a.mp4\nb.mp4\n"},
            ValueError,
            r"train\.csv line 1: 'a\.mp4' is not a row of a path and a label; known lists are such",
        ),
        ({"train.json": '[{"path": "a.mp4"}]'}, ValueError, "entry 1: an object has no template"),
        ({"train.csv": '{"path": "a.mp4"}'}, ValueError, "holds JSON lines; write rows of a path"),
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
