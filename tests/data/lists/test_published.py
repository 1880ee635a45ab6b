"""Published lists: what is found, what is missing, and what is said about a wrong line."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from video_mvit.data.lists.manifest import Manifest
from video_mvit.data.lists.published import (
    HMDB51Source,
    KineticsSource,
    SomethingSource,
    UCF101Source,
)

HEADER = "label,youtube_id,time_start,time_end,split\n"


def touch(root: Path, names: Sequence[str]) -> None:
    root.mkdir(exist_ok=True)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def shown(manifest: Manifest) -> list[tuple[str, str]]:
    """Name and class of every video."""
    classes = [manifest.class_names[label] for label in manifest.labels]
    return list(zip(manifest.names, classes, strict=True))


def kinetics(root: Path, rows: str, files: list[str], header: str = HEADER) -> KineticsSource:
    (root / "train.csv").write_text(header + rows)
    touch(root / "videos", files)
    return KineticsSource(manifest=str(root / "train.csv"), folder=str(root / "videos"))


def test_kinetics_files_are_found_in_both_layouts_and_missing_ones_listed(tmp_path: Path) -> None:
    source = kinetics(
        tmp_path,
        'archery,-abc_DEF,3,13,train\n"bee, keeping",xyz,0,10,train\narchery,gone,1,11,train\n'
        "riding a bike,u,1,11,train\n",
        [
            "archery/-abc_DEF_000003_000013.mp4",
            "xyz_000000_000010.mkv",
            "riding_a_bike/u_000001_000011.mp4",
            "archery/gone_000002_000012.mp4",
        ],
    )
    manifest = source.read()
    assert manifest.class_names == ("archery", "bee, keeping", "riding a bike")
    assert shown(manifest) == [
        ("archery/-abc_DEF_000003_000013.mp4", "archery"),
        ("xyz_000000_000010.mkv", "bee, keeping"),
        ("riding_a_bike/u_000001_000011.mp4", "riding a bike"),
    ]
    assert manifest.path(1) == f"{tmp_path}/videos/xyz_000000_000010.mkv"
    assert list(manifest.missing) == ["gone_000001_000011"]


# A label of Kinetics, and how other downloaders name its folder.
FOLDERS = [
    ("massaging person's head", "massaging_person's_head"),
    ("massaging person's head", "massaging_persons_head"),
    ("massaging person's head", "massaging person s head"),
    ("petting animal (not cat)", "petting_animal_not_cat"),
    ("petting animal (not cat)", "petting animal _not cat_"),
    ("passing American football (in game)", "passing american football (in game)"),
    ("tying knot (not on a tie)", "Tying-Knot-(not-on-a-tie)"),
    ("blowdrying hair", "Blowdrying Hair"),
    ("high-fiving", "highfiving"),
]


@pytest.mark.parametrize(("label", "folder"), FOLDERS)
def test_folder_of_a_kinetics_class_is_found_as_others_write_it(
    tmp_path: Path, label: str, folder: str
) -> None:
    file = f"{folder}/a_000001_000011.mp4"
    source = kinetics(tmp_path, f'"{label}",a,1,11,train\n', [file])
    assert shown(source.read()) == [(file, label)]


def test_folder_whose_letters_fit_two_kinetics_classes_is_not_guessed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = "high-five,a,1,11,train\nhigh five,b,1,11,train\nrun,c,1,11,train\n"
    files = ["highfive/a_000001_000011.mp4", "highfive/b_000001_000011.mp4", "c_000001_000011.mp4"]
    manifest = kinetics(tmp_path, rows, files).read()
    assert shown(manifest) == [("c_000001_000011.mp4", "run")]
    assert "2 of the 3 classes that" in caplog.text
    assert "have none of their videos in" in caplog.text


def test_columns_are_found_by_name_in_any_order_after_a_byte_order_mark(tmp_path: Path) -> None:
    header = "\ufeffyoutube_id,time_start,time_end,split,label,is_cc\n"
    source = kinetics(tmp_path, "a,0,10,val,archery,0\n", ["a_000000_000010.mp4"], header)
    assert shown(source.read()) == [("a_000000_000010.mp4", "archery")]


def test_given_class_names_decide_the_labels(tmp_path: Path) -> None:
    source = kinetics(tmp_path, "archery,a,0,10,val\n", ["a_000000_000010.mp4"])
    manifest = source.read(["zumba", "archery"])
    assert manifest.labels.tolist() == [1]
    assert manifest.class_names == ("zumba", "archery")
    with pytest.raises(
        ValueError, match=r"train\.csv line 2: label 'archery' is not among the 1 classes"
    ):
        source.read(["zumba"])


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("path,label\n", "a,b\n", "line 1: 'path,label' has no column youtube_id, time_start"),
        (HEADER, "archery,a,0,10,train\n\narchery,a,zero,10,train\n", "line 4: 'archery,a,zero,"),
        (HEADER, "archery,a\n", "line 2: 'archery,a' has no label, name and whole seconds"),
        (HEADER, 'a,b,0,10,train\n"bee,x,0,10,train\n', "line 3: unbalanced quotes"),
        (HEADER, "", "lists no videos"),
        ("", "", "line 1: '' has no column label"),
    ],
)
def test_wrong_kinetics_line_is_quoted(
    tmp_path: Path, header: str, rows: str, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"train\.csv.*{message}"):
        kinetics(tmp_path, rows, [], header).read()


def test_list_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv does not exist"):
        KineticsSource(manifest=str(tmp_path / "nothing.csv"), folder=str(tmp_path)).read()


def something(root: Path, entries: object, files: Sequence[str] = ("7.webm",)) -> SomethingSource:
    touch(root / "videos", files)
    numbers = {"Holding something": "1", "Pushing something": "0"}
    (root / "labels.json").write_text(json.dumps(numbers))
    (root / "train.json").write_text(json.dumps(entries))
    return SomethingSource(
        labels=str(root / "labels.json"),
        manifest=str(root / "train.json"),
        folder=str(root / "videos"),
    )


ENTRIES = [
    {"id": "7", "label": "pushing a cup", "template": "Pushing [something]"},
    {"id": "8", "label": "holding a cup", "template": "Holding [something]"},
]


def test_something_templates_become_labels(tmp_path: Path) -> None:
    manifest = something(tmp_path, ENTRIES).read()
    assert manifest.class_names == ("Pushing something", "Holding something")
    assert shown(manifest) == [("7.webm", "Pushing something")]
    assert list(manifest.missing) == ["8"]


def test_something_videos_may_be_mp4_or_folders_of_frames(tmp_path: Path) -> None:
    manifest = something(tmp_path, ENTRIES, ["7.mp4", "7.webm", "8/000001.jpg"]).read()
    assert list(manifest.names) == ["7.mp4", "8"]


def framed(root: Path, frame_list: str) -> SomethingSource:
    source = something(root, ENTRIES, ["rgb/7/7_0001.jpg", "rgb/8/8_0001.jpg"])
    (root / "train.csv").write_text(frame_list)
    return SomethingSource(
        labels=source.labels,
        manifest=source.manifest,
        folder=source.folder,
        frame_list=str(root / "train.csv"),
    )


FRAMES = "original_vido_id video_id frame_id path labels\n"


def test_frame_list_says_where_frames_lie(tmp_path: Path) -> None:
    rows = (
        '8 0 0 rgb/8/8_0001.jpg ""\n8 0 1 rgb/8/8_0002.jpg ""\n'
        '7 1 0 rgb/7/7_0001.jpg ""\n7 1 1 elsewhere/7_0002.jpg ""\n'
        '8 0 2 elsewhere/8_0003.jpg ""\n'
    )
    manifest = framed(tmp_path, FRAMES + rows).read()
    assert shown(manifest) == [("rgb/7", "Pushing something"), ("rgb/8", "Holding something")]


@pytest.mark.parametrize(
    ("frame_list", "message"),
    [
        ("path label\n", r"train\.csv line 1: 'path label' is not the header of a frame list"),
        (FRAMES + "7 0 0 rgb/7/1.jpg\n", r"train\.csv line 2: '7 0 0 rgb/7/1\.jpg' has 4 fields"),
        (
            FRAMES + '7 0 0 rgb/7/1.jpg ""\n',
            r"train\.json has 2 videos and .*train\.csv 1: 1 of .*train\.json are not in "
            r".*train\.csv, first: '8'",
        ),
        (
            FRAMES + "".join(f'{i} 0 0 rgb/{i}/1.jpg ""\n' for i in (8, 7, 77)),
            r"train\.csv 3: 1 of .*train\.csv are not in .*train\.json, first: '77'",
        ),
    ],
)
def test_frame_list_that_does_not_fit_is_refused(
    tmp_path: Path, frame_list: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        framed(tmp_path, frame_list).read()


@pytest.mark.parametrize(
    "entry",
    [{"id": "7", "template": "Eating [something]"}, {"template": ENTRIES[0]["template"]}, 7],
)
def test_unknown_template_is_quoted(tmp_path: Path, entry: object) -> None:
    with pytest.raises(ValueError, match=r"train\.json entry 2: .* has no id or no template"):
        something(tmp_path, [ENTRIES[0], entry]).read()


def test_file_that_is_no_json_is_named_with_its_line(tmp_path: Path) -> None:
    source = something(tmp_path, [])
    Path(source.manifest).write_text("[\n{oops}]")
    with pytest.raises(ValueError, match=r"train\.json: line 2: not JSON"):
        source.read()
    Path(source.manifest).write_text("{}")
    with pytest.raises(ValueError, match=r"train\.json: expected a JSON list, got dict"):
        source.read()


@pytest.mark.parametrize("numbers", [{"a": "0", "b": "2"}, {"a": "0", "b": "one"}, {"a": "1"}])
def test_class_numbers_with_gaps_are_refused(tmp_path: Path, numbers: dict[str, str]) -> None:
    source = something(tmp_path, ENTRIES)
    Path(source.labels).write_text(json.dumps(numbers))
    with pytest.raises(ValueError, match=r"labels\.json: class numbers are not 0 to"):
        source.read()


def test_something_follows_another_order_of_its_classes_and_refuses_others(tmp_path: Path) -> None:
    own = something(tmp_path, ENTRIES).read()
    turned = something(tmp_path, ENTRIES).read(own.class_names[::-1])
    assert turned.class_names == own.class_names[::-1]
    assert shown(turned) == shown(own)
    assert turned.labels.tolist() != own.labels.tolist()
    with pytest.raises(ValueError, match=r"labels\.json: its 2 classes are not the 2 .* have no"):
        something(tmp_path, ENTRIES).read(["Holding something", "Lifting something"])


def ucf101(root: Path, rows: str, classes: str = "1 Archery\n2 Diving\n") -> UCF101Source:
    (root / "classInd.txt").write_text(classes)
    (root / "list01.txt").write_text(rows)
    touch(root / "videos", ["Archery/v_Archery_g01_c01.avi", "Diving/v_Diving_g01_c02.mp4"])
    return UCF101Source(
        manifest=str(root / "list01.txt"),
        classes=str(root / "classInd.txt"),
        folder=str(root / "videos"),
    )


@pytest.mark.parametrize(
    "rows",
    [
        "Archery/v_Archery_g01_c01.avi 1\r\nDiving/v_Diving_g01_c02.avi 2\r\n",
        "Archery/v_Archery_g01_c01.avi\nDiving/v_Diving_g01_c02.avi\n",
    ],
)
def test_ucf101_train_and_test_lists_are_read(tmp_path: Path, rows: str) -> None:
    manifest = ucf101(tmp_path, rows + "Diving/v_Diving_g07_c01.avi\n").read()
    assert manifest.class_names == ("Archery", "Diving")
    assert shown(manifest) == [
        ("Archery/v_Archery_g01_c01.avi", "Archery"),
        ("Diving/v_Diving_g01_c02.mp4", "Diving"),
    ]
    assert list(manifest.missing) == ["Diving/v_Diving_g07_c01"]
    swapped = ucf101(tmp_path, rows).read(["Diving", "Archery"])
    assert swapped.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("rows", "classes", "message"),
    [
        ("Eating/v_x.avi 1\n", "1 Archery\n", r"line 1: 'Eating/v_x\.avi 1' has no class of the 1"),
        ("v_x.avi 1\n", "1 Archery\n", r"line 1: 'v_x\.avi 1' has no class"),
        (
            "Diving/v_x.avi 1\n",
            "1 Archery\n2 Diving\n",
            r"has number 1, but .* Diving the number 2",
        ),
        ("Diving/v_x.avi\n", "0 Diving\n", r"classInd\.txt line 1: '0 Diving' is not the number 1"),
        ("Diving/v_x.avi\n", "1 Diving\n2 Diving\n", r"classInd\.txt line 2: '2 Diving' is not"),
    ],
)
def test_wrong_ucf101_line_is_quoted(tmp_path: Path, rows: str, classes: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ucf101(tmp_path, rows, classes).read()


def hmdb51(root: Path, kick: str, **changes: object) -> HMDB51Source:
    touch(root / "videos", ["kick/a b_#1.avi", "kick/c.avi", "sit_up/d.avi", "sit_up/e.avi"])
    (root / "splits").mkdir(exist_ok=True)
    (root / "splits" / "kick_test_split1.txt").write_text(kick)
    (root / "splits" / "sit_up_test_split1.txt").write_text("d.avi 1 \ne.avi 0 \n")
    (root / "splits" / "kick_test_split2.txt").write_text("c.avi 1 \n")
    fields = {"part": "train", "manifest": str(root / "splits"), "folder": str(root / "videos")}
    return HMDB51Source(**(fields | changes))  # type: ignore[arg-type]


def test_hmdb51_parts_and_splits_are_told_apart(tmp_path: Path) -> None:
    rows = "a b_#1.avi 1 \nc.avi 2 \ngone.avi 1 \n"
    train = hmdb51(tmp_path, rows).read()
    assert train.class_names == ("kick", "sit_up")
    assert shown(train) == [("kick/a b_#1.avi", "kick"), ("sit_up/d.avi", "sit_up")]
    assert list(train.missing) == ["gone"]
    test = hmdb51(tmp_path, rows, part="test").read(train.class_names)
    assert shown(test) == [("kick/c.avi", "kick")]
    assert shown(hmdb51(tmp_path, rows, split=2).read()) == [("kick/c.avi", "kick")]


@pytest.mark.parametrize(
    ("rows", "changes", "error", "message"),
    [
        (
            "a.avi 3\n",
            {},
            ValueError,
            r"kick_test_split1\.txt line 1: 'a\.avi 3' is not a video and",
        ),
        ("a.avi\n", {}, ValueError, r"line 1: 'a\.avi' is not a video"),
        ("c.avi 1\n", {"split": 4}, FileNotFoundError, r"no file <class>_test_split4\.txt"),
        ("c.avi 1\n", {"manifest": "/nowhere"}, FileNotFoundError, "is not the folder of HMDB51"),
    ],
)
def test_wrong_hmdb51_line_is_quoted(
    tmp_path: Path, rows: str, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        hmdb51(tmp_path, rows, **changes).read()
