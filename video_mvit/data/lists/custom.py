"""Readers of a user's own videos: rows of paths and labels, class folders, or any known list."""

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from video_mvit.data.lists.class_folders import ClassFolderSource
from video_mvit.data.lists.listing import FolderListing
from video_mvit.data.lists.manifest import (
    Manifest,
    ManifestSource,
    Row,
    VideoList,
    find_videos,
)
from video_mvit.data.lists.published import (
    HMDB51_LIST,
    KINETICS_COLUMNS,
    UCF101_LIST,
    UCF101_ROW,
    KineticsSource,
    SomethingSource,
    UCF101Source,
)
from video_mvit.data.lists.splits import LIST_SUFFIXES
from video_mvit.data.lists.text import (
    MAX_UNNAMED_CLASSES,
    check_same_classes,
    is_number,
    quote,
    read_class_names,
    read_csv,
    read_lines,
)
from video_mvit.data.reading.formats import VIDEO_SUFFIXES
from video_mvit.errors import MissingFileError, UserError

logger = logging.getLogger(__name__)

# In space-separated rows the path ends with a video suffix, so that it may contain spaces; a folder
# of frames has no suffix and is followed by their number. At most one field between path and label
# is ignored.
ENDS_IN_SUFFIX = tuple(suffix + quotes for suffix in VIDEO_SUFFIXES for quotes in ("", '"'))


@dataclass(frozen=True, kw_only=True)
class PathListSource:
    """Rows of a path and a class number, separated by tabs, commas or spaces; no header.

    The first row determines the separator. A third field in between is ignored: SlowFast's lists
    have one, and mmaction2's lists of frame folders store the number of frames there. Paths are
    relative to `folder`, by default the folder of the list; absolute paths are used as they are. If
    a path does not exist, the same path with another video suffix is used, so that the list also
    works for copies. `classes` is a file with one class name per line; without it, classes are
    named by their numbers.
    """

    manifest: str
    folder: str | None = None
    classes: str | None = None

    def read(self, class_names: Sequence[str] | None = None) -> Manifest:
        lines = list(self._read_rows())
        names = self._names(class_names, lines)
        for number, path, label in lines:
            if label >= len(names):
                raise UserError(
                    f"{self.manifest} line {number}: {quote(path)} has label {label}; the data set "
                    f"has {len(names)} classes, labels 0 to {len(names) - 1}"
                )
        folder = self.folder or os.path.dirname(self.manifest) or "."
        root, relative = _below_one_folder(folder, [path for _, path, _ in lines])
        rows = [
            Row(number, path, label, (place,))
            for (number, path, label), place in zip(lines, relative, strict=True)
        ]
        listed = VideoList(path=self.manifest, rows=rows, class_names=names)
        found = find_videos(listed, _ListingWithCopies(root, frozenset(relative)))
        return found.in_class_order(class_names)

    def _read_rows(self) -> Iterator[tuple[int, str, int]]:
        """Yield line number, path and label of every row."""
        for number, text, fields in _read_fields(self.manifest):
            if len(fields) not in (2, 3):
                raise UserError(
                    f"{self.manifest} line {number}: {quote(text)} has {len(fields)} field"
                    f"{'s' * (len(fields) != 1)}; a row is a path and a label; quote a path that "
                    "contains the separator"
                )
            if not is_number(fields[-1]):
                raise UserError(
                    f"{self.manifest} line {number}: {quote(text)} ends in {quote(fields[-1])}; a "
                    "label is a whole number, 0 for the first class"
                )
            yield number, fields[0], int(fields[-1])

    def _names(
        self, class_names: Sequence[str] | None, lines: Sequence[tuple[int, str, int]]
    ) -> tuple[str, ...]:
        if self.classes is not None:
            names = read_class_names(self.classes)
            check_same_classes(self.classes, names, class_names)
            return names
        if class_names is not None:
            return tuple(class_names)
        number, _, highest = max(lines, key=lambda line: line[2], default=(0, "", -1))
        if highest >= MAX_UNNAMED_CLASSES:
            raise UserError(
                f"{self.manifest} line {number}: {highest} is too large for a label; if it is one, "
                "provide a file with one class name per line"
            )
        return tuple(str(i) for i in range(highest + 1))


class _ListingWithCopies(FolderListing):
    """Find the exact name, else a video that differs in its suffix only.

    A video that is `listed` itself is not used for another one.
    """

    def __init__(self, root: str, listed: Collection[str]) -> None:
        super().__init__(root, by="name")
        self._listed = listed

    def find(self, places: Iterable[str]) -> str | None:
        places = tuple(places)
        others = (name for place in places for name in _with_other_suffixes(place))
        exact = super().find(places)
        return exact or super().find(name for name in others if name not in self._listed)


def _with_other_suffixes(place: str) -> list[str]:
    """List the possible names of copies: 1.mov.mp4, and 1.mp4 where .mov is of a video."""
    stem, suffix = os.path.splitext(place)
    stems = [place, stem] if suffix.lower() in VIDEO_SUFFIXES else [place]
    return [stem + other for stem in stems for other in VIDEO_SUFFIXES]


def _read_fields(path: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield line number, text and fields of every row of a path list."""
    _, first = _first_line(path)
    separator = _separator(first)
    if separator != " ":
        for number, row in read_csv(path, separator):
            yield number, separator.join(row), [field.strip() for field in row]
        return
    for number, line in read_lines(path):
        yield number, line, _split_at_spaces(line)


def _split_at_spaces(line: str) -> list[str]:
    """Split a row into path and label; other rows at all spaces."""
    fields = line.split()
    if any(field.lower().endswith(ENDS_IN_SUFFIX) for field in fields):
        for num_after in (1, 2):
            path, *after = line.rsplit(None, num_after)
            if path.lower().endswith(ENDS_IN_SUFFIX) and len(after) == num_after:
                return [path.strip().strip('"'), after[-1]]
        return fields
    path, *after = line.rsplit(None, 2)
    if len(after) == 2 and not after[0].isdecimal():
        path, *after = line.rsplit(None, 1)
    return [path.strip().strip('"'), after[-1]] if after else fields


def _first_line(path: str) -> tuple[int, str]:
    for number, line in read_lines(path):
        return number, line
    raise UserError(f"{path} lists no videos")


def _separator(line: str) -> Literal["\t", ",", " "]:
    """Detect the separator between path and number."""
    for separator in ("\t", ","):
        if separator in line and is_number(line.rpartition(separator)[2].strip('" ')):
            return separator
    return " "


def _below_one_folder(folder: str, paths: Sequence[str]) -> tuple[str, list[str]]:
    """Return the common root of all paths, and the paths relative to it; `folder` if possible."""
    inside = [os.path.normpath(path) for path in paths]
    if not any(path.startswith(("/", "..")) for path in inside):
        return folder, inside
    full = [os.path.abspath(os.path.join(folder, path)) for path in paths]
    root = os.path.abspath(folder)
    if not all(path.startswith(f"{root}/") for path in full):
        root = os.path.commonpath({os.path.dirname(path) for path in full})
    start = len(root.rstrip("/")) + 1
    return root, [path[start:] for path in full]


@dataclass(frozen=True, kw_only=True)
class ListSource:
    """A list in any known form, or a folder of class folders; the log names the form.

    `manifest` may omit the suffix of the list: `train` is `train.csv`, `.txt`, `.tsv` or `.json` if
    one exists, else the folder `train`. Paths are relative to `folder` (Kinetics videos may also be
    in its subfolder named like the list), by default the folder of the list. `classes` has one
    class name per line, in label order, for lists that do not name their classes in that order.
    """

    manifest: str
    folder: str | None = None
    classes: str | None = None
    follow_links: bool = False  # out of a folder of class folders

    def read(self, class_names: Sequence[str] | None = None) -> Manifest:
        form, source = detect_source(
            find_list(self.manifest), self.folder, follow_links=self.follow_links
        )
        logger.info("%s: reading as %s", self.manifest, form)
        if self.classes is None:
            return source.read(class_names)
        names = read_class_names(self.classes)
        check_same_classes(self.classes, names, class_names)
        return source.read(names).in_class_order(class_names)


def find_list(path: str) -> str:
    """Resolve a path without suffix to a list or folder. Raises `FileNotFoundError`."""
    lists = [path + suffix for suffix in LIST_SUFFIXES]
    found = [name for name in (path, *lists) if os.path.isfile(name)]
    if not found and not os.path.isdir(path):
        raise MissingFileError(
            f"neither {path} nor a list of that name ({', '.join(LIST_SUFFIXES)}) exists"
        )
    if len(found) > 1:
        raise UserError(f"{found[0]} and {found[1]} both exist; give the suffix of the list")
    return found[0] if found else path


def detect_source(
    path: str, folder: str | None = None, *, follow_links: bool = False
) -> tuple[str, ManifestSource]:
    """Detect the form of a list: -> description, reader. Raises `UserError` if unknown."""
    beside = os.path.dirname(path)
    start = folder or beside or "."
    if os.path.isdir(path):
        return _detect_folder(path, follow_links=follow_links)
    if path.lower().endswith(".json"):
        labels = os.path.join(beside, "labels.json")
        form = f"Something-Something v2 with the classes of {labels}"
        return form, SomethingSource(labels=labels, manifest=path, folder=start)
    number, line = _first_line(path)
    if "youtube_id" in line.split(","):
        own = os.path.join(start, os.path.splitext(os.path.basename(path))[0])
        videos = own if os.path.isdir(own) else start
        return f"a Kinetics csv of {videos}", KineticsSource(manifest=path, folder=videos)
    if UCF101_LIST.fullmatch(os.path.basename(path)) and UCF101_ROW.fullmatch(line.strip()):
        classes = os.path.join(beside, "classInd.txt")
        return "a split of UCF101", UCF101Source(manifest=path, classes=classes, folder=start)
    _, _, fields = next(_read_fields(path))
    if len(fields) in (2, 3) and is_number(fields[-1]):
        separator = {"\t": "tabs", ",": "commas", " ": "spaces"}[_separator(line)]
        form = f"paths and labels separated by {separator}"
        return form, PathListSource(manifest=path, folder=folder)
    raise UserError(
        f"{path} line {number}: {quote(line)} is not a row of a supported list: Kinetics csv "
        f"({','.join(KINETICS_COLUMNS)}), rows of a path and a class number, a UCF101 split, "
        "Something-Something's json; or a folder of class folders"
    )


def _detect_folder(path: str, *, follow_links: bool) -> tuple[str, ManifestSource]:
    if any(HMDB51_LIST.fullmatch(name) for name in os.listdir(path)):
        raise UserError(
            f"{path} holds HMDB51's split files, which list training and test videos together; "
            "use data=hmdb51"
        )
    return "class folders", ClassFolderSource(folder=path, follow_links=follow_links)
