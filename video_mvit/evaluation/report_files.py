"""The report of an evaluation, with what only the rest of the project knows: curves and frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from video_mvit.data.reading.open import VideoDecodeError, open_video
from video_mvit.evaluation.metrics import most_confident_mistakes
from video_mvit.evaluation.output_folder import REPORT
from video_mvit.evaluation.predictions import VideoResult
from video_mvit.evaluation.report import NUM_MISTAKES, render_report
from video_mvit.evaluation.results import Result

NUM_FRAMES = 8  # of a strip


def write_report(
    folder: Path,
    result: Result,
    predictions: Sequence[VideoResult],
    curves: Mapping[str, Sequence[tuple[float, float]]],
) -> Path:
    """Write `report.html` into a folder; videos that are not there any more have no frames.

    Args:
        curves: metric -> (epoch, value) of the training run, none where it is unknown.
    """
    origin, strips = result.origin, {}
    for mistake in most_confident_mistakes(predictions, NUM_MISTAKES):
        frames = read_strip(f"{origin.list_root}/{mistake.video}")
        if frames is not None:
            strips[mistake.video] = frames
    path = folder / REPORT
    page = render_report(result, predictions, curves=curves, strips=strips)
    path.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path


def read_strip(path: str) -> NDArray[np.uint8] | None:
    """Frames (T, H, W, 3) from the first to the last of a video, None where it is unreadable."""
    try:
        with open_video(path) as video:
            places = np.linspace(0, video.num_frames - 1, NUM_FRAMES).round().astype(np.int64)
            return video.read(places)
    except VideoDecodeError:
        return None
