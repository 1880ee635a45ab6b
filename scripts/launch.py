"""What training and evaluation share: from the composed configuration to objects."""

import logging
import math
import os
import pickle
import warnings
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from mistakes import check_values
from omegaconf import DictConfig
from plan_table import print_plan, wide_console

from video_mvit.classifier import VideoClassifier
from video_mvit.data.augment import Augment
from video_mvit.data.datamodule import VideoDataModule
from video_mvit.mvit import MViT
from video_mvit.optim import scale_learning_rates
from video_mvit.weights.card import ModelCard
from video_mvit.weights.hub import fetch, is_hub_id
from video_mvit.weights.start import start_from

logger = logging.getLogger(__name__)


def build(node: Any, **extra: Any) -> Any:
    """Instantiate a node of the configuration; plain lists and dicts inside."""
    return instantiate(node, _convert_="all", **extra)


def build_all(cfg: DictConfig) -> tuple[VideoClassifier, VideoDataModule]:
    """The classifier and its data; every value is checked, no data is touched."""
    for name in ("model", "data", "augment", "optim", "trainer", "callbacks", "logger"):
        check_values(cfg[name], name)
    if not isinstance(cfg.label_smoothing, int | float):
        raise ValueError(f"label_smoothing is {cfg.label_smoothing!r}, expected float")
    classifier = VideoClassifier(
        build(cfg.model),
        num_classes=cfg.data.num_classes,
        preprocess=build(cfg.data.normalize),
        augment=build(cfg.augment) if "_target_" in cfg.augment else None,
        optim=build(cfg.optim),
        label_smoothing=cfg.label_smoothing,
    )
    classifier.seed = cfg.seed
    return classifier, build(cfg.data.module)


def build_trainer(cfg: DictConfig, **overrides: Any) -> pl.Trainer:
    """The trainer, with the callbacks and loggers that the configuration lists by name."""
    if cfg.trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError("trainer.accelerator is 'gpu', but torch finds none; try trainer=cpu")
    if cfg.trainer.accelerator == "cpu":  # threads that wait for a core that a worker has cost 2x
        torch.set_num_threads(max(1, (os.cpu_count() or 1) - cfg.data.num_workers))
    callbacks = [build(node) for node in cfg.callbacks.values()]
    loggers = [build(node) for node in cfg.logger.values()]
    return build(cfg.trainer, **{"callbacks": callbacks, "logger": loggers, **overrides})  # type: ignore[no-any-return]


def fit_schedule_to_step(cfg: DictConfig, classifier: VideoClassifier, trainer: pl.Trainer) -> None:
    """Scale learning rates to the clips of a step, and say so; refuse to mix a clip with itself."""
    num_videos, num_samples = cfg.data.train_batch_size, cfg.data.num_samples
    if isinstance(classifier.augment, Augment):
        classifier.augment.check_num_clips(num_videos * num_samples)
    parts = {
        "videos": num_videos,
        "samples": num_samples,
        "devices": trainer.world_size,
        "accumulated": trainer.accumulate_grad_batches,
    }
    num_clips = math.prod(parts.values())
    published, classifier.optim = (
        classifier.optim,
        scale_learning_rates(classifier.optim, num_clips),
    )
    if published.reference_clips is not None:
        logger.info(
            "learning rate %.3g: %.3g for %d clips a step, here %d (%s)",
            classifier.optim.lr,
            published.lr,
            published.reference_clips,
            num_clips,
            " x ".join(f"{n} {name}" for name, n in parts.items() if n > 1) or "1 video",
        )


def find_checkpoint(name: str, run_dir: str) -> Path:
    """Path of a checkpoint given as "last", "best" (of the run folder), a path, or a hub's name."""
    if is_hub_id(name):
        return fetch(name)
    path = Path(run_dir, "checkpoints", f"{name}.ckpt") if name in ("last", "best") else Path(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"no checkpoint {path}; give 'last' or 'best' (of run_dir {run_dir}), or a path"
        )
    return path


def read_checkpoint(name: str, run_dir: str) -> tuple[Path, dict[str, Any]]:
    """Path and content of a training checkpoint, to resume from; only tensors are read."""
    path = find_checkpoint(name, run_dir)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        content = None
    if not isinstance(content, dict) or not {"state_dict", "class_names"} <= set(content):
        raise ValueError(
            f"{path} is not a checkpoint of scripts/train.py, or is damaged; to start from its "
            f"weights: init=weights init.source={path}"
        )
    return path, content


def check_class_names(path: Path, checkpoint: dict[str, Any], data: VideoDataModule) -> None:
    """A checkpoint and a data set must mean the same by every label."""
    pairs = enumerate(zip_longest(checkpoint["class_names"], data.class_names))
    for label, (trained, listed) in pairs:
        if trained != listed:
            raise ValueError(f"class {label} is {trained!r} in {path}, but {listed!r} in the data")


def start_weights(cfg: DictConfig, classifier: VideoClassifier, data: VideoDataModule) -> None:
    """Start the network from the weights that `init` names, and show what was done with each."""
    if "_target_" not in cfg.init:  # from scratch
        return
    check_values(cfg.init, "init")
    source, plan = start_from(build(cfg.init), classifier.model, data.class_names)
    print_plan(wide_console(), source, plan)
    card, normalize = source.card, cfg.data.normalize
    if (
        card
        and card.mean
        and card.std
        and [*card.mean, *card.std] != [*normalize.mean, *normalize.std]
    ):
        logger.warning(
            "the weights were trained with mean %s and std %s, this data is normalised with %s and "
            "%s; data.normalize.mean and data.normalize.std change that",
            *map(list, (card.mean, card.std, normalize.mean, normalize.std)),
        )


def describe(cfg: DictConfig, classifier: VideoClassifier, data: VideoDataModule) -> dict[str, Any]:
    """What a checkpoint says of its model besides tensors: a `ModelCard` in plain values."""
    model = classifier.model
    if not isinstance(model, MViT):
        return {}
    card = ModelCard(
        model=asdict(model.config),
        variant=cfg.model.get("name"),
        frame_stride=cfg.clip.frame_stride,
        mean=tuple(cfg.data.normalize.mean),
        std=tuple(cfg.data.normalize.std),
        class_names=tuple(data.class_names),
        dialect="video_mvit",
    )
    return asdict(card)


def quiet_libraries() -> None:
    """Keep adverts and advice of the trainer library out of what a person reads."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers",
        ".*exists and is not empty",
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated",
        ".*smaller than the logging interval",
        ".*your dataloader is not resumable",  # its sampler is
    ):
        warnings.filterwarnings("ignore", message)
