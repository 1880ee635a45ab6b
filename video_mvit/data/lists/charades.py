"""Reader of Charades' lists: the official csv of actions and times, and lists of frames.

An evaluated video has all the classes that it shows from its start to its end. A training clip has
those that are seen between its first and its last frame, as SlowFast's, or those of its video.
"""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from video_mvit.data.lists.actions import Action, Unit
from video_mvit.data.lists.multilabel_manifest import (
    LabelSetRow,
    MultiLabelManifest,
    find_label_sets,
)
from video_mvit.data.lists.published import FRAME_LIST_COLUMNS
from video_mvit.data.lists.text import (
    check_same_classes,
    is_number,
    numbered_lines,
    open_list,
    quote,
    read_lines,
    read_named_columns,
)
from video_mvit.errors import UserError
from video_mvit.text import short

NUM_CLASSES = 157
CLASS_ROW = re.compile(r"c(?P<number>\d{3}) (?P<name>\S.*)")
ACTION = re.compile(r"c(?P<number>\d{3})(?: (?P<first>\d+(?:\.\d+)?) (?P<last>\d+(?:\.\d+)?))?")
COLUMNS = ("id", "actions")  # of the official csv, which has more


@dataclass(frozen=True, kw_only=True)
class CharadesSource:
    """A split of Charades: `Charades_v1_train.csv`, or SlowFast's list of frames, `train.csv`.

    Videos of the official csv are `<folder>/<id>.mp4`; frames lie in the folders that a list of
    frames names. `classes` is `Charades_v1_classes.txt`, whose rows are `c000 Holding some
    clothes`. Training clips have the classes of the whole video or, with labels "clip", those that
    they show; actions without times are seen in every clip.
    """

    manifest: str
    folder: str
    classes: str
    labels: Literal["video", "clip"] = "video"

    def read(self, class_names: Sequence[str] | None = None) -> MultiLabelManifest:
        names = self._read_classes()
        check_same_classes(self.classes, names, class_names)
        with open_list(self.manifest) as file:
            header = next(numbered_lines(self.manifest, file), (1, ""))[1].split()
        is_of_frames = tuple(header) == FRAME_LIST_COLUMNS
        rows = list(self._read_frames() if is_of_frames else self._read_actions())
        unit: Unit | None = None
        if self.labels == "clip":
            unit = "frames" if is_of_frames else "seconds"
        found = find_label_sets(self.manifest, self.folder, rows, names, unit)
        return found.in_class_order(class_names)

    def _read_classes(self) -> tuple[str, ...]:
        names: list[str] = []
        for number, line in read_lines(self.classes):
            match = CLASS_ROW.fullmatch(line.strip())
            if match is None or int(match["number"]) != len(names) or match["name"] in names:
                raise UserError(
                    f"{self.classes} line {number}: {quote(line)} is not the code "
                    f"c{len(names):03} and a new class"
                )
            names.append(match["name"])
        if len(names) != NUM_CLASSES:
            raise UserError(f"{self.classes} has {len(names)} classes, not {NUM_CLASSES}")
        return tuple(names)

    def _read_actions(self) -> Iterator[LabelSetRow]:
        """Yield the videos of the official csv."""
        for number, (name, actions) in read_named_columns(self.manifest, COLUMNS):
            found = tuple(self._action(number, each) for each in actions.split(";") if each)
            labels = frozenset(action.label for action in found)
            yield LabelSetRow(number, f"{name}.mp4", labels, found)

    def _action(self, number: int, text: str) -> Action:
        match = ACTION.fullmatch(text.strip())
        if match is None or int(match["number"]) >= NUM_CLASSES:
            raise UserError(
                f"{self.manifest} line {number}: {quote(text)} is not an action such as "
                "'c092 11.90 21.20'"
            )
        label = int(match["number"])
        if match["first"] is None:
            return Action(label)
        return Action(label, float(match["first"]), float(match["last"]))

    def _read_frames(self) -> Iterator[LabelSetRow]:
        """Yield the folders of frames; rows of a folder follow each other."""
        folder, frames, first = "", list[list[int]](), 2
        seen = set[str]()
        for number, row in self._rows():
            if len(row) != len(FRAME_LIST_COLUMNS):
                raise UserError(
                    f"{self.manifest} line {number} has {len(row)} fields, "
                    f"{len(FRAME_LIST_COLUMNS)} are needed: {' '.join(FRAME_LIST_COLUMNS)}"
                )
            place = os.path.dirname(row[3])
            if place != folder and folder:
                yield _of_frames(first, folder, frames)
            if place != folder:
                if place in seen:
                    raise UserError(
                        f"{self.manifest} line {number}: rows of {short(place)} do not follow each "
                        "other, so that its frames cannot be counted; sort the rows by folder and "
                        "frame"
                    )
                seen.add(place)
                folder, frames, first = place, [], number
            frames.append(list(self._numbers(number, row[4])))
        if folder:
            yield _of_frames(first, folder, frames)

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield number and fields of each row of a list of frames, below its header."""
        with open_list(self.manifest) as file:
            lines = (line for _, line in numbered_lines(self.manifest, file))
            reader = csv.reader(lines, delimiter=" ")
            next(reader)
            try:
                yield from ((reader.line_num, row) for row in reader)
            except csv.Error as error:
                raise UserError(
                    f"{self.manifest} line {reader.line_num}: unbalanced quotes ({error})"
                ) from None

    def _numbers(self, line: int, text: str) -> Iterator[int]:
        for part in filter(None, text.split(",")):
            if not is_number(part) or int(part) >= NUM_CLASSES:
                raise UserError(
                    f"{self.manifest} line {line}: {quote(text)} are not numbers of classes, 0 to "
                    f"{NUM_CLASSES - 1}"
                )
            yield int(part)


def _of_frames(line: int, folder: str, frames: Sequence[Sequence[int]]) -> LabelSetRow:
    """Return a folder of frames, of which each shows some classes."""
    actions: list[Action] = []
    ends: dict[int, int] = {}  # class -> place of its last action
    for i, labels in enumerate(frames):
        for label in set(labels):
            place = ends.get(label)
            if place is not None and actions[place].last == i - 1:
                actions[place] = actions[place]._replace(last=i)
            else:
                ends[label] = len(actions)
                actions.append(Action(label, i, i))
    return LabelSetRow(line, folder, frozenset(ends), tuple(actions))
