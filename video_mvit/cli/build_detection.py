"""Build the objects of a detector's training and evaluation from the composed configuration."""

import copy
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from video_mvit.cli.build import TrainingParts, build, build_trainer
from video_mvit.cli.config_check import check_entries, check_extras, check_values
from video_mvit.cli.run_folder import Settings, is_first_process, num_devices
from video_mvit.cli.run_loggers import record_of
from video_mvit.cli.tables import print_plan, wide_console
from video_mvit.cli.tasks import check_class_list
from video_mvit.detection.data.datamodule import DetectionDataModule
from video_mvit.detection.detector import PIXEL_MEAN, PIXEL_STD, Detector
from video_mvit.detection.optim import DetectionOptimConfig, scale_to_images
from video_mvit.detection.training import DetectorModule, Validation
from video_mvit.detection.weights import initialize_detector
from video_mvit.errors import UserError
from video_mvit.training.freezing import describe_freezing
from video_mvit.weights.load import provenance_of
from video_mvit.weights.model_card import ModelCard

# Settings of classifiers, and their values where they are not used.
OF_CLASSIFIERS: Mapping[str, Any] = {
    "compile": None,
    "label_smoothing": 0.0,
    "class_weights": None,
    "focal_gamma": None,
    "logit_adjustment": None,
    "memory": None,
    "auto_settings": False,
    "augment": {},
}
logger = logging.getLogger(__name__)


def build_detector(cfg: DictConfig, stage: str) -> tuple[Detector, DetectionDataModule]:
    """Build the detector and its data module, which reads the annotations of "fit" or "test"."""
    data: DetectionDataModule = build(cfg.data.module)
    data.setup(stage)
    if cfg.data.num_classes is None:
        cfg.data.num_classes = len(data.class_names)
    return build(cfg.model), data


def check_settings(cfg: DictConfig) -> None:
    """Check every value; the annotations may decide the number of classes."""
    cfg = copy.deepcopy(cfg)
    if "overfit" in cfg.callbacks:
        raise UserError("debug=overfit is for classifiers; try debug=fast")
    if cfg.data.num_classes is None:
        cfg.data.num_classes = 1
    for name in ("model", "data", "optim", "trainer", "callbacks", "logger"):
        check_values(cfg[name], name)
    for name in ("callbacks", "logger"):
        check_entries(cfg[name], name)
    check_extras(cfg.logger)
    refuse_settings(cfg, OF_CLASSIFIERS)
    if cfg.get("adapter"):
        raise UserError("adapter is set, but detectors do not have it; remove it")


def refuse_settings(cfg: DictConfig, unused: Mapping[str, Any]) -> None:
    """Raise `UserError` where a setting that detectors do not have differs from its `unused`."""
    for name, value in unused.items():
        if cfg[name] != value:
            said = "set" if OmegaConf.is_dict(cfg[name]) else cfg[name]
            raise UserError(f"{name} is {said}, but detectors do not have it; remove it")


def build_detection_training(settings: Settings) -> TrainingParts:
    """Build all of a training from its settings, as `build.build_training` does."""
    cfg = copy.deepcopy(settings.config)  # building fills in references
    check_settings(cfg)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)  # of initialization
    optim = fit_schedule_to_images(cfg)
    detector, data = build_detector(cfg, "fit")
    check_class_list(cfg, data.class_names)
    most = cfg.trainer.max_steps
    num_steps = optim.num_steps if most == -1 else min(most, optim.num_steps)
    trainer = build_trainer(cfg, max_steps=num_steps)
    data.check_shares("fit", trainer.world_size)
    start: dict[str, Any] = {}
    if not cfg.resume_from and "_target_" in cfg.init:
        check_values(cfg.init, "init")
        source, plan = initialize_detector(build(cfg.init), detector)
        start = provenance_of(source)
        if is_first_process():
            print_plan(wide_console(), source, plan)
    module = DetectorModule(
        detector,
        optim=optim,
        validation=validation_of(data, "val"),
        seed=cfg.seed,
        class_names=data.class_names,
        card=describe(cfg, detector, data, **start),
        settings=settings.recorded,
    )
    configuration = OmegaConf.to_yaml(settings.config)
    trainer.callbacks.append(record_of(cfg, configuration))  # type: ignore[attr-defined]
    if module.freeze_names:
        logger.info(describe_freezing(module.model))
    return TrainingParts(
        module=module,
        data=data,
        trainer=trainer,
        configuration=configuration,
    )


def validation_of(data: DetectionDataModule, split: str) -> Validation:
    """Return what the AP of a split is computed from."""
    return Validation(
        ground_truth=data.annotations(split).coco_ground_truth(), category_ids=data.category_ids
    )


def fit_schedule_to_images(cfg: DictConfig) -> DetectionOptimConfig:
    """Scale the learning rate and the steps to the images of a step; say so."""
    published: DetectionOptimConfig = build(cfg.optim)
    parts = {
        "images": cfg.data.train_batch_size,
        "devices": num_devices(cfg),
        "accumulated": cfg.trainer.accumulate_grad_batches,
    }
    num_images = math.prod(parts.values())
    optim = scale_to_images(published, num_images)
    if published.reference_images is not None:
        logger.info(
            "learning rate %.3g and %s steps: scaled from %.3g and %s for %d images per step to "
            "%d (%s)",
            optim.lr,
            f"{optim.num_steps:,}",
            published.lr,
            f"{published.num_steps:,}",
            published.reference_images,
            num_images,
            " x ".join(f"{n} {name}" for name, n in parts.items() if n > 1) or "1 image",
        )
    return optim


def describe(
    cfg: DictConfig, detector: Detector, data: DetectionDataModule, **known: Any
) -> dict[str, Any]:
    """Return the `ModelCard` that checkpoints hold, in plain values."""
    card = ModelCard(
        model=asdict(detector.config),
        variant=cfg.model.get("name"),
        short_side=cfg.data.short_side,
        max_side=cfg.data.max_side,
        interpolation="bilinear",
        mean=tuple(value / 255 for value in PIXEL_MEAN),
        std=tuple(value / 255 for value in PIXEL_STD),
        class_names=tuple(data.class_names),
        category_ids=tuple(data.category_ids),
        key_format="video_mvit",
        **known,
    )
    return asdict(card)
