"""A user's own videos: lists or folders of both parts, or one of them that is divided."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from video_mvit.data.lists.class_folders import ClassFolderSource
from video_mvit.data.lists.custom import ListSource
from video_mvit.data.lists.division import DividedSource, take_part
from video_mvit.data.lists.manifest import Manifest
from video_mvit.data.lists.named_columns import Roles
from video_mvit.data.lists.splits import Part, find_split, has_split, inner_parts
from video_mvit.data.lists.text import check_same_classes, read_class_names
from video_mvit.errors import MissingFileError, UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CustomSource(DividedSource):
    """A user's own videos: two lists or folders, else one part of a list or of class folders.

    Lists are read by `ListSource`. Where `manifest` is `<folder>/train` or `<folder>/val`, other
    usual names of splits count too (`splits.find_split`). If there are none to validate on, the
    list to train on is divided as `Division` says; without that either, the videos of
    `<folder>/<class>/` are, unless they lie in `<class>/train` and `<class>/val`. A `manifest` of
    None for `val` stands for a part of the other one.
    """

    part: Literal["train", "val"]
    manifest: str | None
    other_manifest: str | None
    folder: str
    classes: str | None = None
    follow_links: bool = False  # out of a folder of class folders
    columns: str | Roles | None = None  # of lists, see `PathListSource`
    label_offset: int = 0  # of lists
    frame_template: str | None = None  # of lists

    def read(self, class_names: Sequence[str] | None = None) -> Manifest:
        other = "val" if self.part == "train" else "train"
        paths: dict[str, str | None] = {self.part: self.manifest, other: self.other_manifest}
        is_divided = self._is_divided(paths["train"], paths["val"])
        path = self._find("train" if is_divided else self.part, paths)
        if path is None:
            return self._read_folders(class_names)
        source = ListSource(
            manifest=path,
            folder=self.folder,
            classes=self.classes,
            follow_links=self.follow_links,
            columns=self.columns,
            label_offset=self.label_offset,
            frame_template=self.frame_template,
        )
        found = source.read(class_names)
        return take_part(found, self.part, self.division, path) if is_divided else found

    def _is_divided(self, train: str | None, val: str | None) -> bool:
        """Return whether a part of the training videos is held out; None is no list.

        Raises `UserError` if that was asked for where there are others to validate on.
        """
        if val is None:
            return True
        if not self._is_usual(val) or has_split(self.folder, "val"):
            if self.division.given:
                raise UserError(
                    f"{self.division.given} divides videos that have no list to validate on, but "
                    f"{self._there(val)} is one; remove the option, or set data.val_list=null"
                )
            return False
        is_named = train is not None and not self._is_usual(train)
        return is_named or bool(self.division.given) or not has_split(self.folder, "train")

    def _there(self, val: str) -> str:
        return (find_split(self.folder, "val") or val) if self._is_usual(val) else val

    def _is_usual(self, path: str) -> bool:
        """Return whether a path is `<folder>/train` or `<folder>/val`, which nobody has chosen."""
        usual = [os.path.normpath(f"{self.folder}/{name}") for name in ("train", "val")]
        return os.path.normpath(path) in usual

    def _find(self, part: Literal["train", "val"], paths: Mapping[str, str | None]) -> str | None:
        """Return the list or folder of a part; None if it is in the class folders.

        A path that is not `<folder>/train` or `<folder>/val` was chosen, and has to exist.
        """
        path = paths[part] or os.path.join(self.folder, part)
        if not self._is_usual(path):
            return path
        if os.path.isdir(self.folder) and (found := find_split(self.folder, part)) is not None:
            return found
        other = paths["val" if part == "train" else "train"]
        return None if other is None or self._is_usual(other) else path

    def _read_folders(self, class_names: Sequence[str] | None) -> Manifest:
        """Read a part of the class folders in `folder`."""
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

    def _read_part(self, class_names: Sequence[str] | None) -> Manifest:
        source = ClassFolderSource(folder=self.folder, follow_links=self.follow_links)
        found = source.read_split_inside(class_names)
        parts = inner_parts(list(found.names))
        if "train" in parts and len(set(parts)) > 1:
            return self._take_split_inside(found, parts)
        return take_part(found, self.part, self.division, self.folder)

    def _take_split_inside(self, found: Manifest, parts: Sequence[Part | None]) -> Manifest:
        """Take the videos of `<class>/train/` or of `<class>/val/` (else `<class>/test/`)."""
        if self.division.given:
            raise UserError(
                f"{self.division.given} divides videos that have no list to validate on, but the "
                f"class folders of {self.folder} hold splits; remove the option"
            )
        wanted: Part = "test" if self.part == "val" and "val" not in parts else self.part
        if self.part == "train":
            logger.info("%s: reading as class folders with splits inside", self.folder)
        return found.take([i for i, part in enumerate(parts) if part == wanted])
