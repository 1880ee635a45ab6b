"""List folders: what is in them, and look-ups of names below a root."""

import errno
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from video_mvit.data.reading.formats import SYSTEM_FILES, VIDEO_SUFFIXES
from video_mvit.errors import MissingFileError

MAX_SHOWN = 100  # characters of a name
MAX_SUFFIXES = 3  # shown in a message
# Why a listed place does not exist.
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)


class LeftOut(NamedTuple):
    """Files of a folder that are not read: how many, why, and an example."""

    num_files: int
    why: str
    example: str

    def __str__(self) -> str:
        return f"{self.num_files:,} {self.why} (such as {self.example})"


class FolderListing:
    """Look-up of names below a folder, which lists each folder once.

    `by="stem"` finds videos without their suffix, and folders of numbered images; `by="name"` finds
    files and folders by their full name. Broken links do not exist. Raises `FileNotFoundError` if
    `root` is not a folder.
    """

    def __init__(self, root: str, *, by: Literal["stem", "name"]) -> None:
        if not os.path.isdir(root):
            raise MissingFileError(f"{root} is not a folder of videos")
        self.root, self.by = root, by
        self._found: dict[str, dict[str, str]] = {}

    def find(self, places: Iterable[str]) -> str | None:
        """Return the first of the places that exists, relative to the root."""
        for place in places:
            folder, slash, last = place.rpartition("/")
            if (name := self.names(folder).get(last)) is not None:
                return folder + slash + name
        return None

    def names(self, folder: str) -> Mapping[str, str]:
        """Return what is found in a folder below the root: name or stem to full name."""
        if folder not in self._found:
            self._found[folder] = self._list(os.path.join(self.root, folder))
        return self._found[folder]

    def example(self, place: str) -> str:
        """Return an example of a file name that was looked for."""
        name = f"{place}{VIDEO_SUFFIXES[0]}" if self.by == "stem" else place
        return name if len(name) <= MAX_SHOWN else f"{name[:MAX_SHOWN]}..."

    def _list(self, folder: str) -> dict[str, str]:
        try:
            if self.by == "stem":
                found = list_folder(folder, VIDEO_SUFFIXES)
                videos = one_of_each_stem(found.files, VIDEO_SUFFIXES)
                return {name: name for name in found.folders} | videos
            with os.scandir(folder) as entries:
                return {entry.name: entry.name for entry in entries if _leads_somewhere(entry)}
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
            return {}


def moved(folder: str, path: str) -> str:
    """Say what to remove from the paths of a list, if the end of one is in a folder."""
    parts = path.replace("\\", "/").split("/")
    for i in range(1, len(parts)):
        rest = "/".join(parts[i:])
        if rest and os.path.exists(os.path.join(folder, rest)):
            prefix = path[: len(path) - len(rest)]
            return f"; {folder} has {rest}, so remove {prefix!r} from the paths"
    return ""


class FolderEntries(NamedTuple):
    """Visible entries of a folder: files of some suffixes, folders, and which of both are links.

    `others` are files of other suffixes, except those that operating systems leave.
    """

    files: list[str]
    folders: list[str]
    links: set[str]
    others: list[str]


def list_folder(folder: str, suffixes: Sequence[str]) -> FolderEntries:
    """List what is directly in a folder, in any order."""
    found = FolderEntries([], [], set(), [])
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if entry.is_symlink():
                found.links.add(name)
            if suffix_of(name) in suffixes and _is_file(entry):
                found.files.append(name)
            elif _is_folder(entry):
                found.folders.append(name)
            elif name.lower() not in SYSTEM_FILES:
                found.others.append(name)
    return found


def left_out_by_suffix(others: Sequence[str], kind: str) -> list[LeftOut]:
    """Describe files whose suffix is not that of a video or picture (`kind`); [] for none."""
    if not others:
        return []
    suffixes = Counter(suffix_of(name) or "none" for name in others)
    shown = [suffix for suffix, _ in suffixes.most_common(MAX_SUFFIXES)]
    why = f"with a suffix that is not of a {kind}: {', '.join(shown)}"
    if len(suffixes) > MAX_SUFFIXES:
        why += ", ..."
    example = next(name for name in others if (suffix_of(name) or "none") == shown[0])
    return [LeftOut(len(others), why, example)]


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case, "" without one."""
    return os.path.splitext(name)[1].lower()


def one_of_each_stem(names: Iterable[str], suffixes: Sequence[str]) -> dict[str, str]:
    """Return stem -> file name; of files with the same stem, the suffix that comes first wins."""
    found: dict[str, str] = {}
    for name in names:
        stem = os.path.splitext(name)[0]
        other = found.setdefault(stem, name)
        if other != name:
            found[stem] = min((other, name), key=lambda n: _preference(n, suffixes))
    return found


def _preference(name: str, suffixes: Sequence[str]) -> tuple[int, str]:
    return suffixes.index(suffix_of(name)), name


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a file or a link to one; a link to itself is none."""
    try:
        return entry.is_file()
    except OSError:
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _leads_somewhere(entry: os.DirEntry[str]) -> bool:
    return not entry.is_symlink() or _is_file(entry) or _is_folder(entry)
