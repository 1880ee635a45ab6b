"""A manifest of videos with one class in each of several heads, and how rows become one."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from video_mvit.class_heads import full_names, heads_of, parts_of
from video_mvit.data.lists.listing import FolderListing
from video_mvit.data.lists.manifest import Manifest, Row, VideoList, find_videos
from video_mvit.errors import UserError
from video_mvit.text import short


@dataclass(frozen=True, kw_only=True, eq=False)
class MultiHeadManifest(Manifest):
    """Videos of one split, of which each has one class in each of H heads.

    `head_labels` (N, H) are indices among all classes (`class_heads.full_names`); `labels` are
    those of the first head.
    """

    head_labels: NDArray[np.int32]

    def __post_init__(self) -> None:
        heads = heads_of(self.class_names)
        shape = (len(self.names), len(heads))
        if self.head_labels.dtype != np.int32 or self.head_labels.shape != shape:
            raise UserError(
                f"labels of heads are {self.head_labels.dtype} of shape {self.head_labels.shape}; "
                f"{shape[0]} videos and {shape[1]} heads need int32 of shape {shape}"
            )
        for (head, part), labels in zip(self._parts.items(), self.head_labels.T, strict=True):
            if ((labels < part.start) | (labels >= part.stop)).any():
                raise UserError(f"labels of head {short(head)} are outside of its classes")
        super().__post_init__()

    @cached_property
    def _parts(self) -> dict[str, slice]:
        heads = heads_of(self.class_names)
        return dict(zip(heads, parts_of(heads), strict=True))

    def target(self, index: int) -> NDArray[np.int64]:
        """Return the class of a video in each head, counted within it: (H,)."""
        starts = [part.start for part in self._parts.values()]
        found: NDArray[np.int64] = self.head_labels[index].astype(np.int64) - starts
        return found

    def classes_of(self, index: int) -> list[int]:
        return self.head_labels[index].tolist()  # type: ignore[no-any-return]

    def each_label(self) -> NDArray[np.int32]:
        return self.head_labels.flatten()

    def labels_of(self, chosen: NDArray[np.int64]) -> dict[str, Any]:
        return {**super().labels_of(chosen), "head_labels": self.head_labels[chosen]}

    def summary(self) -> str:
        """Count videos, and classes of each head, in one line."""
        seen = np.unique(self.head_labels)
        heads = (
            f"{((seen >= part.start) & (seen < part.stop)).sum():,} of "
            f"{part.stop - part.start:,} classes of {head}"
            for head, part in self._parts.items()
        )
        num_combined = len(np.unique(self.head_labels, axis=0))
        missing = f", {len(self.missing):,} listed but not on disk" if self.missing else ""
        return (
            f"{len(self):,} video{'s' * (len(self) != 1)}, {', '.join(heads)}, "
            f"{num_combined:,} combination{'s' * (num_combined != 1)}{missing}"
        )

    def in_class_order(self, class_names: Sequence[str] | None) -> "MultiHeadManifest":
        if class_names is None or tuple(class_names) == self.class_names:
            return self
        places = {name: i for i, name in enumerate(class_names)}
        new = np.array([places[name] for name in self.class_names], np.int32)
        before = list(heads_of(self.class_names))
        columns = [before.index(head) for head in heads_of(class_names)]
        head_labels = new[self.head_labels][:, columns]
        return replace(
            self,
            labels=head_labels[:, 0],
            head_labels=head_labels,
            class_names=tuple(class_names),
            parents=self.parents | {self.digest()},
        )

    def digest(self) -> str:
        """Return the SHA-1 of names, labels of all heads and class names."""
        digest = hashlib.sha1(super().digest().encode(), usedforsecurity=False)
        digest.update(self.head_labels.astype("<i4").tobytes())
        return digest.hexdigest()


class HeadsRow(NamedTuple):
    """A row of a list as `manifest.Row`, with a label for each head, counted within it."""

    number: int
    name: str
    labels: tuple[int, ...]
    places: tuple[str, ...]
    part: str = ""


def find_heads(
    manifest: str,
    rows: Sequence[HeadsRow],
    classes: Mapping[str, Sequence[str]],
    listing: FolderListing,
    unit: Literal["line", "entry"] = "line",
) -> MultiHeadManifest:
    """Look up the videos of a list: as `find_videos`, of the combinations of classes.

    `classes` are those of each head, in order.
    """
    combinations = sorted({row.labels for row in rows})
    index = {labels: i for i, labels in enumerate(combinations)}
    named = [
        ", ".join(names[label] for names, label in zip(classes.values(), labels, strict=True))
        for labels in combinations
    ]
    listed = VideoList(
        path=manifest,
        rows=[Row(row.number, row.name, index[row.labels], row.places, row.part) for row in rows],
        class_names=tuple(named),
        unit=unit,
    )
    found = find_videos(listed, listing)
    starts = np.cumsum([0, *map(len, classes.values())])[:-1]
    head_labels = (np.array(combinations)[found.labels] + starts).astype(np.int32)
    return MultiHeadManifest(
        root=found.root,
        names=found.names,
        labels=head_labels[:, 0],
        class_names=full_names(classes),
        missing=found.missing,
        head_labels=head_labels,
    )
