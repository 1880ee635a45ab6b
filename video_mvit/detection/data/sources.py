"""Where the annotations of a split are: the known forms of a data folder."""

import logging
import os
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from video_mvit.detection.data.annotations import Annotations, Categories
from video_mvit.detection.data.coco_json import CocoSource
from video_mvit.detection.data.mask_folder import MaskFolderSource
from video_mvit.errors import MissingFileError, UserError

logger = logging.getLogger(__name__)

SplitName = Literal["train", "val"]


class AnnotationSource(Protocol):
    """A source of annotations; reading raises `UserError` with the file at fault."""

    def read(self, categories: Categories | None = None) -> Annotations:
        """Read them, with the labels of given categories, or of the source's own."""


@dataclass(frozen=True, kw_only=True)
class FolderSource:
    """A split of a data folder, in the first of these forms that is there.

    COCO's own: `annotations/instances_train2017.json` and `train2017/`, or without the year; a file
    `train.json` and `images/`; `train/_annotations.coco.json` beside its images (`valid/` for val),
    as labelling tools export it; class folders in `train/` with pictures and painted masks. The log
    names it.
    """

    root: str
    split: SplitName
    follow_links: bool = False  # out of a folder of class folders

    def __post_init__(self) -> None:
        if self.split not in get_args(SplitName):
            raise UserError(f"split {self.split!r} is none of {', '.join(get_args(SplitName))}")

    def read(self, categories: Categories | None = None) -> Annotations:
        form, source = self._find()
        logger.info("%s: reading %s as %s", self.root, self.split, form)
        return source.read(categories)

    def _find(self) -> tuple[str, AnnotationSource]:
        root, split = self.root, self.split
        if not os.path.isdir(root):
            raise MissingFileError(f"data.root={root} is not a folder")
        files = {
            f"annotations/instances_{split}2017.json": f"{split}2017",
            f"annotations/instances_{split}.json": split,
            f"{split}.json": "images",
            f"{split}/_annotations.coco.json": split,
        }
        if split == "val":
            files["valid/_annotations.coco.json"] = "valid"
        for name, folder in files.items():
            path = os.path.join(root, name)
            if os.path.isfile(path):
                source = CocoSource(json=path, images=os.path.join(root, folder))
                return f"COCO's form, {name} with images in {folder}", source
        folder = os.path.join(root, split)
        if os.path.isdir(folder):
            return "class folders of pictures and masks", MaskFolderSource(
                folder=folder, follow_links=self.follow_links
            )
        raise MissingFileError(
            f"{root} has no {split} data: looked for {', '.join(files)}, and for class folders of "
            f"pictures and masks in {split}/"
        )
