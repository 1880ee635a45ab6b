"""The errors of a report: the first with their frames, all within bounds to browse by page."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from video_mvit.data.reading.segments import SEGMENT
from video_mvit.evaluation.metrics import most_confident_errors
from video_mvit.evaluation.predictions import VideoResult
from video_mvit.evaluation.strips import Strip
from video_mvit.text import brief, printable

NUM_SHOWN = 200  # errors with frames, and in a page without scripts
MAX_ERRORS = 10_000  # of a page; predictions.csv has all
MAX_ERROR_BYTES = 1_500_000  # of their text in a page
MAX_PATH = 4096  # bytes of a path on Linux
IN_SHARD = re.compile(r"!\d+\+\d+!", re.ASCII)  # of a video in a shard: no file of its own


class ScoredClass(NamedTuple):
    name: str
    score: float
    is_right: bool


class ShownError(NamedTuple):
    video: str
    link: str | None
    label: int
    predicted: int
    name: str
    top_classes: tuple[ScoredClass, ...]
    rank: int | None  # of the true class, from 1; None where it is not in the top classes
    strip: Strip | None


def shown_errors(
    predictions: Sequence[VideoResult],
    names: Sequence[str],
    strips: Mapping[str, Strip],
    root: str,
) -> list[ShownError]:
    """Return the most confident errors, with frames where there are some."""
    return [
        ShownError(
            video=p.video,
            link=link_to(root, p.video),
            label=p.label,
            predicted=p.classes[0],
            name=names[p.label],
            top_classes=tuple(
                ScoredClass(names[c], score, c == p.label)
                for c, score in zip(p.classes, p.scores, strict=True)
            ),
            rank=p.classes.index(p.label) + 1 if p.label in p.classes else None,
            strip=strips.get(p.video),
        )
        for p in most_confident_errors(predictions, NUM_SHOWN)
        if p.label is not None
    ]


def error_data(
    predictions: Sequence[VideoResult], names: Sequence[str], root: str
) -> dict[str, Any]:
    """Return what a page needs to browse the errors, most confident first, within bounds.

    Each is video, label, classes, scores, and whether it is a file below `root` by that name.
    """
    errors: list[tuple[str, int, Sequence[int], list[float], int]] = []
    room = MAX_ERROR_BYTES
    for p in most_confident_errors(predictions, MAX_ERRORS):
        if p.label is None:
            continue
        name, scores = _shown(p.video), [round(score, 4) for score in p.scores]
        has_own_name = name == p.video and not SEGMENT.fullmatch(name)
        is_file = has_own_name and link_to(root, p.video) is not None
        item = (name, p.label, p.classes, scores, int(is_file))
        room -= len(json.dumps(item))
        if room < 0:
            break
        errors.append(item)
    used = {c for _, label, classes, *_ in errors for c in (label, *classes)}
    return {
        "names": {label: _shown(names[label]) for label in sorted(used)},
        "errors": errors,
        "root": link_to(root, "") or "",
    }


def link_to(root: str, video: str) -> str | None:
    """Return the address of a video, of a file or http(s) alone; None where it has none."""
    video, times = _without_times(video)
    if IN_SHARD.search(video) or "\0" in video or len(video) > MAX_PATH:
        return None
    if re.match(r"https?://", root):
        return quote(root.rstrip("/"), safe="/:") + "/" + _quoted(video) + times
    if "://" in root:
        return None
    address = Path(root).absolute().as_uri()
    return address.rstrip("/") + "/" + _quoted(video) + times


def _without_times(video: str) -> tuple[str, str]:
    """Divide the name of a part of a video: its file, and the times that a browser plays."""
    match = SEGMENT.fullmatch(video)
    return (video, "") if match is None else (match["whole"], video[len(match["whole"]) :])


def _quoted(video: str) -> str:
    return quote(video, errors="surrogateescape")


def _shown(text: str) -> str:
    """Return a name for a script to show: printable, valid and not long."""
    return brief(printable(text)).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
