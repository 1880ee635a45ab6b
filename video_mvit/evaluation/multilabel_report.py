"""Render an evaluation with several labels as one self-contained HTML page.

Order: mean average precision, classes, classes that were missed and wrongly seen, training curves;
then the evaluation setup and excluded videos.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from video_mvit.evaluation.error_list import link_to
from video_mvit.evaluation.learning_curves import Curves, draw_curves
from video_mvit.evaluation.multilabel_comparison import map_interval
from video_mvit.evaluation.multilabel_metrics import MultiLabelClass
from video_mvit.evaluation.multilabel_predictions import MultiLabelVideo, as_arrays
from video_mvit.evaluation.multilabel_results import MultiLabelResult
from video_mvit.evaluation.report import MAX_NAMES, page_environment
from video_mvit.evaluation.report_files import strips_of, write_page
from video_mvit.evaluation.report_tables import MAX_ROWS, NUM_WORST, Rate
from video_mvit.evaluation.strips import Strip
from video_mvit.evaluation.summary_text import protocol_sentence

NUM_SHOWN = 60  # errors of each kind
MAX_LABELS = 12  # of a video, shown beside it


class ClassRow(NamedTuple):
    """Row of the class table; what has no denominator is None."""

    numbers: MultiLabelClass
    name: str
    recall: Rate | None
    precision: Rate | None


class LabelError(NamedTuple):
    """A class that a video has and the model does not see, or the other way round."""

    video: str
    link: str | None
    name: str
    score: float
    labels: tuple[str, ...]  # that the video has
    strip: Strip | None


class ErrorPlace(NamedTuple):
    """Where an error is: the row of a video among those evaluated, and a class."""

    row: int
    label: int
    score: float


def class_rows(result: MultiLabelResult) -> list[ClassRow]:
    """Return a row for each class, lowest average precision first, those without videos last."""
    rows = [
        ClassRow(
            numbers=each,
            name=result.origin.class_names[each.label],
            recall=Rate.of(each.num_right, each.num_videos),
            precision=Rate.of(each.num_right, each.num_predicted),
        )
        for each in result.classes
    ]
    precisions = {row.numbers.label: row.numbers.average_precision for row in rows}
    return sorted(rows, key=lambda row: 2 if (ap := precisions[row.numbers.label]) is None else ap)


def find_errors(
    predictions: Sequence[MultiLabelVideo], num_classes: int
) -> dict[str, list[ErrorPlace]]:
    """Return the classes seen wrongly with the highest scores, and those missed with the lowest.

    A video is named once in each.
    """
    scores, truth = as_arrays(predictions, num_classes)
    wrong = np.where(truth, -1.0, scores)
    missed = np.where(truth, scores, 2.0)
    found: dict[str, list[ErrorPlace]] = {"wrong": [], "missed": []}
    for index in np.argsort(-wrong.max(axis=1), kind="stable")[:NUM_SHOWN].tolist():
        label = int(wrong[index].argmax())
        if wrong[index, label] >= 0.5:
            found["wrong"].append(ErrorPlace(index, label, float(wrong[index, label])))
    for index in np.argsort(missed.min(axis=1), kind="stable")[:NUM_SHOWN].tolist():
        label = int(missed[index].argmin())
        if missed[index, label] < 0.5:
            found["missed"].append(ErrorPlace(index, label, float(missed[index, label])))
    return found


def render_multilabel_report(
    result: MultiLabelResult,
    predictions: Sequence[MultiLabelVideo],
    *,
    curves: Curves,
    strips: Mapping[str, Strip],
) -> str:
    """Render the page; `strips` are frames of the videos of `find_errors`, by video."""
    origin, names = result.origin, result.origin.class_names
    found = [each for each in predictions if not each.problem]
    rows = class_rows(result)
    errors = {
        kind: [
            LabelError(
                video=found[place.row].video,
                link=link_to(origin.list_root, found[place.row].video),
                name=names[place.label],
                score=place.score,
                labels=tuple(names[label] for label in found[place.row].labels or ()),
                strip=strips.get(found[place.row].video),
            )
            for place in places
        ]
        for kind, places in find_errors(predictions, len(names)).items()
    }
    return (
        page_environment()
        .get_template("multilabel_report.html.j2")
        .render(
            result=result,
            numbers=result.numbers,
            interval=map_interval(*as_arrays(predictions, len(names))),
            origin=origin,
            num_classes=len(names),
            classes=rows[:MAX_ROWS],
            worst=[row for row in rows if row.recall][:NUM_WORST],
            errors=errors,
            max_labels=MAX_LABELS,
            max_names=MAX_NAMES,
            protocol_sentence=protocol_sentence(origin.protocol.removesuffix(" max")),
            takes_highest=origin.protocol.endswith(" max"),
            curves={title: Markup(svg) for title, svg in draw_curves(curves).items()},
        )
    )


def write_multilabel_report(
    folder: Path,
    result: MultiLabelResult,
    predictions: Sequence[MultiLabelVideo],
    curves: Curves,
    *,
    thumbnails: bool = True,
) -> Path:
    """Write `report.html` into a folder; videos that were removed since are shown without frames.

    Args:
        curves: metric -> (epoch, value) of the training run, empty where it is unknown.
        thumbnails: whether frames of the videos are shown.
    """
    shown: list[str] = []
    if thumbnails:
        found = [each.video for each in predictions if not each.problem]
        errors = find_errors(predictions, len(result.origin.class_names)).values()
        shown = [found[place.row] for places in errors for place in places]
    strips = strips_of(result.origin.list_root, shown)
    page = render_multilabel_report(result, predictions, curves=curves, strips=strips)
    return write_page(folder, page)
