"""A manifest of videos with numbers to predict, and how rows become one.

Letters: N videos, K targets, which are the `class_names` of a manifest.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from video_mvit.data.lists.copies import ListingWithCopies
from video_mvit.data.lists.division import Division
from video_mvit.data.lists.list_pairs import places_of, take_even_part
from video_mvit.data.lists.manifest import Manifest, PackedStrings, Row, VideoList, look_up
from video_mvit.errors import UserError

NUM_STRETCHES = 5  # of the values of the first target, each of which is held out evenly


@dataclass(frozen=True, kw_only=True, eq=False)
class RegressionManifest(Manifest):
    """Videos of one split with a number for each target, which are its `class_names`.

    `values` (N, K) are finite, in the units of the list. `labels` is 0 for every video, and stands
    for nothing.
    """

    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = (len(self.names), len(self.class_names))
        if self.values.dtype != np.float64 or self.values.shape != shape:
            raise UserError(
                f"values are {self.values.dtype} of shape {self.values.shape}; {shape[0]} videos "
                f"and {shape[1]} targets need float64 of shape {shape}"
            )
        if not np.isfinite(self.values).all():
            raise UserError("values are NaN or Inf")
        super().__post_init__()

    def target(self, index: int) -> NDArray[np.float64]:
        """Return the numbers of a video: (K,)."""
        found: NDArray[np.float64] = self.values[index]
        return found

    def classes_of(self, index: int) -> list[int]:
        return []

    def labels_of(self, chosen: NDArray[np.int64]) -> dict[str, Any]:
        return {**super().labels_of(chosen), "values": self.values[chosen]}

    def constant_targets(self) -> list[str]:
        """Return the targets that are the same in all videos."""
        is_constant = (self.values == self.values[:1]).all(axis=0)
        return [self.class_names[k] for k in np.flatnonzero(is_constant).tolist()]

    def summary(self) -> str:
        """Count videos, and describe each target, in one line."""
        targets = [
            f"{name} {each.min():.4g} to {each.max():.4g} (mean {each.mean():.4g}, standard "
            f"deviation {each.std():.4g})"
            for name, each in zip(self.class_names, self.values.T, strict=True)
        ]
        missing = f"; {len(self.missing):,} listed but not on disk" if self.missing else ""
        return f"{len(self):,} video{'s' * (len(self) != 1)}, {', '.join(targets)}{missing}"

    def in_class_order(self, class_names: Sequence[str] | None) -> "RegressionManifest":
        if class_names is None or tuple(class_names) == self.class_names:
            return self
        places = {name: i for i, name in enumerate(self.class_names)}
        order = [places[name] for name in class_names]
        return replace(
            self,
            values=self.values[:, order],
            class_names=tuple(class_names),
            parents=self.parents | {self.digest()},
        )

    def digest(self) -> str:
        """Return the SHA-1 of names, values and targets."""
        digest = hashlib.sha1(super().digest().encode(), usedforsecurity=False)
        digest.update(self.values.astype("<f8").tobytes())
        return digest.hexdigest()


class Standardization(NamedTuple):
    """Mean and standard deviation of each target, by which a network sees it."""

    target_mean: tuple[float, ...]
    target_std: tuple[float, ...]


def standardization_of(manifest: RegressionManifest) -> Standardization:
    """Compute mean and standard deviation of each target; raises `UserError` for a constant one."""
    means, stds = manifest.values.mean(axis=0), manifest.values.std(axis=0)
    for name, each, std in zip(manifest.class_names, manifest.values.T, stds, strict=True):
        if each.min() == each.max() or not std > 0:  # rounding gives equal values a small one
            raise UserError(
                f"{name} is {each[0]} in all {len(each)} training videos, so that there is "
                "nothing to learn; leave it out of data.targets"
            )
    return Standardization(tuple(means.tolist()), tuple(stds.tolist()))


class ValueRow(NamedTuple):
    """A row of a list: the number of its line or entry, a path, and a number for each target."""

    number: int
    path: str
    values: tuple[float, ...]


def find_values(
    manifest: str,
    folder: str,
    rows: Sequence[ValueRow],
    targets: Sequence[str],
    unit: Literal["line", "entry"] = "line",
) -> RegressionManifest:
    """Look up the videos of a list, of which each may be a part, `<video>#t=<start>,<end>`.

    Paths are relative to `folder`, or absolute. Raises `UserError` where a video has two values, or
    `FileNotFoundError` if no video is found at all.
    """
    root, places = places_of(manifest, folder, [(row.number, row.path) for row in rows], unit)
    # Equal values share a label, so that a video with two of them is found.
    distinct = list(dict.fromkeys(row.values for row in rows))
    label_of = {values: label for label, values in enumerate(distinct)}
    listed = VideoList(
        path=manifest,
        rows=[
            Row(row.number, row.path, label_of[row.values], (place.path,), place.part)
            for row, place in zip(rows, places, strict=True)
        ],
        class_names=tuple(", ".join(repr(each) for each in values) for values in distinct),
        unit=unit,
        says="has",
    )
    found = look_up(listed, ListingWithCopies(root, frozenset(place.path for place in places)))
    return RegressionManifest(
        root=root,
        names=PackedStrings.of(found.names),
        labels=np.zeros(len(found.names), np.int32),
        class_names=tuple(targets),
        missing=PackedStrings.of(found.missing),
        values=np.array([distinct[row.label] for row in found.rows], np.float64),
    )


def take_regression_part(
    whole: RegressionManifest, part: Literal["train", "val"], division: Division, place: str
) -> RegressionManifest:
    """Take the videos to train or to validate on, as even as can be over the first target."""
    first = whole.values[:, 0]
    edges = np.quantile(first, np.arange(1, NUM_STRETCHES) / NUM_STRETCHES)
    labels = [[label] for label in np.searchsorted(edges, first).tolist()]
    return take_even_part(whole, part, division, place, labels, "quintile of the values")
