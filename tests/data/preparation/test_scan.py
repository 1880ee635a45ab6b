"""A scan decodes every video once, survives what it finds, and goes on where it stopped."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.videos import write_numbered_video

from video_mvit.data.lists.manifest import Manifest, PackedStrings
from video_mvit.data.preparation import scan as scan_module
from video_mvit.data.preparation.scan import (
    current_records,
    known_bad,
    scan,
    with_fingerprints,
)
from video_mvit.data.preparation.scan_report import ScannedVideo, ScanReport, read_scan_report
from video_mvit.data.reading.open import DecodeLimits

NAMES = ("a/one.mp4", "a/two.mp4", "b/bad.mp4")


def manifest_of(root: Path, *names: str, missing: tuple[str, ...] = ()) -> Manifest:
    return Manifest(
        root=str(root),
        names=PackedStrings.of(names),
        labels=np.zeros(len(names), np.int32),
        class_names=("a",),
        missing=PackedStrings.of(missing),
    )


def scanned(manifest: Manifest, path: Path) -> tuple[ScanReport, list[int]]:
    progress: list[int] = []
    scan_report = scan(
        manifest, path, num_workers=1, decode_limits=DecodeLimits(), on_progress=progress.append
    )
    return scan_report, progress


@pytest.fixture
def videos(tmp_path: Path) -> Manifest:
    write_numbered_video(tmp_path / "a/one.mp4", 20, fps=25)
    write_numbered_video(tmp_path / "a/two.mp4", 30, size=(48, 64))
    (tmp_path / "b").mkdir()
    (tmp_path / "b/bad.mp4").write_bytes(b"no video")
    return manifest_of(tmp_path, *NAMES, missing=("gone",))


def test_scan_records_what_every_video_is(videos: Manifest, tmp_path: Path) -> None:
    scan_report, progress = scanned(videos, tmp_path / "train.scan.jsonl")
    one, two, bad = (scan_report.records[name] for name in NAMES)
    assert (one.num_frames, one.fps, one.duration_s, one.codec) == (20, 25.0, 0.8, "h264")
    assert (two.num_frames, two.height, two.width, two.num_key_frames) == (30, 48, 64, 3)
    assert one.size == (tmp_path / NAMES[0]).stat().st_size
    assert (one.error, two.error) == (None, None)
    assert bad.error is not None
    assert scan_report.unreadable() == {"b/bad.mp4": bad.error}
    assert progress == [0, 1, 1, 1]
    assert read_scan_report(tmp_path / "train.scan.jsonl") == scan_report
    assert (scan_report.num_videos, scan_report.num_missing) == (3, 1)
    assert scan_report.list_sha1 == videos.digest()


def test_scan_again_reads_only_changed_and_unreadable_files(
    videos: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.scan.jsonl"
    scanned(videos, path)
    write_numbered_video(tmp_path / "a/two.mp4", 33)
    seen: list[str] = []
    real = scan_module.map_in_processes

    def watched(work: object, items: list[tuple[str, str]], **settings: object) -> object:
        seen.extend(name for name, _ in items)
        return real(work, items, **settings)

    monkeypatch.setattr(scan_module, "map_in_processes", watched)
    scan_report, progress = scanned(videos, path)
    assert seen == ["a/two.mp4", "b/bad.mp4"]
    assert progress == [1, 1, 1]
    assert scan_report.records["a/two.mp4"].num_frames == 33


def test_interrupted_scan_keeps_what_it_has(videos: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "train.scan.jsonl"

    def interrupt(num_videos: int) -> None:
        if num_videos:
            assert (
                len(read_scan_report(path).records) == 1
            )  # in the file, should the machine stop now
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(videos, path, num_workers=1, decode_limits=DecodeLimits(), on_progress=interrupt)
    assert len(read_scan_report(path).records) == 1
    assert scanned(videos, path)[1] == [1, 1, 1]


def write_scan_report(path: Path, *records: ScannedVideo, list_sha1: str = "x") -> Path:
    header = {"list_sha1": list_sha1, "num_videos": len(records), "num_missing": 0, "root": "/r"}
    fields = ({name: getattr(r, name) for name in ScannedVideo.__slots__} for r in records)
    path.write_text("".join(json.dumps(line) + "\n" for line in (header, *fields)))
    return path


def record(name: str, **values: object) -> ScannedVideo:
    return ScannedVideo(**{"name": name, "size": 3, "mtime_ns": 5, **values})


def test_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = write_scan_report(tmp_path / "train.scan.jsonl", record("a"), record("b"))
    path.write_bytes(path.read_bytes()[:-9])
    assert list(read_scan_report(path).records) == ["a"]


@pytest.mark.parametrize("damage", ["garbage", '{"name": "a"}', "[1]"])
def test_damage_in_the_middle_is_named_with_its_line(tmp_path: Path, damage: str) -> None:
    path = write_scan_report(tmp_path / "train.scan.jsonl", record("a"), record("b"))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], damage, lines[2], ""]))
    with pytest.raises(ValueError, match=r"train\.scan\.jsonl line 2 is not a record of a video"):
        read_scan_report(path)


def test_value_of_another_type_is_damage(tmp_path: Path) -> None:
    path = write_scan_report(tmp_path / "train.scan.jsonl", record("a", num_frames="many"))
    with pytest.raises(ValueError, match="line 2"):
        read_scan_report(path)


def test_other_files_are_no_scan_report(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("label,youtube_id\n")
    with pytest.raises(ValueError, match="is not a scan report: its first line is not JSON"):
        read_scan_report(tmp_path / "list.csv")
    with pytest.raises(FileNotFoundError, match="mode=scan writes it"):
        read_scan_report(tmp_path / "none.jsonl")


def test_second_scan_at_the_same_time_is_refused(videos: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "train.scan.jsonl"

    def start_another(num_videos: int) -> None:
        if num_videos:
            scanned(videos, path)

    with pytest.raises(ValueError, match="is being written by another scan"):
        scan(videos, path, num_workers=1, decode_limits=DecodeLimits(), on_progress=start_another)


def test_records_stay_and_apply_to_parts_of_the_list_alone(
    videos: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "train.scan.jsonl"
    scanned(videos, path)
    shorter = videos.take([2, 0])
    with caplog.at_level("INFO"):
        bad = known_bad(shorter, read_scan_report(path), 1.0)
        other = known_bad(replace(shorter, parents=frozenset()), read_scan_report(path), 1.0)
    assert (list(bad), other) == ([0], {})
    assert "made for another list" in caplog.text
    scanned(shorter, path)
    assert set(read_scan_report(path).records) == set(NAMES)


def test_bad_file_that_was_replaced_gets_another_chance(videos: Manifest, tmp_path: Path) -> None:
    scan_report, _ = scanned(videos, tmp_path / "train.scan.jsonl")
    assert list(known_bad(videos, scan_report, 1.0)) == [2]
    write_numbered_video(tmp_path / "b/bad.mp4", 10)
    assert known_bad(videos, scan_report, 1.0) == {}


def test_records_apply_to_the_same_video_in_a_shard(tmp_path: Path) -> None:
    same = manifest_of(tmp_path, "shard-000000.tar!512+30!a.mp4")
    other = manifest_of(tmp_path, "shard-000000.tar!512+31!a.mp4")
    path = tmp_path / "train.scan.jsonl"
    write_scan_report(path, record("a.mp4", error="torn", size=30), list_sha1=same.digest())
    assert known_bad(same, read_scan_report(path), 1.0) == {0: "torn"}
    assert known_bad(other, read_scan_report(path), 1.0) == {}
    assert current_records(same, path) == {}  # it may have been the machine: read again
    write_scan_report(path, record("a.mp4", size=30))
    assert (list(current_records(same, path)), current_records(other, path)) == (["a.mp4"], {})


def test_summary_says_how_much_of_which_kind() -> None:
    facts = {"width": 340, "height": 256, "codec": "h264", "num_frames": 300, "duration_s": 3600.0}
    records = [record(str(i), fps=30.0, num_key_frames=2, **facts) for i in range(81)]
    records += [record(f"b{i}", fps=25.0, num_key_frames=2, **facts) for i in range(12)]
    rates = (1, 2, 3, 4, 5, 6, 7)
    records += [record(f"c{i}", fps=float(i), num_key_frames=2, **facts) for i in rates]
    records += [record("bad", error="torn")]
    lines = ScanReport(
        list_sha1="x",
        num_videos=101,
        num_missing=3,
        root="/r",
        records={r.name: r for r in records},
    ).summary()
    assert lines[0] == "101 videos, 0.0 MB, 1 unreadable, 3 missing"
    assert lines[1] == "100.0 hours, 30,000 frames, a key frame every 150"
    assert lines[2] == "30 fps 81 %, 25 fps 12 %, 1 fps 1 %, other 6 %"
    assert lines[3:] == ["340x256 100 %", "h264 100 %"]


def test_fingerprints_are_recorded_and_apply_by_name(videos: Manifest, tmp_path: Path) -> None:
    scan_report, _ = scanned(videos, tmp_path / "train.scan.jsonl")
    reread = read_scan_report(tmp_path / "train.scan.jsonl")
    known = with_fingerprints(videos, reread)
    for i, name in enumerate(NAMES):
        is_good = not scan_report.records[name].error
        assert known.fingerprint(i) == reread.records[name].fingerprint
        assert (known.fingerprint(i) > 0) == is_good
    last = len(videos) - 1
    assert known.take([last]).fingerprint(0) == known.fingerprint(last)
    nothing = dataclasses.replace(reread, records={})  # keeps what shards say
    assert with_fingerprints(known, nothing).fingerprint(0) == known.fingerprint(0)


def test_report_without_fingerprints_is_read_and_a_wrong_one_is_damage(tmp_path: Path) -> None:
    path = write_scan_report(tmp_path / "train.scan.jsonl", record("a"))
    path.write_text(path.read_text().replace(', "fingerprint": 0', ""))
    assert read_scan_report(path).records["a"].fingerprint == 0
    for wrong in (-1, 2**63, "7"):
        write_scan_report(path, record("a", fingerprint=wrong))
        with pytest.raises(ValueError, match="line 2 is not a record of a video: 'fingerprint'"):
            read_scan_report(path)
