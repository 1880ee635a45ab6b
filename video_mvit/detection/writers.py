"""Write detections as text, JSON lines or CSV; each picture or frame is flushed at once."""

import csv
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TextIO

from video_mvit.detection.coco_ap import coco_rows
from video_mvit.detection.predict import FoundObjects
from video_mvit.prediction.writers import (
    INDENT,
    NUM_DIGITS,
    Format,
    as_cells,
    describe_time,
    shown_name,
)
from video_mvit.text import json_text, printable

COLUMNS = (
    "file",
    "frame",
    "time_s",
    "label",
    "score",
    "x0",
    "y0",
    "x1",
    "y1",
    "mask_area",
    "problem",
)
NUM_BOX_DIGITS = 2  # of a pixel


class DetectionWriter(Protocol):
    def write(self, each: FoundObjects) -> None:
        """Write one picture or frame completely."""


class DetectionTextWriter:
    """A line for each picture or frame, and one below it for each object."""

    def __init__(self, file: TextIO, class_names: Sequence[str]) -> None:
        self._file, self._class_names = file, class_names

    def write(self, each: FoundObjects) -> None:
        self._file.write("".join(f"{line}\n" for line in _text_lines(each, self._class_names)))
        self._file.flush()


class DetectionJsonWriter:
    """One object per line; masks are run lengths as in COCO's result files."""

    def __init__(self, file: TextIO, class_names: Sequence[str]) -> None:
        self._file, self._class_names = file, class_names

    def write(self, each: FoundObjects) -> None:
        content = found_as_plain(each, self._class_names)
        self._file.write(json_text(content) + "\n")
        self._file.flush()


class DetectionCsvWriter:
    """A row per object; an unreadable file has one row, with the reason."""

    def __init__(self, file: TextIO, class_names: Sequence[str]) -> None:
        self._file, self._class_names = file, class_names
        self._table = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        self._table.writeheader()

    def write(self, each: FoundObjects) -> None:
        self._table.writerows(map(as_cells, found_rows(each, self._class_names)))
        self._file.flush()


DETECTION_WRITERS: dict[Format, Callable[[TextIO, Sequence[str]], DetectionWriter]] = {
    "text": DetectionTextWriter,
    "json": DetectionJsonWriter,
    "csv": DetectionCsvWriter,
}


def open_detection_writer(
    kind: Format, file: TextIO, class_names: Sequence[str]
) -> DetectionWriter:
    """Return a writer of what was found in pictures or frames."""
    return DETECTION_WRITERS[kind](file, class_names)


def found_as_plain(each: FoundObjects, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the JSON object of a picture or frame; boxes are x0, y0, x1, y1 in pixels."""
    name = shown_name(each.path)
    if each.found is None or each.picture is None:
        return {"file": name, "problem": each.problem}
    place = {}
    if each.time_s is not None:
        place = {"frame": each.frame_index, "time_s": round(each.time_s, 3)}
    masks = coco_rows(each.found, 0, range(len(class_names)))
    height, width = each.picture.shape[:2]
    objects = [
        {**_plain_object(box, score, class_names[label]), "mask": row["segmentation"]}
        for (box, score, label), row in zip(_objects(each), masks, strict=True)
    ]
    return {"file": name, **place, "height": height, "width": width, "objects": objects}


def found_rows(each: FoundObjects, class_names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the table rows of a picture or frame."""
    place: dict[str, Any] = {"file": shown_name(each.path)}
    if each.found is None:
        yield {**place, "problem": each.problem}
        return
    if each.time_s is not None:
        place |= {"frame": each.frame_index, "time_s": round(each.time_s, 3)}
    areas = each.found.masks.flatten(1).sum(dim=1).tolist()
    for (box, score, label), area in zip(_objects(each), areas, strict=True):
        plain = _plain_object(box, score, class_names[label])
        corners = dict(zip(("x0", "y0", "x1", "y1"), plain.pop("box"), strict=True))
        yield {**place, **plain, **corners, "mask_area": area}


def _objects(each: FoundObjects) -> Iterator[tuple[list[float], float, int]]:
    assert each.found is not None
    found = each.found
    return zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)


def _plain_object(box: Sequence[float], score: float, name: str) -> dict[str, Any]:
    return {
        "label": name,
        "score": round(score, NUM_DIGITS),
        "box": [round(value, NUM_BOX_DIGITS) for value in box],
    }


def _text_lines(each: FoundObjects, class_names: Sequence[str]) -> Iterator[str]:
    name = printable(shown_name(each.path))
    if each.found is None:
        yield f"{name}  cannot be read: {printable(each.problem)}"
        return
    if each.time_s is not None:
        name += f"  frame {each.frame_index:,}, {describe_time(each.time_s)}"
    objects = list(_objects(each))
    yield f"{name}  {len(objects)} object{'' if len(objects) == 1 else 's'}"
    names = [printable(class_names[label]) for _, _, label in objects]
    width = max(map(len, names), default=0)
    for (box, score, _), shown in zip(objects, names, strict=True):
        corners = "  ".join(f"{value:6.0f}" for value in box)
        yield f"{INDENT}{shown:<{width}}  {100 * score:5.1f} %  {corners}"
