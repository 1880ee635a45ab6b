"""What training and evaluation share: from the composed configuration to objects."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from mistakes import check_values
from omegaconf import DictConfig

from video_mvit.classifier import VideoClassifier
from video_mvit.data.datamodule import VideoDataModule


def build(node: Any, **extra: Any) -> Any:
    """Instantiate a node of the configuration; plain lists and dicts inside."""
    return instantiate(node, _convert_="all", **extra)


def build_all(cfg: DictConfig) -> tuple[VideoClassifier, VideoDataModule]:
    """The classifier and its data; every value is checked, no data is touched."""
    for name in ("model", "data", "optim", "trainer", "callbacks", "logger"):
        check_values(cfg[name], name)
    classifier = VideoClassifier(
        build(cfg.model),
        num_classes=cfg.data.num_classes,
        preprocess=build(cfg.data.normalize),
        optim=build(cfg.optim),
        label_smoothing=cfg.label_smoothing,
    )
    return classifier, build(cfg.data.module)


def build_trainer(cfg: DictConfig, **overrides: Any) -> pl.Trainer:
    """The trainer, with the callbacks and loggers that the configuration lists by name."""
    if cfg.trainer.accelerator == "cpu":  # threads that wait for a core that a worker has cost 2x
        torch.set_num_threads(max(1, (os.cpu_count() or 1) - cfg.data.num_workers))
    callbacks = [build(node) for node in cfg.callbacks.values()]
    loggers = [build(node) for node in cfg.logger.values()]
    return build(cfg.trainer, **{"callbacks": callbacks, "logger": loggers, **overrides})  # type: ignore[no-any-return]


def find_checkpoint(name: str, run_dir: str) -> Path:
    """Path of a checkpoint given as "last", "best" or a path."""
    path = Path(run_dir, "checkpoints", f"{name}.ckpt") if name in ("last", "best") else Path(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"no checkpoint {path}; give 'last' or 'best' (of run_dir {run_dir}), or a path"
        )
    return path


def quiet_libraries() -> None:
    """Keep adverts and advice of the trainer library out of what a person reads."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
