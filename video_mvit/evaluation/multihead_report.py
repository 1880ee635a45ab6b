"""Render an evaluation with several heads as one self-contained HTML page.

Order: accuracy of all heads together and of each, classes and confusions of each head, the most
certain errors, training curves; then the evaluation setup and excluded videos.
"""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from video_mvit.class_heads import classes_of_heads
from video_mvit.evaluation.error_list import link_to
from video_mvit.evaluation.learning_curves import Curves, draw_curves
from video_mvit.evaluation.multihead_predictions import MultiHeadVideo, chance_of, of_head
from video_mvit.evaluation.multihead_results import MultiHeadResult
from video_mvit.evaluation.predictions import evaluated
from video_mvit.evaluation.report import MAX_NAMES, page_environment
from video_mvit.evaluation.report_files import strips_of, write_page
from video_mvit.evaluation.report_tables import (
    MAX_ROWS,
    class_rows,
    confusion_parts,
)
from video_mvit.evaluation.strips import Strip
from video_mvit.evaluation.summary_text import protocol_sentence

NUM_SHOWN = 100  # errors


class HeadError(NamedTuple):
    """What a head says of a video: its class, the one that was predicted, and their scores.

    `score` of the true class is None where it is not among the best.
    """

    head: str
    name: str
    score: float | None
    predicted: str
    predicted_score: float
    is_right: bool


class ShownVideo(NamedTuple):
    """A video of which some head is wrong; `score` is that of the predicted combination."""

    video: str
    link: str | None
    score: float
    heads: tuple[HeadError, ...]
    strip: Strip | None


def most_certain_errors(predictions: Sequence[MultiHeadVideo]) -> list[MultiHeadVideo]:
    """Return the videos of which some head is wrong, those with the highest scores first."""
    wrong = [each for each in predictions if not each.problem and not each.is_right]
    return sorted(wrong, key=lambda each: -_score(each))[:NUM_SHOWN]


def _score(video: MultiHeadVideo) -> float:
    return prod(best.scores[0] for best in video.best)


def _shown(
    video: MultiHeadVideo, classes: Mapping[str, Sequence[str]], root: str, strip: Strip | None
) -> ShownVideo:
    heads = []
    for (head, names), label, best in zip(
        classes.items(), video.labels or (), video.best, strict=True
    ):
        scores = dict(zip(best.classes, best.scores, strict=True))
        heads.append(
            HeadError(
                head=head,
                name=names[label],
                score=scores.get(label),
                predicted=names[best.classes[0]],
                predicted_score=best.scores[0],
                is_right=best.classes[0] == label,
            )
        )
    return ShownVideo(video.video, link_to(root, video.video), _score(video), tuple(heads), strip)


def _head_parts(
    predictions: Sequence[MultiHeadVideo], place: int, names: Sequence[str]
) -> dict[str, Any]:
    """Return what the page shows of a head."""
    found = evaluated(of_head(predictions, place))
    rows = class_rows(found, names)
    return {
        "num_classes": len(names),
        "classes": rows[:MAX_ROWS],
        "names": names,
        **confusion_parts(found, names),
    }


def render_multihead_report(
    result: MultiHeadResult,
    predictions: Sequence[MultiHeadVideo],
    *,
    curves: Curves,
    strips: Mapping[str, Strip],
) -> str:
    """Render the page; `strips` are frames of the videos of `most_certain_errors`, by video."""
    origin = result.origin
    classes = classes_of_heads(origin.class_names, result.sizes)
    return (
        page_environment()
        .get_template("multihead_report.html.j2")
        .render(
            result=result,
            origin=origin,
            together=result.together,
            intervals=result.intervals,
            num_right=sum(each.is_right for each in predictions),
            chance_level=f"{100 * chance_of(result.sizes):.3g} %",
            heads={
                head: _head_parts(predictions, place, names)
                for place, (head, names) in enumerate(classes.items())
            },
            errors=[
                _shown(each, classes, origin.list_root, strips.get(each.video))
                for each in most_certain_errors(predictions)
            ],
            max_names=MAX_NAMES,
            protocol_sentence=protocol_sentence(origin.protocol),
            curves={title: Markup(svg) for title, svg in draw_curves(curves).items()},
        )
    )


def write_multihead_report(
    folder: Path,
    result: MultiHeadResult,
    predictions: Sequence[MultiHeadVideo],
    curves: Curves,
    *,
    thumbnails: bool = True,
) -> Path:
    """Write `report.html` into a folder; videos that were removed since are shown without frames.

    Args:
        curves: metric -> (epoch, value) of the training run, empty where it is unknown.
        thumbnails: whether frames of the videos are shown.
    """
    shown = [each.video for each in most_certain_errors(predictions)] if thumbnails else []
    strips = strips_of(result.origin.list_root, shown)
    page = render_multihead_report(result, predictions, curves=curves, strips=strips)
    return write_page(folder, page)
