"""Write predictions as text, JSON lines or CSV; each one is flushed at once."""

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TextIO

from video_mvit.prediction.predictor import Prediction
from video_mvit.prediction.value_writers import (
    value_columns,
    value_lines,
    value_rows,
    values_as_plain,
)
from video_mvit.text import csv_cell, json_text, percent, printable

Format = Literal["text", "json", "csv"]
COLUMNS = ("video", "start_s", "end_s", "rank", "label", "score", "problem")
NUM_DIGITS = 6  # of a score in JSON and CSV
INDENT = "  "


class Writer(Protocol):
    def write(self, prediction: Prediction) -> None:
        """Write one prediction completely."""


class TextWriter:
    """A block per video: name, duration, and a line for each of the top classes."""

    def __init__(self, file: TextIO, num_classes: int) -> None:
        self._file, self._num_classes, self._is_first = file, num_classes, True

    def write(self, prediction: Prediction) -> None:
        blank = "" if self._is_first else "\n"
        self._is_first = False
        lines = text_lines(prediction, self._num_classes)
        self._file.write(blank + "".join(f"{line}\n" for line in lines))
        self._file.flush()


class JsonWriter:
    """One object per line."""

    def __init__(self, file: TextIO, num_classes: int) -> None:
        self._file, self._num_classes = file, num_classes

    def write(self, prediction: Prediction) -> None:
        content = as_plain(prediction, self._num_classes)
        self._file.write(json_text(content) + "\n")
        self._file.flush()


class CsvWriter:
    """A row per video and rank (in each head), and per segment, which has times and no rank.

    A segment without a label is uncertain. An unreadable video has one row, with the reason.
    """

    def __init__(self, file: TextIO, num_classes: int) -> None:
        self._file, self._num_classes = file, num_classes
        self._table = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        self._table.writeheader()

    def write(self, prediction: Prediction) -> None:
        self._table.writerows(map(as_cells, table_rows(prediction, self._num_classes)))
        self._file.flush()


class ValueCsvWriter:
    """A row per video with a column for each target, and one per window of its timeline."""

    def __init__(self, file: TextIO, targets: Sequence[str]) -> None:
        self._file, self._table = file, csv.writer(file, lineterminator="\n")
        self._table.writerow(value_columns(targets))

    def write(self, prediction: Prediction) -> None:
        self._table.writerows(value_rows(prediction, shown_name(prediction.video)))
        self._file.flush()


WRITERS: dict[Format, Callable[[TextIO, int], Writer]] = {
    "text": TextWriter,
    "json": JsonWriter,
    "csv": CsvWriter,
}


def open_writer(
    kind: Format, file: TextIO, num_classes: int, targets: Sequence[str] = ()
) -> Writer:
    """Return a writer of the top `num_classes` classes of each video, or of its `targets`."""
    if kind == "csv" and targets:
        return ValueCsvWriter(file, targets)
    return WRITERS[kind](file, num_classes)


def as_plain(prediction: Prediction, num_classes: int) -> dict[str, Any]:
    """Return the JSON object of a video."""
    if prediction.problem:
        return {"video": shown_name(prediction.video), "problem": prediction.problem}
    about = {
        "video": shown_name(prediction.video),
        "num_frames": prediction.num_frames,
        "duration_s": round(prediction.duration_s, 3),
    }
    if prediction.task == "regression":
        return {**about, **values_as_plain(prediction)}
    top = [
        {"label": label, "score": round(score, NUM_DIGITS)}
        for label, score in prediction.seen(num_classes)
    ]
    return {**about, "top": top, **_timeline_as_plain(prediction)}


def _timeline_as_plain(prediction: Prediction) -> dict[str, Any]:
    if prediction.timeline is None:
        return {}
    segments = [
        {
            "start_s": round(segment.start_s, 3),
            "end_s": round(segment.end_s, 3),
            "label": None if segment.label is None else prediction.class_names[segment.label],
            "score": round(segment.score, NUM_DIGITS),
        }
        for segment in prediction.segments
    ]
    problem = prediction.timeline.problem
    return {"segments": segments, **({"problem": problem} if problem else {})}


def table_rows(prediction: Prediction, num_classes: int) -> Iterator[dict[str, Any]]:
    """Yield the table rows of a video."""
    video = shown_name(prediction.video)
    if prediction.problem:
        yield {"video": video, "problem": prediction.problem}
        return
    seen = prediction.rankings(num_classes) if prediction.heads else [prediction.seen(num_classes)]
    for ranked in seen:
        for rank, (label, score) in enumerate(ranked, start=1):
            yield {"video": video, "rank": rank, "label": label, "score": round(score, NUM_DIGITS)}
    timeline = _timeline_as_plain(prediction)
    for segment in timeline.get("segments", ()):
        yield {"video": video, **segment}
    if "problem" in timeline:
        yield {"video": video, "problem": timeline["problem"]}


def text_lines(prediction: Prediction, num_classes: int) -> Iterator[str]:
    """Yield the text lines of a video."""
    name = printable(shown_name(prediction.video))
    if prediction.problem:
        yield f"{name}  cannot be read: {printable(prediction.problem)}"
        return
    yield f"{name}  {describe_length(prediction)}"
    if prediction.task == "regression":
        yield from (f"{INDENT}{line}" for line in value_lines(prediction))
        return
    top = [(printable(label), score) for label, score in prediction.seen(num_classes)]
    if not top:
        yield f"{INDENT}no class scores enough"
    width = max((len(label) for label, _ in top), default=0)
    for label, score in top:
        yield f"{INDENT}{label:<{width}}  {percent(score):>7}"
    yield from _timeline_lines(prediction)


def _timeline_lines(prediction: Prediction) -> Iterator[str]:
    """Yield a line for each segment, with aligned times and labels."""
    segments, timeline = prediction.segments, prediction.timeline
    labels = [printable(segment.name(prediction.class_names)) for segment in segments]
    label_width = max(map(len, labels), default=0)
    ends = [describe_time(segment.end_s).removesuffix(" s") for segment in segments]
    width = max(map(len, ends), default=0)
    for segment, label, end in zip(segments, labels, ends, strict=True):
        start = describe_time(segment.start_s).removesuffix(" s")
        score = f"{percent(segment.score):>7}"
        yield f"{INDENT}{start:>{width}} - {end:>{width}}  {label:<{label_width}}  {score}"
    if timeline and timeline.problem:
        yield f"{INDENT}cannot be read from there on: {printable(timeline.problem)}"


def describe_length(prediction: Prediction) -> str:
    """Format number of frames and duration."""
    if prediction.num_frames == 1:
        return "1 frame"
    return f"{prediction.num_frames:,} frames, {describe_time(prediction.duration_s)}"


def describe_time(time_s: float) -> str:
    """Format a time: 7.2 s, 3:07.2, 1:02:03.4."""
    tenths = round(time_s * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest / 10:04.1f}"
    return f"{minutes}:{rest / 10:04.1f}" if minutes else f"{rest / 10:.1f} s"


def as_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a table with its text printable, and not as formulas."""
    return {name: csv_cell(each) if isinstance(each, str) else each for name, each in row.items()}


def shown_name(video: str) -> str:
    """Return a file name as text, with replacement characters for bytes that are not UTF-8."""
    return os.fsencode(video).decode("utf-8", "replace")
