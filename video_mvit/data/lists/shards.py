"""Videos in tar shards (webdataset format), on disk or behind any fsspec address.

Each video has three members: `<key>.<suffix>` (its bytes), `<key>.cls` (its label) and `<key>.json`
(its name, label and class). `index.json` beside the shards stores the offset of each video, so that
one is read with a single seek, and none is duplicated or lost. Shards without an index, as written
by other programs, are scanned header by header.
"""

import json
import logging
import shutil
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from video_mvit.data.lists.division import Division
from video_mvit.data.lists.manifest import SHARD_PLACE, Manifest, ManifestSource, PackedStrings
from video_mvit.data.lists.shard_index import (
    BLOCK,
    INDEX,
    NOT_ON_DISK,
    ShardedVideo,
    ShardIndex,
    read_index,
)
from video_mvit.data.reading.reader import first_line
from video_mvit.data.reading.remote import FINAL
from video_mvit.errors import UserError
from video_mvit.files import replace_atomically

logger = logging.getLogger(__name__)

RECORD = tarfile.RECORDSIZE


@dataclass(frozen=True, kw_only=True)
class ShardSource:
    """Videos in the shards below `address`, a folder or an fsspec URL such as `s3://bucket/train`.

    Reading raises `UserError` or `FileNotFoundError` if shards and index do not match.
    """

    address: str

    def read(self, class_names: Sequence[str] | None = None) -> Manifest:
        address = self.address.rstrip("/")
        try:
            index = read_index(address)
        except FINAL:
            raise
        except OSError as error:
            raise UserError(f"{address} cannot be read: {first_line(error)}") from error
        _log_left_out(address, index.left_out)
        labels = np.array([video.label for video in index.videos], np.int64)
        names = index.class_names or _numbers(labels, class_names)
        if class_names is not None:
            labels = _reorder(labels, names, class_names, address)
        return Manifest(
            root=address,
            names=PackedStrings.of(
                f"{index.shards[shard][0]}!{offset}+{size}!{name}"
                for shard, offset, size, name, _ in index.videos
            ),
            labels=labels.astype(np.int32),
            class_names=tuple(names if class_names is None else class_names),
            missing=PackedStrings.of(index.left_out),
            fingerprints=np.array(index.fingerprints, np.int64) if index.fingerprints else None,
        )


def plan_shards(sizes: Sequence[int], max_bytes: int) -> list[range]:
    """Split videos of these sizes, in order, into shards of at most `max_bytes`.

    A larger video gets its own shard. Raises `UserError` if `max_bytes` is not positive.
    """
    if max_bytes < 1:
        raise UserError(f"max_bytes {max_bytes} must be positive")
    starts, filled = [0], 0
    for i, size in enumerate(sizes):
        if filled and filled + size > max_bytes:
            starts.append(i)
            filled = 0
        filled += size
    stops = [*starts[1:], len(sizes)]
    return [range(start, stop) for start, stop in zip(starts, stops, strict=True) if stop > start]


def write_shards(
    manifest: Manifest,
    output: Path,
    *,
    left_out: Mapping[int, str],
    max_bytes: int,
    on_progress: Callable[[int], None],
) -> ShardIndex:
    """Write the videos of a list as shards with an index below `output`, deterministically.

    `left_out` are videos to exclude, by index, with the reason. The index is written last: a folder
    with one is complete, and is never written to. Finished shards of an interrupted run are kept.
    `on_progress` receives the number of newly finished videos. Raises `UserError` if list or folder
    are unsuitable, `OSError` if a file cannot be read or written.
    """
    if (output / INDEX).exists():
        raise UserError(f"{output} already contains finished shards; choose another folder")
    chosen = [i for i in range(len(manifest)) if i not in left_out]
    videos = [_members_of(manifest, i) for i in chosen]
    sizes = [sum(member.space for member in members) for members in videos]
    plan = plan_shards(sizes, max_bytes)
    output.mkdir(parents=True, exist_ok=True)
    names = [f"shard-{number:06d}.tar" for number in range(len(plan))]
    if extra := sorted({path.name for path in output.glob("*.tar")} - set(names)):
        raise UserError(f"{output} holds {extra[0]}, which is not a shard of this list; remove it")
    on_progress(len(left_out))
    shards, placed = [], []
    for number, (name, part) in enumerate(zip(names, plan, strict=True)):
        members = [member for i in part for member in videos[i]]
        offsets = _offsets(members)
        if not _holds(output / name, members, offsets):
            _write_shard(output / name, members)
        shards.append((name, _tar_size(members)))
        for place, i in enumerate(part):
            size, own = videos[i][0].size, SHARD_PLACE.sub("", manifest.names[chosen[i]])
            label = int(manifest.labels[chosen[i]])
            placed.append(ShardedVideo(number, offsets[3 * place], size, own, label))
        on_progress(len(part))
    absent = {manifest.names[i]: reason for i, reason in left_out.items()}
    index = ShardIndex(
        shards=shards,
        videos=placed,
        class_names=manifest.class_names,
        list_sha1=manifest.digest(),
        left_out={**absent, **dict.fromkeys(manifest.missing, NOT_ON_DISK)},
        fingerprints=[] if manifest.fingerprints is None else [*map(manifest.fingerprint, chosen)],
    )
    with replace_atomically(output / INDEX) as temporary:
        temporary.write_bytes(_to_json(asdict(index)))
    return index


class _Member(NamedTuple):
    """A member of a shard to write: a file on disk, or bytes."""

    name: str
    size: int
    content: Path | bytes

    @property
    def space(self) -> int:
        return BLOCK + _padded(self.size, BLOCK)


def _members_of(manifest: Manifest, index: int) -> tuple[_Member, _Member, _Member]:
    """Return a video, its label and its metadata as members of a shard."""
    path, label = Path(manifest.path(index)), int(manifest.labels[index])
    if not path.is_file():
        raise UserError(f"{path} is not a file; shards contain video files only")
    key, suffix = f"{index:08d}", path.suffix.lower().lstrip(".") or "video"
    facts = {
        "name": manifest.names[index],
        "label": label,
        "class_name": manifest.class_names[label],
    }
    number, about = str(label).encode(), _to_json(facts)
    return (
        _Member(f"{key}.{suffix}", path.stat().st_size, path),
        _Member(f"{key}.cls", len(number), number),
        _Member(f"{key}.json", len(about), about),
    )


def _offsets(members: Sequence[_Member]) -> list[int]:
    """Return the offset of each member's content in the tar file."""
    ends = np.cumsum([member.space for member in members]).tolist()
    return [end - _padded(m.size, BLOCK) for end, m in zip(ends, members, strict=True)]


def _tar_size(members: Sequence[_Member]) -> int:
    """Return the size of a tar file, with its end mark and padding."""
    return _padded(sum(member.space for member in members) + 2 * BLOCK, RECORD)


def _padded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _holds(path: Path, members: Sequence[_Member], offsets: Sequence[int]) -> bool:
    """Return whether a finished shard contains these videos, judged by size and headers."""
    if not path.is_file() or path.stat().st_size != _tar_size(members):
        return False
    with path.open("rb") as file:
        for member, offset in zip(members, offsets, strict=True):
            if isinstance(member.content, bytes):
                file.seek(offset)
                if file.read(member.size) != member.content:
                    return False
    return True


def _write_shard(path: Path, members: Sequence[_Member]) -> None:
    with replace_atomically(path) as temporary, temporary.open("wb") as file:
        for member in members:
            header = tarfile.TarInfo(member.name)  # with time 0, so that the bytes are reproducible
            header.size = member.size
            file.write(header.tobuf(tarfile.GNU_FORMAT))
            start = file.tell()
            _copy(member.content, file)
            if file.tell() - start != member.size:
                raise UserError(f"{member.content!s} changed while it was read; start again")
            file.write(bytes(_padded(member.size, BLOCK) - member.size))
        file.write(bytes(_tar_size(members) - file.tell()))


def _copy(content: Path | bytes, file: IO[bytes]) -> None:
    if isinstance(content, bytes):
        file.write(content)
    else:
        with content.open("rb") as source:
            shutil.copyfileobj(source, file, 2**20)


def _to_json(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _log_left_out(address: str, left_out: Mapping[str, str]) -> None:
    """Log the listed videos that are in no shard; they stay listed as missing."""
    unreadable = {name: why for name, why in left_out.items() if why != NOT_ON_DISK}
    if num_absent := len(left_out) - len(unreadable):
        message = "%s: %d videos were not on disk when the shards were written"
        logger.warning(message, address, num_absent)
    if unreadable:
        name, reason = next(iter(unreadable.items()))
        message = "%s: %d videos were unreadable when the shards were written, first: %s: %s"
        logger.warning(message, address, len(unreadable), name, reason)


def _numbers(labels: Any, class_names: Sequence[str] | None) -> Sequence[str]:
    """Return class names for shards with numbers only: the requested ones, or the numbers."""
    return class_names or [str(i) for i in range(int(labels.max(initial=-1)) + 1)]


def _reorder(labels: Any, ours: Sequence[str], wanted: Sequence[str], address: str) -> Any:
    """Map labels to another order of the classes."""
    places = {name: i for i, name in enumerate(wanted)}
    new = np.array([places.get(name, -1) for name in ours], np.int64)
    if len(labels) and (labels.max() >= len(ours) or (new[labels] < 0).any()):
        bad = next(i for i in labels.tolist() if i >= len(ours) or new[i] < 0)
        name = repr(ours[bad]) if bad < len(ours) else f"number {bad}"
        raise UserError(f"{address}: class {name} is not among the {len(wanted)} of the data set")
    return new[labels]


def choose_source(lists: ManifestSource, shards: str | None, name: str) -> ManifestSource:
    """Return the shards `<shards>/<name>` if configured, else the lists of the data set.

    Raises `UserError` if the lists were to be divided: the shards are already.
    """
    division = getattr(lists, "division", None)
    if shards and isinstance(division, Division) and division.given:
        raise UserError(
            f"{division.given} divides lists and folders, but data.shards={shards} is read, which "
            "has a part for each already; remove one of them"
        )
    return ShardSource(address=f"{shards}/{name}") if shards else lists
