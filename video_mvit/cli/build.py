"""Build the objects of training and evaluation from the composed configuration."""

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
from omegaconf import DictConfig
from pytorch_lightning.strategies import Strategy

from video_mvit.cli.config_check import check_extras, check_value, check_values
from video_mvit.cli.run_folder import find_checkpoint, is_first_process, num_devices
from video_mvit.cli.tables import print_plan, wide_console
from video_mvit.data.datamodule import VideoDataModule
from video_mvit.data.sampling import SegmentFrames
from video_mvit.data.transforms.augment import Augment
from video_mvit.errors import UserError
from video_mvit.host import num_usable_cores
from video_mvit.models.mvit import MViT
from video_mvit.training.checkpoints import AtomicCheckpointIO, ShardedStrategy
from video_mvit.training.classifier import VideoClassifier
from video_mvit.training.ema import EmaWeights
from video_mvit.training.old_checkpoints import translate_checkpoint
from video_mvit.training.optim import scale_learning_rates
from video_mvit.training.preemption import GracefulShutdown
from video_mvit.training.progress import EpochSummary
from video_mvit.weights.initialize import initialize_from
from video_mvit.weights.model_card import ModelCard

logger = logging.getLogger(__name__)

RESUMABLE = {"state_dict", "class_names", "settings"}  # keys that a checkpoint must have


def build(node: Any, **extra: Any) -> Any:
    """Instantiate a configuration node, with plain lists and dicts inside."""
    return instantiate(node, _convert_="all", **extra)


def build_all(cfg: DictConfig, **known: Any) -> tuple[VideoClassifier, VideoDataModule]:
    """Build the classifier and its data module; checks every value, reads no data."""
    for name in ("model", "data", "augment", "optim", "trainer", "callbacks", "logger"):
        check_values(cfg[name], name)
    check_extras(cfg.logger)
    for name, kind in (("label_smoothing", float), ("compile", bool), ("seed", int)):
        check_value(name, cfg[name], kind)
    classifier = VideoClassifier(
        build(cfg.model),
        num_classes=cfg.data.num_classes,
        preprocess=build(cfg.data.normalize),
        augment=build(cfg.augment) if "_target_" in cfg.augment else None,
        optim=build(cfg.optim),
        label_smoothing=cfg.label_smoothing,
        seed=cfg.seed,
        **known,
    )
    if cfg.compile:
        classifier.model.compile(dynamic=True)
    return classifier, build(cfg.data.module)


def build_trainer(cfg: DictConfig, **overrides: Any) -> pl.Trainer:
    """Build the trainer with the configured callbacks and loggers."""
    check_devices(cfg)
    if cfg.trainer.accelerator == "cpu":  # oversubscribing cores with loader workers costs 2x
        torch.set_num_threads(
            max(1, num_usable_cores() // cfg.trainer.devices - cfg.data.num_workers)
        )
    callbacks = [build(node) for node in cfg.callbacks.values()]
    # These run after all others: one measures data wait, the other saves the state of all.
    last = (EpochSummary, GracefulShutdown)
    callbacks.sort(key=lambda each: last.index(type(each)) if type(each) in last else -1)
    has_ema = any(isinstance(each, EmaWeights) for each in callbacks)
    if has_ema and cfg.trainer.precision in ("bf16-true", "16-true"):
        raise UserError(
            f"callbacks.ema does not work with trainer.precision={cfg.trainer.precision}, which "
            "rounds its updates to zero; try bf16-mixed"
        )
    strategy = choose_strategy(cfg)
    if isinstance(strategy, ShardedStrategy):
        for name, is_asked in (
            ("compile", cfg.compile),
            ("callbacks.ema", has_ema),
        ):
            if is_asked:
                raise UserError(f"{name} does not work with trainer.strategy=fsdp; remove it")
    options = {
        "callbacks": callbacks,
        "logger": [build(node) for node in cfg.logger.values()],
        "strategy": strategy,
        "plugins": [AtomicCheckpointIO()],
        **overrides,
    }
    return build(cfg.trainer, **options)  # type: ignore[no-any-return]


def check_devices(cfg: DictConfig) -> None:
    """Raise `UserError` if the configured devices do not exist."""
    trainer = cfg.trainer
    if trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError(
            f"trainer.accelerator is {trainer.accelerator!r}, but no GPU was found; add trainer=cpu"
        )
    if trainer.accelerator == "cpu" and trainer.precision in ("16-mixed", "16"):
        raise UserError(
            f"trainer.precision is {trainer.precision}, which CPUs do not support; try bf16-mixed"
        )
    is_started = any(name in os.environ for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS"))
    if num_devices(cfg) > 1 and not is_started:
        raise UserError(
            f"trainer.devices is {trainer.devices}, but one process was started; start with "
            f"torchrun --nproc-per-node {trainer.devices} -m video_mvit ..., without "
            "trainer.devices, or with srun"
        )


def choose_strategy(cfg: DictConfig) -> str | Strategy:
    """Return the strategy: auto (single process or DDP), or FSDP2 for `fsdp`."""
    if cfg.trainer.strategy not in ("auto", "fsdp"):
        raise UserError(f"trainer.strategy {cfg.trainer.strategy!r} is none of 'auto', 'fsdp'")
    if cfg.trainer.strategy == "auto":
        return "ddp" if num_devices(cfg) > 1 else "auto"
    if num_devices(cfg) == 1:
        raise UserError("trainer.strategy=fsdp needs two devices or more; see torchrun")
    return ShardedStrategy(
        data_parallel_size=num_devices(cfg),
        tensor_parallel_size=1,
        save_distributed_checkpoint=False,
    )


def fit_schedule_to_step(cfg: DictConfig, classifier: VideoClassifier, trainer: pl.Trainer) -> None:
    """Scale learning rates to the clips per step, and check that batches can be mixed."""
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
            "learning rate %.3g: scaled from %.3g for %d clips per step to %d (%s)",
            classifier.optim.lr,
            published.lr,
            published.reference_clips,
            num_clips,
            " x ".join(f"{n} {name}" for name, n in parts.items() if n > 1) or "1 video",
        )


def read_checkpoint(name: str, run_dir: str) -> tuple[Path, dict[str, Any]]:
    """Read a training checkpoint to resume from, tensors and plain values only."""
    path = find_checkpoint(name, run_dir)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        content = None
    if not isinstance(content, dict) or not set(content) >= RESUMABLE:
        raise UserError(
            f"{path} is not a checkpoint of video-mvit train, or is damaged; to start from its "
            f"weights: init=weights init.source={path}"
        )
    return path, translate_checkpoint(content)


def check_class_names(path: Path, checkpoint: dict[str, Any], data: VideoDataModule) -> None:
    """Raise `UserError` if checkpoint and data set differ in the meaning of a label."""
    pairs = enumerate(zip_longest(checkpoint["class_names"], data.class_names))
    for label, (trained, listed) in pairs:
        if trained != listed:
            raise UserError(f"class {label} is {trained!r} in {path}, but {listed!r} in the data")


def start_weights(cfg: DictConfig, classifier: VideoClassifier, data: VideoDataModule) -> None:
    """Initialize the model from the weights that `init` names, and print what was loaded."""
    if "_target_" not in cfg.init:  # from scratch
        return
    check_values(cfg.init, "init")
    source, plan = initialize_from(build(cfg.init), classifier.model, data.class_names)
    if is_first_process():
        print_plan(wide_console(), source, plan)
    card, normalize = source.card, cfg.data.normalize
    if (
        card
        and card.mean
        and card.std
        and [*card.mean, *card.std] != [*normalize.mean, *normalize.std]
    ):
        logger.warning(
            "the weights were trained with mean %s and std %s, but the data is normalized with %s "
            "and %s; set data.normalize.mean and data.normalize.std to change that",
            *map(list, (card.mean, card.std, normalize.mean, normalize.std)),
        )


def describe(cfg: DictConfig, classifier: VideoClassifier, data: VideoDataModule) -> dict[str, Any]:
    """Return the `ModelCard` that checkpoints hold, in plain values."""
    model, pipeline = classifier.model, data.splits["test"].pipeline
    if not isinstance(model, MViT):
        return {}
    card = ModelCard(
        model=asdict(model.config),
        variant=cfg.model.get("name"),
        frame_stride=cfg.clip.frame_stride,
        short_side=getattr(pipeline.crop, "short_side", None),
        sampling="segments" if isinstance(pipeline.sampler, SegmentFrames) else "strided",
        interpolation=getattr(pipeline.crop, "interpolation", None),
        mean=tuple(cfg.data.normalize.mean),
        std=tuple(cfg.data.normalize.std),
        class_names=tuple(data.class_names),
        key_format="video_mvit",
    )
    return asdict(card)


def quiet_libraries() -> None:
    """Silence adverts and irrelevant warnings of libraries."""
    libraries = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")
    for name in (*libraries, "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers",
        ".*exists and is not empty",
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated",
        ".*smaller than the logging interval",
        ".*across ranks is zero",  # on ranks whose videos were all evaluated before
        ".*your dataloader is not resumable",  # the sampler is
    ):
        warnings.filterwarnings("ignore", message)
