"""A manifest of videos with any number of classes each, and how rows become one."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from video_mvit.data.lists.actions import Action, Actions, ClipSpan, Unit
from video_mvit.data.lists.copies import ListingWithCopies
from video_mvit.data.lists.list_pairs import places_of
from video_mvit.data.lists.listing import moved
from video_mvit.data.lists.manifest import Manifest, PackedStrings, Row, VideoList
from video_mvit.errors import MissingFileError, UserError

logger = logging.getLogger(__name__)

MAX_CELLS = 2**31  # videos x classes, a byte each


@dataclass(frozen=True, kw_only=True, eq=False)
class MultiLabelManifest(Manifest):
    """Videos of one split, of which each has any number of classes, none included.

    `label_sets` (N, K) tells which. `labels` is 0 for every video, and stands for nothing. With
    `actions`, a training clip has the classes that it shows; else those of its video.
    """

    label_sets: NDArray[np.bool_]
    actions: Actions | None = None

    def __post_init__(self) -> None:
        shape = (len(self.names), len(self.class_names))
        if self.label_sets.dtype != np.bool_ or self.label_sets.shape != shape:
            raise UserError(
                f"label sets are {self.label_sets.dtype} of shape {self.label_sets.shape}; "
                f"{shape[0]} videos and {shape[1]} classes need bool of shape {shape}"
            )
        super().__post_init__()

    def target(self, index: int) -> NDArray[np.bool_]:
        """Return which classes a video has: (K,)."""
        found: NDArray[np.bool_] = self.label_sets[index]
        return found

    def clip_target(self, index: int, span: ClipSpan) -> NDArray[np.bool_]:
        """Return which classes a clip of a video shows: (K,)."""
        if self.actions is None:
            return self.target(index)
        found = np.zeros(len(self.class_names), np.bool_)
        found[self.actions.seen(index, span)] = True
        return found

    def classes_of(self, index: int) -> list[int]:
        return np.flatnonzero(self.label_sets[index]).tolist()

    def each_label(self) -> NDArray[np.int32]:
        return np.nonzero(self.label_sets)[1].astype(np.int32)

    def labels_of(self, chosen: NDArray[np.int64]) -> dict[str, Any]:
        actions = self.actions and self.actions.take(chosen)
        labels = super().labels_of(chosen)
        return {**labels, "label_sets": self.label_sets[chosen], "actions": actions}

    def summary(self) -> str:
        """Count videos, classes, and classes of a video, in one line."""
        num_each, num_seen = self.label_sets.sum(axis=1), len(np.unique(self.each_label()))
        num_without = int((num_each == 0).sum())
        without = f" ({num_without:,} without any)" if num_without else ""
        missing = f", {len(self.missing):,} listed but not on disk" if self.missing else ""
        return (
            f"{len(self):,} video{'s' * (len(self) != 1)}, {num_seen:,} of "
            f"{len(self.class_names):,} classes, {num_each.mean():.2f} classes a video"
            f"{without}{missing}"
        )

    def in_class_order(self, class_names: Sequence[str] | None) -> "MultiLabelManifest":
        if class_names is None or tuple(class_names) == self.class_names:
            return self
        places = {name: i for i, name in enumerate(self.class_names)}
        order = [places[name] for name in class_names]
        new = np.argsort(order).astype(np.int32)
        return replace(
            self,
            label_sets=self.label_sets[:, order],
            actions=self.actions and self.actions.in_order(new),
            class_names=tuple(class_names),
            parents=self.parents | {self.digest()},
        )

    def digest(self) -> str:
        """Return the SHA-1 of names, label sets, actions and class names."""
        digest = hashlib.sha1(super().digest().encode(), usedforsecurity=False)
        digest.update(np.packbits(self.label_sets).tobytes())
        if self.actions is not None:
            digest.update(self.actions.content())
        return digest.hexdigest()


class LabelSetRow(NamedTuple):
    """A row of a list: the number of its line or entry, a path, and indices of classes.

    `actions` say when the video shows them, where the list says it.
    """

    number: int
    path: str
    labels: frozenset[int]
    actions: tuple[Action, ...] = ()


def find_label_sets(
    manifest: str,
    folder: str,
    rows: Sequence[LabelSetRow],
    class_names: Sequence[str],
    unit: Unit | None = None,
    listed_as: Literal["line", "entry"] = "line",
) -> MultiLabelManifest:
    """Look up the videos of a list; several rows of a video add their classes.

    With the unit of their actions, these are kept. A row is a line or an entry of the list, as it
    is `listed_as`. Paths are relative to `folder`, or absolute.
    Raises `UserError`, or `FileNotFoundError` if no video is found at all.
    """
    check_cells(manifest, len(rows), len(class_names))
    numbered = [(row.number, row.path) for row in rows]
    root, places = places_of(manifest, folder, numbered, listed_as)
    listed = VideoList(  # which refuses paths that lead out of the folder, and an empty list
        path=manifest,
        rows=[
            Row(row.number, row.path, 0, (place.path,), place.part)
            for row, place in zip(rows, places, strict=True)
        ],
        class_names=tuple(class_names),
        unit=listed_as,
    )
    listing = ListingWithCopies(root, frozenset(place.path for place in places))
    found: dict[str, set[int]] = {}
    actions: dict[str, list[Action]] = {}
    missing: dict[str, None] = {}
    for row, place in zip(rows, places, strict=True):
        file = listing.find((place.path,))
        if file is None:
            missing[row.path] = None
        else:
            name = file + place.part
            found.setdefault(name, set()).update(row.labels)
            actions.setdefault(name, []).extend(row.actions)
    if not found:
        first = listed.rows[0].places[0]
        raise MissingFileError(
            f"none of the {len(missing)} videos that {manifest} lists is in {root}; looked for "
            f"{listing.example(first)} first{moved(root, first)}"
        )
    if missing:
        message = "%d of the %d videos that %s lists are not in %s, first: %r"
        num_videos = len(missing) + len(found)
        logger.warning(message, len(missing), num_videos, manifest, root, next(iter(missing)))
    return MultiLabelManifest(
        root=root,
        names=PackedStrings.of(found),
        labels=np.zeros(len(found), np.int32),
        class_names=tuple(class_names),
        missing=PackedStrings.of(missing),
        label_sets=multi_hot(list(found.values()), len(class_names)),
        actions=Actions.of(list(actions.values()), unit) if unit else None,
    )


def check_cells(manifest: str, num_rows: int, num_classes: int) -> None:
    """Raise `UserError` where a list would need more memory for its classes than is sensible."""
    if num_rows * num_classes > MAX_CELLS:
        raise UserError(
            f"{manifest} has {num_rows:,} rows and {num_classes:,} classes, which is more than "
            "fits into memory as a table; leave out classes or videos"
        )


def multi_hot(label_sets: Sequence[set[int]], num_classes: int) -> NDArray[np.bool_]:
    """Return sets of classes as a table: (N, K)."""
    table = np.zeros((len(label_sets), num_classes), np.bool_)
    for row, labels in zip(table, label_sets, strict=True):
        row[list(labels)] = True
    return table
