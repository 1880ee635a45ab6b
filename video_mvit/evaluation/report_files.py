"""Write the report of an evaluation, with frames read from the videos."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from video_mvit.data.reading.open import VideoDecodeError, open_video
from video_mvit.evaluation.metrics import most_confident_errors
from video_mvit.evaluation.output_folder import REPORT
from video_mvit.evaluation.predictions import VideoResult
from video_mvit.evaluation.report import NUM_ERRORS, render_report
from video_mvit.evaluation.results import Result
from video_mvit.files import replace_atomically

NUM_FRAMES = 8  # of a strip


def write_report(
    folder: Path,
    result: Result,
    predictions: Sequence[VideoResult],
    curves: Mapping[str, Sequence[tuple[float, float]]],
) -> Path:
    """Write `report.html` into a folder; videos that were removed since are shown without frames.

    Args:
        curves: metric -> (epoch, value) of the training run, empty where it is unknown.
    """
    origin, strips = result.origin, {}
    for error in most_confident_errors(predictions, NUM_ERRORS):
        frames = read_strip(f"{origin.list_root}/{error.video}")
        if frames is not None:
            strips[error.video] = frames
    path = folder / REPORT
    page = render_report(result, predictions, curves=curves, strips=strips)
    with replace_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path


def read_strip(path: str) -> NDArray[np.uint8] | None:
    """Read evenly spaced frames (T, H, W, 3) of a video; None where it is unreadable."""
    try:
        with open_video(path) as video:
            places = np.linspace(0, video.num_frames - 1, NUM_FRAMES).round().astype(np.int64)
            return video.read(places)
    except VideoDecodeError:
        return None
