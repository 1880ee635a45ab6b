"""Find objects in pictures or videos: what `video-mvit predict` does with a detector.

video-mvit predict checkpoint=det.ckpt image=pictures/ annotate=drawn/
"""

import contextlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor

from video_mvit.cli.engines import engine_device
from video_mvit.cli.predict import (
    PredictSummary,
    opened_output,
    plan_paths,
    uninterrupted,
)
from video_mvit.cli.progress_display import ProgressDisplay
from video_mvit.data.reading.formats import PICTURE_SUFFIXES
from video_mvit.detection.detector import Detector
from video_mvit.detection.instances import Detections
from video_mvit.detection.multi_scale import SHORT_SIDES_PX, detect_multi_scale
from video_mvit.detection.predict import (
    FoundObjects,
    ObjectFinder,
    detect_pictures,
    detect_video,
    write_annotated_picture,
)
from video_mvit.detection.weights import load_detector
from video_mvit.detection.writers import open_detection_writer
from video_mvit.errors import UserError
from video_mvit.prediction.sources import LocalFile, fetched
from video_mvit.weights.class_names import read_class_names

OF_CLASSIFIERS = ("explain", "timeline_picture")  # options that a detector does not have


def predict_objects(cfg: DictConfig, checkpoint: Path, paths: Sequence[str]) -> PredictSummary:
    """Examine and write one file after another; Ctrl-C stops between two pictures or frames."""
    _check_options(cfg)
    copies = _plan_copies(cfg, paths)
    finder = load_finder(cfg, checkpoint)
    seen: set[str] = set()
    unreadable: set[str] = set()
    with (
        opened_output(cfg.output) as file,
        ProgressDisplay(len(paths), "files") as progress,
        fetched(paths) as files,
        contextlib.closing(_examine(cfg, finder, files, copies)) as found,
    ):
        names = {file.path: file.name for file in files}
        writer = open_detection_writer(cfg.format, file, finder.class_names)
        try:
            for each in found:
                with progress.hidden(), uninterrupted():
                    writer.write(replace(each, path=names[each.path]))
                if each.path not in seen:
                    progress.count_video()
                seen.add(each.path)
                unreadable |= {each.path} if each.problem else set()
        except KeyboardInterrupt:
            return PredictSummary(len(seen), len(unreadable), is_interrupted=True)
    return PredictSummary(len(seen), len(unreadable), is_interrupted=False)


def load_finder(cfg: DictConfig, checkpoint: Path) -> ObjectFinder:
    """Load the detector onto its device, with the names of its classes."""
    suppression = {"suppression": "soft_nms"} if cfg.soft_nms else {}
    detector = load_detector(checkpoint, weights=cfg.weights, **suppression)
    device, card = engine_device(cfg), detector.card
    names: Sequence[str] = card.class_names or ()
    if cfg.class_names:
        names = read_class_names(cfg.class_names)
    num_classes = detector.config.num_classes
    if len(names) != num_classes:
        raise UserError(
            f"{checkpoint} detects {num_classes:,} classes, but {len(names):,} have names; name "
            "them with class_names=FILE"
        )
    detector.to(device)
    sizes = {"short_side": cfg.short_side or card.short_side, "max_side": card.max_side}
    if cfg.multi_scale:
        return ObjectFinder(
            detector=MultiScaleDetector(detector),
            class_names=names,
            min_score=cfg.min_score,
            device=device,
        )
    return ObjectFinder(
        detector=detector, class_names=names, min_score=cfg.min_score, device=device, **sizes
    )


class MultiScaleDetector:
    """A detector of several sizes of each image and their mirror images."""

    def __init__(self, detector: Detector, short_sides: Sequence[int] = SHORT_SIDES_PX) -> None:
        self._detector, self._short_sides = detector, short_sides

    def __call__(
        self, images: Sequence[Tensor], *, output_sizes: Sequence[tuple[int, int]]
    ) -> list[Detections]:
        assert [tuple(image.shape[1:]) for image in images] == list(output_sizes)
        return [
            detect_multi_scale(self._detector, image, short_sides=self._short_sides)
            for image in images
        ]


def _check_options(cfg: DictConfig) -> None:
    for name in OF_CLASSIFIERS:
        if cfg[name]:
            raise UserError(f"{name} is of classifiers, but the checkpoint is a detector")
    if cfg.engine != "torch" or cfg.precision not in ("auto", "float32"):
        raise UserError("a detector is run by engine=torch in precision=float32; remove the others")


def _plan_copies(cfg: DictConfig, paths: Sequence[str]) -> Mapping[str, Path]:
    """Plan the annotated copies: an MP4 of a video; of a picture a JPEG, or a PNG if it says so."""
    suffix = ".mp4"
    if cfg.image:
        named = Path(cfg.annotate or "").suffix.lower()
        suffix = named if named in PICTURE_SUFFIXES else ".jpg"
    (copies,) = plan_paths(cfg, paths, {"annotate": (suffix,)})
    return copies


def _examine(
    cfg: DictConfig, finder: ObjectFinder, files: Sequence[LocalFile], copies: Mapping[str, Path]
) -> Generator[FoundObjects, None, None]:
    """Yield what is in pictures, or in frames of videos, and write the annotated copies.

    Closing the generator removes the unfinished copy of a video.
    """
    if cfg.video:
        for path, name in files:
            yield from detect_video(finder, path, every=cfg.every, annotate=copies.get(name))
        return
    found = detect_pictures(finder, [file.path for file in files])
    for each, (_, name) in zip(found, files, strict=True):
        if name in copies and not each.problem:
            write_annotated_picture(finder, each, copies[name])
        yield each
