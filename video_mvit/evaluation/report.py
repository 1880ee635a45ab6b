"""Render an evaluation as one self-contained HTML page, from the same numbers as the JSON.

Order: accuracy, temporal ablation, classes with an example of each, confusion matrix, errors,
calibration, training curves; then the evaluation setup and excluded videos.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup

from video_mvit.evaluation.error_list import NUM_SHOWN, error_data, link_to, shown_errors
from video_mvit.evaluation.figures import draw_calibration
from video_mvit.evaluation.intervals import wilson
from video_mvit.evaluation.learning_curves import Curves, draw_curves
from video_mvit.evaluation.metrics import (
    calibration_bins,
    class_examples,
    class_results,
    most_confident_errors,
)
from video_mvit.evaluation.motion_tests import MEANING
from video_mvit.evaluation.predictions import VideoResult, evaluated
from video_mvit.evaluation.report_tables import (
    MAX_ROWS,
    ClassRow,
    Rate,
    class_rows,
    confusion_parts,
    worst_classes,
)
from video_mvit.evaluation.results import Result
from video_mvit.evaluation.strips import Strip
from video_mvit.evaluation.summary_text import (
    accuracy_sentence,
    calibration_sentence,
    chance_level,
    motion_sentences,
    protocol_sentence,
)
from video_mvit.text import brief, percent, printable

MAX_EXAMPLES = 400  # classes with a strip, those with the lowest recall
MAX_NAMES = 1000  # of excluded videos; longer pages are slow, results.json has all


class Example(NamedTuple):
    """A class with one of its videos."""

    row: ClassRow
    video: str
    link: str | None
    strip: Strip
    is_right: bool


def render_report(
    result: Result,
    predictions: Sequence[VideoResult],
    *,
    curves: Curves,
    strips: Mapping[str, Strip],
) -> str:
    """Render the page; `strips` are frames of the videos that it shows, by video.

    These are `videos_to_show(...)`. Missing frames and `curves` are left out.
    """
    found = evaluated(predictions)
    origin, names = result.origin, result.origin.class_names
    bins, rows = calibration_bins(found), class_rows(found, names)
    examples = _examples(found, rows, strips, origin.list_root)
    data = error_data(found, names, origin.list_root)
    return (
        page_environment()
        .get_template("report.html.j2")
        .render(
            result=result,
            numbers=result.accuracies,
            intervals=result.intervals,
            origin=origin,
            num_classes=len(names),
            chance_level=chance_level(result),
            accuracy_sentence=accuracy_sentence(result),
            motion=[
                (test, MEANING[test], Rate(top1, wilson(round(top1 * len(found)), len(found))))
                for test, top1 in result.accuracies.motion.items()
            ],
            motion_sentences=motion_sentences(result),
            protocol_sentence=protocol_sentence(origin.protocol),
            calibration=[
                (b, wilson(round(b.accuracy * b.num_videos), b.num_videos))
                for b in bins
                if b.num_videos
            ],
            calibration_sentence=calibration_sentence(bins),
            calibration_figure=Markup(draw_calibration(bins)),
            curves={title: Markup(svg) for title, svg in draw_curves(curves).items()},
            classes=rows[:MAX_ROWS],
            worst=worst_classes(rows),
            examples=examples,
            pictured={example.row.label for example in examples},
            errors=shown_errors(found, names, strips, origin.list_root),
            error_data=data,
            num_errors=sum(not p.is_right for p in found),
            max_names=MAX_NAMES,
            **confusion_parts(found, names),
        )
    )


def videos_to_show(predictions: Sequence[VideoResult], num_classes: int) -> list[str]:
    """Return the videos whose frames the page shows: examples of classes, and the first errors."""
    found = evaluated(predictions)
    examples = class_examples(found)
    seen = [each for each in class_results(found, num_classes) if each.num_videos]
    worst = sorted(seen, key=lambda each: each.num_right / each.num_videos)
    chosen = [examples[each.label] for each in worst[:MAX_EXAMPLES]]
    shown = [*chosen, *most_confident_errors(found, NUM_SHOWN)]
    return list(dict.fromkeys(p.video for p in shown))


def _examples(
    predictions: Sequence[VideoResult],
    rows: Sequence[ClassRow],
    strips: Mapping[str, Strip],
    root: str,
) -> list[Example]:
    """Return an example of each class that has frames, in the order of the rows."""
    videos = class_examples(predictions)
    return [
        Example(row, p.video, link_to(root, p.video), strips[p.video], p.is_right)
        for row in rows
        if (p := videos.get(row.label)) and p.video in strips
    ]


def page_environment(*rooms: str) -> Environment:
    """Return the environment of a page, with the templates of this room and of others."""
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader(f"video_mvit.{room}", ".") for room in ("evaluation", *rooms)]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_encodable,
    )
    environment.filters |= {"percent": percent, "ordinal": _ordinal, "brief": brief}
    return environment


def _encodable(value: Any) -> Any:
    """Escape control characters of names, and replace bytes that are not UTF-8."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return value


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth"}[number]
