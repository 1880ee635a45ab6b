"""The report of an evaluation, with what only the rest of the project knows: curves and frames."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from video_mvit.curves import read_rows, series
from video_mvit.data.decoding import VideoDecodeError, open_video
from video_mvit.evaluation.folder import REPORT
from video_mvit.evaluation.metrics import most_confident_mistakes
from video_mvit.evaluation.predictions import Prediction
from video_mvit.evaluation.report import NUM_MISTAKES, render_report
from video_mvit.evaluation.results import Origin, Result

NUM_FRAMES = 8  # of a strip


def write_report(cfg: DictConfig, result: Result, predictions: Sequence[Prediction]) -> Path:
    """Write `report.html` beside the numbers; videos that are not there any more have no frames."""
    origin, strips = result.origin, {}
    for mistake in most_confident_mistakes(predictions, NUM_MISTAKES):
        frames = read_strip(f"{origin.list_root}/{mistake.video}")
        if frames is not None:
            strips[mistake.video] = frames
    curves = series(read_rows(Path(cfg.run_dir, "metrics"))) if is_of_run(origin, cfg) else {}
    path = Path(cfg.output, REPORT)
    page = render_report(result, predictions, curves=curves, strips=strips)
    path.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path


def is_of_run(origin: Origin, cfg: DictConfig) -> bool:
    """Whether the checkpoint is one of the run in `run_dir`, whose curves are then shown."""
    folder = Path(cfg.run_dir, "checkpoints").resolve()
    return Path(origin.checkpoint).resolve().parent == folder


def read_strip(path: str) -> NDArray[np.uint8] | None:
    """Frames (T, H, W, 3) from the first to the last of a video, None where it is unreadable."""
    try:
        with open_video(path) as video:
            places = np.linspace(0, video.num_frames - 1, NUM_FRAMES).round().astype(np.int64)
            return video.read(places)
    except VideoDecodeError:
        return None
