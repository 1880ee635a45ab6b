"""Lists of videos with several classes: every form, what is refused, and how they are divided."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.counted_text import CountedText
from support.videos import SIDE, read_numbers, write_numbered_video

from video_mvit.data.dataset import ClipKey, ClipPipeline, TrainDataset
from video_mvit.data.lists.actions import ClipSpan
from video_mvit.data.lists.charades import NUM_CLASSES, CharadesSource
from video_mvit.data.lists.multilabel_lists import MultiLabelSource, read_label_list
from video_mvit.data.lists.multilabel_manifest import MultiLabelManifest
from video_mvit.data.sampling import ClipSpec, RandomClip
from video_mvit.data.transforms.cropping import UniformCrops
from video_mvit.errors import UserError

EXPECTED = {"a.mp4": {"walk", "talk"}, "my b.mp4": {"talk"}, "c/d.mp4": set()}
FORMS = {
    "rows.csv": "a.mp4,walk,talk\nmy b.mp4,talk\nc/d.mp4\n",
    "rows.tsv": "a.mp4\twalk\ttalk\nmy b.mp4\ttalk\nc/d.mp4\t\n",
    "spaces.txt": "a.mp4 walk talk\nmy b.mp4 talk\nc/d.mp4\n",
    "one_field.csv": 'path,labels\na.mp4,"walk;talk"\nmy b.mp4,talk\nc/d.mp4,\n',
    "header.csv": 'id,file,tags\n1,a.mp4,"walk, talk"\n2,my b.mp4,talk\n3,c/d.mp4,\n',
    "repeated.csv": "a.mp4,walk\nmy b.mp4,talk\na.mp4,talk\nc/d.mp4\n",
    "columns.csv": "video,talk,walk\na.mp4,1,1\nmy b.mp4,1,0\nc/d.mp4,0,0\n",
    "object.json": json.dumps({name: sorted(labels) for name, labels in EXPECTED.items()}),
    "entries.json": json.dumps(
        [{"path": name, "labels": sorted(labels)} for name, labels in EXPECTED.items()]
    ),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in EXPECTED:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def source(root: Path, name: str, **options: object) -> MultiLabelSource:
    known = {"other_manifest": str(root / name), "folder": str(root), **options}
    return MultiLabelSource(part="train", manifest=str(root / name), **known)


def sets_of(manifest: MultiLabelManifest) -> dict[str, set[str]]:
    names = np.array(manifest.class_names)
    return {
        name: set(names[row].tolist())
        for name, row in zip(manifest.names, manifest.label_sets, strict=True)
    }


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_videos_and_classes(root: Path, form: str) -> None:
    (root / form).write_text(FORMS[form])
    columns = {"path": "file", "labels": "tags"} if form == "header.csv" else None
    found = source(root, form, columns=columns).read()
    assert sets_of(found) == EXPECTED
    assert found.class_names == ("talk", "walk")
    assert "3 videos, 2 of 2 classes, 1.00 classes a video (1 without any)" in found.summary()


@pytest.mark.parametrize(
    "content",
    [
        'path,labels\na.mp4,"walk;talk"\nb.mp4,talk\n',
        "path,labels\na.mp4,walk;talk\nb.mp4,talk\n",
        "a.mp4,walk;talk\nb.mp4,talk\n",
        '"a.mp4","walk;talk"\nb.mp4,"talk"\n',
        "path;labels\na.mp4;walk,talk\nb.mp4;talk\n",
        "a.mp4\twalk;talk\nb.mp4\ttalk\n",
        "a.mp4 walk;talk\nb.mp4 talk\n",
    ],
)
def test_separators_of_labels_are_not_those_of_columns(tmp_path: Path, content: str) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "list.csv").write_text(content)
    found = source(tmp_path, "list.csv").read()
    assert sets_of(found) == {"a.mp4": {"walk", "talk"}, "b.mp4": {"talk"}}


def test_columns_of_0_and_1_are_classes_also_where_one_is_called_action(root: Path) -> None:
    (root / "list.csv").write_text("path,action,comedy,y\na.mp4,1,0,1\nmy b.mp4,0,1,0\n")
    expected = {"a.mp4": {"action", "y"}, "my b.mp4": {"comedy"}}
    assert sets_of(source(root, "list.csv").read()) == expected
    (root / "list.csv").write_text("path,Action,comedy\na.mp4,1,0\nmy b.mp4,0,1\n")
    assert sets_of(source(root, "list.csv").read()) == {"a.mp4": {"Action"}, "my b.mp4": {"comedy"}}
    for content in ("path,action\na.mp4,1\n", "path,action,fps\na.mp4,1,25\n"):
        (root / "list.csv").write_text(content)  # numbers of classes
        assert sets_of(source(root, "list.csv").read()) == {"a.mp4": {"1"}}


@pytest.mark.parametrize("name", ["start", "time_end", "Split", "fold"])
def test_columns_of_parts_and_splits_are_refused_unless_others_are_named(
    root: Path, name: str
) -> None:
    columns = {"path": "path", "labels": "labels"}
    for file, content in (
        ("list.csv", f"path,labels,{name}\na.mp4,walk,1\n"),
        ("list.json", json.dumps([{"path": "a.mp4", "labels": ["walk"], name: 1}])),
    ):
        (root / file).write_text(content)
        with pytest.raises(UserError, match=rf"(line|entry) 1 has a column '{name}', which tells"):
            source(root, file).read()
        assert sets_of(source(root, file, columns=columns).read()) == {"a.mp4": {"walk"}}
    (root / "list.csv").write_text(f"path,walk,{name}\na.mp4,1,1\n")
    with pytest.raises(UserError, match=f"line 1 has a column '{name}'"):
        source(root, "list.csv").read()


@pytest.mark.parametrize("line", ["0 2", "0,2", '"0;2"', "0 2 2"])
def test_numbers_are_indices_of_classes(root: Path, line: str) -> None:
    (root / "list.txt").write_text(f"a.mp4 {line}\nmy b.mp4 0\n")
    assert source(root, "list.txt").read().label_sets.tolist() == [
        [True, False, True],
        [True, False, False],
    ]
    (root / "names.txt").write_text("x\ny\nz\n")
    found = source(root, "list.txt", classes=str(root / "names.txt")).read(("z", "y", "x"))
    assert sets_of(found) == {"a.mp4": {"x", "z"}, "my b.mp4": {"x"}}
    assert found.class_names == ("z", "y", "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.mp4,walk,3\n", "line 1: '3' is a number, and not all"),
        ("a.mp4,1.0,0.0\n", "line 1: '1.0' is a number, and not all"),
        ("a.mp4,1,-1\n", "line 1: '-1' is a number, and not all|line 1: '1' is a number"),
        ("path,walk,talk\na.mp4,1,2\n", "line 2: '2' is neither 0 nor 1"),
        ("path,walk,walk\na.mp4,1,1\n", "same name"),
        ("a.mp4,12345\n", "line 1: 12345 is too large for a label"),
        ("path,labels\na.mp4,x,y\n", "line 2 has 3 fields"),
        ("a.mp4\n", "no video in it has a class"),
        ("../a.mp4,walk\n", "none of the 1 videos|leads out"),
        ("s3://a.mp4,walk\n", "is not the path of a video"),
        ('a.mp4 "walk\n', "unbalanced quotes"),
        ("", "lists no videos"),
    ],
)
def test_what_is_no_list_is_refused_in_a_sentence(root: Path, content: str, message: str) -> None:
    (root / "list.csv").write_text(content)
    with pytest.raises((UserError, FileNotFoundError), match=message):
        source(root, "list.csv").read()


@pytest.mark.parametrize("content", ["[]", "7", '{"a.mp4": "walk"}', '[{"file": 1}]', "[3]"])
def test_other_json_is_refused(root: Path, content: str) -> None:
    (root / "list.json").write_text(content)
    with pytest.raises(UserError, match=r"expected rows"):
        read_label_list(str(root / "list.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a.mp4": [""]}', "entry 1 has an empty label"),
        ('{"a.mp4": [" "]}', "entry 1 has an empty label"),
        ('{"a.mp4": ["walk", 1]}', "entry 1: '1' is a number, and not all"),
        ('{"a.mp4": [-1]}', "entry 1: '-1' is a number, and not all"),
        ('{"a.mp4": [12345]}', "entry 1: 12345 is too large for a label"),
        ('{"s3://a.mp4": ["walk"]}', "entry 1: 's3://a.mp4' is not the path of a video"),
        ('{"x.mp4": ["walk"], "../a.mp4": ["walk"]}', "entry 2: .* leads out|none of the 2"),
        ('{"\\ud800.mp4": ["walk"]}', r"entry 1: '\\ud800.mp4' is not the path of a video"),
    ],
)
def test_what_is_wrong_in_json_is_named_by_its_entry(
    root: Path, content: str, message: str
) -> None:
    (root / "list.json").write_text(content)
    with pytest.raises((UserError, FileNotFoundError), match=message):
        source(root, "list.json").read()
    (root / "list.json").write_text('{"a.mp4": [" walk "]}')
    assert sets_of(source(root, "list.json").read()) == {"a.mp4": {"walk"}}
    (root / "list.json").write_text('{"a.mp4": [3]}')
    with pytest.raises(UserError, match=r"entry 1 has label 3, less than data.label_offset=4"):
        source(root, "list.json", label_offset=4).read()
    with pytest.raises(UserError, match="entry 1 has label 3; there are 2 classes"):
        source(root, "list.json").read(("a", "b"))


def test_many_classes_are_read_in_linear_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"class {i}" for i in range(1000)]
    (root / "list.json").write_text(json.dumps({"a.mp4": names}))
    wanted = list(map(CountedText, names[::-1]))
    monkeypatch.setattr(CountedText, "num_calls", 0)
    assert len(source(root, "list.json").read(wanted).class_names) == len(names)
    assert CountedText.num_calls < 50 * len(names)


def test_unknown_classes_and_many_cells_are_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "list.csv").write_text(FORMS["rows.csv"])
    with pytest.raises(UserError, match="1 class is not among the 1 classes"):
        source(root, "list.csv").read(("talk",))
    monkeypatch.setattr("video_mvit.data.lists.multilabel_manifest.MAX_CELLS", 5)
    with pytest.raises(UserError, match="more than fits into memory"):
        source(root, "list.csv").read()


def test_a_list_is_divided_and_every_class_is_in_both_parts(tmp_path: Path) -> None:
    rows = []
    for i in range(60):
        (tmp_path / f"v{i}.mp4").touch()
        labels = [name for name, step in (("a", 2), ("b", 3), ("c", 10)) if i % step == 0]
        rows.append(",".join([f"v{i}.mp4", *labels]))
    (tmp_path / "list.csv").write_text("\n".join(rows))
    parts = {}
    for part in ("train", "val"):
        train, val = str(tmp_path / "list.csv"), str(tmp_path / "val")
        first, second = (train, val) if part == "train" else (val, train)
        parts[part] = MultiLabelSource(
            part=part, manifest=first, other_manifest=second, folder=str(tmp_path)
        ).read()
    train, val = parts["train"], parts["val"]
    assert set(train.names).isdisjoint(val.names)
    assert len(train) + len(val) == 60
    assert train.label_sets.any(axis=0).all()
    counts = [np.bincount(each.each_label(), minlength=3) for each in (val, train)]
    shares = counts[0] / (counts[0] + counts[1])
    assert np.abs(shares - 0.2).max() < 0.1
    with pytest.raises(FileNotFoundError, match="nor a list of that name"):
        MultiLabelSource(
            part="val",
            manifest=str(tmp_path / "misspelt"),
            other_manifest=str(tmp_path / "list.csv"),
            folder=str(tmp_path),
        ).read()
    assert train.digest() != train.in_class_order(("c", "b", "a")).digest()


def charades(tmp_path: Path) -> CharadesSource:
    classes = tmp_path / "Charades_v1_classes.txt"
    classes.write_text("".join(f"c{i:03} Doing {i}\n" for i in range(NUM_CLASSES)))
    return CharadesSource(
        manifest=str(tmp_path / "list.csv"), folder=str(tmp_path), classes=str(classes)
    )


def test_charades_actions_are_the_classes_of_a_video(tmp_path: Path) -> None:
    for name in ("YSKX3", "7DZVN"):
        (tmp_path / f"{name}.mp4").touch()
    (tmp_path / "list.csv").write_text(
        'id,script,actions,length\nYSKX3,"a, b",c077 12.10 18.00;c079 11.80 17.30;c077 1 2,31\n'
        "7DZVN,x,,9\nGONE0,x,c000 0.00 1.00,9\n"
    )
    found = charades(tmp_path).read()
    assert sets_of(found) == {"YSKX3.mp4": {"Doing 77", "Doing 79"}, "7DZVN.mp4": set()}
    assert list(found.missing) == ["GONE0.mp4"]
    (tmp_path / "list.csv").write_text("id,actions\nYSKX3,c157 0.00 1.00\n")
    with pytest.raises(UserError, match=r"line 2: 'c157 0.00 1.00' is not an action"):
        charades(tmp_path).read()


def test_frames_of_charades_add_up_to_the_classes_of_their_folder(tmp_path: Path) -> None:
    for name in ("YSKX3", "7DZVN"):
        (tmp_path / name).mkdir()
    (tmp_path / "list.csv").write_text(
        "original_vido_id video_id frame_id path labels\n"
        'YSKX3 0 0 YSKX3/YSKX3-000001.jpg ""\nYSKX3 0 1 YSKX3/YSKX3-000002.jpg "5,7"\n'
        'YSKX3 0 2 YSKX3/YSKX3-000003.jpg "7"\n7DZVN 1 0 7DZVN/7DZVN-000001.jpg "156"\n'
    )
    found = sets_of(charades(tmp_path).read())
    assert found == {"YSKX3": {"Doing 5", "Doing 7"}, "7DZVN": {"Doing 156"}}
    (tmp_path / "list.csv").write_text(
        "original_vido_id video_id frame_id path labels\nYSKX3 0 0 YSKX3/1.jpg 157\n"
    )
    with pytest.raises(UserError, match="line 2: '157' are not numbers of classes"):
        charades(tmp_path).read()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('A 0 0 A/1.jpg "1"\nB 1 0 B/1.jpg "1"\nA 0 1 A/2.jpg "1"\n', "line 4: rows of 'A' do not"),
        ('A 0 0 A/1.jpg "1\n' + ("x" * 60_000 + "\n") * 3, r"line \d: unbalanced quotes \(field"),
    ],
)
def test_frames_of_charades_that_cannot_be_counted_are_refused(
    tmp_path: Path, rows: str, message: str
) -> None:
    for name in "AB":
        (tmp_path / name).mkdir()
    (tmp_path / "list.csv").write_text(f"original_vido_id video_id frame_id path labels\n{rows}")
    with pytest.raises(UserError, match=message):
        charades(tmp_path).read()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "comma.csv",
            'path,labels\n"my b.mp4#t=0,1",walk;talk\n"my b.mp4#t=1,2.50",walk\na.mp4,\n',
        ),
        ("tab.tsv", "my b.mp4#t=0,1\twalk\ttalk\nmy b.mp4#t=1,2.50\twalk\na.mp4\n"),
        (
            "a.json",
            '{"my b.mp4#t=0,1": ["walk", "talk"], "my b.mp4#t=1,2.5": ["walk"], "a.mp4": []}',
        ),
    ],
)
def test_parts_of_a_video_have_classes_of_their_own(root: Path, name: str, content: str) -> None:
    (root / name).write_text(content)
    assert sets_of(source(root, name).read()) == {
        "my b.mp4#t=0,1": {"walk", "talk"},
        "my b.mp4#t=1,2.5": {"walk"},
        "a.mp4": set(),
    }
    (root / name).write_text(content.replace("t=0,1", "t=2,1"))
    with pytest.raises(UserError, match="ends before it begins"):
        source(root, name).read()


def shown(manifest: MultiLabelManifest, index: int, span: ClipSpan) -> set[str]:
    seen = manifest.clip_target(index, span)
    return {manifest.class_names[i] for i in np.flatnonzero(seen)}


def test_a_clip_of_charades_has_the_classes_between_its_first_and_last_frame(
    tmp_path: Path,
) -> None:
    (tmp_path / "A.mp4").touch()
    (tmp_path / "B.mp4").touch()
    (tmp_path / "list.csv").write_text(
        "id,actions\nB,c001 0.00 1.00\nA,c077 12.10 18.00;c079 1.00 4.00;c005;c077 1 2\n"
    )
    found = replace(charades(tmp_path), labels="clip").read()
    for frames, seconds, expected in (
        ((0, 50), (4.01, 12.0), {"Doing 5"}),  # an action without times is seen always
        ((0, 50), (4.0, 12.0), {"Doing 5", "Doing 79"}),
        ((0, 50), (13.0, 13.5), {"Doing 5", "Doing 77"}),
        ((0, 1), (0.0, 30.0), {"Doing 5", "Doing 77", "Doing 79"}),
    ):
        assert shown(found, 1, ClipSpan(frames, seconds)) == expected
    assert shown(found, 0, ClipSpan((0, 1), (1.5, 2.0))) == set()
    # The whole video has all classes, and a selection or another order of classes keeps the times.
    assert sets_of(found)["A.mp4"] == {"Doing 5", "Doing 77", "Doing 79"}
    other = found.take([1, 1]).in_class_order(found.class_names[::-1])
    assert shown(other, 1, ClipSpan((0, 50), (4.0, 12.0))) == {"Doing 5", "Doing 79"}
    # Without the option, clips have the classes of their video, and the list is another one.
    whole = charades(tmp_path).read()
    assert shown(whole, 1, ClipSpan((0, 1), (30.0, 31.0))) == sets_of(whole)["A.mp4"]
    assert whole.digest() != found.digest()


def test_a_clip_of_frames_has_the_classes_of_their_rows(tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    rows = ['""', '"5,7,7"', '"7"', '""', '"7"']
    (tmp_path / "list.csv").write_text(
        "original_vido_id video_id frame_id path labels\n"
        + "".join(f"A 0 {i} A/A-{i + 1:06}.jpg {labels}\n" for i, labels in enumerate(rows))
    )
    found = replace(charades(tmp_path), labels="clip").read()
    anywhere = (0.0, 100.0)
    for first, last, expected in (
        (0, 0, set()),
        (0, 1, {"Doing 5", "Doing 7"}),
        (2, 3, {"Doing 7"}),
        (3, 3, set()),
        (3, 4, {"Doing 7"}),
    ):
        assert shown(found, 0, ClipSpan((first, last), anywhere)) == expected


def test_training_clips_have_the_classes_that_they_show(tmp_path: Path) -> None:
    write_numbered_video(tmp_path / "A.mp4", num_frames=60)  # at 30 frames per second
    (tmp_path / "list.csv").write_text("id,actions\nA,c003 0.00 0.50;c004 1.50 2.00\n")
    manifest = replace(charades(tmp_path), labels="clip").read()
    pipeline = ClipPipeline(
        sampler=RandomClip(clip=ClipSpec(num_frames=4, frame_stride=1)),
        crop=UniformCrops(short_side=SIDE, size=SIDE),
    )
    dataset = TrainDataset(manifest, pipeline, seed=0)
    found = set()
    for epoch in range(12):
        item = dataset[ClipKey(epoch, 0)]
        numbers = read_numbers(item.clips[0].permute(0, 2, 3, 1).numpy())
        first_s, last_s = numbers[0] / 30, numbers[-1] / 30
        expected = {3: first_s <= 0.5, 4: last_s >= 1.5}
        assert {label for label, is_seen in expected.items() if is_seen} == set(
            np.flatnonzero(item.label).tolist()
        )
        found.add(tuple(expected.values()))
    assert len(found) > 1
