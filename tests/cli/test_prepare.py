"""video-mvit prepare on a small data set with a bad video: each mode runs and says what it did."""

import contextlib
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import DictConfig
from support.commands import composed as composed_of
from support.locks import held_by_another
from support.videos import Encoding, write_numbered_video

from video_mvit.cli.build import build
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.prepare import check, lock_of, part_of, prepare_split, read_splits
from video_mvit.data.reading.open import open_video

pytestmark = pytest.mark.slow  # a command as a whole, or networks of other libraries

WEBM = Encoding(codec="libvpx", options={"g": "12"})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Kinetics files and lists: three videos to train on, one of them bad, and two to test on."""
    folder = tmp_path / "k"
    for split, names in {"train": ("x", "y", "z"), "val": ("v", "w")}.items():
        rows = ["label,youtube_id,time_start,time_end,split"]
        for i, name in enumerate(names):
            write_numbered_video(folder / split / f"c{i % 2}" / f"{name}_000000_000001.mp4", 40)
            rows.append(f"c{i % 2},{name},0,1,{split}")
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")
    (folder / "train/c1/y_000000_000001.mp4").write_bytes(b"no video")
    return folder


def composed(root: Path, *overrides: str) -> DictConfig:
    values = [f"data.root={root}", "data.num_classes=2", "num_workers=1", *overrides]
    return composed_of("prepare", *values)


def run(cfg: DictConfig) -> dict[str, str]:
    """What each split says in the end."""
    check(cfg)
    said = {}
    for split, manifest in read_splits(cfg):
        place, lines = prepare_split(cfg, split, manifest, [].append)
        said[split] = "\n".join([str(place), *lines])
    return said


def test_scan_writes_a_scan_report_for_each_list_once(root: Path) -> None:
    said = run(composed(root))
    assert list(said) == ["train", "val"]  # the test list is the validation list
    assert said["train"].startswith(f"{root}/train.scan.jsonl\n3 videos, ")
    assert "1 unreadable, 0 missing" in said["train"]
    assert "unreadable: c1/y_000000_000001.mp4: " in said["train"]
    assert "2 videos, 0.0 MB, 0 unreadable" in said["val"]


@pytest.mark.parametrize("mode", ["scan", "transcode", "shards"])
def test_second_preparation_of_a_list_is_refused(root: Path, tmp_path: Path, mode: str) -> None:
    cfg = composed(root, f"mode={mode}", f"output={tmp_path}/out", "splits=[train]")
    lock = lock_of(cfg, "train")
    lock.parent.mkdir(exist_ok=True)
    before = sorted(root.iterdir())
    with (
        held_by_another(lock) as process,
        pytest.raises(
            ValueError, match=f"mode={mode} for train in .* by process {process.pid} on "
        ),
    ):
        run(cfg)
    assert {path for path in root.iterdir() if path != lock} == set(before)
    assert lock_of(composed(root, "mode=transcode", "output=x", "shard=1/2"), "train") != lock


def test_transcoded_videos_work_with_the_same_list(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "small"
    small = ("mode=transcode", f"output={output}", "transcode.short_side=32")
    said = run(composed(root, *small))
    assert "2 videos written, 0 were there, 1 bad" in said["train"]
    assert re.search(r"times faster; PSNR (\d+\.\d|inf) dB", said["train"])
    (output / "train.csv").write_bytes((root / "train.csv").read_bytes())
    cfg = composed(output, "splits=[train]")
    [(_, manifest)] = read_splits(cfg)
    assert (len(manifest), list(manifest.missing)) == (2, ["y_000000_000001"])
    with open_video(manifest.path(0)) as video:
        assert (video.num_frames, video.size) == (40, (32, 32))


@pytest.mark.parametrize(("name", "gop"), [("fast_decoding", 12), ("intra", 1)])
def test_each_profile_of_copies_is_a_choice(root: Path, name: str, gop: int) -> None:
    spec = build(composed(root, f"transcode={name}").transcode)
    assert (spec.short_side, spec.gop) == (256, gop)


def test_shards_leave_out_what_the_scan_report_calls_unreadable(root: Path, tmp_path: Path) -> None:
    run(composed(root))
    said = run(composed(root, "mode=shards", f"output={tmp_path}/shards"))
    assert "2 videos in 1 shards" in said["train"]
    assert "1 videos left out, first: c1/y_000000_000001.mp4: " in said["train"]
    assert f"to use them: the same command line with data.shards={tmp_path}/shards" in said["train"]
    (root / "train.csv").unlink()
    manifests = dict(read_splits(composed(root, f"data.shards={tmp_path}/shards")))
    assert [len(manifests[split]) for split in ("train", "val")] == [2, 2]
    with open_video(manifests["train"].path(1)) as video:
        assert video.num_frames == 40


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("mode=look",), "mode is 'look', expected one of scan, transcode, shards"),
        (
            ("splits=[train,holdout]",),
            "splits is ['train', 'holdout'], expected a list of one of train, val, test",
        ),
        (("mode=shards",), "mode=shards needs output=<folder to write to>"),
        (("num_workers=many",), "num_workers is 'many', expected int from 1 or null"),
        (("num_workers=0",), "num_workers is 0, expected int from 1 or null"),
        (("mode=transcode", "output=o", "shard=4/4"), "shard is '4/4', expected 0/n to n-1/n"),
        (("mode=transcode", "output=o", "transcode.gop=few"), "transcode.gop is 'few'"),
        (("decode_limits.time_s=-1",), "time_s -1 must be positive"),
        (("mode=shards", "output=o", "max_bytes=0"), "max_bytes is 0, expected int from 1"),
        (("mode=shards", "output=o", "max_bytes=abc"), "max_bytes is 'abc', expected int"),
        (("splits=val",), "splits is 'val', expected a list of one of train, val, test"),
    ],
)
def test_wrong_value_ends_in_one_sentence(
    root: Path, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with (
        contextlib.chdir(tmp_path),
        pytest.raises(SystemExit, match=r"^error: [^\n]*$") as error,
        exit_on_user_error(),
    ):
        run(composed(root, *overrides))
    assert message in str(error.value)


def test_part_of_a_job_array_counts_from_zero() -> None:
    assert part_of("3/64") == (3, 64)


def test_training_list_is_read_only_where_it_is_needed(root: Path, tmp_path: Path) -> None:
    (root / "train.csv").unlink()
    output = f"output={tmp_path}/out"
    assert list(run(composed(root, "splits=[val]"))) == ["val"]
    small = ("mode=transcode", output, "transcode.short_side=32")
    assert list(run(composed(root, "splits=[val]", *small))) == ["val"]
    with pytest.raises(FileNotFoundError, match=r"train\.csv"):
        run(composed(root, "splits=[val]", "mode=shards", output))


def test_test_split_goes_where_evaluation_looks_for_it(root: Path, tmp_path: Path) -> None:
    said = run(composed(root, "splits=[test]"))
    assert said["test"].startswith(f"{root}/val.scan.jsonl\n")
    run(composed(root, "splits=[test]", "mode=shards", f"output={tmp_path}/shards"))
    assert (tmp_path / "shards/val/index.json").exists()


@pytest.mark.parametrize("mode", ["transcode", "shards"])
def test_videos_in_shards_are_not_written_again(root: Path, tmp_path: Path, mode: str) -> None:
    run(composed(root, "splits=[val]", "mode=shards", f"output={tmp_path}/shards"))
    given = (f"data.shards={tmp_path}/shards", "splits=[val]", f"mode={mode}")
    (tmp_path / "shards/val").rename(tmp_path / "shards/train")
    (tmp_path / "shards/val").symlink_to(tmp_path / "shards/train")
    with pytest.raises(ValueError, match=rf"mode={mode} reads video files, but data\.shards names"):
        run(composed(root, *given, f"output={tmp_path}/out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", ["transcode", "shards"])
def test_folders_of_pictures_stay_as_they_are(root: Path, tmp_path: Path, mode: str) -> None:
    for name in ("v", "w"):
        video = next((root / "val").rglob(f"{name}_*.mp4"))
        video.unlink()
        video.with_suffix("").mkdir()
    with pytest.raises(ValueError, match=r"^2 of 2 videos in .*/val are folders of images, first"):
        run(composed(root, "splits=[val]", f"mode={mode}", f"output={tmp_path}/out"))
    assert not (tmp_path / "out").exists()


@contextlib.contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """A limit of this process on the size of files, which fails like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_ends_in_one_sentence(root: Path, tmp_path: Path) -> None:
    shards = composed(root, "splits=[val]", "mode=shards", f"output={tmp_path}/shards")
    with (
        files_of_at_most(5000),
        pytest.raises(ValueError, match=r"shards is full: File too large; free some space"),
    ):
        run(shards)
    assert list((tmp_path / "shards/val").iterdir()) == []
    with (
        files_of_at_most(100),
        pytest.raises(ValueError, match=r"k is full: File too large; free some space"),
    ):
        run(composed(root, "splits=[val]"))


def test_copies_of_a_list_of_paths_work_with_the_same_list(root: Path, tmp_path: Path) -> None:
    write_numbered_video(root / "val/c0/late.webm", 20, encoding=WEBM)
    rows = [f"{path.relative_to(root)} 0" for path in sorted((root / "val").rglob("*.*"))]
    (root / "train.txt").write_text("\n".join(rows))
    own = ("data=custom", "data.num_classes=1", "splits=[train]")
    lists = f"data.train_list={root}/train.txt"
    small = ("mode=transcode", f"output={tmp_path}/out", "transcode.short_side=32")
    said = run(composed(root, *own, lists, *small))
    assert "3 videos written" in said["train"]
    assert f"data.root={tmp_path}/out; absolute paths in a list would" in said["train"]
    (tmp_path / "out/train.txt").write_bytes((root / "train.txt").read_bytes())
    [(_, manifest)] = read_splits(composed(tmp_path / "out", *own))
    assert "val/c0/late.mp4" in manifest.names
    assert (len(manifest), len(manifest.missing)) == (3, 0)
