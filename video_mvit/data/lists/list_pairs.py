"""Lists to train and to validate on whose videos have more than one class, or numbers.

Which of the two is read, where its paths lead, and how one of them is divided.
"""

import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeVar

from video_mvit.data.lists.custom import find_list
from video_mvit.data.lists.division import DividedSource, Division, source_of
from video_mvit.data.lists.listing import moved
from video_mvit.data.lists.manifest import EMPTY, Manifest
from video_mvit.data.lists.path_lists import below_one_folder
from video_mvit.data.lists.splits import LIST_SUFFIXES
from video_mvit.data.lists.text import holds_half_character
from video_mvit.data.reading.segments import SEGMENT, segment_suffix
from video_mvit.errors import MissingFileError, UserError
from video_mvit.text import short

logger = logging.getLogger(__name__)
NO_CLASS = -1  # stands for the videos without any
ManifestT = TypeVar("ManifestT", bound=Manifest)


@dataclass(frozen=True, kw_only=True)
class ListPairSource(DividedSource):
    """One of two lists; `manifest` may omit its suffix, and its paths are relative to `folder`.

    Where the list to validate on is None, or `<folder>/val` and not there, a part of the list to
    train on is held out.
    """

    part: Literal["train", "val"]
    manifest: str | None
    other_manifest: str | None
    folder: str

    def choose_list(self) -> tuple[str, bool]:
        """Return the path of the list to read, and whether it is divided; raises `UserError`."""
        paths = {"train": self.manifest, "val": self.other_manifest}
        if self.part == "val":
            paths = {"train": self.other_manifest, "val": self.manifest}
        is_divided = self._is_absent(paths["val"])
        path = find_list(paths["train" if is_divided else self.part] or "")
        if os.path.isdir(path):
            raise UserError(f"{path} is a folder; expected a list of videos with what each shows")
        if self.division.given and not is_divided:
            raise UserError(
                f"{self.division.given} divides videos that have no list to validate on, but "
                f"{paths['val']} is one; remove the option, or set data.val_list=null"
            )
        return path, is_divided

    def _is_absent(self, path: str | None) -> bool:
        """Return whether there is no list to validate on; a path that was chosen has to exist."""
        if path is None:
            return True
        usual = os.path.normpath(os.path.join(self.folder, "val"))
        return os.path.normpath(path) == usual and not is_there(path)


def is_there(path: str) -> bool:
    """Return whether there is a list, whose suffix may be left out."""
    return any(os.path.isfile(path + suffix) for suffix in ("", *LIST_SUFFIXES))


class Place(NamedTuple):
    """Where a file lies relative to a folder, and which part of it is meant, added to its name."""

    path: str
    part: str


def places_of(
    manifest: str, folder: str, paths: Sequence[tuple[int, str]], unit: str = "line"
) -> tuple[str, list[Place]]:
    """Return the folder that listed paths are in, and the place of each below it.

    `paths` come with the numbers of their lines, and may be parts such as `a.mp4#t=3.5,7.25`.
    Raises `UserError`, or `FileNotFoundError` where the folder does not exist.
    """
    files, parts = [], []
    for number, path in paths:
        if not path or "://" in path or holds_half_character(path):
            raise UserError(f"{manifest} {unit} {number}: {short(path)} is not the path of a video")
        match, part = SEGMENT.fullmatch(path), ""
        if match and (part := segment_suffix(match["start"], match["end"]) or "") == "":
            raise UserError(f"{manifest} {unit} {number}: {short(path)} ends before it begins")
        files.append(match["whole"] if match else path)
        parts.append(part)
    root, places = below_one_folder(folder, files)
    if not os.path.isdir(root):
        advice = moved(folder, files[0]) if files else ""
        raise MissingFileError(
            f"{manifest}: its paths are below {root}, which does not exist{advice}"
        )
    return root, [Place(place, part) for place, part in zip(places, parts, strict=True)]


def take_even_part(
    whole: ManifestT,
    part: Literal["train", "val"],
    division: Division,
    place: str,
    labels: Sequence[Collection[int]] | None = None,
    each: str = "class",
) -> ManifestT:
    """Take the videos to train or to validate on, as even as can be in each of their `labels`.

    By default these are their classes. Clips of one source video stay together; those that are not
    on disk count for training. `place`
    and `each` say in messages where the videos are listed, and what a label is. Raises `UserError`
    if none can be held out.
    """
    if labels is None:
        labels = [whole.classes_of(index) or [NO_CLASS] for index in range(len(whole))]
    sources = [source_of(name) for name in whole.names]
    groups: Mapping[str, Counter[int]] = {source: Counter() for source in sources}
    for source, some in zip(sources, labels, strict=True):
        groups[source].update(some)
    chosen = division.choose(groups)
    is_val = [source in chosen for source in sources]
    if not any(is_val):
        raise UserError(
            f"none of the {len(whole)} videos in {place} can be held out for validation, since no "
            f"{each} has two source videos; list others with data.val_list"
        )
    taken = whole.take([i for i, is_held in enumerate(is_val) if is_held == (part == "val")])
    if part == "val":
        return replace(taken, missing=EMPTY)
    message = "%s: no list to validate on, so %d of %d videos (%.3g %%) are held out (%s)"
    share = 100 * sum(is_val) / len(is_val)
    how = division.given or f"about a fifth of each {each}; see data.val_share"
    logger.info(message, place, sum(is_val), len(is_val), share, how)
    return taken
