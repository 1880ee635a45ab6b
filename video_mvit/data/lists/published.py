"""Readers of the published lists of Kinetics, Something-Something, UCF101 and HMDB51.

Each turns its list into rows of a class and possible places of the video; the manifest looks them
up.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from video_mvit.data.lists.listing import FolderListing
from video_mvit.data.lists.manifest import Manifest, Row, VideoList, find_videos
from video_mvit.data.lists.text import (
    check_same_classes,
    class_order,
    is_number,
    numbered_lines,
    open_list,
    quote,
    read_csv,
    read_json,
    read_lines,
    unknown_class,
)
from video_mvit.errors import MissingFileError, UserError
from video_mvit.text import short

KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
FRAME_LIST_COLUMNS = ("original_vido_id", "video_id", "frame_id", "path", "labels")
UCF101_LIST = re.compile(r"(?:train|test)list\d+\.txt")
UCF101_ROW = re.compile(r"(?P<label>[^/\s]+)/(?P<stem>\S+)\.\w+(?:\s+(?P<number>\S+))?")
HMDB51_LIST = re.compile(r"(?P<label>.+)_test_split(?P<split>\d+)\.txt")
HMDB51_ROW = re.compile(r"(?P<stem>\S.*)\.\w+\s+(?P<part>[012])")


@dataclass(frozen=True, kw_only=True)
class KineticsSource:
    """A split of Kinetics-400, 600 or 700: the official csv and a folder of videos.

    The csv has the columns `label,youtube_id,time_start,time_end,split`. Files are
    `<folder>/<label>/<youtube_id>_<start>_<end>.mp4` or `<folder>/<youtube_id>_<start>_<end>.mp4`,
    with six-digit seconds. The folder of a label may be written in other ways that have the same
    letters and digits, as other downloaders do: underscores for spaces, no quotes or brackets.
    """

    manifest: str
    folder: str

    def read(self, class_names: Sequence[str] | None = None) -> Manifest:
        lines = list(self._read_rows())
        names = class_order(class_names, (label for _, label, _ in lines))
        index = {name: i for i, name in enumerate(names)}
        listing = FolderListing(self.folder, by="stem")
        others = _folders_of_labels(listing.names(""), {label for _, label, _ in lines})
        rows = []
        for number, label, stem in lines:
            if label not in index:
                raise unknown_class(f"{self.manifest} line {number}", label, names)
            folders = (label, "", label.replace(" ", "_"), *others.get(label, ()))
            places = tuple(os.path.join(folder, stem) for folder in folders)
            rows.append(Row(number, stem, index[label], places))
        listed = VideoList(path=self.manifest, rows=rows, class_names=names)
        return find_videos(listed, listing)

    def _read_rows(self) -> Iterator[tuple[int, str, str]]:
        """Yield line number, label and file stem of every row."""
        rows = read_csv(self.manifest, ",")
        number, header = next(rows, (1, []))
        if absent := [name for name in KINETICS_COLUMNS if name not in header]:
            raise UserError(
                f"{self.manifest} line {number}: {quote(','.join(header))} has no column "
                f"{', '.join(absent)}; a Kinetics csv has {', '.join(KINETICS_COLUMNS)}"
            )
        wanted = [header.index(name) for name in KINETICS_COLUMNS]
        for number, row in rows:
            fields = [row[place].strip() if place < len(row) else "" for place in wanted]
            if not (fields[0] and fields[1] and is_number(fields[2]) and is_number(fields[3])):
                raise UserError(
                    f"{self.manifest} line {number}: {quote(','.join(row))} has no label, name "
                    "and whole seconds of start and end"
                )
            name, clip, start, end = fields
            yield number, name, f"{clip}_{int(start):06d}_{int(end):06d}"


def _folders_of_labels(names: Iterable[str], labels: Iterable[str]) -> dict[str, list[str]]:
    """Return the names whose letters and digits are those of one label only, by label."""
    by_letters: dict[str, list[str]] = {}
    for label in labels:
        by_letters.setdefault(_letters(label), []).append(label)
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        alike = by_letters.get(_letters(name), [])
        if len(alike) == 1:
            found.setdefault(alike[0], []).append(name)
    return found


def _letters(name: str) -> str:
    """Return the letters and digits of a name, without case."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold()))


@dataclass(frozen=True, kw_only=True)
class SomethingSource:
    """A split of Something-Something v2: the official json files and a folder of `<id>.webm`.

    Other suffixes work as well, and folders of frames, `<folder>/<id>/`. A frame list with the
    columns `original_vido_id video_id frame_id path labels` gives other frame folders.
    """

    labels: str
    manifest: str
    folder: str
    frame_list: str | None = None

    def read(self, class_names: Sequence[str] | None = None) -> Manifest:
        numbers = self._read_numbers()
        names = tuple(sorted(numbers, key=numbers.__getitem__))
        check_same_classes(self.labels, names, class_names)
        rows = list(self._read_rows(numbers))
        if self.frame_list is not None:
            rows = _in_frame_folders(self.manifest, rows, self.frame_list)
        listed = VideoList(path=self.manifest, rows=rows, class_names=names, unit="entry")
        by: Literal["stem", "name"] = "stem" if self.frame_list is None else "name"
        found = find_videos(listed, FolderListing(self.folder, by=by))
        return found.in_class_order(class_names)

    def _read_numbers(self) -> dict[str, int]:
        """Read the number of each class, stored as text."""
        content = read_json(self.labels, dict)
        numbers = {name: int(n) for name, n in content.items() if is_number(str(n))}
        if sorted(numbers.values()) != list(range(len(content))):
            raise UserError(f"{self.labels}: class numbers are not 0 to {len(content) - 1}")
        return numbers

    def _read_rows(self, numbers: dict[str, int]) -> Iterator[Row]:
        for number, entry in enumerate(read_json(self.manifest, list), 1):
            fields = entry if isinstance(entry, dict) else {}
            template = fields.get("template")
            label = (
                (template if isinstance(template, str) else "").replace("[", "").replace("]", "")
            )
            name = fields.get("id")
            if label not in numbers or type(name) not in (str, int):
                raise UserError(
                    f"{self.manifest} entry {number}: {quote(entry)} has no id or no template "
                    f"that {self.labels} knows"
                )
            name = str(name)
            if "/" in name or "\0" in name or name in ("", ".", ".."):
                raise UserError(f"{self.manifest} entry {number}: {short(name)} is not an id")
            yield Row(number, name, numbers[label], (name,))


def _in_frame_folders(manifest: str, rows: list[Row], frame_list: str) -> list[Row]:
    """Replace the place of each row by the folder of its first frame in a frame list."""
    folders = _read_frame_folders(frame_list)
    listed = {row.name for row in rows}
    for here, there, names in (
        (manifest, frame_list, sorted(listed - folders.keys())),
        (frame_list, manifest, sorted(folders.keys() - listed)),
    ):
        if names:
            raise UserError(
                f"{manifest} has {len(listed)} videos and {frame_list} {len(folders)}: "
                f"{len(names)} of {here} are not in {there}, first: {names[0]!r}"
            )
    return [row._replace(places=(folders[row.name],)) for row in rows]


def _read_frame_folders(path: str) -> dict[str, str]:
    """Read the folder of the first frame of each video, skipping its other rows."""
    folders: dict[str, str] = {}
    with open_list(path) as file:
        lines = numbered_lines(path, file)
        header = next(lines, (1, ""))[1].strip()
        if tuple(header.split()) != FRAME_LIST_COLUMNS:
            raise UserError(
                f"{path} line 1: {quote(header)} is not the header of a frame list, "
                f"{' '.join(FRAME_LIST_COLUMNS)!r}"
            )
        same_video = "\n"  # a blank line
        for number, line in lines:
            if line.startswith(same_video) or line.isspace():
                continue
            fields = line.split()
            if len(fields) != len(FRAME_LIST_COLUMNS):
                raise UserError(
                    f"{path} line {number}: {quote(line.strip())} has {len(fields)} fields, "
                    f"{len(FRAME_LIST_COLUMNS)} are needed: {' '.join(FRAME_LIST_COLUMNS)}"
                )
            folders.setdefault(fields[0], os.path.dirname(fields[3]))
            same_video = line[: line.index(fields[0]) + len(fields[0]) + 1]
    return folders


@dataclass(frozen=True, kw_only=True)
class UCF101Source:
    """A split of UCF101: `trainlist01.txt` or `testlist01.txt`, `classInd.txt`, class folders.

    Test lists have no class numbers; the class is the folder in both. Raises `UserError` if a
    number contradicts the folder.
    """

    manifest: str
    classes: str
    folder: str

    def read(self, class_names: Sequence[str] | None = None) -> Manifest:
        numbers = self._read_numbers()
        names = tuple(class_names if class_names is not None else numbers)
        index = {name: i for i, name in enumerate(names)}
        rows = []
        for number, line in read_lines(self.manifest):
            match = UCF101_ROW.fullmatch(line.strip())
            label = match["label"] if match else ""
            if match is None or label not in numbers or label not in index:
                raise UserError(
                    f"{self.manifest} line {number}: {quote(line)} has no class of the "
                    f"{len(names)} in {self.classes} as its folder"
                )
            if match["number"] not in (None, str(numbers[label])):
                raise UserError(
                    f"{self.manifest} line {number}: {quote(line)} has number {match['number']}, "
                    f"but {self.classes} gives {label} the number {numbers[label]}"
                )
            stem = match["stem"]
            rows.append(Row(number, f"{label}/{stem}", index[label], (f"{label}/{stem}",)))
        listed = VideoList(path=self.manifest, rows=rows, class_names=names)
        return find_videos(listed, FolderListing(self.folder, by="stem"))

    def _read_numbers(self) -> dict[str, int]:
        """Read the number of each class, in order."""
        numbers: dict[str, int] = {}
        for line_number, line in read_lines(self.classes):
            number, _, name = line.strip().partition(" ")
            if number != str(len(numbers) + 1) or not name or name in numbers:
                raise UserError(
                    f"{self.classes} line {line_number}: {quote(line)} is not the number "
                    f"{len(numbers) + 1} and a new class"
                )
            numbers[name] = int(number)
        return numbers


@dataclass(frozen=True, kw_only=True)
class HMDB51Source:
    """A split of HMDB51: the folder of `<class>_test_split<k>.txt` files, and class folders.

    Each line is a video and 1 (training), 2 (test) or 0 (neither).
    """

    manifest: str
    folder: str
    part: Literal["train", "test"]
    split: int = 1

    def read(self, class_names: Sequence[str] | None = None) -> Manifest:
        files = self._class_files()
        names = class_order(class_names, files)
        index = {name: i for i, name in enumerate(names)}
        rows = []
        for label, path in files.items():
            if label not in index:
                raise unknown_class(path, label, names)
            stems = self._read_stems(path)
            rows += [Row(i, stem, index[label], (f"{label}/{stem}",)) for i, stem in stems]
        listed = VideoList(path=self.manifest, rows=rows, class_names=names)
        return find_videos(listed, FolderListing(self.folder, by="stem"))

    def _class_files(self) -> dict[str, str]:
        """Return the file of each class."""
        if not os.path.isdir(self.manifest):
            raise MissingFileError(f"{self.manifest} is not the folder of HMDB51's split files")
        matches = [HMDB51_LIST.fullmatch(name) for name in sorted(os.listdir(self.manifest))]
        files = {
            match["label"]: os.path.join(self.manifest, match[0])
            for match in matches
            if match is not None and int(match["split"]) == self.split
        }
        if not files:
            raise MissingFileError(
                f"{self.manifest} has no file <class>_test_split{self.split}.txt; HMDB51 has the "
                "splits 1, 2 and 3"
            )
        return files

    def _read_stems(self, path: str) -> Iterator[tuple[int, str]]:
        """Yield line number and file stem of the videos of this part."""
        for number, line in read_lines(path):
            match = HMDB51_ROW.fullmatch(line.strip())
            if match is None:
                raise UserError(
                    f"{path} line {number}: {quote(line)} is not a video and 1 (train), 2 (test) "
                    "or 0"
                )
            if match["part"] == {"train": "1", "test": "2"}[self.part]:
                yield number, match["stem"]
