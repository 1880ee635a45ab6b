"""Hostile lists, scan reports, partial results, shard indexes and folders: one sentence each."""

import gzip
import io
import json
import os
import random
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.evaluations import origin, prediction, summary
from support.mutate import mutated
from support.touch import touch

from video_mvit.data.lists.custom import ClassFolderSource, ListSource
from video_mvit.data.lists.holdout import CustomSource
from video_mvit.data.lists.manifest import Manifest, PackedStrings
from video_mvit.data.lists.published import KineticsSource, SomethingSource
from video_mvit.data.lists.shards import ShardSource, write_shards
from video_mvit.data.preparation.scan import known_bad
from video_mvit.data.preparation.scan_report import read_scan_report
from video_mvit.data.reading.tar_members import read_member
from video_mvit.detection.data.coco_json import CocoSource
from video_mvit.detection.data.mask_folder import MaskFolderSource
from video_mvit.detection.output_folder import read_detections, read_resumed_detections
from video_mvit.detection.results import read_detection_result
from video_mvit.errors import UserError
from video_mvit.evaluation.output_folder import read_folder, read_resumed
from video_mvit.evaluation.predictions import (
    Listed,
    PartialResults,
    read_predictions,
    write_predictions,
)
from video_mvit.evaluation.results import read_result
from video_mvit.prediction.inputs import find_videos

DEEP = "[" * 200_000
CLASSES = ("a", "b", "c")
NUM_MUTANTS = [60, pytest.param(2500, marks=pytest.mark.long)]


def refusal(read: Callable[[], object]) -> str:
    """The sentence with which a reader refuses; it names a file and is one line."""
    with pytest.raises(UserError) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Folders and links.


def names_of(root: Path, *, follow_links: bool = False) -> list[str]:
    return list(ClassFolderSource(folder=str(root), follow_links=follow_links).read().names)


def test_each_real_file_counts_once_whatever_links_there_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = touch(tmp_path / "root", "a/1.mp4", "b/2.mp4", "b/deep/3.mp4", ".hidden/4.mp4")
    (root / "a/self.mp4").symlink_to(root / "a/self.mp4")
    (root / "a/loop").symlink_to("loop")
    (root / "a/up").symlink_to(root)
    (root / "a/same.mp4").symlink_to("1.mp4")
    (root / "b/all").symlink_to(root / "a")
    (root / "c").symlink_to(root / "b")
    (root / "b/4.mp4").symlink_to(root / ".hidden/4.mp4")
    assert names_of(root) == ["a/1.mp4", "b/2.mp4", "b/4.mp4", "b/deep/3.mp4"]
    assert f"4 links in {root} lead to what is listed already" in caplog.text
    assert find_videos(str(root)) == [f"{root}/{name}" for name in names_of(root)]


def test_links_out_of_the_root_are_followed_on_request_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = touch(tmp_path / "root", "a/1.mp4", "b/2.mp4")
    touch(tmp_path / "disk", "3.mp4", "deep/4.mp4")
    (root / "b/disk").symlink_to(tmp_path / "disk")
    (root / "b/5.mp4").symlink_to(tmp_path / "disk/3.mp4")
    (root / "b/parent").symlink_to(tmp_path)
    assert names_of(root) == ["a/1.mp4", "b/2.mp4"]
    assert f"3 links lead out of {root} and are not followed, first: {root}/b/5.mp4" in caplog.text
    assert "data.follow_links=true follows them" in caplog.text
    assert names_of(root, follow_links=True) == [
        "a/1.mp4",
        "b/2.mp4",
        "b/5.mp4",
        "b/disk/deep/4.mp4",
    ]
    lists = {"manifest": f"{root}/train", "other_manifest": f"{root}/val"}
    settings = {"part": "train", **lists, "folder": str(root)}
    held = [
        CustomSource(**{**settings, "part": part}, follow_links=True) for part in ("train", "val")
    ]
    assert sum(len(each.read()) for each in held if each.part == "train") >= 1


def test_thirty_folders_of_two_links_each_end(tmp_path: Path) -> None:
    for i in range(30):
        folder = touch(tmp_path, f"c/{i}/{i}.mp4") / f"c/{i}"
        for name in "xy":
            (folder / name).symlink_to(tmp_path / f"c/{(i + 1) % 30}")
    assert len(names_of(tmp_path)) == 30
    assert len(find_videos(str(tmp_path))) == 30


def test_folders_of_masks_follow_no_links_out(tmp_path: Path, caplog: Any) -> None:
    for root in (tmp_path / "train", tmp_path / "disk"):
        (root / "cat").mkdir(parents=True)
        Image.new("RGB", (20, 10)).save(root / "cat/a.jpg")
        mask = Image.new("L", (20, 10))
        mask.paste(255, (2, 2, 8, 8))
        mask.save(root / "cat/a.png")
    (tmp_path / "train/dog").symlink_to(tmp_path / "disk/cat")
    found = MaskFolderSource(folder=str(tmp_path / "train")).read()
    assert (found.categories.names, len(found)) == (("cat",), 1)
    assert "1 links lead out of" in caplog.text
    found = MaskFolderSource(folder=str(tmp_path / "train"), follow_links=True).read()
    assert (found.categories.names, len(found)) == (("cat", "dog"), 2)


# Lists.

LISTS = {
    "NUL bytes": (b"a/1.mp4 0\na/\0.mp4 1\n", "line 2: NUL bytes"),
    "UTF-16 without its mark": ("a/1.mp4 0\n".encode("utf-16-le"), "line 1: NUL bytes"),
    "half of a character in UTF-16": ("a/1.mp4".encode("utf-16")[:-1], "line 1"),
    "a bomb": (gzip.compress(b"a/1.mp4 0\n" * 10**6), "is compressed with gzip"),
    "a label of thousands of digits": (b"a/1.mp4 " + b"9" * 5000, "line 1.*a label is a"),
    "a label of 2**40": (b"a/1.mp4 1099511627776\n", "line 1: 1099511627776 is too large"),
    "a label of 1.5": (b"a/1.mp4 0\na/2.mp4 1.5\n", "line 2.*a label is a whole number"),
    "a label of -1": (b"a/1.mp4 0\na/2.mp4 -1\n", "line 2.*a label is a whole number"),
    "an endless line": (b"a/1.mp4 " + b" " * 10**6, "line 1 is longer than"),
    "names that are too long": (b"a" * 5000 + b".mp4 0\n", "none of the 1 videos"),
    "a label of another script": ("a/1.mp4 ٣\n".encode(), "line 1.*a label is a"),
}


@pytest.mark.parametrize("name", LISTS)
def test_hostile_list_is_one_sentence_with_its_line(name: str, tmp_path: Path) -> None:
    content, message = LISTS[name]
    touch(tmp_path, "a/1.mp4", "a/2.mp4")
    (tmp_path / "train.csv").write_bytes(content)
    sentence = refusal(ListSource(manifest=str(tmp_path / "train.csv")).read)
    assert re.search(rf"train\.csv.*{message}|{message}.*train\.csv", sentence)
    assert len(sentence) < 500


JSON_LISTS = {
    "deep": (DEEP, "nested too deeply"),
    "half": ('[{"id": 1', "not JSON"),
    "twice": ('[{"id": "1", "id": "2", "template": "A"}]', "the key 'id' occurs twice"),
    "infinite": ('[{"id": 1, "template": "A", "x": NaN}]', "NaN is no number of JSON"),
    "many digits": ('[{"id": ' + "9" * 5000 + "}]", "not JSON that can be read"),
    "outside": ('[{"id": "../../b", "template": "A"}]', "entry 1: '../../b' is not an id"),
    "an object": ('[{"id": {"a": 1}, "template": "A"}]', "entry 1: an object has no id"),
    "half of a character": ('[{"id": "\\ud800", "template": "A"}]', r"none of|half of a character"),
    "not UTF-8": (b'[{"id": "\xff\xfe", "template": "A"}]', "none of"),
}


@pytest.mark.parametrize("name", JSON_LISTS)
def test_hostile_json_list_is_one_sentence(name: str, tmp_path: Path) -> None:
    content, message = JSON_LISTS[name]
    touch(tmp_path, "videos/1.webm")
    (tmp_path / "labels.json").write_text('{"A": "0"}')
    path = tmp_path / "train.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = SomethingSource(
        labels=str(tmp_path / "labels.json"), manifest=str(path), folder=str(tmp_path / "videos")
    )
    assert re.search(message, refusal(source.read))


def test_published_list_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    touch(tmp_path, "videos/x.mp4", "secret/a_000000_000010.mp4")
    (tmp_path / "train.csv").write_text(
        "label,youtube_id,time_start,time_end,split\n../secret,a,0,10,train\n"
    )
    source = KineticsSource(manifest=str(tmp_path / "train.csv"), folder=str(tmp_path / "videos"))
    assert "line 2: 'a_000000_000010' leads out of the folder of videos" in refusal(source.read)


@pytest.mark.parametrize("num_files", NUM_MUTANTS)
def test_mutated_lists_are_read_or_refused(num_files: int, tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "a/2.mp4", "b/3 4.webm", "5.webm", "a/x_000001_000011.mp4")
    ssv2 = [{"id": str(i), "label": "x", "template": "[A] b"} for i in (5, 6)]
    sources = {
        "train.csv": b"a/1.mp4 0\na/2.mp4 1\nb/3 4.webm 2\n",
        "tabs.tsv": b"a/1.mp4\t0\na/2.mp4\t1\n",
        "k.csv": b"label,youtube_id,time_start,time_end,split\na,x,1,11,train\na,y,1,11,train\n",
        "ssv2.json": json.dumps(ssv2).encode(),
        "labels.json": b'{"A b": "0", "c": "1"}',
    }
    rng = random.Random(1)
    for i in range(num_files):
        name, content = list(sources.items())[i % len(sources)]
        for each, whole in sources.items():
            (tmp_path / each).write_bytes(whole)
        (tmp_path / name).write_bytes(mutated(content, rng))
        manifest = str(tmp_path / ("ssv2.json" if name.endswith("json") else name))
        try:
            found = ListSource(manifest=manifest, folder=str(tmp_path)).read()
        except UserError as error:
            assert str(tmp_path) in str(error) or "half of a character" in str(error)  # noqa: PT017
        else:
            assert found.labels.max() < len(found.class_names)


# Scan reports.


def manifest_of(root: Path, num_videos: int = 3) -> Manifest:
    names = [f"a/{i}.mp4" for i in range(num_videos)]
    touch(root, *names)
    return Manifest(
        root=str(root),
        names=PackedStrings.of(names),
        labels=np.zeros(num_videos, np.int32),
        class_names=CLASSES,
    )


def report_lines(manifest: Manifest, **changes: object) -> list[dict[str, object]]:
    header = {"list_sha1": manifest.digest(), "num_videos": 3, "num_missing": 0, "root": "r"}
    fact = dict.fromkeys(("num_frames", "height", "width", "num_key_frames"), 5)
    fact |= {"size": 0, "mtime_ns": 1, "fps": 25.0, "duration_s": 1.0, "codec": "h264"}
    return [header, *({"name": name, **fact, "error": None, **changes} for name in manifest.names)]


def write_lines(path: Path, lines: list[object]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


HOSTILE_VALUES = {
    "num_frames": (-1, 1.5, "5", None, True, 2**40, [1], {}),
    "fps": (float("nan"), float("inf"), -1.0, "25", None, 10**400),
    "size": (-1, 2**70, 1.0),
    "name": (None, 5, "a\0b", "x" * 5000, ["a"]),
    "error": (5, ["x"], True),
    "surprise": (1,),
}


@pytest.mark.parametrize("field", HOSTILE_VALUES)
def test_hostile_scan_report_is_one_sentence_with_its_line(field: str, tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path)
    for value in HOSTILE_VALUES[field]:
        lines = report_lines(manifest)
        lines[2][field] = value
        path = write_lines(tmp_path / "train.scan.jsonl", lines)
        sentence = refusal(lambda path=path: read_scan_report(path))
        assert "train.scan.jsonl line 3 is not a record of a video" in sentence
        assert len(sentence) < 400


@pytest.mark.parametrize("line", [DEEP, '{"name": "a', "\0\0\0", '{"a": 1, "a": 1}', "\udcff"])
def test_broken_line_of_a_scan_report_is_named_without_its_content(
    line: str, tmp_path: Path
) -> None:
    path = tmp_path / "train.scan.jsonl"
    write_lines(path, report_lines(manifest_of(tmp_path)))
    with path.open("a", errors="surrogateescape") as file:
        file.write(f"{line}\n")
    assert "line 5 is not a record of a video" in refusal(lambda: read_scan_report(path))


def test_forged_scan_report_excludes_nothing_unseen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = manifest_of(tmp_path, num_videos=200)
    bad = report_lines(manifest, error="forged")
    path = write_lines(tmp_path / "train.scan.jsonl", bad)
    assert known_bad(manifest, read_scan_report(path)) == {}
    assert "has 200 of 200 videos as unreadable, more than the tolerated 0.01" in caplog.text
    assert len(known_bad(manifest, read_scan_report(path), 1.0)) == 200
    honest = [*report_lines(manifest)[:-1], bad[-1]]
    path = write_lines(path, honest)
    assert known_bad(manifest, read_scan_report(path)) == {199: "forged"}
    assert known_bad(manifest.take(range(100, 200)), read_scan_report(path)) == {99: "forged"}
    write_lines(path, [{**honest[0], "list_sha1": "of another list"}, *honest[1:]])
    assert known_bad(manifest, read_scan_report(path)) == {}
    assert "was made for another list and is not used" in caplog.text


# Evaluations.

LISTED = Listed(names=[f"{i}.mp4" for i in range(4)], labels=[0, 1, 2, 0], num_classes=3)
GOOD_ITEM = [1, 1, [1, 0, 2], [0.5, 0.3, 0.2], {"frozen": 2}]
BAD_ITEMS = {
    "index -1": [-1, 1, [1, 0, 2], [0.5, 0.3, 0.2], {"frozen": 2}],
    "index 4": [4, 1, [1, 0, 2], [0.5, 0.3, 0.2], {"frozen": 2}],
    "index true": [True, 1, [1, 0, 2], [0.5, 0.3, 0.2], {"frozen": 2}],
    "label of another video": [1, 0, [1, 0, 2], [0.5, 0.3, 0.2], {"frozen": 2}],
    "label 2**40": [1, 2**40, [1, 0, 2], [0.5, 0.3, 0.2], {"frozen": 2}],
    "label 1.5": [1, 1.5, [1, 0, 2], [0.5, 0.3, 0.2], {"frozen": 2}],
    "class 999": [1, 1, [999, 0, 2], [0.5, 0.3, 0.2], {"frozen": 2}],
    "a class twice": [1, 1, [1, 1, 2], [0.5, 0.3, 0.2], {"frozen": 2}],
    "NaN": [1, 1, [1, 0, 2], [float("nan"), 0.3, 0.2], {"frozen": 2}],
    "score 7": [1, 1, [1, 0, 2], [7.0, 0.3, 0.2], {"frozen": 2}],
    "rising scores": [1, 1, [1, 0, 2], [0.2, 0.3, 0.5], {"frozen": 2}],
    "too few classes": [1, 1, [1], [0.5], {"frozen": 2}],
    "another ablation": [1, 1, [1, 0, 2], [0.5, 0.3, 0.2], {"boiled": 2}],
    "no ablation": [1, 1, [1, 0, 2], [0.5, 0.3, 0.2], {}],
    "too short": [1, 1],
    "an object": {"a": 1},
}


@pytest.mark.parametrize("name", BAD_ITEMS)
def test_hostile_partial_result_is_one_sentence_with_its_line(name: str, tmp_path: Path) -> None:
    identity = origin(CLASSES, motion=("frozen",)).identity
    (tmp_path / "notes").mkdir()
    path = tmp_path / "notes/0.jsonl"
    write_lines(path, [identity, GOOD_ITEM, GOOD_ITEM])
    assert read_resumed(tmp_path, identity, LISTED)[0].keys() == {1}
    write_lines(path, [identity, GOOD_ITEM, BAD_ITEMS[name]])
    sentence = refusal(lambda: read_resumed(tmp_path, identity, LISTED))
    assert "notes/0.jsonl line 3 is not a result of this evaluation" in sentence
    for junk in (f"{DEEP}\n", "\0\0\n", '[1, {"a": 1, "a"\n'):
        path.write_text(json.dumps(identity) + "\n" + junk)
        assert "line 2" in refusal(lambda: read_resumed(tmp_path, identity, LISTED))
    (tmp_path / "notes/not_ours.jsonl").write_text("x\n")
    path.unlink()
    assert read_resumed(tmp_path, identity, LISTED) == ({}, 0)


HOSTILE_RESULTS = {
    "top1": (float("nan"), 7, "0.5", None),
    "class_names": ([], {}, [5], "abc", None),
    "num_listed": (-1, 1.5, 0),
    "unreadable": ([], {"a": 5}),
    "motion": ({"boiled": 0.5}, [], {"frozen": 2}),
    "time_s": (float("inf"), -1),
    "versions": (5,),
    "protocol": (None, {"_target_": "os.system"}),
}


@pytest.mark.parametrize("field", HOSTILE_RESULTS)
def test_hostile_results_are_one_sentence(field: str, tmp_path: Path) -> None:
    found = [prediction("a", 0, (0, 1, 2)), prediction("b", 1, (0, 1, 2))]
    path = tmp_path / "results.json"
    summary(found, CLASSES).write(path)
    write_predictions(tmp_path / "predictions.csv", found, CLASSES)
    whole = json.loads(path.read_text())
    assert len(read_folder(tmp_path)[1]) == 2
    for value in HOSTILE_RESULTS[field]:
        path.write_text(json.dumps({**whole, field: value}))
        assert "results.json is not a results.json of this" in refusal(lambda: read_result(path))
    for junk in (DEEP, "[]", "", "{", "\0", '{"top1": 1, "top1": 1}'):
        path.write_text(junk)
        refusal(lambda: read_result(path))
    path.write_text(json.dumps({**whole, "num_listed": 3}))
    assert "has 2 videos, but results.json" in refusal(lambda: read_folder(tmp_path))


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        *(("score1", "inf"), ("score1", "-0.1"), ("top1", "z"), ("label", "z")),
        *(("score1", ""), ("score1", "1" * 5000), ("top2", "x" * 200_000)),
    ],
)
def test_hostile_table_is_one_sentence_with_its_line(
    column: str, cell: str, tmp_path: Path
) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(path, [prediction("a", 0, (0, 1, 2))], CLASSES)
    header, row = path.read_text().splitlines()
    cells = dict(zip(header.split(","), row.split(","), strict=True)) | {column: cell}
    path.write_text(f"{header}\n{','.join(cells.values())}\n")
    sentence = refusal(lambda: read_predictions(path, CLASSES))
    assert re.search(r"predictions\.csv, line \d: .*; was it edited\?", sentence)
    assert len(sentence) < 400


@pytest.mark.parametrize("num_files", NUM_MUTANTS)
def test_mutated_results_are_read_or_refused(num_files: int, tmp_path: Path) -> None:
    found = [prediction(f"{i}.mp4", 0, (0, 1, 2)) for i in range(4)]
    result, identity = summary(found, CLASSES), origin(CLASSES).identity
    listed = Listed(names=LISTED.names, labels=[0] * 4, num_classes=3)
    (tmp_path / "notes").mkdir()
    partial = PartialResults(tmp_path / "notes/0.jsonl", identity)
    for i, each in enumerate(found):
        partial.add(i, each)
    partial.close()
    result.write(tmp_path / "results.json")
    write_predictions(tmp_path / "predictions.csv", found, CLASSES)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    rng = random.Random(2)
    for i in range(num_files):
        for path, content in files.items():
            path.write_bytes(content)
        path, content = list(files.items())[i % len(files)]
        path.write_bytes(mutated(content, rng))
        for read in (
            lambda: read_folder(tmp_path),
            lambda: read_resumed(tmp_path, identity, listed),
        ):
            try:
                read()
            except UserError as error:
                assert str(tmp_path) in str(error)  # noqa: PT017


# Shards.


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for i in range(4):
        touch(tmp_path / "v", f"{i}.mp4").joinpath(f"{i}.mp4").write_bytes(bytes([i]) * 100)
    manifest = Manifest(
        root=str(tmp_path / "v"),
        names=PackedStrings.of(f"{i}.mp4" for i in range(4)),
        labels=np.array([0, 1, 2, 0], np.int32),
        class_names=CLASSES,
    )
    write_shards(manifest, tmp_path / "s", left_out={}, max_bytes=10**6, on_progress=lambda _: None)
    return tmp_path / "s"


def read_all_of(shards: Path) -> None:
    manifest = ShardSource(address=str(shards)).read()
    for i in range(len(manifest)):
        assert read_member(manifest.path(i))


BAD_VIDEOS = {
    "shard -1": (0, -1),
    "shard 9": (0, 9),
    "shard true": (0, True),
    "offset -1": (1, -1),
    "offset beyond": (1, 10**9),
    "offset of 2**70": (1, 2**70),
    "size 0": (2, 0),
    "size of a terabyte": (2, 2**40),
    "name of 5": (3, 5),
    "name twice": (3, "1.mp4"),
    "label -1": (4, -1),
    "label 3": (4, 3),
    "label 2**40": (4, 2**40),
    "label 1.5": (4, 1.5),
    "label of another video": (4, 1),
}


@pytest.mark.parametrize("name", BAD_VIDEOS)
def test_hostile_index_is_one_sentence(name: str, shards: Path) -> None:
    read_all_of(shards)
    place, value = BAD_VIDEOS[name]
    content = json.loads((shards / "index.json").read_text())
    content["videos"][0][place] = value
    (shards / "index.json").write_text(json.dumps(content))
    assert "index.json" in refusal(lambda: read_all_of(shards))
    for unnamed in ({"class_names": None, "list_sha1": None},):
        (shards / "index.json").write_text(json.dumps({**content, **unnamed}))
        if name not in ("label 3", "label of another video"):
            assert "index.json" in refusal(lambda: read_all_of(shards))


def test_shard_of_others_with_a_huge_description_is_refused_unread(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, size in (("1.mp4", 100), ("1.json", 2**21)):
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, io.BytesIO(bytes(size)))
    source = ShardSource(address=str(tmp_path))
    assert "the .json of '1' has more than" in refusal(source.read)


def test_shard_whose_members_go_back_ends_in_one_sentence(tmp_path: Path) -> None:
    member = tarfile.TarInfo("1.mp4")
    header = bytearray(member.tobuf())
    header[124:136] = (2**96 - 2048).to_bytes(12, "big")  # a size of -2048
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    before = [tarfile.TarInfo(f"folder{i}/").tobuf() for i in range(3)]
    content = b"".join(before) + bytes(header) + bytes(1024)
    (tmp_path / "a.tar").write_bytes(content)
    assert "a.tar" in refusal(ShardSource(address=str(tmp_path)).read)


@pytest.mark.parametrize("num_files", NUM_MUTANTS)
def test_mutated_indexes_and_shards_are_read_or_refused(num_files: int, shards: Path) -> None:
    files = {path: path.read_bytes() for path in shards.iterdir()}
    rng = random.Random(4)
    for i in range(num_files):
        for path, content in files.items():
            path.write_bytes(content)
        if i % 3 == 0:  # as another program writes shards
            (shards / "index.json").unlink()
        path = shards / ("index.json" if i % 3 == 1 else "shard-000000.tar")
        path.write_bytes(mutated(files[path], rng))
        try:
            read_all_of(shards)
        except UserError as error:
            assert str(shards) in str(error) or "half of a character" in str(error)  # noqa: PT017


# Detection.

COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "height": 10, "width": 20}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": 0}
        | {"segmentation": [[1, 1, 6, 1, 6, 6]], "area": 12.5},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "iscrowd": 1}
        | {"segmentation": {"size": [10, 20], "counts": [100, 50, 50]}, "area": 50},
    ],
    "categories": [{"id": 1, "name": "cat"}],
}
COCO_FILES = {
    "deep": (DEEP.replace("[", '{"a":', 1), "."),
    "deep entries": ('{"images": ' + DEEP, "maximum recursion depth"),
    "lists twice": (json.dumps(COCO)[:-1] + ', "images": []}', "'images' occurs twice"),
    "a file elsewhere": (json.dumps(COCO).replace("a.jpg", "../../a.jpg"), "must not leave it"),
    "a size of 1.5": (json.dumps(COCO).replace('"height": 10', '"height": 1.5'), "image 1 is malf"),
    "half a character": (json.dumps(COCO).replace("a.jpg", "\\ud800.jpg"), "half of a character"),
    "a label of 2**40": (
        json.dumps(COCO).replace('"category_id": 1', f'"category_id": {2**40}'),
        "no usable annotations",
    ),
    "not UTF-8": (b'{"images": "\xff"}', "no UTF-8 text"),
}


@pytest.mark.parametrize("name", COCO_FILES)
def test_hostile_annotations_are_one_sentence(name: str, tmp_path: Path) -> None:
    content, message = COCO_FILES[name]
    touch(tmp_path, "a.jpg")
    path = tmp_path / "train.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    sentence = refusal(CocoSource(json=str(path), images=str(tmp_path)).read)
    assert re.search(message, sentence)


@pytest.mark.parametrize("num_files", NUM_MUTANTS)
def test_mutated_annotations_are_read_or_refused(num_files: int, tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    content, rng = json.dumps(COCO).encode(), random.Random(6)
    for _ in range(num_files):
        (tmp_path / "t.json").write_bytes(mutated(content, rng))
        try:
            found = CocoSource(json=str(tmp_path / "t.json"), images=str(tmp_path)).read()
            found.coco_ground_truth()
            for index in found.objects.tolist():
                found.mask(index, found.size(0))
        except UserError:
            continue


@pytest.mark.parametrize("num_files", [30, pytest.param(1500, marks=pytest.mark.long)])
def test_mutated_mask_folders_are_read_or_refused(num_files: int, tmp_path: Path) -> None:
    (tmp_path / "cat/masks").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    mask = np.zeros((24, 32), np.uint8)
    mask[4:9, 3:20] = 7
    Image.fromarray(noise).save(tmp_path / "cat/a.png")
    Image.fromarray(mask).save(tmp_path / "cat/masks/a.png")
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    rng = random.Random(8)
    for i in range(num_files):
        for path, content in files.items():
            path.write_bytes(content)
        path = list(files)[i % 2]
        path.write_bytes(mutated(files[path], rng))
        try:
            MaskFolderSource(folder=str(tmp_path)).read()
        except UserError as error:
            assert str(tmp_path) in str(error)  # noqa: PT017


TRUTH = {
    "images": [{"id": 3, "file_name": "a.jpg", "height": 10, "width": 20}],
    "categories": [{"id": 7, "name": "cat"}],
}
DETECTION = {
    "image_id": 3,
    "category_id": 7,
    "bbox": [1.0, 2.0, 3.0, 4.0],
    "score": 0.5,
    "segmentation": {"size": [10, 20], "counts": "X6"},
}
BAD_DETECTIONS = [
    {"image_id": 4},
    {"category_id": -1},
    {"score": float("nan")},
    {"score": 2},
    {"bbox": [1, 2, 3]},
    {"bbox": [1, 2, 3, float("inf")]},
    {"segmentation": {"size": [10, 21], "counts": "X6"}},
    {"segmentation": {"size": [10, 20], "counts": "X66"}},
    {"segmentation": {"size": [10, 20], "counts": "\u00e9"}},
    {"segmentation": {"size": [10, 20], "counts": "oooooooooooo"}},
    {"surprise": 1},
]


@pytest.mark.parametrize("change", BAD_DETECTIONS, ids=str)
def test_hostile_detections_are_one_sentence(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "detections.json"
    path.write_text(json.dumps([DETECTION]))
    assert read_detections(path, [3], TRUTH) == {3: [DETECTION]}
    path.write_text(json.dumps([DETECTION, {**DETECTION, **change}]))
    assert "detections.json is not the COCO" in refusal(lambda: read_detections(path, [3], TRUTH))
    (tmp_path / "notes").mkdir()
    lines = [{"protocol": "x"}, [3, [DETECTION]], [3, [{**DETECTION, **change}]]]
    write_lines(tmp_path / "notes/0.jsonl", lines)
    sentence = refusal(lambda: read_resumed_detections(tmp_path, {"protocol": "x"}, TRUTH))
    assert "notes/0.jsonl line 3" in sentence
    (tmp_path / "results.json").write_text(json.dumps({"protocol": "x"}))
    assert "without " in refusal(lambda: read_detection_result(tmp_path / "results.json"))


def test_place_in_a_shard_allocates_no_more_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"x" * 100)
    for place in (f"0+{2**40}", f"{2**70}+1", "0+" + "9" * 5000):
        with pytest.raises(OSError, match=r"ends before the end|cannot be"):
            read_member(f"{path}!{place}!x.mp4")
    assert os.path.getsize(path) == 100
