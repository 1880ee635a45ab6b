"""A manifest: paths and labels of a list of videos, and which are missing on disk.

It is one compact buffer that forked loader processes share: touching an entry of a Python list of
strings writes its reference count and copies its memory page. Videos are looked up by listing each
folder once; none is opened. Readers of published lists are in `published.py`.
"""

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from video_mvit.data.lists.actions import ClipSpan
from video_mvit.data.lists.listing import FolderListing, LeftOut, moved
from video_mvit.errors import MissingFileError, UserError
from video_mvit.text import short, some_of

Target = int | NDArray[np.bool_] | NDArray[np.int64] | NDArray[np.float64]  # of a video
logger = logging.getLogger(__name__)


# Prefix of a video in a shard: "shard-000003.tar!512+12345!" before its own name.
SHARD_PLACE = re.compile(r"^.*?!\d+\+\d+!", re.DOTALL)


class PackedStrings(Sequence[str]):
    """Strings packed into one UTF-8 buffer: `buffer[offsets[i] : offsets[i + 1]]` is string `i`.

    File names that are not UTF-8 keep their bytes, as in `os.listdir`.
    """

    __slots__ = ("_buffer", "_offsets")

    def __init__(self, buffer: bytes, offsets: NDArray[np.int64]) -> None:
        self._buffer, self._offsets = buffer, offsets

    @classmethod
    def of(cls, strings: Iterable[str]) -> "PackedStrings":
        """Pack strings."""
        encoded = [_encode(string) for string in strings]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(string) for string in encoded], out=offsets[1:])
        return cls(b"".join(encoded), offsets)

    @property
    def num_bytes(self) -> int:
        return len(self._buffer) + self._offsets.nbytes

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "PackedStrings": ...
    def __getitem__(self, index: int | slice) -> "str | PackedStrings":
        if isinstance(index, slice):
            return PackedStrings.of(self[i] for i in range(*index.indices(len(self))))
        i = range(len(self))[index]  # raises IndexError, supports negative indices
        start, end = self._offsets[i : i + 2].tolist()
        return self._buffer[start:end].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PackedStrings):
            return NotImplemented
        return self._buffer == other._buffer and np.array_equal(self._offsets, other._offsets)

    def __hash__(self) -> int:
        return hash((self._buffer, len(self)))

    def __repr__(self) -> str:
        shown = ", ".join(repr(self[i]) for i in range(min(3, len(self))))
        return f"PackedStrings({len(self)} strings: {shown}{', ...' if len(self) > 3 else ''})"

    def digest_into(self, digest: "hashlib._Hash") -> None:
        """Add the strings and their offsets to a running digest."""
        digest.update(self._offsets.astype("<i8").tobytes())
        digest.update(self._buffer)


def _encode(string: str) -> bytes:
    try:
        return string.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise UserError(f"{short(string)} is not a name: it holds half of a character") from None


EMPTY = PackedStrings.of(())


@dataclass(frozen=True, kw_only=True, eq=False)
class Manifest:
    """Videos of one split: `path(i)` has class `class_names[labels[i]]`; `missing` are not on disk.

    Names are relative to the folder or address `root`. `parents` are digests of the lists that the
    videos were taken from; `left_out` are files that were seen and not read. Raises `UserError` for
    inconsistent parts. `fingerprints` are of the indices of packets, as a scan or shards tell them
    (see `data.reading.header_index`).
    """

    root: str
    names: PackedStrings
    labels: NDArray[np.int32]
    class_names: tuple[str, ...]
    missing: PackedStrings = EMPTY
    parents: frozenset[str] = frozenset()
    left_out: tuple[LeftOut, ...] = ()
    fingerprints: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.labels.dtype != np.int32 or self.labels.shape != (len(self.names),):
            raise UserError(
                f"labels are {self.labels.dtype} of shape {self.labels.shape}; {len(self.names)} "
                f"videos need int32 of shape ({len(self.names)},)"
            )
        num_classes = len(self.class_names)
        outside = (self.labels < 0) | (self.labels >= num_classes)
        if outside.any():
            i = int(outside.argmax())
            raise UserError(
                f"video {self.names[i]!r} has label {self.labels[i]}; {num_classes} classes have "
                f"labels 0 to {num_classes - 1}"
            )

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        return f"{self.root}/{self.names[index]}"

    def target(self, index: int) -> Target:
        """Return what a video is trained and evaluated on: its label."""
        return int(self.labels[index])

    def clip_target(self, index: int, span: ClipSpan) -> Target:
        """Return what a clip of a video is trained on: what the video is."""
        return self.target(index)

    def classes_of(self, index: int) -> list[int]:
        """Return the indices of all classes that a video has."""
        return [int(self.labels[index])]

    def each_label(self) -> NDArray[np.int32]:
        """Return the label of each pair of a video and a class that it has: (N,)."""
        return self.labels

    def take(self, indices: ArrayLike) -> Self:
        """Select videos by index, in that order; missing ones stay listed."""
        chosen = np.asarray(indices, np.int64)
        return replace(
            self,
            names=PackedStrings.of(self.names[i] for i in chosen.tolist()),
            parents=self.parents | {self.digest()},
            fingerprints=None if self.fingerprints is None else self.fingerprints[chosen],
            **self.labels_of(chosen),
        )

    def labels_of(self, chosen: NDArray[np.int64]) -> dict[str, Any]:
        """Return the fields that tell the classes of each video, of some of them."""
        return {"labels": self.labels[chosen]}

    def fingerprint(self, index: int) -> int:
        """Return the fingerprint of a video's index of packets, 0 if it is not known."""
        return 0 if self.fingerprints is None else int(self.fingerprints[index])

    def summary(self) -> str:
        """Count videos, classes, and what was left out and why, in one line."""
        num_classes = len(np.unique(self.labels))
        classes = f"{num_classes:,} class{'es' * (num_classes != 1)}"
        if num_classes != len(self.class_names):
            classes = f"{num_classes:,} of {len(self.class_names):,} classes"
            classes += f" (none of {some_of(self.classes_without_videos())})"
        reasons = list(self.left_out)
        if self.missing:
            reasons.insert(0, LeftOut(len(self.missing), "listed but not on disk", self.missing[0]))
        num_left_out = sum(each.num_files for each in reasons)
        why = ": " + "; ".join(map(str, reasons)) if reasons else ""
        return (
            f"{len(self):,} video{'s' * (len(self) != 1)}, {classes}, {num_left_out:,} "
            f"file{'s' * (num_left_out != 1)} left out{why}"
        )

    def classes_without_videos(self) -> list[str]:
        """Return the names of the classes that no video has."""
        counts = np.bincount(self.each_label(), minlength=len(self.class_names))
        return [self.class_names[label] for label in np.flatnonzero(counts == 0).tolist()]

    def in_class_order(self, class_names: Sequence[str] | None) -> "Manifest":
        """Return the manifest with labels in another order of the same classes; None keeps it."""
        if class_names is None or tuple(class_names) == self.class_names:
            return self
        places = {name: i for i, name in enumerate(class_names)}
        new = np.array([places[name] for name in self.class_names], np.int32)
        return replace(
            self,
            labels=new[self.labels],
            class_names=tuple(class_names),
            parents=self.parents | {self.digest()},
        )

    def digest(self) -> str:
        """Return the SHA-1 of names, labels and class names, independent of folder and shards."""
        digest = hashlib.sha1(usedforsecurity=False)
        PackedStrings.of(SHARD_PLACE.sub("", name) for name in self.names).digest_into(digest)
        digest.update(self.labels.astype("<i4").tobytes())
        PackedStrings.of(self.class_names).digest_into(digest)
        return digest.hexdigest()


class ManifestSource(Protocol):
    """Source of a manifest.

    Reading raises `UserError` or `FileNotFoundError` with the file and line at fault.
    """

    def read(self, class_names: Sequence[str] | None = None) -> Manifest:
        """Read it, with labels in the given class order, or in the list's own."""


class Row(NamedTuple):
    """A row of a list: name, label, and possible places of the video, most likely first.

    `number` is its line or entry, counted from 1. Places are relative to the folder of videos.
    `part` is added to the name of the video that is found: which frames of a folder are meant.
    """

    number: int
    name: str
    label: int
    places: tuple[str, ...]
    part: str = ""


@dataclass(frozen=True, kw_only=True)
class VideoList:
    """A list as read, before videos are looked up; never empty.

    `says` is what a row says of its video: that it is of a class.
    """

    path: str
    rows: Sequence[Row]
    class_names: tuple[str, ...]
    unit: Literal["line", "entry"] = "line"
    says: str = "is of class"

    def __post_init__(self) -> None:
        if not self.rows:
            raise UserError(f"{self.path} lists no videos")
        for row in self.rows:
            if any(_leads_out(place) for place in row.places):
                raise UserError(
                    f"{self.path} {self.unit} {row.number}: {short(row.name)} leads out of the "
                    "folder of videos"
                )


def _leads_out(place: str) -> bool:
    """Return whether a place is not below the folder that it is relative to."""
    return place.startswith("/") or "\0" in place or (".." in place and ".." in place.split("/"))


class Found(NamedTuple):
    """Videos of a list that are on disk, with their rows, and the names of those that are not."""

    names: list[str]
    rows: list[Row]
    missing: list[str]


def look_up(listed: VideoList, folder: FolderListing) -> Found:
    """Look up every row of a list; a video that is listed twice counts once, with a warning.

    Raises `UserError` if it has two labels, `FileNotFoundError` if no video is found at all.
    """
    found = Found([], [], [])
    seen: dict[str, Row] = {}
    for row in listed.rows:
        name = folder.find(row.places)
        first = seen.setdefault((name or row.places[0]) + row.part, row)
        if first is not row:
            _check_same_label(listed, first, row)
        elif name is None:
            found.missing.append(row.name)
        else:
            found.names.append(name + row.part)
            found.rows.append(row)
    if not found.names:
        first_place = listed.rows[0].places[0]
        raise MissingFileError(
            f"none of the {len(seen)} videos that {listed.path} lists is in {folder.root}; "
            f"looked for {folder.example(first_place)} first{moved(folder.root, first_place)}"
        )
    _warn(listed, folder.root, found.missing, num_repeated=len(listed.rows) - len(seen))
    return found


def find_videos(listed: VideoList, folder: FolderListing) -> Manifest:
    """Look up every row of a list; videos that are not on disk are recorded as missing.

    Raises as `look_up` does.
    """
    names, rows, missing = look_up(listed, folder)
    labels = [row.label for row in rows]
    if gone := sorted({row.label for row in listed.rows} - set(labels)):
        lost = [listed.class_names[label] for label in gone]
        num_classes = len({row.label for row in listed.rows})
        logger.warning(
            "%d of the %d classes that %s lists have none of their videos in %s: %s",
            *(len(gone), num_classes, listed.path, folder.root, some_of(lost)),
        )
    return Manifest(
        root=folder.root,
        names=PackedStrings.of(names),
        labels=np.array(labels, np.int32),
        class_names=listed.class_names,
        missing=PackedStrings.of(missing),
    )


def _check_same_label(listed: VideoList, first: Row, second: Row) -> None:
    if first.label != second.label:
        classes = [listed.class_names[row.label] for row in (first, second)]
        units = {"line": "lines", "entry": "entries"}[listed.unit]
        raise UserError(
            f"{listed.path} {units} {first.number} and {second.number}: {second.name!r} "
            f"{listed.says} {classes[0]!r} in one and {classes[1]!r} in the other; keep the right "
            "one"
        )


def _warn(listed: VideoList, root: str, missing: Sequence[str], *, num_repeated: int) -> None:
    if num_repeated:
        logger.warning(
            "%s lists %d videos more than once; each counts once", listed.path, num_repeated
        )
    if missing:
        num_videos = len(listed.rows) - num_repeated
        message = "%d of the %d videos that %s lists are not in %s, first: %r"
        logger.warning(message, len(missing), num_videos, listed.path, root, missing[0])
