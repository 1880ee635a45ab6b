"""Find the same video twice, by its content: the same bytes, or the same pictures.

Bytes are compared of all files of a list: only files of one size are read, first in part. Pictures
are compared of the videos that were opened, by their glances (`videos.py`): a copy in another
size, codec, rate or quality is found, one that is cut, mirrored, framed or recoloured is not. Pure
but for reading files.
"""

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from video_mvit.data.preparation.scan import NUM_STAT_THREADS
from video_mvit.data.preparation.scan_report import stamp_of
from video_mvit.data.reading.frame_names import frame_place
from video_mvit.data.reading.tar_members import is_member, read_member
from video_mvit.inspection.videos import GLANCE_SIDE, OpenedVideo, Split

Kind = Literal["same bytes", "same pictures"]

PART_BYTES = 2**16  # read of the start and the end of a file before all of it
BLOCK = 512  # videos compared with all others at once
# Least correlations of two copies over all cells: of grey pictures; of the changes between them,
# so that two recordings of one camera that stands still are not taken for copies; and of colours,
# which strong compression keeps least.
SAME_PICTURES, SAME_CHANGES, SAME_COLOURS = 0.98, 0.7, 0.93
GREY = (0.299, 0.587, 0.114)  # of red, green and blue, as in BT.601
STILL = 1.5  # grey levels: smaller changes are those of an encoder
FLAT = 2.0  # grey levels: pictures with less contrast look like any other
LENGTH_SHARE, LENGTH_S = 0.03, 0.1  # by which the lengths of copies may differ
logger = logging.getLogger(__name__)


class Place(NamedTuple):
    """A listed video: its split, its name there, and its class."""

    split: str
    video: str
    class_name: str


class Copies(NamedTuple):
    """Videos with the same content."""

    kind: Kind
    places: tuple[Place, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the splits in which the video is."""
        return tuple(dict.fromkeys(place.split for place in self.places))

    @property
    def num_classes(self) -> int:
        return len({place.class_name for place in self.places})


def find_copies(splits: Sequence[Split]) -> list[Copies]:
    """Find the copies of all lists; those in several splits, or of several classes, come first."""
    listed = [(split, index) for split in splits for index in range(len(split.manifest))]
    groups: list[tuple[Kind, list[tuple[Split, int]]]] = []
    exact = same_bytes([split.manifest.path(index) for split, index in listed])
    groups += [("same bytes", [listed[i] for i in group]) for group in exact]
    known = {frozenset(members) for _, members in groups}
    opened = [(split, index) for split in splits for index in split.opened]
    alike = same_pictures([split.opened[index] for split, index in opened])
    for group in alike:
        members = [opened[i] for i in group]
        if not any(known_members.issuperset(members) for known_members in known):
            groups.append(("same pictures", members))
    found = [Copies(kind, tuple(_place(*member) for member in group)) for kind, group in groups]
    return sorted(found, key=lambda each: (-len(each.splits), -each.num_classes, each.places))


def _place(split: Split, index: int) -> Place:
    manifest = split.manifest
    label = int(manifest.labels[index])
    return Place(split.name, split.video_name(index), manifest.class_names[label])


def same_bytes(paths: Sequence[str]) -> list[list[int]]:
    """Return groups of indices of files, or members of shards, with the same bytes.

    Folders of frames, and files that cannot be read, are in none.
    """
    with ThreadPoolExecutor(NUM_STAT_THREADS) as threads:
        groups = [list(range(len(paths)))]
        for key in (_size, _digest_of_ends, _digest):
            groups = [
                part
                for group in groups
                for part in _split(group, threads.map(key, (paths[i] for i in group)))
            ]
    return groups


def _split(group: Sequence[int], keys: Iterable[Hashable]) -> Iterator[list[int]]:
    """Split a group by key, without what is alone or has no key."""
    parts: dict[Hashable, list[int]] = defaultdict(list)
    for index, key in zip(group, keys, strict=True):
        if key is not None:
            parts[key].append(index)
    yield from (part for part in parts.values() if len(part) > 1)


def _size(path: str) -> int | None:
    try:
        if not is_member(path) and frame_place(path) is not None:
            return None
        return stamp_of(path).size or None
    except OSError:
        return None


def _digest_of_ends(path: str) -> bytes | None:
    return _digest(path, PART_BYTES)


def _digest(path: str, num_bytes: int | None = None) -> bytes | None:
    """Return a digest of a file, or of that much of its start and of its end."""
    digest = hashlib.sha1(usedforsecurity=False)
    try:
        if is_member(path):
            digest.update(read_member(path))
            return digest.digest()
        with open(path, "rb") as file:
            if num_bytes is None:
                while content := file.read(2**20):
                    digest.update(content)
            else:
                digest.update(file.read(num_bytes))
                file.seek(-min(num_bytes, os.fstat(file.fileno()).st_size), os.SEEK_END)
                digest.update(file.read(num_bytes))
    except OSError as error:
        logger.debug("%s is not compared: %s", path, error)
        return None
    return digest.digest()


def same_pictures(videos: Sequence[OpenedVideo]) -> list[list[int]]:
    """Return groups of indices of videos that look the same from start to end."""
    if not videos:
        return []
    pictures, changes, colours, is_still, is_flat = _features(videos)
    lengths = np.array([video.duration_s for video in videos])
    parent = list(range(len(videos)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for start in range(0, len(videos), BLOCK):
        rows = slice(start, start + BLOCK)
        both_still = is_still[rows, None] & is_still[None]
        is_same = (pictures[rows] @ pictures.T >= SAME_PICTURES) & ~is_flat[rows, None]
        is_same &= (changes[rows] @ changes.T >= SAME_CHANGES) | both_still
        is_same &= colours[rows] @ colours.T >= SAME_COLOURS
        apart = np.abs(lengths[rows, None] - lengths[None])
        is_same &= apart <= np.maximum(LENGTH_SHARE * lengths[None], LENGTH_S)
        for row, column in np.argwhere(is_same).tolist():
            parent[root(start + row)] = root(column)
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(videos)):
        groups[root(index)].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _features(videos: Sequence[OpenedVideo]) -> tuple[NDArray[Any], ...]:
    """Return what is compared, and which videos are still, and flat (N,).

    Grey pictures, their changes and coloured pictures are unit vectors (N, ...).
    """
    glances = np.stack([video.glances for video in videos])  # (N, T, H, W, 3)
    grey = glances @ np.array(GREY, np.float32)  # (N, T, H, W)
    pictures = grey - grey.mean((2, 3), keepdims=True)
    changes = np.diff(grey, axis=1)
    contrast, change = (np.sqrt((each**2).mean((1, 2, 3))) for each in (pictures, changes))
    side = GLANCE_SIDE // 2  # as most codecs halve colours
    halved = glances.reshape(*glances.shape[:2], side, 2, side, 2, 3).mean((3, 5), np.float32)
    colours = halved - halved.mean((2, 3), keepdims=True)  # of each channel: a copy may be warmer
    return (
        *(_unit(each) for each in (pictures, changes, colours)),
        change < STILL,
        contrast < FLAT,
    )


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Flatten to unit vectors: (N, ...) -> (N, D)."""
    flat = features.reshape(len(features), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)  # type: ignore[no-any-return]
