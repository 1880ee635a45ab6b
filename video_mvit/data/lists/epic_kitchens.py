"""Reader of EPIC-KITCHENS-100: its csv of actions, segments of long videos with a verb and a noun.

(Damen et al. 2022, "Rescaling Egocentric Vision", https://github.com/epic-kitchens.)
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from video_mvit.class_heads import full_names
from video_mvit.data.lists.listing import FolderListing
from video_mvit.data.lists.multihead_manifest import HeadsRow, MultiHeadManifest, find_heads
from video_mvit.data.lists.text import (
    check_same_classes,
    is_number,
    quote,
    read_named_columns,
)
from video_mvit.data.reading.segments import segment_suffix
from video_mvit.errors import UserError
from video_mvit.text import short

NUM_CLASSES = {"verb": 97, "noun": 300}
COLUMNS = (
    *("participant_id", "video_id", "start_timestamp", "stop_timestamp"),
    *("verb_class", "noun_class"),
)
CLASS_COLUMNS = ("id", "key")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EpicKitchensSource:
    """A split of EPIC-KITCHENS-100: `EPIC_100_train.csv` or `EPIC_100_validation.csv`.

    Each row is the part of a video from `start_timestamp` to `stop_timestamp`. Videos are
    `<folder>/<participant>/videos/<video>.MP4` as published, or `<participant>/<video>`,
    `videos/<video>` or `<video>`, with any suffix. `classes` are `EPIC_100_verb_classes.csv` and
    `EPIC_100_noun_classes.csv`, by head.
    """

    manifest: str
    folder: str
    classes: Mapping[str, str]

    def read(self, class_names: Sequence[str] | None = None) -> MultiHeadManifest:
        if set(self.classes) != set(NUM_CLASSES):
            raise UserError(f"data.classes are files of {' and '.join(NUM_CLASSES)} classes")
        classes = {head: read_epic_classes(self.classes[head], head) for head in NUM_CLASSES}
        check_same_classes(self.manifest, full_names(classes), class_names)
        rows = self._first_of_each(list(self._rows()))
        listing = FolderListing(self.folder, by="stem")
        return find_heads(self.manifest, rows, classes, listing).in_class_order(class_names)

    def _rows(self) -> Iterator[HeadsRow]:
        for number, row in read_named_columns(self.manifest, COLUMNS):
            participant, video, start, stop, *labels = row
            part = segment_suffix(start, stop)
            if part is None:
                raise UserError(
                    f"{self.manifest} line {number}: {quote(start)} and {quote(stop)} are no start "
                    "and a later stop, such as 00:00:01.089"
                )
            for (head, size), label in zip(NUM_CLASSES.items(), labels, strict=True):
                if not is_number(label) or int(label) >= size:
                    raise UserError(
                        f"{self.manifest} line {number}: {quote(label)} is not the number of a "
                        f"{head}, 0 to {size - 1}"
                    )
            for name in (participant, video):
                if not name or "/" in name or name in (".", ".."):
                    raise UserError(f"{self.manifest} line {number}: {short(name)} is not an id")
            folders = (f"{participant}/videos/", f"{participant}/", "videos/", "")
            places = tuple(folder + video for folder in folders)
            yield HeadsRow(number, video + part, tuple(map(int, labels)), places, part)

    def _first_of_each(self, rows: Sequence[HeadsRow]) -> list[HeadsRow]:
        """Leave out rows of the same part of a video as one before: an item has one class."""
        first: dict[str, HeadsRow] = {}
        for row in rows:
            first.setdefault(row.name, row)
        if num_more := len(rows) - len(first):
            logger.warning(
                "%s: %d rows are of the same part of a video as one before, and are left out",
                *(self.manifest, num_more),
            )
        return list(first.values())


def read_epic_classes(path: str, head: str) -> tuple[str, ...]:
    """Read the names of classes, `id,key,instances,category` in order of their numbers."""
    names: list[str] = []
    for number, (label, key) in read_named_columns(path, CLASS_COLUMNS):
        if label != str(len(names)) or not key or key in names:
            raise UserError(
                f"{path} line {number}: {quote(label)}, {quote(key)} is not the number "
                f"{len(names)} and a new class"
            )
        names.append(key)
    if len(names) != NUM_CLASSES[head]:
        raise UserError(f"{path} has {len(names)} classes, not the {NUM_CLASSES[head]} of {head}")
    return tuple(names)
