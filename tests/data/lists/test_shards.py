"""Videos in tar shards: the same bytes, labels and counts as in the folder they came from."""

import dataclasses
import io
import json
import os
import resource
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from video_mvit.data.lists.manifest import Manifest, PackedStrings
from video_mvit.data.lists.shards import ShardIndex, ShardSource, plan_shards, write_shards
from video_mvit.data.reading import remote
from video_mvit.data.reading.tar_members import is_member, read_member

CONTENTS = {f"c{i % 2}/v{i}.mp4": bytes([i]) * (1000 * i + 1) for i in range(5)}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    for name, content in CONTENTS.items():
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Manifest(
        root=str(tmp_path / "videos"),
        names=PackedStrings.of(CONTENTS),
        labels=np.array([0, 1, 0, 1, 0], np.int32),
        class_names=("even", "odd"),
        missing=PackedStrings.of(["c0/gone.mp4"]),
    )


def written(
    manifest: Manifest, output: Path, max_bytes: int = 8000, **settings: object
) -> ShardIndex:
    defaults = {"left_out": {}, "on_progress": [].append}
    return write_shards(manifest, output, max_bytes=max_bytes, **{**defaults, **settings})


def content_of(manifest: Manifest) -> dict[str, bytes]:
    return {
        manifest.names[i].rpartition("!")[2]: read_member(manifest.path(i))
        for i in range(len(manifest))
    }


def test_shards_give_back_every_byte_label_and_name(manifest: Manifest, tmp_path: Path) -> None:
    index = written(manifest, tmp_path / "shards")
    found = ShardSource(address=str(tmp_path / "shards")).read()
    assert content_of(found) == CONTENTS
    assert found.labels.tolist() == manifest.labels.tolist()
    assert found.class_names == manifest.class_names
    assert found.digest() == manifest.digest() == index.list_sha1
    assert list(found.missing) == ["c0/gone.mp4"]
    assert len(index.shards) == 4
    assert all(is_member(found.path(i)) for i in range(5))


def test_shards_are_tar_files_in_webdataset_form(manifest: Manifest, tmp_path: Path) -> None:
    written(manifest, tmp_path / "shards")
    members = {}
    for path in sorted((tmp_path / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            members |= {member.name: tar.extractfile(member).read() for member in tar}
            assert {member.mtime for member in tar.getmembers()} == {0}
    assert members["00000003.mp4"] == CONTENTS["c1/v3.mp4"]
    assert members["00000003.cls"] == b"1"
    assert json.loads(members["00000003.json"]) == {
        "name": "c1/v3.mp4",
        "label": 1,
        "class_name": "odd",
    }
    assert len(members) == 15


def test_same_list_gives_the_same_bytes(manifest: Manifest, tmp_path: Path) -> None:
    for folder in ("x", "y"):
        written(manifest, tmp_path / folder)
    for path in (tmp_path / "x").iterdir():
        assert path.read_bytes() == (tmp_path / "y" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([4, 4, 4], [(0, 2), (2, 3)]),
        ([20, 4, 20], [(0, 1), (1, 2), (2, 3)]),
        ([5, 5], [(0, 2)]),
    ],
)
def test_shards_are_filled_up_to_their_size(
    sizes: list[int], expected: list[tuple[int, int]]
) -> None:
    assert [(part.start, part.stop) for part in plan_shards(sizes, 10)] == expected


def test_videos_left_out_are_listed_with_their_reason(manifest: Manifest, tmp_path: Path) -> None:
    index = written(manifest, tmp_path / "shards", left_out={1: "torn"})
    found = ShardSource(address=str(tmp_path / "shards")).read()
    assert "c1/v1.mp4" not in content_of(found)
    assert found.labels.tolist() == [0, 0, 1, 0]
    assert list(found.missing) == ["c1/v1.mp4", "c0/gone.mp4"]
    assert index.left_out == {"c1/v1.mp4": "torn", "c0/gone.mp4": "not on disk"}


def test_finished_shards_are_not_written_over(manifest: Manifest, tmp_path: Path) -> None:
    written(manifest, tmp_path / "shards")
    with pytest.raises(ValueError, match="already contains finished shards"):
        written(manifest, tmp_path / "shards")


def test_interrupted_writing_keeps_finished_shards(manifest: Manifest, tmp_path: Path) -> None:
    output, times = tmp_path / "shards", []

    def stop(num_videos: int) -> None:
        times.append(num_videos)
        if len(times) == 3:  # what was left out, and two shards
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(manifest, output, on_progress=stop)
    before = {path.name: path.stat().st_ino for path in output.iterdir()}
    assert sorted(before) == ["shard-000000.tar", "shard-000001.tar"]
    damaged = bytearray((output / "shard-000001.tar").read_bytes())
    place = damaged.index(b'"class_name"')
    damaged[place + 3 : place + 6] = b"xxx"
    (output / "shard-000001.tar").write_bytes(damaged)
    written(manifest, output)
    assert (output / "shard-000000.tar").stat().st_ino == before["shard-000000.tar"]
    assert (output / "shard-000001.tar").stat().st_ino != before["shard-000001.tar"]
    assert content_of(ShardSource(address=str(output)).read()) == CONTENTS


def test_shards_of_something_else_are_not_mixed_in(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/shard-000009.tar").touch()
    with pytest.raises(ValueError, match=r"shard-000009\.tar, which is not a shard of this list"):
        written(manifest, tmp_path / "shards")


def test_remote_address_reads_like_a_folder(manifest: Manifest, tmp_path: Path) -> None:
    written(manifest, tmp_path / "shards")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "shards") + "/", "/bucket/train", recursive=True)
    found = ShardSource(address="memory://bucket/train/").read()
    assert found.root == "memory://bucket/train"
    assert content_of(found) == CONTENTS
    memory.rm("/bucket/train/index.json")
    assert content_of(ShardSource(address="memory://bucket/train").read()) == CONTENTS


def test_order_of_classes_follows_the_training_list(manifest: Manifest, tmp_path: Path) -> None:
    written(manifest, tmp_path / "shards")
    source = ShardSource(address=str(tmp_path / "shards"))
    assert source.read(("odd", "new", "even")).labels.tolist() == [2, 0, 2, 0, 2]
    with pytest.raises(ValueError, match="class 'even' is not among the 1 of the data set"):
        source.read(("odd",))


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_shards_without_index_are_walked(tmp_path: Path) -> None:
    others = {"x/7.mp4": b"seven", "x/7.cls": b"2", "x/8.cls": b"0\n", "x/8.webm": b"8"}
    write_tar(tmp_path / "w/b.tar", others)
    write_tar(tmp_path / "w/a.tar", {"9.json": b'{"label": 1}', "9.mp4": b"nine"})
    found = ShardSource(address=str(tmp_path / "w")).read()
    assert content_of(found) == {"a/9.mp4": b"nine", "b/x/7.mp4": b"seven", "b/x/8.webm": b"8"}
    assert found.labels.tolist() == [1, 2, 0]
    assert found.class_names == ("0", "1", "2")
    named = ShardSource(address=str(tmp_path / "w")).read(("p", "q", "r"))
    assert (named.labels.tolist(), named.class_names) == ([1, 2, 0], ("p", "q", "r"))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"7.mp4": b"seven"}, "'7' has no label from 0 to"),
        ({"7.mp4": b"seven", "7.cls": b"cat"}, "'7' has no label from 0 to"),
        ({"7.txt": b"seven", "7.cls": b"1"}, "'7' has no video file"),
    ],
)
def test_walked_shard_must_have_videos_with_labels(
    tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    write_tar(tmp_path / "w/a.tar", members)
    with pytest.raises(ValueError, match=message):
        ShardSource(address=str(tmp_path / "w")).read()


@pytest.mark.parametrize("cut", [1024, 3000])
def test_truncated_shard_is_named(manifest: Manifest, tmp_path: Path, cut: int) -> None:
    written(manifest, tmp_path / "shards", max_bytes=10**6)
    found = ShardSource(address=str(tmp_path / "shards")).read()
    shard = tmp_path / "shards/shard-000000.tar"
    shard.write_bytes(shard.read_bytes()[:cut])
    with pytest.raises(ValueError, match=rf"shard-000000\.tar has {cut}, but index\.json says"):
        ShardSource(address=str(tmp_path / "shards")).read()
    with pytest.raises(OSError, match="ends before the end of this video"):
        read_member(found.path(4))
    (tmp_path / "shards/index.json").unlink()
    with pytest.raises(ValueError, match=r"shard-000000\.tar (is truncated|is not a tar file)"):
        ShardSource(address=str(tmp_path / "shards")).read()


def test_shard_that_is_gone_is_named(manifest: Manifest, tmp_path: Path) -> None:
    written(manifest, tmp_path / "shards")
    (tmp_path / "shards/shard-000001.tar").unlink()
    with pytest.raises(ValueError, match=r"shard-000001\.tar is not there"):
        ShardSource(address=str(tmp_path / "shards")).read()


@pytest.mark.parametrize(
    ("address", "kind", "message"),
    [
        ("nowhere://x", ValueError, "nowhere://x: Protocol not known"),
        ("/no/such/folder", FileNotFoundError, "/no/such/folder contains no shards"),
        ("memory://nothing", FileNotFoundError, "memory://nothing contains no shards"),
    ],
)
def test_wrong_address_is_one_sentence(address: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        ShardSource(address=address).read()


@pytest.mark.parametrize("content", [b"{}", b"not json", b"[]"])
def test_damaged_index_is_named(manifest: Manifest, tmp_path: Path, content: bytes) -> None:
    written(manifest, tmp_path / "shards")
    (tmp_path / "shards/index.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"index\.json is not an index of shards"):
        ShardSource(address=str(tmp_path / "shards")).read()


def test_folders_of_pictures_do_not_go_into_shards(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "videos/c0/v0.mp4").unlink()
    (tmp_path / "videos/c0/v0.mp4").mkdir()
    with pytest.raises(ValueError, match=r"v0\.mp4 is not a file; shards contain video files only"):
        written(manifest, tmp_path / "shards")


def test_keys_that_begin_again_in_every_shard_give_different_names(tmp_path: Path) -> None:
    for shard in ("train-0", "train-1"):
        members = {"0.mp4": shard.encode(), "0.cls": b"0", "1.mp4": b"x", "1.cls": b"1"}
        write_tar(tmp_path / f"w/{shard}.tar", members)
    found = ShardSource(address=str(tmp_path / "w")).read()
    expected = {"train-0/0.mp4": b"train-0", "train-1/0.mp4": b"train-1"}
    assert content_of(found) == expected | {f"train-{i}/1.mp4": b"x" for i in range(2)}


def test_names_that_repeat_are_refused(tmp_path: Path) -> None:
    for shard in ("a", "b"):
        about = b'{"name": "archery/v.mp4", "label": 0}'
        write_tar(tmp_path / f"w/{shard}.tar", {"0.mp4": b"x", "0.json": about})
    with pytest.raises(ValueError, match=r"a\.tar and b\.tar both have a video named 'archery/v\."):
        ShardSource(address=str(tmp_path / "w")).read()


def test_member_that_repeats_in_a_shard_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "w/a.tar", {"0.mp4": b"x", "0.cls": b"0"})
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo("0.mp4"))
    with pytest.raises(ValueError, match=r"a\.tar: '0\.mp4' occurs twice"):
        ShardSource(address=str(tmp_path / "w")).read()


def test_reasons_of_videos_left_out_are_logged(
    manifest: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "shards"
    written(manifest, folder, left_out={1: "torn", 2: "empty"})
    ShardSource(address=str(folder)).read()
    assert caplog.messages == [
        f"{folder}: 1 videos were not on disk when the shards were written",
        f"{folder}: 2 videos were unreadable when the shards were written, first: c1/v1.mp4: torn",
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt, "EFBIG"])
def test_writing_that_ends_early_leaves_no_half_of_a_file(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: object
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if error == "EFBIG":
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))  # fails like a full disk
    else:
        monkeypatch.setattr(os, "fsync", interrupt)
    try:
        with pytest.raises((KeyboardInterrupt, OSError)):
            written(manifest, tmp_path / "shards")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "shards").iterdir()) == []


def interrupt(_: int) -> None:
    raise KeyboardInterrupt


class ClientError(Exception):
    """What a storage client raises: no `OSError`."""


class Disturbed:
    """The requests of an address, of which the next few fail."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.pauses_s: list[float] = []
        self.extra = b""


@pytest.fixture
def disturbed(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Disturbed]:
    """Shards at memory://disturbed; their client's errors are those of aiohttp by name."""
    state, whole = Disturbed(), MemoryFileSystem.cat_file

    def cat_file(self: MemoryFileSystem, path: str, **limits: object) -> bytes:
        if state.failures:
            raise state.failures.pop(0)
        return whole(self, path, **limits) + state.extra

    written(manifest, tmp_path / "shards")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "shards") + "/", "/disturbed", recursive=True)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    monkeypatch.setattr(remote.time, "sleep", state.pauses_s.append)
    client = type(sys)("aiohttp")
    client.ClientError = ClientError
    monkeypatch.setitem(sys.modules, "aiohttp", client)
    yield state
    memory.rm("/disturbed", recursive=True)


def test_short_disturbance_is_waited_out(disturbed: Disturbed) -> None:
    found = ShardSource(address="memory://disturbed").read()
    disturbed.failures += [ClientError("Server disconnected"), TimeoutError("slow")]
    assert content_of(found) == CONTENTS
    assert disturbed.pauses_s == [0.5, 2.0]


def test_lasting_disturbance_is_an_os_error(disturbed: Disturbed) -> None:
    found = ShardSource(address="memory://disturbed").read()
    disturbed.failures += [ClientError("Server disconnected")] * 3
    with pytest.raises(OSError, match="ClientError: Server disconnected"):
        read_member(found.path(0))
    disturbed.failures += [ClientError("Server disconnected")] * 3
    with pytest.raises(ValueError, match="memory://disturbed cannot be read: ClientError: Server"):
        ShardSource(address="memory://disturbed").read()


def test_refusal_is_not_asked_again(disturbed: Disturbed) -> None:
    found = ShardSource(address="memory://disturbed").read()
    disturbed.failures += [PermissionError("forbidden")]
    with pytest.raises(PermissionError, match="forbidden"):
        read_member(found.path(0))
    assert disturbed.pauses_s == []


def test_server_that_ignores_the_range_is_refused(disturbed: Disturbed) -> None:
    found = ShardSource(address="memory://disturbed").read()
    disturbed.extra = b"more"
    with pytest.raises(OSError, match="sends more than the requested range"):
        read_member(found.path(0))


def test_sizes_that_a_listing_does_not_say_are_asked_for(
    disturbed: Disturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not disturbed.failures
    whole = MemoryFileSystem.ls

    def without_sizes(self: MemoryFileSystem, path: str, **options: object) -> list[object]:
        return [entry | {"size": None} for entry in whole(self, path, **options)]

    monkeypatch.setattr(MemoryFileSystem, "ls", without_sizes)
    assert content_of(ShardSource(address="memory://disturbed").read()) == CONTENTS


def test_fingerprints_of_indices_travel_with_their_videos(
    manifest: Manifest, tmp_path: Path
) -> None:
    known = dataclasses.replace(manifest, fingerprints=np.array([11, 0, 13, 14, 15]))
    written(known, tmp_path / "shards", left_out={1: "torn"})
    found = ShardSource(address=str(tmp_path / "shards")).read()
    assert [found.fingerprint(i) for i in range(4)] == [11, 13, 14, 15]
    assert [found.take([2, 0]).fingerprint(i) for i in range(2)] == [14, 11]
    written(manifest, tmp_path / "unknown")
    assert ShardSource(address=str(tmp_path / "unknown")).read().fingerprint(3) == 0


@pytest.mark.parametrize("wrong", [[1, 2], [1, 2, 3, 4, -5], [1, 2, 3, 4, "5"], [2**63] * 5])
def test_fingerprints_that_cannot_be_are_one_sentence(
    manifest: Manifest, tmp_path: Path, wrong: list[object]
) -> None:
    written(manifest, tmp_path / "shards")
    path = tmp_path / "shards/index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fingerprints": wrong}))
    with pytest.raises(ValueError, match=r"index\.json is not an index of shards"):
        ShardSource(address=str(tmp_path / "shards")).read()


def test_index_of_an_earlier_version_is_read(manifest: Manifest, tmp_path: Path) -> None:
    written(manifest, tmp_path / "shards")
    path = tmp_path / "shards/index.json"
    content = json.loads(path.read_text())
    del content["fingerprints"]
    path.write_text(json.dumps(content))
    assert content_of(ShardSource(address=str(tmp_path / "shards")).read()) == CONTENTS
