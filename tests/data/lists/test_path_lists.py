"""Lists of paths and labels: how their separator, header and columns are found, or refused."""

import codecs
import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.touch import touch

from video_mvit.data.lists.manifest import Manifest
from video_mvit.data.lists.path_lists import PathListSource
from video_mvit.data.reading.open import VideoDecodeError, open_video

FILES = ["x/a.mp4", "x/my, b.mp4", "y z/c 1.MP4", "y z/frames 2/img_1.jpg", "y z/d.ogv"]


def path_list(root: Path, rows: str, **fields: Any) -> PathListSource:
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
        ("x 7\n", [("x", 7)]),
        ('x/a.mp4,0\n"x/my, b.mp4",1\n', [("x/a.mp4", 0), ("x/my, b.mp4", 1)]),
        ("x/a.mp4 , 0\r\ny z/d.ogv, 1\r\n", [("x/a.mp4", 0), ("y z/d.ogv", 1)]),
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
        (
            "x/a.mp4 0\nx/a.mp4\n",
            r"line 2: 'x/a\.mp4' has 1 field separated by spaces, line 1 has 2",
        ),
        ("x/a.mp4,0\nx/my, b.mp4,9,1\n", r"line 2: 'x/my,b\.mp4,9,1' has 4 fields.*quote a path"),
        ("a.mp4 0 2\nb.mp4 1\n", "line 2: .* has 2 fields separated by spaces, line 1 has 3"),
        ("x/a.mp4\nx/b.mp4\n", r"line 1: 'x/a\.mp4' is not a row of a path and a label"),
        ("path,label\n", "lists no videos, only a header"),
        ("x/a.mp4 0\nx/a.mp4 -1\n", r"line 2: 'x/a\.mp4 -1' has label '-1'; a label is a whole"),
        ("x/a.mp4 0\nx/a.mp4 1.5\n", r"line 2: .* has label '1\.5'"),
        ("x/a.mp4 0\nx/b.mp4 O\n", "line 1: .* has label '0'; a label is a whole"),
        ("x/a.mp4,run\nx/b.mp4,\n", "line 2: .* has label ''; a label is a"),
        ("x/a.mp4 0\nx/a.mp4,1\n", r"line 2: 'x/a\.mp4,1' has 1 field"),
        ('x/a.mp4,0\n"x/b.mp4,1\n', "line 2: unbalanced quotes"),
        ("x/a.mp4 1600000000\n", "line 1: 1600000000 is too large for a label"),
        ("http://x.y/a.mp4 0\n", "line 1: 'http://x.y/a.mp4' is an address; lists name files"),
        ("\n \n", r"train\.csv lists no videos"),
        ("# only a comment\n", r"train\.csv lists no videos"),
        (
            "path,label,split\na.mp4,0,train\nb.mp4,1,val\n",
            "'split' tells several splits.*one list",
        ),
        (
            "path,label,start\na.mp4,0,1.0\na.mp4,1,2.0\n",
            "'start' tells parts of videos.*data.columns={path",
        ),
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


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("x/a.mp4;0\ny z/c 1.MP4;1\n", [("x/a.mp4", 0), ("y z/c 1.MP4", 1)]),
        ("\ufeffpath,label\r\nx/a.mp4,0\r\n", [("x/a.mp4", 0)]),
        ("path label\nx/a.mp4 0\ny z/c 1.MP4 1\n", [("x/a.mp4", 0), ("y z/c 1.MP4", 1)]),
        (",path,label\n7,x/a.mp4,0\n8,x/my\\, b.mp4,1\n".replace("\\,", "_"), [("x/a.mp4", 0)]),
        (",Video Path,class_id\n0,x/a.mp4,1\n1,y z/d.ogv,0\n", [("x/a.mp4", 1), ("y z/d.ogv", 0)]),
        ("label,file,fps\n1,x/a.mp4,30\n0,y z/d.ogv,25\n", [("x/a.mp4", 1), ("y z/d.ogv", 0)]),
        ("video_id,label\nx/a,1\nx/my,0\n", [("x/a.mp4", 1)]),
        ("Datei;Klasse\nx/a.mp4;1\ny z/d.ogv;0\n", [("x/a.mp4", 1), ("y z/d.ogv", 0)]),
        ("Datei;Klasse\nx/a.mp4;run\ny z/d.ogv;jump\n", [("x/a.mp4", 1), ("y z/d.ogv", 0)]),
        ("sep=;\nx/a.mp4;1\ny z/d.ogv;0\n", [("x/a.mp4", 1), ("y z/d.ogv", 0)]),
        ("n,k\nx/a.mp4,1\ny z/d.ogv,0\n", [("x/a.mp4", 1), ("y z/d.ogv", 0)]),
        ("# mine\nx/a.mp4 0\n# more\ny z/d.ogv 1\n", [("x/a.mp4", 0), ("y z/d.ogv", 1)]),
        ("x/a.mp4 0.0\ny z/d.ogv 1.0\n", [("x/a.mp4", 0), ("y z/d.ogv", 1)]),
        ("x/a.mp4 +0\ny z/d.ogv 01\n", [("x/a.mp4", 0), ("y z/d.ogv", 1)]),
        ("x/a.mp4,0,\ny z/d.ogv,1,\n", [("x/a.mp4", 0), ("y z/d.ogv", 1)]),
        ("x/a.mp4\t0\ny z/d.ogv 1\n", [("x/a.mp4", 0), ("y z/d.ogv", 1)]),
        ("0 x/a.mp4\n1 y z/c 1.MP4\n", [("x/a.mp4", 0), ("y z/c 1.MP4", 1)]),
        ("0,x/a.mp4\n1,y z/d.ogv\n", [("x/a.mp4", 0), ("y z/d.ogv", 1)]),
        ("7 0\n9 1\n", [("7.mp4", 0), ("9.mp4", 1)]),
        ("0,7\n1,9\n", [("7.mp4", 0), ("9.mp4", 1)]),
        ("7 jump.mp4 0\n9 run.mp4 1\n", [("7 jump.mp4", 0), ("9 run.mp4", 1)]),
        ("x\\a.mp4 0\ny z\\c 1.MP4 1\n", [("x/a.mp4", 0), ("y z/c 1.MP4", 1)]),
        ("x/a.MP4 0\ny z/c 1.mp4 1\n", [("x/a.mp4", 0), ("y z/c 1.MP4", 1)]),
        ("x/a.mov 0\ny z/c 1.avi 1\n", [("x/a.mp4", 0), ("y z/c 1.MP4", 1)]),
        ("\xe9/e\u0301.mp4 0\nx/a.mp4 1\n", [("e\u0301/\xe9.mp4", 0), ("x/a.mp4", 1)]),
        ('"x/my, b.mp4" 0\n"y z/c 1.MP4" 1\n', [("x/my, b.mp4", 0), ("y z/c 1.MP4", 1)]),
    ],
)
def test_list_of_other_programs_is_read(
    tmp_path: Path, rows: str, expected: list[tuple[str, int]]
) -> None:
    touch(tmp_path, "7.mp4", "9.mp4", "7 jump.mp4", "9 run.mp4", "e\u0301/\xe9.mp4")
    assert shown(path_list(tmp_path, rows).read()) == expected


def test_list_in_utf16_or_latin1_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "\xe9.mp4", "b.mp4")
    for encoding in ("utf-16", "utf-16-be", "latin-1", "utf-8-sig"):
        mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
        (tmp_path / "train.csv").write_bytes(mark + "\xe9.mp4,0\nb.mp4,1\n".encode(encoding))
        source = PathListSource(manifest=str(tmp_path / "train.csv"))
        assert shown(source.read()) == [("\xe9.mp4", 0), ("b.mp4", 1)], encoding


def test_compressed_list_is_named(tmp_path: Path) -> None:
    for content, kind in ((gzip.compress(b"a.mp4 0\n"), "gzip"), (b"PK\3\4 xlsx", "Excel")):
        (tmp_path / "train.csv").write_bytes(content)
        with pytest.raises(ValueError, match=f"{kind}; expected a list of videos as plain text"):
            PathListSource(manifest=str(tmp_path / "train.csv")).read()


def test_names_of_classes_are_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = "x/a.mp4 riding a bike\ny z/d.ogv archery\n"
    source = path_list(tmp_path, rows)
    assert source.read().class_names == ("archery", "riding a bike")
    assert source.read().labels.tolist() == [1, 0]
    assert source.read(("riding a bike", "x", "archery")).labels.tolist() == [0, 2]
    assert "differ from another only in case" not in caplog.text
    path_list(tmp_path, "x/a.mp4 Run\ny z/d.ogv run\n").read()
    assert "1 classes of" in caplog.text
    assert "differ from another only in case, first: 'Run' and 'run'" in caplog.text
    with pytest.raises(ValueError, match=r"1 class is not among .* first: 'archery'"):
        source.read(("riding a bike", "x"))
    both = "path,label,class_name\nx/a.mp4,0,riding a bike\ny z/d.ogv,1,archery\n"
    assert path_list(tmp_path, both).read().labels.tolist() == [0, 1]
    twisted = "path,label,class\nx/a.mp4,0,run\ny z/d.ogv,1,run\n"
    with pytest.raises(ValueError, match=r"may be .* of class 'run' .*or .* of class '0'"):
        path_list(tmp_path, twisted).read()


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        ("x/a.mp4 0 2\ny z/d.ogv 1 2\n", ("path,_,label", "path,label,_")),
        ("x/a.mp4 60 0\ny z/d.ogv 60 1\n", ("path,_,label", "path,label,_")),
        ("x/a.mp4,0,2\ny z/d.ogv,1,2\n", ("path,_,label", "path,label,_")),
        ("0,x/a.mp4,3\n1,y z/d.ogv,4\n", ("_,path,label", "label,path,_")),
        ("x/a.mp4 0 30 0\ny z/d.ogv 30 60 1\n", ("path,_,_,label", "path,_,label,_")),
        ("x/a.mp4,0.5,9.5,1\ny z/d.ogv,0.5,2.5,0\n", ("path,_,_,label", "path,_,label,_")),
        ("x/a.mp4, 60, 0\ny z/d.ogv, 60, 1\n", ("path,_,label", "path,label,_")),
        ("v1,300,run\nv2,90,jump\n", ("path,_,label", "path,label,_")),
        ("v1 10 25 3\nv2 3 9 1\n", ("path,_,_,label", "path,_,label,_")),
        ("x;k;fps\nv1;2;30\nv2;0;25\n", ("path,_,label", "path,label,_")),
        ("x/a.mp4,run,fast\ny z/d.ogv,jump,slow\n", ("path,_,label", "path,label,_")),
        ("x/a 0 3\nx/b 1 4\n", ("path,_,label", "path,label,_")),
        ("7 9\n9 7\n", ("path,label", "label,path")),
        ("clip1,run\nclip2,jump\n", ("path,label", "label,path")),
    ],
)
def test_list_of_two_readings_is_refused_with_both_and_the_option_decides(
    tmp_path: Path, rows: str, options: tuple[str, str]
) -> None:
    touch(tmp_path, "7.mp4", "9.mp4")
    with pytest.raises(ValueError, match="may be") as refusal:
        path_list(tmp_path, rows).read()
    first, second = (f"data.columns=[{option}]" for option in options)
    assert first in str(refusal.value)
    assert second in str(refusal.value)
    assert str(refusal.value).count("of class") == 2


def test_columns_decide_what_a_column_is(tmp_path: Path) -> None:
    rows = "x/a.mp4 60 0\ny z/d.ogv 70 1\n"
    for columns in ("path,_,label", ["path", "_", "label"]):
        manifest = path_list(tmp_path, rows, columns=columns).read()
        assert shown(manifest) == [("x/a.mp4", 0), ("y z/d.ogv", 1)]
    header = "video,n,what\nx/a.mp4,60,0\n"
    assert shown(path_list(tmp_path, header, columns="path,_,label").read()) == [("x/a.mp4", 0)]
    for columns, message in (
        ("path,label", "columns names 2 columns, but .* line 1: 'x/a.mp4 60 0' has 3"),
        ("path,_", "has to name path and label"),
        ("path,label,fps", "it names each column of the list once"),
        ("path,label,label", "it names each column of the list once"),
    ):
        with pytest.raises(ValueError, match=message):
            path_list(tmp_path, rows, columns=columns).read()


def test_columns_may_be_named_by_a_header(tmp_path: Path) -> None:
    rows = "file,what,clip_name,label\nq,run,x/a.mp4,7\nr,jump,y z/d.ogv,9\n"
    columns = {"path": "clip_name", "label": "what"}
    manifest = path_list(tmp_path, rows, columns=columns).read()
    assert shown(manifest) == [("x/a.mp4", 1), ("y z/d.ogv", 0)]
    assert manifest.class_names == ("jump", "run")
    numbers = path_list(tmp_path, rows, columns=columns | {"label": "label"}, label_offset=7)
    assert shown(numbers.read()) == [("x/a.mp4", 0), ("y z/d.ogv", 2)]
    for columns, message in (
        ({"path": "clip", "label": "what"}, "no column 'clip' for path; its columns are 'file', "),
        ({"path": "file"}, "it has to name path and label"),
        ({"path": "file", "label": "what", "fps": "x"}, "it names each column of the list once"),
    ):
        with pytest.raises(ValueError, match=message):
            path_list(tmp_path, rows, columns=columns).read()
    with pytest.raises(ValueError, match="lists no videos, only a header"):
        path_list(tmp_path, "a,b\n", columns={"path": "a", "label": "b"}).read()


def test_labels_from_one_or_with_gaps_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = "x/a.mp4 1\ny z/d.ogv 3\n"
    assert path_list(tmp_path, rows).read().labels.tolist() == [1, 3]
    assert (
        "labels are 1 to 3, so that the head gets 4 outputs, 2 of them without a video, first: 0; "
        "data.label_offset=1 makes labels begin at 0"
    ) in caplog.text
    path_list(tmp_path, rows).read(("run", "jump", "walk", "swim"))
    assert (
        "no label is below 1, so that class 'run' has no video; if labels begin at 1" in caplog.text
    )
    shifted = path_list(tmp_path, rows, label_offset=1).read()
    assert shifted.labels.tolist() == [0, 2]
    assert shifted.class_names == ("0", "1", "2")
    with pytest.raises(ValueError, match=r"line 1: .* label 1, less than data\.label_offset=2"):
        path_list(tmp_path, rows, label_offset=2).read()
    with pytest.raises(ValueError, match=r"labels 0 to 2; they begin at 1, which data\.label_off"):
        path_list(tmp_path, rows).read(("run", "jump", "walk"))


def test_classes_without_any_video_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path_list(tmp_path, "x/a.mp4 0\ngone.mp4 1\ngone/too.mp4 2\nagain.mp4 0\n").read()
    assert "2 of the 3 classes that" in caplog.text
    assert "have none of their videos in" in caplog.text


def test_prefix_that_is_not_there_is_named(tmp_path: Path) -> None:
    for prefix in ("/nowhere/data/", "data/", "D:\\data\\"):
        source = path_list(tmp_path, f"{prefix}x/a.mp4 0\n", folder=str(tmp_path))
        with pytest.raises(FileNotFoundError, match=r"so remove .*data.* from the paths"):
            source.read()


def test_names_that_differ_in_more_than_the_suffix_are_not_taken(tmp_path: Path) -> None:
    touch(tmp_path, "AbC.mp4", "d.MP4", "d.Mp4")
    manifest = path_list(tmp_path, "abc.mp4 0\nd.mp4 0\nx/a.mp4 1\n").read()
    assert list(manifest.missing) == ["abc.mp4", "d.mp4"]


def test_list_of_slowfast_is_read_as_slowfast_does(tmp_path: Path) -> None:
    """Rows `path label`, separated by one space, and absolute or below the path prefix."""
    manifest = path_list(tmp_path, f"{tmp_path}/x/a.mp4 3\n{tmp_path}/y z/c 1.MP4 0\n").read()
    assert [manifest.path(i) for i in range(2)] == [
        f"{tmp_path}/x/a.mp4",
        f"{tmp_path}/y z/c 1.MP4",
    ]
    assert manifest.labels.tolist() == [3, 0]


def test_lists_of_mmaction2_are_read_as_mmaction2_does(tmp_path: Path) -> None:
    """Rows `path label`, `frame_dir total_frames label` and `frame_dir offset total label`."""
    for name, num_frames in (("v/1", 30), ("v/2 a", 12)):
        touch(tmp_path, *(f"{name}/img_{i:05}.jpg" for i in range(1, num_frames + 1)))
        touch(tmp_path, *(f"{name}/flow_x_{i:05}.jpg" for i in range(1, num_frames)))
    for rows in (
        "x/a.mp4 5\ny z/d.ogv 0\n",
        "v/1 30 5\nv/2 a 12 0\n",
        "v/1 29 5\nv/2 a 11 0\n",
        "v/1 0 30 5\nv/2 a 9 3 0\n",
    ):
        assert path_list(tmp_path, rows).read().labels.tolist() == [5, 0]


def write_frames(folder: Path, pattern: str, values: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, value in enumerate(values, 1):
        Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(folder / pattern.format(i))


def test_count_and_template_of_a_list_decide_which_frames_a_video_has(tmp_path: Path) -> None:
    write_frames(tmp_path / "v", "img_{:05}.jpg", range(0, 100, 10))
    write_frames(tmp_path / "v", "left_{:05}.jpg", range(200, 210))
    source = path_list(tmp_path, "v 4 6 1\nv 5 3 0\n", frame_template="img_{:05}.jpg")
    with pytest.raises(VideoDecodeError, match="pictures of several kinds"):
        open_video(tmp_path / "v")
    assert source.form == "folders of frames, their numbers and labels, separated by spaces, " + (
        "columns 1 and 4"
    )
    manifest = source.read()
    assert shown(manifest) == [("v/img_{:05}.jpg[4:10]", 1), ("v/img_{:05}.jpg[5:8]", 0)]
    for i, expected in enumerate(([40, 50, 60, 70, 80, 90], [50, 60, 70])):
        with open_video(manifest.path(i)) as video:
            frames = video.read(range(video.num_frames))
        assert np.abs(frames.mean(axis=(1, 2, 3)) - expected).max() < 2
    with_header = path_list(
        tmp_path, "frame_dir,total_frames,label\nv,7,1\n", frame_template="left_%05d.jpg"
    )
    assert shown(with_header.read()) == [("v/left_%05d.jpg[0:7]", 1)]
    named = path_list(tmp_path, "3 v 7 1\n", columns="_,path,num_frames,label").read()
    assert shown(named) == [("v[0:7]", 1)]
    with pytest.raises(ValueError, match="is no template of the names of frames"):
        path_list(tmp_path, "v 7 1\n", frame_template="left.jpg")


def test_numbers_beside_names_of_videos_are_not_taken_for_frames(tmp_path: Path) -> None:
    """Rows of a name and two labels look like a folder, a number of frames and a label."""
    with pytest.raises(ValueError, match=r"'x/a 3 7' would be a folder, .* x/a\.mp4\[0:3\] does"):
        path_list(tmp_path, "x/a 3 7\n").read()
    write_frames(tmp_path / "v", "{}.jpg", range(30))
    for rows in ("v 3 7\n", "v 7 30\n", "v 30 7 3\n"):
        with pytest.raises(ValueError, match=r"would be a folder, .* data\.columns, such as"):
            path_list(tmp_path, rows).read()
    manifest = path_list(tmp_path, "v 300 7\n", columns="path,num_frames,label").read()
    with pytest.raises(VideoDecodeError, match="the list says frames up to 300, the folder has 30"):
        open_video(manifest.path(0))


def test_quoted_names_of_classes_are_read(tmp_path: Path) -> None:
    rows = '"x/my, b.mp4" "long jump"\nx/a.mp4 run\n'
    assert path_list(tmp_path, rows).read().class_names == ("long jump", "run")
    with pytest.raises(ValueError, match="has a label of several words before the path"):
        path_list(tmp_path, "long jump x\nrun 2 y z\n").read()
