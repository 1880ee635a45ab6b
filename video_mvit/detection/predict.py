"""Find objects in pictures and in videos, which are read and written frame by frame."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from av import VideoFrame
from PIL import Image
from torch import Tensor

from video_mvit.data.reading.images import PictureReader
from video_mvit.data.reading.open import open_video
from video_mvit.data.reading.reader import DecodeLimits, Frames, VideoDecodeError
from video_mvit.detection.data.transforms import fit_short_side
from video_mvit.detection.instances import Detections
from video_mvit.detection.pictures import (
    DrawnObject,
    class_color,
    draw_objects,
    enlarge,
    resize_objects,
)
from video_mvit.errors import UserError
from video_mvit.files import replace_atomically
from video_mvit.prediction.annotate import NUM_AHEAD, annotated_copy, timed_frames, upright
from video_mvit.prediction.background import RunAhead, map_ahead
from video_mvit.text import printable

JPEG_QUALITY = 92


class Detector(Protocol):
    """A detector in evaluation mode."""

    def __call__(
        self, images: Sequence[Tensor], *, output_sizes: Sequence[tuple[int, int]]
    ) -> list[Detections]:
        """Find objects in uint8 images (3, H, W), scaled to sizes (height, width)."""


@dataclass(frozen=True, kw_only=True)
class ObjectFinder:
    """A detector with all that a picture needs before and after it.

    Attributes:
        short_side, max_side: pixels to which a picture is resized: of its short side, or fewer
            where its long side would be too long; None leaves pictures as they are.
        min_score: below which detections are left out.
        device: of the detector.
    """

    detector: Detector
    class_names: Sequence[str]
    short_side: int | None = None
    max_side: int | None = None
    min_score: float = 0.5
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1:
            raise UserError(f"min_score is {self.min_score!r}, expected a score in 0..1")

    @torch.inference_mode()
    def find(self, picture: Frames) -> Detections:
        """Find the objects of a picture (H, W, 3), in its own pixels, best first."""
        size = (picture.shape[0], picture.shape[1])
        resized = Image.fromarray(picture).resize(
            self.size_of(size)[::-1], Image.Resampling.BILINEAR
        )
        image = torch.from_numpy(np.array(resized)).permute(2, 0, 1)  # (3, h, w)
        (found,) = self.detector([image.to(self.device)], output_sizes=[size])
        kept = found.scores >= self.min_score
        return Detections(
            boxes=found.boxes[kept].cpu(),
            scores=found.scores[kept].cpu(),
            labels=found.labels[kept].cpu(),
            masks=found.masks[kept].cpu(),
        )

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) to which a picture is resized, rounded as detectron2 does."""
        if self.short_side is None:
            return size
        return fit_short_side(size, self.short_side, self.max_side or math.inf)

    def drawn(self, found: Detections) -> list[DrawnObject]:
        """Return detections as they are drawn, best first."""
        rows = zip(
            found.boxes.tolist(),
            found.scores.tolist(),
            found.labels.tolist(),
            found.masks.numpy(),
            strict=True,
        )
        return [
            DrawnObject(
                box=tuple(box),
                color=class_color(label),
                text=f"{printable(self.class_names[label])}  {100 * score:.0f} %",
                mask=mask,
            )
            for box, score, label, mask in rows
        ]


@dataclass(frozen=True, kw_only=True)
class FoundObjects:
    """What was found in one picture, or in one frame of a video.

    Attributes:
        path: of the picture or video.
        picture: (H, W, 3), None where it could not be read because of a `problem`.
        frame_index, time_s: of a frame, None for a picture.
    """

    path: str
    picture: Frames | None = None
    found: Detections | None = None
    frame_index: int | None = None
    time_s: float | None = None
    problem: str = ""


def detect_pictures(finder: ObjectFinder, paths: Sequence[str]) -> Iterator[FoundObjects]:
    """Yield what is in each picture, in order; unreadable ones have a problem."""
    for path, picture in map_ahead(read_picture, paths, num_threads=1):
        if isinstance(picture, str):
            yield FoundObjects(path=path, problem=picture)
        else:
            yield FoundObjects(path=path, picture=picture, found=finder.find(picture))


def detect_video(
    finder: ObjectFinder, path: str, *, every: int = 1, annotate: Path | None = None
) -> Iterator[FoundObjects]:
    """Yield what is in every n-th frame of a video, which is never in memory as a whole.

    Args:
        annotate: an MP4 with the objects drawn on all frames, those between two examined ones with
            the objects of the first; it is there once the last frame was read.

    A video that cannot be read to its end ends with a problem, and without a copy.
    """
    if every < 1:
        raise UserError(f"every is {every}, expected a positive number of frames")
    try:
        with open_video(path) as video:
            fps = video.fps
        frames = _detect_frames(finder, path, every)
        if annotate is None:
            for _, found in frames:
                if found is not None:
                    yield found
        else:
            yield from _annotated(finder, path, annotate, fps, frames)
    except VideoDecodeError as error:
        yield FoundObjects(path=path, problem=error.reason)


def draw_found(finder: ObjectFinder, each: FoundObjects) -> Frames:
    """Draw the objects of a picture, which is enlarged where labels would not be readable."""
    assert each.picture is not None
    assert each.found is not None
    return draw_objects(*enlarge(each.picture, finder.drawn(each.found)))


def write_annotated_picture(finder: ObjectFinder, each: FoundObjects, target: Path) -> None:
    """Write a picture with its objects as JPEG or PNG, replacing an old file only on success."""
    kind = "PNG" if target.suffix.lower() == ".png" else "JPEG"
    with replace_atomically(target) as temporary:
        Image.fromarray(draw_found(finder, each)).save(temporary, kind, quality=JPEG_QUALITY)


def read_picture(path: str) -> Frames | str:
    """Read a picture, upright: -> (H, W, 3), or why it is unreadable."""
    try:
        with PictureReader(path, DecodeLimits()) as reader:
            return np.asarray(reader.read([0])[0])
    except VideoDecodeError as error:
        return error.reason


def _detect_frames(
    finder: ObjectFinder, path: str, every: int
) -> Iterator[tuple[tuple[float, VideoFrame], FoundObjects | None]]:
    """Yield every frame with its time, and what is in it where it is examined."""
    frames = RunAhead(timed_frames(path), num_ahead=NUM_AHEAD)
    for index, (time_s, frame) in enumerate(frames):
        if index % every:
            yield (time_s, frame), None
            continue
        picture = upright(frame)
        yield (
            (time_s, frame),
            FoundObjects(
                path=path,
                picture=picture,
                found=finder.find(picture),
                frame_index=index,
                time_s=time_s,
            ),
        )


def _annotated(
    finder: ObjectFinder,
    path: str,
    target: Path,
    fps: float,
    frames: Iterator[tuple[tuple[float, VideoFrame], FoundObjects | None]],
) -> Iterator[FoundObjects]:
    """Write each frame with the objects found last, and yield those of examined frames."""
    objects: list[DrawnObject] = []
    with annotated_copy(path, target, fps) as copy:
        for (time_s, frame), found in frames:
            shown = copy.shown(frame)
            if found is not None:
                assert found.picture is not None
                assert found.found is not None
                before, after = found.picture.shape[:2], shown.shape[:2]
                objects = resize_objects(finder.drawn(found.found), before, after)
            copy.write(time_s, draw_objects(shown, objects))
            if found is not None:
                yield found
