"""Walk the folders of a data set: every real file and folder once, whatever links there are.

A link to what is below the root counts if the file is not listed where it really is. Links that
lead out of the root are followed only on request.
"""

import logging
import os
from collections.abc import Iterator, Sequence

from video_mvit.data.lists.listing import list_folder
from video_mvit.errors import UserError

logger = logging.getLogger(__name__)


class FolderWalk:
    """A walk over the folders below `root`, which remembers what it has listed.

    `others` are the files below it that have none of the `suffixes`, as they are met.
    """

    def __init__(self, root: str, suffixes: Sequence[str], *, follow_links: bool) -> None:
        self._root, self._suffixes = root, tuple(suffixes)
        self._follow_links = follow_links
        self._real_root = os.path.realpath(root)
        self._real_folders: set[str] | None = None  # below the root, reached without links
        self._linked: set[str] = set()  # files and folders that were reached by links
        self._outside: list[str] = []
        self._num_repeated = 0
        self.others: list[str] = []

    def list(self, folder: str) -> tuple[list[str], list[str]]:
        """List the files and folders directly in a folder that count, sorted.

        Raises `UserError` if the folder cannot be listed.
        """
        try:
            entries = list_folder(folder, self._suffixes)
        except OSError as error:
            raise UserError(f"{folder} cannot be listed: {error.strerror}") from None
        relative = os.path.relpath(folder, self._root)
        is_real = os.path.realpath(folder) == os.path.normpath(f"{self._real_root}/{relative}")
        self.others += (os.path.normpath(f"{relative}/{name}") for name in sorted(entries.others))

        def counts(name: str) -> bool:
            is_plain = is_real and name not in entries.links
            return is_plain or self._counts(os.path.join(folder, name))

        return (
            list(filter(counts, sorted(entries.files))),
            list(filter(counts, sorted(entries.folders))),
        )

    def below(self, folder: str, prefix: str = "") -> Iterator[str]:
        """Yield the names of all files below a folder, those directly in it first, sorted."""
        left = [(folder, prefix)]
        while left:
            here, start = left.pop()
            files, folders = self.list(here)
            yield from (start + name for name in files)
            left += [(f"{here}/{name}", f"{start}{name}/") for name in reversed(folders)]

    def log(self, how_to_follow: str) -> None:
        """Say which links did not count; `how_to_follow` is what a person may do about it."""
        if self._outside:
            message = "%d links lead out of %s and are not followed, first: %s; %s"
            num_outside, first = len(self._outside), self._outside[0]
            logger.warning(message, num_outside, self._root, first, how_to_follow)
        if self._num_repeated:
            message = "%d links in %s lead to what is listed already; each file counts once"
            logger.warning(message, self._num_repeated, self._root)

    def _counts(self, path: str) -> bool:
        """Return whether a file or folder that a link leads to counts there."""
        target = os.path.realpath(path)
        is_inside = f"{target}/".startswith(f"{self._real_root.rstrip('/')}/")
        if not is_inside and not self._follow_links:
            self._outside.append(path)
            return False
        if target in self._linked or self._is_listed(target):
            self._num_repeated += 1
            return False
        self._linked.add(target)
        return True

    def _is_listed(self, target: str) -> bool:
        """Return whether a walk without links lists a file, or what is in a folder."""
        if self._real_folders is None:
            self._real_folders = set(_visible_folders(self._real_root))
        folder, name = os.path.split(target)
        is_file_there = folder in self._real_folders and name.lower().endswith(self._suffixes)
        return target in self._real_folders or target == self._real_root or is_file_there


def _visible_folders(root: str) -> Iterator[str]:
    """Yield the visible folders below a root that no link leads to."""
    left = [root]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                found = [e.path for e in entries if e.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        visible = [path for path in found if not os.path.basename(path).startswith(".")]
        left += visible
        yield from visible
