"""Evaluate a detector: COCO AP of boxes and masks, detections and the report."""

import copy
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig

from video_mvit.cli.build import build_trainer
from video_mvit.cli.build_detection import build_detector, check_settings, refuse_settings
from video_mvit.cli.evaluate import versions
from video_mvit.cli.run_folder import (
    check_class_names,
    find_checkpoint,
    is_first_process,
    remove_unfinished,
)
from video_mvit.cli.trained_network import advising_settings
from video_mvit.detection.coco_ap import GroundTruth, load_evaluator
from video_mvit.detection.data.datamodule import DetectionDataModule
from video_mvit.detection.detector import Detector
from video_mvit.detection.keep_detections import KeepDetections
from video_mvit.detection.output_folder import (
    DETECTIONS,
    FILES,
    check_detection_folder,
    write_detections,
)
from video_mvit.detection.report import write_detection_report
from video_mvit.detection.results import DetectionOrigin, DetectionResult, summarize_detections
from video_mvit.detection.training import DetectorModule
from video_mvit.detection.weights import plan_detector, read_detector, shapes_of
from video_mvit.evaluation.output_folder import RESULTS, clear_folder, clear_partial_results
from video_mvit.evaluation.predictions import MISSING
from video_mvit.training.distributed import merge_over_ranks
from video_mvit.weights.checkpoint_files import weights_sha1

# Settings of classifiers, and their values where they are not used.
OF_CLASSIFIERS: Mapping[str, Any] = {"motion": [], "clips_per_pass": None, "reuse": None}


def evaluate_detector(settings: DictConfig) -> tuple[DetectionResult, Path] | None:
    """Evaluate the test images; on rank 0, write all results and return them with the report."""
    cfg = copy.deepcopy(settings)  # building fills in references
    check_settings(cfg)
    refuse_settings(cfg, OF_CLASSIFIERS)
    load_evaluator(cfg.evaluator)  # fails now, and not after all images
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    # Build, load the weights, read the annotations.
    detector, data = build_detector(cfg, "test")
    trainer = build_trainer(cfg, logger=False)
    data.check_shares("test", trainer.world_size)
    origin = load_weights(cfg, detector, data)
    truth = data.annotations("val").coco_ground_truth()
    output = Path(cfg.output)
    remove_unfinished(output, FILES)
    if not cfg.overwrite:
        check_detection_folder(output, origin.identity)
    elif is_first_process():
        clear_folder(output, FILES)
    # Detect in all images that an earlier run has not finished.
    kept = KeepDetections(output, origin.identity, truth, data)
    trainer.callbacks.append(kept)  # type: ignore[attr-defined]
    start = time.perf_counter()
    trainer.test(DetectorModule(detector, optim=None), datamodule=data, verbose=False)
    time_s = time.perf_counter() - start
    # Merge what all ranks found, and summarize.
    problems = problems_of(data, truth)
    found = kept.collect()
    if not is_first_process():
        return None
    result = summarize_detections(
        truth, found, problems, origin, time_s=time_s, num_resumed=kept.num_resumed
    )
    write_detections(output / DETECTIONS, truth, found)
    result.write(output / RESULTS)
    clear_partial_results(output)
    return result, write_detection_report(
        output, result, truth, found, thumbnails=cfg.report.thumbnails
    )


def load_weights(cfg: DictConfig, detector: Detector, data: DetectionDataModule) -> DetectionOrigin:
    """Load the weights of the checkpoint; return where all comes from."""
    path = find_checkpoint(cfg.checkpoint, cfg.run_dir)
    source = read_detector(path, cfg.weights)
    with advising_settings():
        plan_detector(source, shapes_of(detector)).apply(detector)
    names, ids = tuple(data.class_names), tuple(data.category_ids)
    if source.class_names is not None:
        check_class_names(path, {"class_names": source.class_names}, names)
    annotations = data.annotations("val")
    config = detector.config
    return DetectionOrigin(
        protocol=f"short{cfg.data.short_side} max{cfg.data.max_side}",
        settings={
            "score_threshold": config.score_threshold,
            "suppression": config.suppression,
            "nms_threshold": config.nms_threshold,
            "num_detections": config.num_detections,
        },
        precision=str(cfg.trainer.precision),
        evaluator=cfg.evaluator,
        annotations_sha1=annotations.digest(),
        weights_sha1=weights_sha1(detector.state_dict()),
        checkpoint=str(path),
        weights=source.container,
        image_root=str(annotations.root),
        class_names=names,
        category_ids=ids,
        versions=versions(cfg.trainer.accelerator),
    )


def problems_of(data: DetectionDataModule, truth: GroundTruth) -> dict[int, str]:
    """Return why images were not evaluated, by image id: missing, or unreadable."""
    ids = [image["id"] for image in truth["images"]]
    unreadable = merge_over_ranks(data.unreadable["val"])
    missing = {ids[index]: MISSING for index in data.annotations("val").missing.tolist()}
    return {ids[index]: reason for index, reason in unreadable.items()} | missing
