"""Lists of a user's own videos: rows of a path and a label."""

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from video_mvit.data.lists.copies import ListingWithCopies
from video_mvit.data.lists.list_columns import (
    AmbiguousListError,
    Columns,
    choose_columns,
    label_number,
)
from video_mvit.data.lists.list_table import (
    SEPARATORS,
    Table,
    TableRow,
    UnknownListError,
    has_file_suffix,
    read_tables,
)
from video_mvit.data.lists.listing import moved
from video_mvit.data.lists.manifest import Manifest, Row, VideoList, find_videos
from video_mvit.data.lists.named_columns import Roles, named_columns, parse_columns
from video_mvit.data.lists.text import (
    MAX_UNNAMED_CLASSES,
    check_same_classes,
    class_order,
    is_number,
    quote,
    read_class_names,
    unknown_classes,
    warn_of_similar_names,
)
from video_mvit.data.reading.formats import VIDEO_SUFFIXES
from video_mvit.data.reading.frame_names import choose_frames, frame_place, is_template
from video_mvit.data.reading.segments import segment_suffix
from video_mvit.errors import MissingFileError, UserError

logger = logging.getLogger(__name__)

NUM_CHECKED = 8  # folders of frames whose pictures are counted
MAX_FRAMES = 10**8  # of a folder
MAX_TRIED = 1000  # rows whose paths are looked up to tell names from numbers


@dataclass(frozen=True, kw_only=True)
class PathListSource:
    """Rows of a path and a label, separated by tabs, semicolons, commas or spaces.

    Separator, header and columns are found from all rows (`list_columns`), or named by `columns`,
    such as `path,_,label`, or by their header as {path: file, label: activity}; a list that can be
    read in two ways is refused. Labels are whole
    numbers, from which `label_offset` is subtracted, or names of classes. Paths are relative to
    `folder`, by default the folder of the list; absolute paths are used as they are. A path that
    does not exist is looked for with another suffix of a video, another case of it, the other form
    of accented letters, and with `/` for `\\`. `classes` is a file with one class name per line;
    without it, classes are named by their numbers. Of folders of frames, `frame_template` tells
    which pictures are frames, such as `img_%05d.jpg`, and a list may tell how many. With columns
    `start` and `end` (seconds or h:mm:ss), a row is a part of a video (`data.reading.segments`).
    """

    manifest: str
    folder: str | None = None
    classes: str | None = None
    columns: str | Roles | None = None
    label_offset: int = 0
    frame_template: str | None = None

    def __post_init__(self) -> None:
        if self.frame_template is not None and not is_template(self.frame_template):
            raise UserError(
                f"frame_template {self.frame_template!r} is no template of the names of frames, "
                "such as 'img_%05d.jpg'"
            )

    @property
    def form(self) -> str:
        """Describe how the list is read."""
        table, columns = self._parsed
        form = f"paths and labels separated by {SEPARATORS[table.separator]}"
        if columns.num_frames is not None:
            form = f"folders of frames, their numbers and labels, {form.partition(' labels ')[2]}"
        if columns.first_row:
            header = table.rows[0].fields
            form += f", columns {header[columns.path]!r} and {header[columns.label]!r}"
        elif table.num_columns > 2 or columns.path:
            form += f", columns {columns.path + 1} and {columns.label + 1}"
        return form

    def read(self, class_names: Sequence[str] | None = None) -> Manifest:
        """Read the list and look up its videos."""
        table, columns = self._parsed
        rows = table.rows[columns.first_row :]
        names, labels = self._labels(class_names)
        paths = [self._path(row.number, row.fields[columns.path]) for row in rows]
        root, relative = below_one_folder(self._folder, paths)
        if not os.path.isdir(root):
            raise MissingFileError(
                f"{self.manifest}: its paths are below {root}, which does not exist"
                + moved(self._folder, paths[0])
            )
        listed = VideoList(
            path=self.manifest,
            rows=[
                Row(row.number, path, label, (place,), self._part(row))
                for row, path, label, place in zip(rows, paths, labels, relative, strict=True)
            ],
            class_names=names,
        )
        found = find_videos(listed, ListingWithCopies(root, frozenset(relative)))
        if columns.num_frames is not None and self.columns is None and not columns.first_row:
            self._check_counts(found)
        return found.in_class_order(class_names)

    @cached_property
    def _parsed(self) -> tuple[Table, Columns]:
        roles = None if self.columns is None else parse_columns(self.columns)
        return _parse(self.manifest, roles, self._video_exists())

    @property
    def _folder(self) -> str:
        return self.folder or os.path.dirname(self.manifest) or "."

    def _video_exists(self) -> Callable[[str], bool]:
        """Return a test of whether a path names a video on disk, which tries a few only."""
        num_tried = 0

        def exists(path: str) -> bool:
            nonlocal num_tried
            num_tried += 1
            if num_tried > MAX_TRIED or not path or "\0" in path:
                return False
            whole = os.path.join(self._folder, path)
            return any(os.path.exists(whole + suffix) for suffix in ("", *VIDEO_SUFFIXES))

        return exists

    def _path(self, number: int, text: str) -> str:
        """Return the path of a row; raises `UserError` for an address."""
        if "://" in text:
            raise UserError(
                f"{self.manifest} line {number}: {quote(text)} is an address; lists name files, "
                "so download them, or use data.shards, which may be remote"
            )
        if not text:
            raise UserError(f"{self.manifest} line {number} has no path")
        return os.path.expanduser(text) if text.startswith("~/") else text

    def _check_counts(self, found: Manifest) -> None:
        """Raise `UserError` where numbers are not those of the frames in a few of the folders.

        A name and two labels would look the same as a folder, its number of frames and a label. The
        flow of a video has one frame less than the video.
        """
        table, columns = self._parsed
        fits: list[bool] = []
        for name, label in zip(found.names[:NUM_CHECKED], found.labels.tolist(), strict=False):
            place = frame_place(f"{found.root}/{name}")
            if place is None:
                fits.append(False)
                continue
            with contextlib.suppress(ValueError):  # pictures of several kinds
                whole = choose_frames(os.listdir(place.folder), place._replace(stop=None))
                excess = (place.stop or 0) - len(whole)
                is_close = excess <= 1 if columns.offset is not None else abs(excess) <= 1
                fits.append(is_close and abs(label - len(whole)) > 1)
        num_needed = len(fits) if columns.offset is not None else len(fits) / 2
        if sum(fits) < num_needed:
            row = table.rows[0]
            raise AmbiguousListError(
                f"{self.manifest} line {row.number}: {quote(row.text)} would be a folder, a number "
                f"of frames and a label, but {found.names[0]} does not fit what is there; say what "
                "each column is with data.columns, such as [path,num_frames,label]"
            )

    def _part(self, row: TableRow) -> str:
        """Return which part of a video, or frames of a folder, a row stands for."""
        columns = self._parsed[1]
        if columns.start is not None and columns.end is not None:
            part = segment_suffix(row.fields[columns.start], row.fields[columns.end])
            if part is None:
                raise UserError(
                    f"{self.manifest} line {row.number}: {quote(row.text)} has no start and a "
                    "later end, in seconds or as h:mm:ss"
                )
            return part
        if has_file_suffix(row.fields[columns.path]):
            return ""
        template = "" if self.frame_template is None else f"/{self.frame_template}"
        if columns.num_frames is None:
            return template
        offset = 0
        if columns.offset is not None:
            offset = self._count(row, columns.offset)
        return f"{template}[{offset}:{offset + self._count(row, columns.num_frames)}]"

    def _count(self, row: TableRow, column: int) -> int:
        number = label_number(row.fields[column])
        if number is None or not 0 <= number < MAX_FRAMES:
            raise UserError(
                f"{self.manifest} line {row.number}: {quote(row.text)} has "
                f"{quote(row.fields[column])} where a number of frames is expected"
            )
        return number

    def _labels(self, class_names: Sequence[str] | None) -> tuple[tuple[str, ...], list[int]]:
        """Return the names of the classes, and the label of each row."""
        table, columns = self._parsed
        rows = table.rows[columns.first_row :]
        texts = [row.fields[columns.label] for row in rows]
        names = None if class_names is None else tuple(class_names)
        if self.classes is not None:
            names = read_class_names(self.classes)
            check_same_classes(self.classes, names, class_names)
        if not columns.has_numbers:
            return self._named(names, rows, texts)
        labels = [self._number(row, text) for row, text in zip(rows, texts, strict=True)]
        if names is None:
            return self._unnamed(labels), labels
        self._check_numbers(names, rows, labels)
        return names, labels

    def _named(
        self, names: Sequence[str] | None, rows: Sequence[TableRow], texts: Sequence[str]
    ) -> tuple[tuple[str, ...], list[int]]:
        """Return the classes, in order, and the labels of names of classes."""
        for row, text in zip(rows, texts, strict=True):
            if not is_class_name(text):
                raise self._not_a_label(row, text)
        classes = class_order(names, texts)
        if unknown := sorted(set(texts) - set(classes)):
            raise unknown_classes(self.manifest, unknown, classes)
        warn_of_similar_names(self.manifest, classes)
        index = {name: i for i, name in enumerate(classes)}
        return classes, [index[text] for text in texts]

    def _check_numbers(
        self, names: Sequence[str], rows: Sequence[TableRow], labels: Sequence[int]
    ) -> None:
        """Raise `UserError` for a label without a name; tell what the numbers are taken for."""
        for row, label in zip(rows, labels, strict=True):
            if label >= len(names):
                path = quote(row.fields[self._parsed[1].path])
                raise UserError(
                    f"{self.manifest} line {row.number}: {path} has label {label}; the data set "
                    f"has {len(names)} classes, labels 0 to {len(names) - 1}"
                    + self._from_one(labels, len(names))
                )
        if lowest := min(labels):
            logger.warning(
                "%s: no label is below %d, so that class %r has no video; if labels begin at %d, "
                "data.label_offset=%d makes them begin at 0",
                *(self.manifest, lowest, names[0], lowest, lowest),
            )
        if self.classes is None and not all(map(is_number, names)):
            logger.info("%s: its labels are numbers; label 0 is %r", self.manifest, names[0])

    def _number(self, row: TableRow, text: str) -> int:
        number = label_number(text)
        if number is None or number < 0:
            raise self._not_a_label(row, text)
        if number < self.label_offset:
            raise UserError(
                f"{self.manifest} line {row.number}: {quote(row.text)} has label {number}, less "
                f"than data.label_offset={self.label_offset}"
            )
        return number - self.label_offset

    def _not_a_label(self, row: TableRow, text: str) -> UserError:
        return UserError(
            f"{self.manifest} line {row.number}: {quote(row.text)} has label {quote(text)}; a "
            "label is a whole number, 0 for the first class, in all rows, or a class name in all"
        )

    def _from_one(self, labels: Sequence[int], num_classes: int) -> str:
        if min(labels) == 1 and max(labels) == num_classes:
            return "; they begin at 1, which data.label_offset=1 makes 0"
        return ""

    def _unnamed(self, labels: Sequence[int]) -> tuple[str, ...]:
        """Name classes by their numbers; tell of numbers that no video has."""
        highest = max(labels)
        if highest >= MAX_UNNAMED_CLASSES:
            line = self._parsed[0].rows[self._parsed[1].first_row + labels.index(highest)].number
            raise UserError(
                f"{self.manifest} line {line}: {highest} is too large for a label; if it is one, "
                "provide a file with one class name per line"
            )
        if empty := sorted(set(range(highest + 1)) - set(labels)):
            lowest = min(labels)
            logger.warning(
                "%s: labels are %d to %d, so that the head gets %d outputs, %d of them without a "
                "video, first: %d%s",
                *(self.manifest, lowest, highest, highest + 1, len(empty), empty[0]),
                f"; data.label_offset={lowest} makes labels begin at 0" if lowest else "",
            )
        return tuple(str(i) for i in range(highest + 1))


def _parse(path: str, roles: Roles | None, exists: Callable[[str], bool]) -> tuple[Table, Columns]:
    """Choose the separator and the columns: -> table, columns. Raises `UserError`."""
    readings: list[tuple[tuple[bool, bool], Table, Columns]] = []
    problem: UserError | None = None
    refusal: UserError | None = None
    for table in read_tables(path, exists):
        if isinstance(table, UserError):
            problem = problem or table
            continue
        try:
            columns = (
                choose_columns(table, exists) if roles is None else named_columns(table, roles)
            )
        except UnknownListError as error:
            problem = problem or error
        except UserError as error:
            refusal = refusal or error
        else:
            paths = table.column(columns.path, columns.first_row)
            rank = (columns.has_numbers, all(map(has_file_suffix, paths)))
            readings.append((rank, table, columns))
            if rank == (True, True) or roles is not None:
                return table, columns
    if refusal is not None:
        raise refusal
    if not readings:
        raise problem or UnknownListError(f"{path} is not a list of paths and labels")
    best = max(rank for rank, _, _ in readings)
    return next((table, columns) for rank, table, columns in readings if rank == best)


def is_class_name(text: str) -> bool:
    """Return whether a label is a name: neither empty nor a number in any way of writing one."""
    if not any(map(str.isdigit, text)):
        return bool(text)
    try:
        float(text)
    except ValueError:
        return True
    return False


def below_one_folder(folder: str, paths: Sequence[str]) -> tuple[str, list[str]]:
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
