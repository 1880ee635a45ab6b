"""Write the report of an evaluation, with frames read from the videos."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from video_mvit.evaluation.output_folder import REPORT
from video_mvit.evaluation.predictions import VideoResult
from video_mvit.evaluation.report import render_report, videos_to_show
from video_mvit.evaluation.results import Result
from video_mvit.evaluation.strips import Strip, read_strips
from video_mvit.files import replace_atomically

MANY = 100  # videos that take long enough to be told
logger = logging.getLogger(__name__)


def write_report(
    folder: Path,
    result: Result,
    predictions: Sequence[VideoResult],
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    thumbnails: bool = True,
) -> Path:
    """Write `report.html` into a folder; videos that were removed since are shown without frames.

    Args:
        curves: metric -> (epoch, value) of the training run, empty where it is unknown.
        thumbnails: whether frames of the videos are shown.
    """
    origin = result.origin
    shown = videos_to_show(predictions, len(origin.class_names)) if thumbnails else ()
    strips = strips_of(origin.list_root, shown)
    return write_page(folder, render_report(result, predictions, curves=curves, strips=strips))


def strips_of(root: str, videos: Iterable[str]) -> dict[str, Strip]:
    """Read frames of videos below a root, by video; none of those that are not inside it."""
    inside = [video for video in dict.fromkeys(videos) if not leads_out(video)]
    if len(inside) >= MANY:
        logger.info(
            "reading frames of %s videos for the report (report.thumbnails=false leaves them out)",
            f"{len(inside):,}",
        )
    return read_strips(root, inside)


def write_page(folder: Path, page: str) -> Path:
    """Write `report.html` into a folder, and return its path."""
    path = folder / REPORT
    with replace_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path


def leads_out(video: str) -> bool:
    """Return whether a name in a table of predictions leads out of the folder of videos."""
    return video.startswith("/") or "\0" in video or ".." in video.split("/")
