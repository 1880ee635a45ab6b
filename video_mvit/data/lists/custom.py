"""Readers of a user's own videos: rows of paths and labels, class folders, or any known list."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

from video_mvit.data.lists.class_folders import ClassFolderSource
from video_mvit.data.lists.list_table import UnknownListError
from video_mvit.data.lists.manifest import Manifest, ManifestSource
from video_mvit.data.lists.named_columns import Roles
from video_mvit.data.lists.path_lists import PathListSource
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
    check_same_classes,
    quote,
    read_class_names,
    read_json,
    read_lines,
)
from video_mvit.errors import MissingFileError, UserError

logger = logging.getLogger(__name__)

KNOWN_FORMS = (
    f"known lists are such rows, a Kinetics csv ({','.join(KINETICS_COLUMNS)}), a UCF101 split and "
    "Something-Something's json"
)


@dataclass(frozen=True, kw_only=True)
class ListSource:
    """A list in any known form, or a folder of class folders; the log names the form.

    `manifest` may omit the suffix of the list: `train` is `train.csv`, `.txt`, `.tsv` or `.json` if
    one exists, else the folder `train`. Paths are relative to `folder` (Kinetics videos may also be
    in its subfolder named like the list), by default the folder of the list. `classes` has one
    class name per line, in label order, for lists that do not name their classes in that order.
    `columns`, `label_offset` and `frame_template` are those of `PathListSource`.
    """

    manifest: str
    folder: str | None = None
    classes: str | None = None
    follow_links: bool = False  # out of a folder of class folders
    columns: str | Roles | None = None
    label_offset: int = 0
    frame_template: str | None = None

    def read(self, class_names: Sequence[str] | None = None) -> Manifest:
        path = find_list(self.manifest)
        source: ManifestSource
        if self.columns is not None or self.label_offset or self.frame_template is not None:
            path_list = PathListSource(
                manifest=path,
                folder=self.folder,
                columns=self.columns,
                label_offset=self.label_offset,
                frame_template=self.frame_template,
            )
            if os.path.isdir(path):
                raise UserError(
                    f"{path} is a folder; columns, label_offset and frame_template are for lists"
                )
            form, source = path_list.form, path_list
        else:
            form, source = detect_source(path, self.folder, follow_links=self.follow_links)
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
        entry = next(iter(read_json(path, list)), None)
        if not isinstance(entry, dict) or "template" not in entry:
            raise UserError(
                f"{path} entry 1: {quote(entry)} has no template, so that this is not a list of "
                "Something-Something; write rows of a path and a label instead"
            )
        labels = os.path.join(beside, "labels.json")
        form = f"Something-Something v2 with the classes of {labels}"
        return form, SomethingSource(labels=labels, manifest=path, folder=start)
    line = next((line for _, line in read_lines(path)), "")
    if "youtube_id" in line.split(","):
        own = os.path.join(start, os.path.splitext(os.path.basename(path))[0])
        videos = own if os.path.isdir(own) else start
        return f"a Kinetics csv of {videos}", KineticsSource(manifest=path, folder=videos)
    if UCF101_LIST.fullmatch(os.path.basename(path)) and UCF101_ROW.fullmatch(line.strip()):
        classes = os.path.join(beside, "classInd.txt")
        return "a split of UCF101", UCF101Source(manifest=path, classes=classes, folder=start)
    if line.lstrip().startswith("{"):
        raise UserError(f"{path} holds JSON lines; write rows of a path and a label instead")
    path_list = PathListSource(manifest=path, folder=folder)
    try:
        return path_list.form, path_list
    except UnknownListError as error:
        raise UserError(f"{error}; {KNOWN_FORMS}") from None


def _detect_folder(path: str, *, follow_links: bool) -> tuple[str, ManifestSource]:
    if any(HMDB51_LIST.fullmatch(name) for name in os.listdir(path)):
        raise UserError(
            f"{path} holds HMDB51's split files, which list training and test videos together; "
            "use data=hmdb51"
        )
    return "class folders", ClassFolderSource(folder=path, follow_links=follow_links)
