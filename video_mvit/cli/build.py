"""Build the objects of training and evaluation from the composed configuration."""

import copy
import logging
import math
import os
import warnings
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.strategies import Strategy
from torch import nn

from video_mvit.cli.adapter import adapt_network
from video_mvit.cli.auto_hardware import set_matmul_precision
from video_mvit.cli.callbacks import build_callbacks
from video_mvit.cli.config_check import check_entries, check_extras, check_options, check_values
from video_mvit.cli.option_values import RUN
from video_mvit.cli.run_folder import Settings, is_first_process, num_devices
from video_mvit.cli.run_loggers import build_loggers, record_of
from video_mvit.cli.tables import print_plan, wide_console
from video_mvit.cli.tasks import (
    check_class_list,
    check_monitor,
    heads_in,
    parts_of_task,
    scale_of_list,
    task_arguments,
    task_facts,
)
from video_mvit.data.datamodule import VideoDataModule
from video_mvit.data.lists.class_weights import class_weights
from video_mvit.data.sampling import SHORT_SIDE, SegmentFrames
from video_mvit.data.transforms.augment import Augment
from video_mvit.errors import UserError
from video_mvit.host import default_num_workers, num_usable_cores
from video_mvit.models.mvit import MViT
from video_mvit.training.adapters import KeepAdapterRecord
from video_mvit.training.checkpoints import AtomicCheckpointIO, ShardedStrategy
from video_mvit.training.classifier import VideoClassifier
from video_mvit.training.compiling import check_compiling, compile_blocks
from video_mvit.training.distributed import ReplicatedStrategy, group_timeout
from video_mvit.training.ema import EmaWeights
from video_mvit.training.freezing import describe_freezing
from video_mvit.training.loggers import quiet_writer_threads
from video_mvit.training.losses import check_rare_classes, logit_adjustment
from video_mvit.training.module import TrainedModule
from video_mvit.training.optim import OptimConfig, scale_learning_rates
from video_mvit.weights.initialize import initialize_from
from video_mvit.weights.load import Source, provenance_of
from video_mvit.weights.load_plan import Plan
from video_mvit.weights.model_card import OWN_NAMES, ModelCard

if TYPE_CHECKING:
    from video_mvit.detection.data.datamodule import DetectionDataModule

TRAINER = "pytorch_lightning.Trainer"  # whose constructor only checks what it is given
MAX_SHORT_SIDE = 2  # times the side of the crop; published are 1 to 1.14
MAX_RANK_TIMEOUT_S = 7 * 24 * 3600
logger = logging.getLogger(__name__)


def build(node: Any, **extra: Any) -> Any:
    """Instantiate a configuration node, with plain lists and dicts inside."""
    return instantiate(node, _convert_="all", **extra)


def is_detection(cfg: DictConfig) -> bool:
    """Return whether the configured model is a detector."""
    return str(cfg.model.get("_target_")).rpartition(".")[2] == "create_detector"


def build_all(cfg: DictConfig, **known: Any) -> tuple[VideoClassifier, VideoDataModule]:
    """Build the classifier and its data module; checks every value, reads no data.

    Args:
        known: arguments of the classifier that are not settings.
    """
    arguments, data = classifier_arguments(cfg), build(cfg.data.module)
    adapt_network(cfg, arguments["model"], loaded=None)
    return parts_of_task(cfg).classifier(**arguments, **known), data


def classifier_arguments(cfg: DictConfig) -> dict[str, Any]:
    """Return the arguments of the classifier that settings decide; checks every value of a run."""
    check_options(cfg, RUN)
    warn_of_small_crop(cfg)
    for name in ("model", "data", "augment", "optim", "trainer", "callbacks", "logger"):
        check_values(cfg[name], name)
    for name in ("callbacks", "logger"):
        check_entries(cfg[name], name)
    check_extras(cfg.logger)
    check_rare_classes(
        logit_adjustment=cfg.logit_adjustment,
        class_weights=cfg.class_weights,
        balanced=cfg.data.get("balanced"),
    )
    return {
        "model": build(cfg.model),
        "num_classes": cfg.data.num_classes,
        "preprocess": build(cfg.data.normalize),
        "augment": build_augment(cfg),
        "optim": build(cfg.optim),
        "label_smoothing": cfg.label_smoothing,
        "focal_gamma": cfg.focal_gamma,
        "seed": cfg.seed,
        **task_arguments(cfg),
    }


def warn_of_small_crop(cfg: DictConfig) -> None:
    """Warn where validation and testing see a small part of each picture: 32 of 256 pixels."""
    crop, side = cfg.clip.crop_size, cfg.data.get("short_side")
    if side is not None and side > MAX_SHORT_SIDE * crop:
        logger.warning(
            "data.short_side=%d with clip.crop_size=%d: videos are validated and tested on %.2g %% "
            "of their height; data.short_side=%d is in proportion",
            *(side, crop, 100 * crop / side, round(crop * SHORT_SIDE)),
        )


def build_augment(cfg: DictConfig) -> nn.Module | None:
    """Build the augmentation, if there is one; transforms of the user's own are tried on clips.

    Raises `UserError` for a transform that does not return a clip like the one that it got.
    """
    augment: nn.Module | None = build(cfg.augment) if "_target_" in cfg.augment else None
    if isinstance(augment, Augment):
        augment.transforms.check(cfg.clip.num_frames, cfg.clip.crop_size)
    return augment


@dataclass(frozen=True, kw_only=True)
class TrainingParts:
    """What a training works with; `configuration` is what it was built from, as YAML."""

    module: TrainedModule
    data: "VideoDataModule | DetectionDataModule"
    trainer: pl.Trainer
    configuration: str


def build_training(settings: Settings) -> TrainingParts:
    """Build all of a training from its settings: lists are read, initial weights loaded.

    A run that is resumed takes its weights from the checkpoint later.
    """
    cfg = copy.deepcopy(settings.config)  # building fills in references
    pl.seed_everything(cfg.seed, workers=True, verbose=False)  # of initialisation
    arguments = classifier_arguments(cfg)
    data: VideoDataModule = build(cfg.data.module)
    trainer = build_trainer(cfg)
    if cfg.compile:
        compile_model(cfg, arguments["model"])
    # Fit the schedule to the step, before any data is touched.
    arguments["optim"] = fit_schedule_to_step(cfg, arguments["optim"], arguments["augment"])
    # Read the lists.
    data.setup("fit")
    check_class_list(cfg, data.class_names)
    check_monitor(cfg, data)
    data.check_shares("fit", trainer.world_size)
    # Load the initial weights, in the order of the classes of the list.
    loaded = None if cfg.resume_from else start_weights(cfg, arguments["model"], data)
    start: dict[str, Any] = {} if loaded is None else provenance_of(loaded[0])
    scale = scale_of_list(data)
    if (adapter := adapt_network(cfg, arguments["model"], loaded)) is not None:
        trainer.callbacks.append(KeepAdapterRecord(adapter))  # type: ignore[attr-defined]
    classifier = parts_of_task(cfg).classifier(
        **arguments,
        class_weights=class_weights(
            cfg.class_weights,
            data.class_names,
            data.train_labels(),
            heads_in(cfg, data.class_names),
        ),
        logit_shift=logit_adjustment(
            cfg.logit_adjustment, data.train_labels(), len(data.class_names)
        ),
        class_names=data.class_names,
        card=describe(cfg, arguments["model"], data, **start, **scale),
        settings=settings.recorded,
        **scale,
    )
    configuration = OmegaConf.to_yaml(settings.config)
    trainer.callbacks.append(record_of(cfg, configuration))  # type: ignore[attr-defined]
    if not all(each.requires_grad for each in classifier.model.parameters()):
        logger.info(describe_freezing(classifier.model))
    return TrainingParts(
        module=classifier,
        data=data,
        trainer=trainer,
        configuration=configuration,
    )


def compile_model(cfg: DictConfig, model: nn.Module) -> None:
    """Compile the blocks of a network for the training steps that `cfg` describes."""
    check_compiling(
        cfg.compile,
        accelerator=cfg.trainer.accelerator,
        precision=str(cfg.trainer.precision),
        num_devices=num_devices(cfg),
        accumulated=cfg.trainer.accumulate_grad_batches,
        checkpointing=model.config.activation_checkpointing if isinstance(model, MViT) else "none",
    )
    compile_blocks(model, cfg.compile, cfg.data.train_batch_size * cfg.data.num_samples)


def build_trainer(cfg: DictConfig, **overrides: Any) -> pl.Trainer:
    """Build the trainer with the configured callbacks and loggers."""
    check_options(cfg, RUN)
    check_devices(cfg)
    set_matmul_precision(cfg.trainer.accelerator, cfg.float32_matmul)
    if cfg.trainer.accelerator == "cpu":  # oversubscribing cores with loader workers costs 2x
        torch.set_num_threads(
            max(1, num_usable_cores() // cfg.trainer.devices - num_loader_processes(cfg))
        )
    loggers = build_loggers(cfg) if "logger" not in overrides else []
    callbacks = build_callbacks(cfg, loggers)
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
            ("optim.freeze_epochs", cfg.optim.get("freeze_epochs")),
        ):
            if is_asked:
                raise UserError(f"{name} does not work with trainer.strategy=fsdp; remove it")
    options = {
        "callbacks": callbacks,
        "logger": loggers,
        "strategy": strategy,
        "plugins": [AtomicCheckpointIO()],
        **overrides,
    }
    try:
        return build(cfg.trainer, **options)  # type: ignore[no-any-return]
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError | TypeError) and cfg.trainer._target_ == TRAINER:
            raise UserError(f"trainer: {str(cause).splitlines()[0]}") from None
        raise


def num_loader_processes(cfg: DictConfig) -> int:
    """Return the loader processes of each device, as the data module will start them."""
    num_workers = cfg.data.num_workers
    return default_num_workers() if num_workers == "auto" else int(num_workers)


def check_devices(cfg: DictConfig) -> None:
    """Raise `UserError` if the configured devices do not exist."""
    trainer = cfg.trainer
    if trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError(
            f"trainer.accelerator is {trainer.accelerator!r}, but no GPU was found; trainer=auto "
            "takes the CPU then"
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
    """Return the strategy: auto (single process or DDP), or FSDP2 for `fsdp`.

    Ranks wait for each other for `rank_timeout_s`.
    """
    if not 0 < cfg.rank_timeout_s <= MAX_RANK_TIMEOUT_S:
        raise UserError(f"rank_timeout_s {cfg.rank_timeout_s} must be positive, and at most a week")
    timeout = group_timeout(cfg.rank_timeout_s, cfg.trainer.accelerator)
    if cfg.trainer.strategy not in ("auto", "fsdp"):
        raise UserError(f"trainer.strategy {cfg.trainer.strategy!r} is none of 'auto', 'fsdp'")
    if cfg.trainer.strategy == "auto":
        return ReplicatedStrategy(timeout=timeout) if num_devices(cfg) > 1 else "auto"
    if num_devices(cfg) == 1:
        raise UserError("trainer.strategy=fsdp needs two devices or more; see torchrun")
    return ShardedStrategy(
        data_parallel_size=num_devices(cfg),
        tensor_parallel_size=1,
        save_distributed_checkpoint=False,
        timeout=timeout,
    )


def fit_schedule_to_step(
    cfg: DictConfig, published: OptimConfig, augment: nn.Module | None
) -> OptimConfig:
    """Scale learning rates to the clips per step, and check that batches can be mixed."""
    num_videos, num_samples = cfg.data.train_batch_size, cfg.data.num_samples
    if isinstance(augment, Augment):
        augment.check_num_clips(num_videos * num_samples)
    parts = {
        "videos": num_videos,
        "samples": num_samples,
        "devices": num_devices(cfg),
        "accumulated": cfg.trainer.accumulate_grad_batches,
    }
    num_clips = math.prod(parts.values())
    optim = scale_learning_rates(published, num_clips)
    if published.reference_clips is not None:
        logger.info(
            "learning rate %.3g: scaled from %.3g for %d clips per step to %d (%s)",
            optim.lr,
            published.lr,
            published.reference_clips,
            num_clips,
            " x ".join(f"{n} {name}" for name, n in parts.items() if n > 1) or "1 video",
        )
    return optim


def start_weights(
    cfg: DictConfig, model: nn.Module, data: VideoDataModule
) -> tuple[Source, Plan] | None:
    """Initialize the model from the weights that `init` names, and print what was loaded.

    Returns what was loaded; None from scratch.
    """
    if "_target_" not in cfg.init:  # from scratch
        return None
    check_values(cfg.init, "init")
    source, plan = initialize_from(build(cfg.init), model, data.class_names)
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
    return source, plan


def describe(
    cfg: DictConfig, model: nn.Module, data: VideoDataModule, **known: Any
) -> dict[str, Any]:
    """Return the `ModelCard` that checkpoints hold, in plain values."""
    pipeline = data.splits["test"].pipeline
    is_mvitv2 = isinstance(model, MViT)
    sizes = {"num_classes": len(data.class_names)}
    sizes |= {name: cfg.clip[name] for name in ("num_frames", "crop_size")}
    card = ModelCard(
        model=asdict(model.config) if isinstance(model, MViT) else sizes,
        variant=cfg.model.get("name") if is_mvitv2 else None,
        frame_stride=cfg.clip.frame_stride,
        short_side=getattr(pipeline.crop, "short_side", None),
        sampling="segments" if isinstance(pipeline.sampler, SegmentFrames) else "strided",
        interpolation=getattr(pipeline.crop, "interpolation", None),
        mean=tuple(cfg.data.normalize.mean),
        std=tuple(cfg.data.normalize.std),
        class_names=tuple(data.class_names),
        key_format="video_mvit" if is_mvitv2 else OWN_NAMES,
        **task_facts(cfg, data.class_names),
        **known,
    )
    return asdict(card)


def quiet_libraries() -> None:
    """Silence adverts and irrelevant warnings of libraries."""
    quiet_writer_threads()
    libraries = ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric")
    for name in (*libraries, "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers",
        ".*exists and is not empty",
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated",
        ".*smaller than the logging interval",
        ".*have overridden `transfer_batch_to_device`",  # on purpose, whatever the data module is
        ".*across ranks is zero",  # on ranks whose videos were all evaluated before
        ".*your dataloader is not resumable",  # the sampler is
        ".*in eval mode at the start of training",  # frozen parts
    ):
        warnings.filterwarnings("ignore", message)
