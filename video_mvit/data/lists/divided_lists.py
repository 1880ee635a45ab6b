"""Two lists, to train and to validate on, or one whose videos are divided."""

import os
from dataclasses import dataclass
from typing import Literal, NamedTuple

from video_mvit.data.lists.custom import find_list
from video_mvit.data.lists.division import DividedSource
from video_mvit.data.lists.splits import LIST_SUFFIXES
from video_mvit.errors import UserError


class ChosenList(NamedTuple):
    """The path of a list, and whether only a part of its videos is meant."""

    path: str
    is_divided: bool


@dataclass(frozen=True, kw_only=True)
class DividedLists(DividedSource):
    """The list of one part of the videos.

    `manifest` may omit the suffix of the list. Paths are relative to `folder`. Where the list to
    validate on is None, or `<folder>/val` and not there, a part of the list to train on is held
    out.
    """

    part: Literal["train", "val"]
    manifest: str | None
    other_manifest: str | None
    folder: str

    def choose_list(self) -> ChosenList:
        """Find the list to read; raises `UserError` or `FileNotFoundError` without one."""
        paths = {"train": self.manifest, "val": self.other_manifest}
        if self.part == "val":
            paths = {"train": self.other_manifest, "val": self.manifest}
        is_divided = self._is_absent(paths["val"])
        path = find_list(paths["train" if is_divided else self.part] or "")
        if os.path.isdir(path):
            raise UserError(f"{path} is a folder; videos with several classes need a list of them")
        if self.division.given and not is_divided:
            raise UserError(
                f"{self.division.given} divides videos that have no list to validate on, but "
                f"{paths['val']} is one; remove the option, or set data.val_list=null"
            )
        return ChosenList(path, is_divided)

    def _is_absent(self, path: str | None) -> bool:
        """Return whether there is no list to validate on; a path that was chosen has to exist."""
        if path is None:
            return True
        usual = os.path.normpath(os.path.join(self.folder, "val"))
        return os.path.normpath(path) == usual and not _is_there(path)


def _is_there(path: str) -> bool:
    """Return whether there is a list, whose suffix may be left out."""
    return any(os.path.isfile(path + suffix) for suffix in ("", *LIST_SUFFIXES))
