"""Held-out validation split of class folders without lists.

Chosen by a hash of the file name, so that new videos never move old ones. Clips of one source video
stay on one side within a class; across classes too, except where a class needs a minimum
(`held_out`).
"""

import hashlib
import logging
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from video_mvit.data.lists.class_folders import ClassFolderSource
from video_mvit.data.lists.custom import ListSource
from video_mvit.data.lists.manifest import Manifest
from video_mvit.data.lists.splits import Part, find_split, inner_parts
from video_mvit.data.lists.text import check_same_classes, read_class_names
from video_mvit.data.reading.formats import VIDEO_SUFFIXES
from video_mvit.errors import MissingFileError, UserError

logger = logging.getLogger(__name__)

SHARE = 0.2  # fraction of the source videos of a class
NUM_NAMED = 3  # classes named in a message
# Suffix of a clip of a source video: a marked number (v_Fencing_g07_c01,
# talk-part2), or start and end (Kinetics' XYZ_000010_000020).
MARKED = re.compile(
    r"[ _.-]+(?:c|clip|part|pt|seg|segment|scene|shot|chunk|cut)[ _.-]?\d+$|_\d{6}_\d{6}$",
    re.IGNORECASE,
)
NUMBERED = re.compile(r"(.*)[_-]\d{1,3}", re.DOTALL)


def source_of(name: str) -> str:
    """Guess the source video of a clip from its name, a path below its class folder.

    A short number at the end counts clips if the rest has letters and a number of its own
    (game3_012); otherwise it belongs to the video (push_012, 2024-05-01).
    """
    stem = os.path.splitext(name)[0]
    if os.path.splitext(stem)[1].lower() in VIDEO_SUFFIXES:  # a copy of 1.mov, 1.mov.mp4
        stem = os.path.splitext(stem)[0]
    if match := MARKED.search(stem):
        return stem[: match.start()]
    match = NUMBERED.fullmatch(stem)
    is_clip = match and re.search(r"[^\W\d_]", match[1]) and re.search(r"\d", match[1])
    return match[1] if match and is_clip else stem


def held_out(sources: Iterable[str]) -> set[str]:
    """Choose the held-out source videos of one class: about a fifth, at least one, never all.

    Those with a SHA-1 in the lowest fifth of its range. If that is none or all, the lowest is held
    out or the highest is not; only this one may change sides when videos are added. Of a class with
    a single source, nothing is held out.
    """
    places = sorted((_place(source), source) for source in set(sources))
    if len(places) < 2:
        return set()
    below = sum(place < SHARE for place, _ in places)
    return {source for _, source in places[: min(max(below, 1), len(places) - 1)]}


def _place(source: str) -> float:
    """Hash a text to a number in [0, 1)."""
    content = source.encode("utf-8", "surrogateescape")
    return int(hashlib.sha1(content, usedforsecurity=False).hexdigest()[:13], 16) / 16**13


@dataclass(frozen=True, kw_only=True)
class CustomSource:
    """A user's own videos: two lists or folders, else one part of the class folders in `folder`.

    Lists are read by `ListSource`. Where `manifest` is `<folder>/train` or `<folder>/val`, other
    usual names of splits count too (`splits.find_split`). If there is none, the videos of
    `<folder>/<class>/` are split by their folders `<class>/train` and `<class>/val`, else by
    `held_out`.
    """

    part: Literal["train", "val"]
    manifest: str
    other_manifest: str
    folder: str
    classes: str | None = None
    follow_links: bool = False  # out of a folder of class folders
    columns: str | Sequence[str] | None = None  # of lists, see `PathListSource`
    label_offset: int = 0  # of lists
    frame_template: str | None = None  # of lists

    def read(self, class_names: Sequence[str] | None = None) -> Manifest:
        if (manifest := self._find_manifest()) is not None:
            source = ListSource(
                manifest=manifest,
                folder=self.folder,
                classes=self.classes,
                follow_links=self.follow_links,
                columns=self.columns,
                label_offset=self.label_offset,
                frame_template=self.frame_template,
            )
            return source.read(class_names)
        if not os.path.isdir(self.folder):
            raise MissingFileError(f"{self.folder} is not a folder of videos")
        if self.columns is not None or self.label_offset or self.frame_template is not None:
            raise UserError(
                f"columns, label_offset and frame_template are for lists; {self.folder} has none"
            )
        if self.classes is not None:
            names = read_class_names(self.classes)
            check_same_classes(self.classes, names, class_names)
            return self._read_part(names).in_class_order(class_names)
        return self._read_part(class_names)

    def _find_manifest(self) -> str | None:
        """Return the list or folder of this part; None if a part of each class is held out.

        A path that is not `<folder>/train` or `<folder>/val` was chosen, and has to exist.
        """
        usual = [os.path.normpath(f"{self.folder}/{name}") for name in ("train", "val")]
        is_usual, is_other_usual = (
            os.path.normpath(path) in usual for path in (self.manifest, self.other_manifest)
        )
        if not is_usual:
            return self.manifest
        if os.path.isdir(self.folder) and (found := find_split(self.folder, self.part)) is not None:
            return found
        return None if is_other_usual else self.manifest

    def _read_part(self, class_names: Sequence[str] | None) -> Manifest:
        source = ClassFolderSource(folder=self.folder, follow_links=self.follow_links)
        found = source.read_split_inside(class_names)
        parts = inner_parts(list(found.names))
        if "train" in parts and len(set(parts)) > 1:
            return self._take_split_inside(found, parts)
        by_class: dict[int, list[str]] = defaultdict(list)
        for name, label in zip(found.names, found.labels.tolist(), strict=True):
            by_class[label].append(source_of(_below_class(name)))
        held = {label: held_out(sources) for label, sources in by_class.items()}
        is_held_out = [
            source_of(_below_class(name)) in held[label]
            for name, label in zip(found.names, found.labels.tolist(), strict=True)
        ]
        if not any(is_held_out):
            raise UserError(
                f"none of the {len(found)} videos in {self.folder} can be held out for validation, "
                "since no class has two source videos; put videos in "
                f"{self.folder}/val/<class>/ and {self.folder}/train/<class>/"
            )
        if self.part == "train":
            whole = [found.class_names[label] for label, sources in held.items() if not sources]
            self._say(len(found), sum(is_held_out), whole)
        wanted = self.part == "val"
        return found.take([i for i, is_held in enumerate(is_held_out) if is_held == wanted])

    def _take_split_inside(self, found: Manifest, parts: Sequence[Part | None]) -> Manifest:
        """Take the videos of `<class>/train/` or of `<class>/val/` (else `<class>/test/`)."""
        wanted: Part = "test" if self.part == "val" and "val" not in parts else self.part
        if self.part == "train":
            logger.info("%s: reading as class folders with splits inside", self.folder)
        return found.take([i for i, part in enumerate(parts) if part == wanted])

    def _say(self, num_videos: int, num_held_out: int, whole: Collection[str]) -> None:
        logger.info(
            "%s has no train and val: %d of %d videos, about a fifth of each class, are held out "
            "for validation (chosen by a hash of the file name)",
            self.folder,
            num_held_out,
            num_videos,
        )
        if whole:
            logger.warning(
                "%d classes have a single source video, which is used for training only: %s%s",
                len(whole),
                ", ".join(sorted(whole)[:NUM_NAMED]),
                ", ..." if len(whole) > NUM_NAMED else "",
            )


def _below_class(name: str) -> str:
    """Strip the class from `<class>/<video>`."""
    return name.partition("/")[2]
