"""Find the training and validation part of a data set by the usual names of their folders.

`train`, `training`, `Train_set`, ... and `val`, `valid`, `validation`, `test`, ... are names of
splits, in any case. A folder of such a name never becomes a class by accident.
"""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from video_mvit.errors import MissingFileError, UserError

logger = logging.getLogger(__name__)

Part = Literal["train", "val", "test"]

LIST_SUFFIXES = (".csv", ".txt", ".tsv", ".json")
EXTRA = r"(?:[ _-]?(?:set|split|list|data|videos?|clips?|files?))?"
NAMES: dict[Part, re.Pattern[str]] = {
    "train": re.compile(rf"train(?:ing)?{EXTRA}", re.IGNORECASE),
    "val": re.compile(rf"(?:val|valid|validation|validate|eval|evaluation|dev){EXTRA}", re.I),
    "test": re.compile(rf"test(?:ing)?{EXTRA}", re.IGNORECASE),
}
_WITHOUT = {  # how to go on without one of the parts
    "train": "remove the split for a part of each class to be held out",
    "val": "hold out a part of each class with data.val_share=0.2",
}
MAX_SEEN = 6  # entries of a folder in a message


def part_of(name: str) -> Part | None:
    """Return the part of a data set that a folder of this name usually holds."""
    return next((part for part, pattern in NAMES.items() if pattern.fullmatch(name)), None)


def find_split(folder: str, part: Literal["train", "val"]) -> str | None:
    """Return the list or folder of a split in `folder`; None if it holds no splits at all.

    The split to validate on is that of testing where there is no other. Raises `UserError` if two
    could be meant, and `MissingFileError` if the folder holds the other split only.
    """
    found = _splits_in(folder)
    if not found:
        return None
    places = found.get(part) or (found.get("test") if part == "val" else None) or []
    if not places:
        wanted = {"train": "'train' or 'training'", "val": "'val', 'validation' or 'test'"}[part]
        there = [name for names in found.values() for name in names]
        raise MissingFileError(
            f"{folder} has {_seen(there)} but no folder or list {wanted}; it "
            f"holds {_seen(_visible(folder))}; name it with data.{part}_list=..., or "
            + _WITHOUT[part]
        )
    if len(places) > 1:
        raise UserError(
            f"{folder} has {places[0]} and {places[1]}; choose with data.{part}_list="
            f"{os.path.join(folder, places[0])}"
        )
    if part == "val" and "val" in found and "test" in found:
        unused = os.path.join(folder, found["test"][0])
        logger.info("%s is not read; data.val_list=%s validates on it instead", unused, unused)
    path = os.path.join(folder, places[0])
    if os.path.splitext(places[0])[0] != part:
        logger.info("%s is read as %s", path, {"train": "training", "val": "validation"}[part])
    return path


def has_split(folder: str, part: Literal["train", "val"]) -> bool:
    """Return whether `find_split` finds a list or folder of a split."""
    found = _splits_in(folder) if os.path.isdir(folder) else {}
    return part in found or (part == "val" and "test" in found)


def check_are_classes(
    folder: str, found: Mapping[str, Sequence[str]], *, may_hold_splits: bool
) -> None:
    """Raise `UserError` if folders (name -> their videos) are splits, or hold splits.

    With `may_hold_splits`, videos may be in `<class>/<split>/`, if all are.
    """
    parts = {name: part for name in found if (part := part_of(name)) is not None}
    if len(set(parts.values())) > 1 or (parts and len(parts) == len(found)):
        raise UserError(
            f"{folder} holds {_seen(list(found))}: {_seen(list(parts))} look like splits of a data "
            "set, not like classes; name them with data.train_list and data.val_list"
        )
    inside = inner_parts([name for videos in found.values() for name in videos])
    if len(set(inside) - {None}) < 2:
        return
    split_classes = {name.split("/")[0] for name, part in _with_parts(found) if part}
    example = next(name for name, part in _with_parts(found) if part)
    is_deep = example.count("/") > 2
    if is_deep:
        outer = os.path.join(folder, example.split("/")[0])
        raise UserError(
            f"{folder} holds {_seen(list(found))}, and {os.path.dirname(example)} looks like a "
            f"class of a split, one level further down; set data.root={outer}"
        )
    if None in inside or not may_hold_splits or len(found) == 1:
        rest = next((name for name, part in _with_parts(found) if not part), example)
        raise UserError(
            f"{len(split_classes)} of the {len(found)} class folders of {folder} hold splits, such "
            f"as {example}, which {rest} does not fit; use train/<class>/ and val/<class>/"
        )


def inner_parts(names: Sequence[str]) -> list[Part | None]:
    """Return the part of each video `<class>/<split>/<file>`, None for other names."""
    return [part_of(name.split("/")[1]) if name.count("/") > 1 else None for name in names]


def _with_parts(found: Mapping[str, Sequence[str]]) -> list[tuple[str, Part | None]]:
    names = [name for videos in found.values() for name in videos]
    return list(zip(names, inner_parts(names), strict=True))


def _splits_in(folder: str) -> dict[Part, list[str]]:
    """List the entries of each part: its lists, else its folders."""
    lists: dict[Part, list[str]] = {}
    folders: dict[Part, list[str]] = {}
    for name in _visible(folder):
        stem, suffix = os.path.splitext(name)
        if os.path.isdir(os.path.join(folder, name)):
            if part := part_of(name):
                folders.setdefault(part, []).append(name)
        elif suffix.lower() in LIST_SUFFIXES and (part := part_of(stem)):
            lists.setdefault(part, []).append(name)
    found = folders | lists
    return {} if _is_class(folder, found) else found


def _is_class(folder: str, found: Mapping[Part, Sequence[str]]) -> bool:
    """Return whether `train` is a class (the vehicle): files only, beside other folders."""
    if list(found) != ["train"] or len(found["train"]) != 1:
        return False
    place = os.path.join(folder, found["train"][0])
    if not os.path.isdir(place) or any(os.path.isdir(f"{place}/{n}") for n in _visible(place)):
        return False
    return sum(os.path.isdir(f"{folder}/{name}") for name in _visible(folder)) > 1


def _visible(folder: str) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def _seen(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:MAX_SEEN])
    return shown + (f" and {len(names) - MAX_SEEN:,} more" if len(names) > MAX_SEEN else "")
