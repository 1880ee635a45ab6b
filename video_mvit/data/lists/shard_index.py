"""The index of tar shards: `index.json` beside them, else what their headers say.

All of it is checked before it is used: an index may come from anywhere.
"""

import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import fsspec
import numpy as np

from video_mvit.data.lists.manifest import Manifest, PackedStrings
from video_mvit.data.lists.text import MAX_UNNAMED_CLASSES, is_number
from video_mvit.data.reading.formats import VIDEO_SUFFIXES
from video_mvit.data.reading.header_index import MAX_FINGERPRINT, UNKNOWN
from video_mvit.data.reading.reader import first_line
from video_mvit.data.reading.remote import client_errors_as_os_errors, open_address, read_bytes
from video_mvit.errors import MissingFileError, UserError
from video_mvit.schema import (
    MismatchError,
    anything,
    optional,
    parse_json,
    record,
    row,
    sequence,
    table,
    text,
    whole,
)

INDEX = "index.json"
BLOCK = tarfile.BLOCKSIZE
LABEL_SUFFIXES = ("cls", "json")
NOT_ON_DISK = "not on disk"
MAX_LABEL = MAX_UNNAMED_CLASSES - 1
MAX_FACTS = 2**20  # bytes of a label or metadata
LABEL, OBJECT = whole(0, MAX_LABEL), table(anything)
INDEX_FIELDS = record(
    {
        "shards": sequence(row(text(), whole())),
        "videos": sequence(row(whole(), whole(), whole(1), text(), LABEL)),
        "class_names": optional(sequence(text(), low=1)),
        "list_sha1": optional(text()),
        "left_out": table(text()),
        "fingerprints": sequence(whole(UNKNOWN, MAX_FINGERPRINT)),
    }
)
# Of a damaged header; a mistake of the user's passes.
TAR_ERRORS = (tarfile.TarError, OverflowError, UnicodeError, MemoryError, RecursionError)


class ShardedVideo(NamedTuple):
    """Location of a video, byte `offset` of shard number `shard`, and its label."""

    shard: int
    offset: int
    size: int
    name: str
    label: int


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """Contents of a folder of shards; `shards` are (file name, bytes).

    `left_out` are listed videos that are in no shard, with the reason; `class_names` is None if
    only numbers are known. `fingerprints` are of the videos' indices of packets, if known (see
    `data.reading.header_index`).
    """

    shards: Sequence[tuple[str, int]]
    videos: Sequence[ShardedVideo]
    class_names: Sequence[str] | None
    list_sha1: str | None
    left_out: Mapping[str, str]
    fingerprints: Sequence[int] = ()

    def summary(self) -> list[str]:
        """Summarize videos, shards and excluded videos in lines."""
        num_bytes = sum(size for _, size in self.shards)
        lines = [
            f"{len(self.videos):,} videos in {len(self.shards):,} shards, {num_bytes / 1e6:,.1f} MB"
        ]
        if self.left_out:
            name, reason = next(iter(self.left_out.items()))
            lines.append(f"{len(self.left_out):,} videos left out, first: {name}: {reason}")
        return lines


def read_index(address: str) -> ShardIndex:
    """Read the index of shards and check it against their sizes; scan shards without one."""
    sizes = _shard_sizes(address)
    try:
        content = read_bytes(f"{address}/{INDEX}")
    except FileNotFoundError:
        return _walk(address, sizes)
    index = _parse_index(f"{address}/{INDEX}", content)
    for name, size in index.shards:
        if sizes.get(name) != size:
            found = f"has {sizes[name]}" if name in sizes else "is not there"
            raise UserError(f"{address}/{name} {found}, but {INDEX} says {size} bytes")
    for video in index.videos:
        if video.offset + video.size > index.shards[video.shard][1]:
            raise UserError(f"{address}/{INDEX}: {video.name!r} is beyond the end of its shard")
    return index


def _parse_index(path: str, content: bytes) -> ShardIndex:
    try:
        fields = INDEX_FIELDS(_with_fingerprints(parse_json(content)))
        index = ShardIndex(**{**fields, "videos": [ShardedVideo(*v) for v in fields["videos"]]})
        _check_index(index)
    except MismatchError as error:
        raise UserError(f"{path} is not an index of shards, or is damaged: {error}") from None
    return index


def _with_fingerprints(content: Any) -> Any:
    """Add what an index of an earlier version lacks."""
    return {"fingerprints": [], **content} if isinstance(content, Mapping) else content


def _check_index(index: ShardIndex) -> None:
    """Raise `MismatchError` for an index that contradicts itself."""
    if len(index.fingerprints) not in (0, len(index.videos)):
        raise MismatchError(
            f"it has {len(index.fingerprints)} fingerprints of {len(index.videos)} videos"
        )
    num_classes = MAX_LABEL + 1 if index.class_names is None else len(index.class_names)
    for number, video in enumerate(index.videos, 1):
        if video.shard >= len(index.shards):
            raise MismatchError(f"video {number} is in shard {video.shard} of {len(index.shards)}")
        if video.label >= num_classes:
            raise MismatchError(f"video {number} has label {video.label} of {num_classes} classes")
    if len({video.name for video in index.videos}) < len(index.videos):
        raise MismatchError("two videos have one name")
    is_whole = all(reason == NOT_ON_DISK for reason in index.left_out.values())
    if index.list_sha1 is None or index.class_names is None or not is_whole:
        return
    listed = Manifest(
        root="",
        names=PackedStrings.of(video.name for video in index.videos),
        labels=np.array([video.label for video in index.videos], np.int32),
        class_names=tuple(index.class_names),
    )
    if listed.digest() != index.list_sha1:
        raise MismatchError("its videos are not those of the list that it was made of")


def _shard_sizes(address: str) -> dict[str, int]:
    """Return the size of each shard below an address, by file name, sorted."""
    try:
        with client_errors_as_os_errors():
            files, root = fsspec.core.url_to_fs(address)
            found = files.ls(root, detail=True)
            sizes = {  # directory listings of web servers have no sizes
                entry["name"].rpartition("/")[2]: entry["size"] or files.size(entry["name"])
                for entry in found
                if entry["name"].endswith(".tar")
            }
    except (ValueError, ImportError) as error:  # unknown protocol, or its package is missing
        raise UserError(f"{address}: {error}") from None
    except (FileNotFoundError, NotADirectoryError):
        sizes = {}
    if not sizes:
        raise MissingFileError(f"{address} contains no shards (*.tar)")
    return dict(sorted(sizes.items()))


def _walk(address: str, sizes: Mapping[str, int]) -> ShardIndex:
    """Index shards of other programs; raises `UserError` for a member that is not a video.

    Keys may repeat in every shard, so a video without a name is called `<shard
    stem>/<key>.<suffix>`.
    """
    videos: list[ShardedVideo] = []
    class_names: dict[int, str] = {}
    for number, (shard, size) in enumerate(sizes.items()):
        for key, members in _samples(f"{address}/{shard}", size).items():
            kinds = (suffix.lstrip(".") for suffix in VIDEO_SUFFIXES)
            suffix = next((kind for kind in kinds if kind in members), None)
            if suffix is None:
                raise UserError(f"{address}/{shard}: {key!r} has no video file")
            facts = _facts(f"{address}/{shard}", key, members)
            offset, length = members[suffix]
            name = str(facts.get("name", f"{shard.removesuffix('.tar')}/{key}.{suffix}"))
            label = facts["label"]
            videos.append(ShardedVideo(number, offset, length, name, label))
            if "class_name" in facts:
                class_names[label] = str(facts["class_name"])
    _check_names_differ(address, list(sizes), videos)
    labels = {video.label for video in videos}
    is_named = sorted(class_names) == list(range(max(labels, default=-1) + 1))
    return ShardIndex(
        shards=list(sizes.items()),
        videos=videos,
        class_names=[class_names[i] for i in sorted(class_names)] if is_named else None,
        list_sha1=None,
        left_out={},
    )


def _samples(path: str, size: int) -> dict[str, dict[str, tuple[int, int]]]:
    """Return (offset, size) of the members of a shard by key and suffix, split at the first dot."""
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    last = -1
    try:
        with (
            client_errors_as_os_errors(),
            open_address(path) as file,
            tarfile.open(fileobj=file, mode="r:") as tar,
        ):
            for member in tar:
                folder, _, base = member.name.rpartition("/")
                key, _, suffix = base.partition(".")
                if member.offset_data <= last:
                    raise UserError(f"{path} is not a tar file, or is damaged: members go back")
                last = member.offset_data
                if member.isfile() and key:
                    sample = samples.setdefault(f"{folder}/{key}".lstrip("/"), {})
                    if suffix.lower() in sample:
                        raise UserError(f"{path}: {member.name!r} occurs twice")
                    sample[suffix.lower()] = (member.offset_data, member.size)
            end = tar.offset
    except TAR_ERRORS as error:
        raise UserError(f"{path} is not a tar file, or is damaged: {first_line(error)}") from None
    if size < end + BLOCK:
        raise UserError(f"{path} is truncated: it has no end mark")
    return samples


def _check_names_differ(
    address: str, shards: Sequence[str], videos: Sequence[ShardedVideo]
) -> None:
    first: dict[str, ShardedVideo] = {}
    for video in videos:
        if (other := first.setdefault(video.name, video)) is not video:
            raise UserError(
                f"{address}: {shards[other.shard]} and {shards[video.shard]} both have a video "
                f"named {video.name!r}; names must be unique"
            )


def _facts(path: str, key: str, members: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """Read the metadata beside a video; `label` is always present."""
    for kind in LABEL_SUFFIXES:
        if kind in members and members[kind][1] > MAX_FACTS:
            raise UserError(f"{path}: the .{kind} of {key!r} has more than {MAX_FACTS:,} bytes")
    contents = {
        kind: read_bytes(path, *members[kind]) for kind in LABEL_SUFFIXES if kind in members
    }
    try:
        facts = dict(OBJECT(parse_json(contents.get("json", b"{}"))))
        number = contents["cls"].decode("ascii").strip() if "cls" in contents else facts["label"]
        if isinstance(number, str) and is_number(number):
            number = int(number)
        facts["label"] = LABEL(number)
        for name in ("name", "class_name"):
            if name in facts:
                text()(facts[name])
    except (ValueError, KeyError):  # a mismatch, too
        raise UserError(
            f"{path}: {key!r} has no label from 0 to {MAX_LABEL:,} in .cls or .json, or a name "
            "that is no text"
        ) from None
    return facts
