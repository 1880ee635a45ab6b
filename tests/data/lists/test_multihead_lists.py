"""Lists of videos with several heads: every form, what is refused, how they are divided; EPIC."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.videos import read_numbers, write_numbered_video

from video_mvit.class_heads import check_heads, classes_of_heads, full_names, heads_of, within_heads
from video_mvit.data.lists.class_weights import class_weights
from video_mvit.data.lists.epic_kitchens import NUM_CLASSES, EpicKitchensSource
from video_mvit.data.lists.multihead_lists import MultiHeadSource
from video_mvit.data.lists.multihead_manifest import MultiHeadManifest
from video_mvit.data.reading.open import open_video
from video_mvit.errors import UserError

EXPECTED = {
    "a.mp4": ("open", "door"),
    "my b.mp4": ("put down", "cup"),
    "c/d.mp4#t=3.5,7.25": ("open", "cup"),
}
ENTRIES = [{"path": path, "verb": verb, "noun": noun} for path, (verb, noun) in EXPECTED.items()]
FORMS = {
    "rows.csv": "path,verb,noun\na.mp4,open,door\nmy b.mp4,put down,cup\n"
    '"c/d.mp4#t=3.5,7.25",open,cup',
    "rows.tsv": "file\tverb\tnoun\na.mp4\topen\tdoor\nmy b.mp4\tput down\tcup\n"
    "c/d.mp4#t=3.50,7.25\topen\tcup\n",
    "semicolons.txt": "verb;noun;video\nopen;door;a.mp4\nput down;cup;my b.mp4\n"
    "open;cup;c/d.mp4#t=3.5,7.25\n",
    "chosen.csv": "id,path,noun,verb,who\n1,a.mp4,door,open,x\n2,my b.mp4,cup,put down,y\n"
    '3,"c/d.mp4#t=3.5,7.25",cup,open,x\n',
    "entries.json": json.dumps(ENTRIES),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.mp4", "my b.mp4", "c/d.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def source(root: Path, name: str, **options: object) -> MultiHeadSource:
    known = {"other_manifest": str(root / name), "folder": str(root), **options}
    return MultiHeadSource(part="train", manifest=str(root / name), **known)


def classes_in(manifest: MultiHeadManifest) -> dict[str, tuple[str, ...]]:
    classes = classes_of_heads(manifest.class_names, heads_of(manifest.class_names))
    return {
        name: tuple(
            names[label]
            for names, label in zip(classes.values(), manifest.target(i).tolist(), strict=True)
        )
        for i, name in enumerate(manifest.names)
    }


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_videos_and_classes(root: Path, form: str) -> None:
    (root / form).write_text(FORMS[form])
    found = source(root, form, heads=["verb", "noun"] if form == "chosen.csv" else None).read()
    assert classes_in(found) == EXPECTED
    assert found.class_names == ("verb: open", "verb: put down", "noun: cup", "noun: door")
    summary = "3 videos, 2 of 2 classes of verb, 2 of 2 classes of noun, 3 combinations"
    assert found.summary() == summary


def test_heads_are_chosen_and_ordered_and_follow_the_model(root: Path) -> None:
    (root / "list.csv").write_text(FORMS["rows.csv"])
    turned = source(root, "list.csv", heads=["noun", "verb"]).read()
    assert classes_in(turned)["a.mp4"] == ("door", "open")
    one = source(root, "list.csv", heads=["noun"]).read()
    assert heads_of(one.class_names) == {"noun": 2}
    of_model = ("noun: door", "noun: cup", "noun: sink", "verb: put down", "verb: open")
    found = source(root, "list.csv").read(of_model)
    assert found.class_names == of_model
    assert classes_in(found) == {name: each[::-1] for name, each in EXPECTED.items()}
    assert found.target(1).tolist() == [1, 0]
    assert found.classes_of(1) == [1, 3]
    assert found.labels.tolist() == found.head_labels[:, 0].tolist()
    assert turned.in_class_order(of_model[:2] + of_model[3:]).digest() != turned.digest()
    assert classes_in(found.take([2, 0])) == {
        k: classes_in(found)[k] for k in ("c/d.mp4#t=3.5,7.25", "a.mp4")
    }
    with pytest.raises(UserError, match="has the heads noun; the model or training list has noun,"):
        source(root, "list.csv", heads=["noun"]).read(of_model)
    with pytest.raises(UserError, match=r"head 'noun': 1 class is not among .* first: 'door'"):
        source(root, "list.csv").read(("noun: cup", "verb: open", "verb: put down"))


def test_numbers_are_indices_of_the_classes_of_their_head(root: Path) -> None:
    (root / "list.csv").write_text("path,verb,noun\na.mp4,0,2\nmy b.mp4,1,0\n")
    assert source(root, "list.csv").read().head_labels.tolist() == [[0, 4], [1, 2]]
    (root / "nouns.txt").write_text("x\ny\nz\n")
    named = source(root, "list.csv", classes={"noun": str(root / "nouns.txt")}).read()
    assert classes_in(named) == {"a.mp4": ("0", "z"), "my b.mp4": ("1", "x")}
    (root / "list.json").write_text('[{"path": "a.mp4", "verb": 0, "noun": 2}]')
    assert source(root, "list.json").read().head_labels.tolist() == [[0, 3]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.mp4,open,door\n", "line 1: 'a.mp4,open,door' is not a header"),
        ("path,verb,noun\n", "only a header"),
        ("path,verb,noun\na.mp4,open,\nmy b.mp4,open,cup\n", "line 2: 'a.mp4' has no noun"),
        ("path,verb,noun\na.mp4,open\n", "line 2: .* has 2 fields"),
        (
            "path,verb,noun\na.mp4,open,3\nmy b.mp4,open,cup\n",
            "'noun' line 2: '3' is a number",
        ),
        ("path,verb,verb\na.mp4,x,y\n", "no column 'verb', or two"),
        ("path,all\na.mp4,x\n", "'all' cannot be the name of a head"),
        ("path,a: b\na.mp4,x\n", "'a: b' cannot be the name of a head"),
        ("path,v1.0\na.mp4,x\n", "'v1.0' cannot be the name of a head"),
        ("path,problem\na.mp4,x\n", "'problem' cannot be the name of a head"),
        ("path,x,ema_x\na.mp4,x,y\n", "'ema_x' cannot be the name of a head"),
        ("path,verb\na.mp4,1.0\n", "head 'verb' line 2: '1.0' is a number, and"),
        ("path,verb,start\na.mp4,x,1\n", "line 1 has a column 'start', which is rarely a head"),
        ("id,path,verb\n1,a.mp4,x\n", "line 1 has a column 'id', which is rarely a head"),
        ("path,num_frames,verb\na.mp4,9,x\n", "column 'num_frames', which is rarely a head"),
        ("path,verb\na.mp4,x\na.mp4,y\n", "lines 2 and 3: 'a.mp4' is of class 'x' in one and 'y'"),
        ('path,verb\n"a.mp4#t=7,3",x\n', "line 2: 'a.mp4#t=7,3' ends before it begins"),
        ("path,verb\ns3://a.mp4,x\n", "line 2: 's3://a.mp4' is not the path of a video"),
        ("path,verb\n../a.mp4,x\n", "none of the 1 videos|leads out"),
        ("path,verb\nnone.mp4,x\n", "none of the 1 videos"),
        ("", "lists no videos"),
    ],
)
def test_what_is_no_list_is_refused_in_a_sentence(root: Path, content: str, message: str) -> None:
    (root / "list.csv").write_text(content)
    with pytest.raises((UserError, FileNotFoundError), match=message):
        source(root, "list.csv").read()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no videos"),
        ("[7]", "holds no videos"),
        ('[{"path": "a.mp4", "verb": "x"}, {"path": "a.mp4"}]', "entry 2 has no 'verb'"),
        ('[{"path": 3, "verb": "x"}]', "entry 1 has no 'path'"),
        ('[{"path": "a.mp4", "verb": ["x"]}]', "entry 1 has no 'verb'"),
        (
            '[{"path": "a.mp4", "split": "train", "verb": "x"}]',
            "entry 1 has a column 'split'",
        ),
        ('[{"path": "a.mp4", "id": 1, "verb": "x"}]', "entry 1 has a column 'id', which is rarely"),
        ('[{"path": "a.mp4", "verb": -1}]', "head 'verb' entry 1: '-1' is a number, and"),
        ('[{"path": "\\ud800", "verb": "x"}]', r"entry 1: '\\ud800' is not the path of a video"),
        ('[{"path": "a.mp4"}]', "0 heads, expected 1 to"),
    ],
)
def test_other_json_is_refused(root: Path, content: str, message: str) -> None:
    (root / "list.json").write_text(content)
    with pytest.raises(UserError, match=message):
        source(root, "list.json").read()


def test_options_that_do_not_fit_are_refused(root: Path) -> None:
    (root / "list.csv").write_text(FORMS["rows.csv"])
    for options, message in (
        ({"heads": ["verb", "place"]}, "no column 'place'"),
        ({"heads": ["verb", "verb"]}, "two heads have the name 'verb'"),
        ({"classes": {"place": "x.txt"}}, "names classes of 'place'"),
    ):
        with pytest.raises(UserError, match=message):
            source(root, "list.csv", **options).read()


def test_a_list_is_divided_evenly_in_every_head(tmp_path: Path) -> None:
    rows = ["path,verb,noun"]
    for i in range(60):
        for clip in (1, 2):  # of one source video
            (tmp_path / f"v{i}_clip{clip}.mp4").touch()
            rows.append(f"v{i}_clip{clip}.mp4,{'ab'[i % 2]},{'xyz'[i % 3]}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    parts = {}
    for part in ("train", "val"):
        lists = [str(tmp_path / "list.csv"), str(tmp_path / "val")]
        first, second = lists if part == "train" else lists[::-1]
        parts[part] = MultiHeadSource(
            part=part, manifest=first, other_manifest=second, folder=str(tmp_path)
        ).read()
    train, val = parts["train"], parts["val"]
    assert len(train) + len(val) == 120
    assert {name.partition("_")[0] for name in train.names}.isdisjoint(
        name.partition("_")[0] for name in val.names
    )
    shares = [np.bincount(each.each_label(), minlength=5) for each in (val, train)]
    assert np.abs(shares[0] / (shares[0] + shares[1]) - 0.2).max() < 0.05


def test_balanced_weights_are_of_each_head(root: Path) -> None:
    (root / "list.csv").write_text(FORMS["rows.csv"])
    found = source(root, "list.csv").read()
    labels, heads = found.each_label().tolist(), heads_of(found.class_names)
    # Verbs 2 and 1 times, nouns 2 and 1 times of 3 videos: 3 / 2 classes / videos of the class.
    assert class_weights("balanced", found.class_names, labels, heads) == (0.75, 1.5, 0.75, 1.5)
    (root / "weights.csv").write_text("verb: open,1\nverb: put down,2\nnoun: cup,3\nnoun: door,4\n")
    given = class_weights(str(root / "weights.csv"), found.class_names, labels, heads)
    assert given == (1, 2, 3, 4)
    # Verbs 3 and 1 times, nouns 1, 2 and 1 times of 4 videos.
    weights = class_weights("balanced", "abcde", [0, 2, 0, 3, 0, 3, 1, 4], {"verb": 2, "noun": 3})
    assert weights == pytest.approx((4 / 2 / 3, 2, 4 / 3, 4 / 3 / 2, 4 / 3))


def test_heads_are_read_from_names_of_classes() -> None:
    names = full_names({"verb": ["open", "a: b"], "noun": ["open"]})
    assert heads_of(names) == {"verb": 2, "noun": 1}
    assert within_heads([1, 2], {"verb": 2, "noun": 1}) == (1, 0)
    check_heads({"verb": 2, "noun": 1}, names, 3)
    for wrong, message in (
        (("open",), "has no head"),
        (("verb: ",), "has no head"),
        (("v: a", "n: b", "v: c"), "not in one piece"),
    ):
        with pytest.raises(UserError, match=message):
            heads_of(wrong)


# EPIC-KITCHENS-100

HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,"
    "start_frame,stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
)


def row(number: int, video: str, start: str, stop: str, verb: object, noun: object) -> str:
    times = f"00:00:00.100,{start},{stop}"
    return f"P01_{number},P01,{video},{times},1,9,open x,open,{verb},x,{noun},['x'],[{noun}]\n"


@pytest.fixture
def epic(tmp_path: Path) -> Path:
    for head, size in NUM_CLASSES.items():
        lines = [f"{i},{head}:{i},\"['{head} {i}', 'b']\",other" for i in range(size)]
        text = "\n".join(["id,key,instances,category", *lines])
        (tmp_path / f"EPIC_100_{head}_classes.csv").write_text(text)
    return tmp_path


def epic_source(root: Path) -> EpicKitchensSource:
    return EpicKitchensSource(
        manifest=str(root / "EPIC_100_train.csv"),
        folder=str(root),
        classes={head: str(root / f"EPIC_100_{head}_classes.csv") for head in NUM_CLASSES},
    )


@pytest.mark.parametrize("place", ["P01/videos/{}.MP4", "P01/{}.mp4", "videos/{}.webm", "{}.mkv"])
def test_rows_of_epic_kitchens_are_segments_with_a_verb_and_a_noun(
    epic: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    video = epic / place.format("P01_01")
    video.parent.mkdir(parents=True, exist_ok=True)
    video.touch()
    (epic / "EPIC_100_train.csv").write_text(
        HEADER
        + row(0, "P01_01", "00:00:01.089", "00:00:02.629", 3, 299)
        + row(1, "P01_01", "01:00:02.5", "01:00:03.00", 96, 0)
        + row(2, "P01_01", "00:00:01.089", "00:00:02.629", 4, 1)
        + row(3, "P01_02", "00:00:00.089", "00:00:02.629", 4, 1)
    )
    found = epic_source(epic).read()
    name = place.format("P01_01")
    assert classes_in(found) == {
        f"{name}#t=1.089,2.629": ("verb:3", "noun:299"),
        f"{name}#t=3602.5,3603": ("verb:96", "noun:0"),
    }
    assert heads_of(found.class_names) == NUM_CLASSES
    assert list(found.missing) == ["P01_02#t=0.089,2.629"]
    assert "1 rows are of the same part of a video" in caplog.text
    turned = found.class_names[97:] + found.class_names[:97]
    assert epic_source(epic).read(turned).target(0).tolist() == [299, 3]


def test_frames_of_an_epic_segment_are_those_between_its_times(epic: Path) -> None:
    video = epic / "P01" / "videos" / "P01_01.MP4"
    video.parent.mkdir(parents=True)
    write_numbered_video(video, 60)
    with open_video(video) as whole:
        fps = whole.fps
    start, stop = (f"00:00:0{number / fps:.3f}" for number in (21, 51))
    (epic / "EPIC_100_train.csv").write_text(HEADER + row(0, "P01_01", start, stop, 3, 4))
    with open_video(epic_source(epic).read().path(0)) as part:
        assert read_numbers(part.read(np.arange(part.num_frames))) == list(range(21, 51))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            row(0, "P01_01", "00:00:02", "00:00:01", 0, 0),
            "line 2: .* are no start and a later stop",
        ),
        (
            row(0, "P01_01", "00:00:01", "00:00:02", 97, 0),
            "line 2: '97' is not the number of a verb",
        ),
        (row(0, "P01_01", "00:00:01", "00:00:02", 0, "x"), "'x' is not the number of a noun, 0 to"),
        (row(0, "../P01_01", "00:00:01", "00:00:02", 0, 0), "'../P01_01' is not an id"),
        ("a,b\n", "line 2 has 2 fields, not 15"),
    ],
)
def test_a_wrong_row_of_epic_kitchens_is_named(epic: Path, line: str, message: str) -> None:
    (epic / "EPIC_100_train.csv").write_text(HEADER + line)
    with pytest.raises(UserError, match=message):
        epic_source(epic).read()


def test_classes_of_epic_kitchens_are_as_many_as_published(epic: Path) -> None:
    (epic / "EPIC_100_train.csv").write_text("narration_id,video_id\n")
    with pytest.raises(UserError, match="has no column participant_id"):
        epic_source(epic).read()
    for text, message in (
        ("id,key\n0,a\n", "has 1 classes, not the 97 of verb"),
        ("id,key\n0,a\n2,b\n", "line 3: '2', 'b' is not the number 1 and a new class"),
    ):
        (epic / "EPIC_100_verb_classes.csv").write_text(text)
        with pytest.raises(UserError, match=message):
            epic_source(epic).read()
