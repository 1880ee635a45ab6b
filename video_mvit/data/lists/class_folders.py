"""Class folders: the name of a folder is the class of the videos or pictures below it."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from video_mvit.data.lists.folders import FolderWalk
from video_mvit.data.lists.listing import LeftOut, left_out_by_suffix, suffix_of
from video_mvit.data.lists.manifest import Manifest, PackedStrings
from video_mvit.data.lists.splits import check_are_classes
from video_mvit.data.lists.text import class_order, unknown_classes, warn_of_similar_names
from video_mvit.data.reading.formats import NOTE_SUFFIXES, PICTURE_SUFFIXES, VIDEO_SUFFIXES
from video_mvit.errors import MissingFileError, UserError
from video_mvit.text import some_of

logger = logging.getLogger(__name__)

SUFFIXES = {"video": VIDEO_SUFFIXES, "picture": PICTURE_SUFFIXES}


@dataclass(frozen=True, kw_only=True)
class ClassFolderSource:
    """Class folders: `<folder>/<class>/` holds the videos of a class, at any depth.

    Or its pictures, as in ImageNet. Folders without any are ignored, like hidden files and folders.
    Every file counts once; links out of `folder` are ignored unless `follow_links`. What is left
    out is told in `Manifest.left_out`.
    """

    folder: str
    of: Literal["video", "picture"] = "video"
    follow_links: bool = False

    def __post_init__(self) -> None:
        if self.of not in SUFFIXES:
            raise UserError(f"of {self.of!r} is none of {', '.join(map(repr, SUFFIXES))}")

    def read(self, class_names: Sequence[str] | None = None) -> Manifest:
        """Read the folders; raises `UserError` where they are splits rather than classes."""
        return self._manifest(self._found(), class_names)

    def read_split_inside(self, class_names: Sequence[str] | None = None) -> Manifest:
        """Read the folders, whose videos may lie in `<class>/train` and `<class>/val`."""
        return self._manifest(self._found(may_hold_splits=True), class_names)

    def _found(
        self, *, may_hold_splits: bool = False
    ) -> tuple[dict[str, list[str]], tuple[LeftOut, ...]]:
        """List the videos of each class, relative to the folder, and what is left out."""
        if not os.path.isdir(self.folder):
            raise MissingFileError(f"{self.folder} is not a folder of class folders")
        walk = FolderWalk(self.folder, SUFFIXES[self.of], follow_links=self.follow_links)
        loose, folders = walk.list(self.folder)
        found = {
            name: list(walk.below(os.path.join(self.folder, name), f"{name}/")) for name in folders
        }
        walk.log("data.follow_links=true follows them")
        others = [
            name for name in walk.others if "/" in name or suffix_of(name) not in NOTE_SUFFIXES
        ]
        left_out = left_out_by_suffix(others, self.of)
        if loose:
            left_out.append(LeftOut(len(loose), "outside of the class folders", loose[0]))
        empty = [name for name, videos in found.items() if not videos]
        found = {name: videos for name, videos in found.items() if videos}
        if not found:
            raise UserError(
                f"{self.folder} has no class folder with a {self.of}"
                + self._what_is_there(loose, walk.others)
            )
        if empty:
            message = "%d folders of %s contain no %s and are ignored: %s"
            logger.warning(message, len(empty), self.folder, self.of, some_of(empty))
        check_are_classes(self.folder, found, may_hold_splits=may_hold_splits)
        warn_of_similar_names(self.folder, found)
        return found, tuple(left_out)

    def _what_is_there(self, loose: Sequence[str], others: Sequence[str]) -> str:
        if loose:
            return f"; {len(loose):,} are directly in it"
        frames = [name for name in others if suffix_of(name) in PICTURE_SUFFIXES]
        if self.of == "video" and frames:
            return (
                f", but {len(frames):,} pictures, such as {frames[0]}; folders of frames need a "
                "list of rows 'folder,number of frames,class', and pictures data=imagenet"
            )
        described = left_out_by_suffix(others, self.of)
        return f"; it holds {described[0]}" if described else ""

    def _manifest(
        self,
        listed: tuple[Mapping[str, Sequence[str]], tuple[LeftOut, ...]],
        class_names: Sequence[str] | None,
    ) -> Manifest:
        found, left_out = listed
        names = class_order(class_names, found)
        index = {name: i for i, name in enumerate(names)}
        if unknown := [name for name in found if name not in index]:
            raise unknown_classes(self.folder, unknown, names)
        return Manifest(
            root=self.folder,
            names=PackedStrings.of(video for videos in found.values() for video in videos),
            labels=np.repeat(
                np.array([index[name] for name in found], np.int32),
                [len(videos) for videos in found.values()],
            ),
            class_names=names,
            left_out=left_out,
        )
