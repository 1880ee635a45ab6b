"""What a network is trained for, decided by its data: one class of a video, several, or numbers."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from video_mvit.class_heads import Heads, heads_of
from video_mvit.data.datamodule import VideoDataModule
from video_mvit.data.lists.multilabel_manifest import MultiLabelManifest
from video_mvit.data.lists.regression_manifest import RegressionManifest, standardization_of
from video_mvit.errors import UserError
from video_mvit.evaluation.view_scores import Task
from video_mvit.text import short, some_of
from video_mvit.training.classifier import VideoClassifier
from video_mvit.training.multihead_classifier import MultiHeadClassifier
from video_mvit.training.multilabel_classifier import MultiLabelClassifier
from video_mvit.training.regression import VideoRegressor
from video_mvit.weights.card_schema import MAX_CLASSES, text
from video_mvit.weights.model_card import ModelCard

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TaskParts:
    """What differs between tasks.

    Attributes:
        classifier: LightningModule that trains and scores.
        monitor: metric of `best.ckpt`, without the prefix `val/` or `val/ema_`.
        refused: options of other tasks, which have to be unset -> why.
        has_smoothing: whether a fine-tuning chooses label smoothing.
        options: options of `data` that are arguments of the classifier.
        facts: those of them that a model card has.
        has_classes: whether outputs are of classes, not of numbers.
    """

    classifier: type[VideoClassifier]
    monitor: str
    refused: Mapping[str, str]
    has_smoothing: bool
    options: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    has_classes: bool = True


ONE_CLASS = "is for videos of one class each"
CLASSES = "is for classes"
TASKS: Mapping[Task, TaskParts] = {
    "single_label": TaskParts(
        classifier=VideoClassifier, monitor="top1", refused={}, has_smoothing=True
    ),
    "multi_label": TaskParts(
        classifier=MultiLabelClassifier,
        monitor="map",
        refused={
            "data.shards": ONE_CLASS,
            "data.balanced": ONE_CLASS,
            "logit_adjustment": "is for classes that exclude each other",
            "motion": ONE_CLASS,
        },
        has_smoothing=False,  # it would make rare classes likely
        options=("combine_views",),
        facts=("combine_views",),
    ),
    "regression": TaskParts(
        classifier=VideoRegressor,
        monitor="r2",
        refused={
            "data.shards": ONE_CLASS,
            "data.balanced": ONE_CLASS,
            "motion": ONE_CLASS,
            **dict.fromkeys(("label_smoothing", "class_weights", "focal_gamma"), CLASSES),
            "logit_adjustment": CLASSES,
        },
        has_smoothing=False,
        options=("huber_delta",),
        has_classes=False,
    ),
    "multi_head": TaskParts(
        classifier=MultiHeadClassifier,
        monitor="all_top1",
        refused={"data.shards": ONE_CLASS, "data.balanced": ONE_CLASS, "motion": ONE_CLASS},
        has_smoothing=True,
    ),
}


def task_of(cfg: DictConfig) -> Task:
    """Return the task that the data says, by default a single label."""
    task: Task = cfg.data.get("task") or "single_label"
    return task


def parts_of_task(cfg: DictConfig) -> TaskParts:
    """Return what the task of the data brings along."""
    return TASKS[task_of(cfg)]


def task_arguments(cfg: DictConfig) -> dict[str, Any]:
    """Return the arguments of a classifier that only its task has."""
    return {name: cfg.data[name] for name in parts_of_task(cfg).options}


def heads_in(cfg: DictConfig, class_names: Sequence[str]) -> Heads | None:
    """Return the heads of the classes that were read; None of a task without heads."""
    return heads_of(class_names) if task_of(cfg) == "multi_head" else None


def task_facts(cfg: DictConfig, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a model card that say the task; none for a single label."""
    if task_of(cfg) == "single_label":
        return {}
    facts = {name: cfg.data[name] for name in parts_of_task(cfg).facts}
    return {"task": task_of(cfg), "heads": heads_in(cfg, class_names), **facts}


def scale_of_list(data: VideoDataModule) -> dict[str, Any]:
    """Return mean and standard deviation of the targets of the training list; none of classes.

    These are arguments of the classifier, and fields of its card. Raises `UserError` for a target
    that is always the same.
    """
    manifest = data.manifests["train"]
    if not isinstance(manifest, RegressionManifest):
        return {}
    return standardization_of(manifest)._asdict()


def scale_in_card(card: ModelCard | None) -> dict[str, Any]:
    """Return what `scale_of_list` gave where a network was trained; none of classes."""
    if card is None or card.task != "regression":
        return {}
    return {"target_mean": card.target_mean, "target_std": card.target_std}


def resolve_task(cfg: DictConfig) -> None:
    """Let a run monitor the metric of its task, and refuse what is of another."""
    task, parts = task_of(cfg), parts_of_task(cfg)
    for option, reason in parts.refused.items():
        if OmegaConf.select(cfg, option) not in (None, False, [], {}):
            raise UserError(f"{option} {reason}, and data.task is {task}; remove it")
    best = cfg.callbacks.get("best")
    for prefix in ("val/", "val/ema_"):
        if best is not None and best.get("monitor") == f"{prefix}top1":
            best.monitor = prefix + parts.monitor


def check_class_list(cfg: DictConfig, names: Sequence[str]) -> None:
    """Raise `UserError` where a checkpoint could not hold the classes or targets of a list."""
    place = cfg.data.get("train_list") or cfg.data.get("root") or "the training list"
    if len(names) > MAX_CLASSES:
        raise UserError(
            f"{place} has {len(names):,} classes, and a checkpoint holds {MAX_CLASSES:,} at most; "
            "leave some out"
        )
    for name in names:
        if wanted := text(name):
            raise UserError(
                f"{place}: {short(name)} is not {wanted}, which a checkpoint needs as the name of "
                "a class or target; rename it, or save the list in UTF-8"
            )


def check_monitor(cfg: DictConfig, data: VideoDataModule) -> None:
    """Raise `UserError` where the validation list does not define the metric of `best.ckpt`.

    Warn of targets that it leaves out.
    """
    best, manifest = cfg.callbacks.get("best"), data.manifests["val"]
    monitor = str(best.get("monitor")) if best is not None else ""
    if cfg.trainer.get("limit_val_batches") == 0:  # nothing is validated
        return
    if isinstance(manifest, RegressionManifest):
        constant = manifest.constant_targets()
        alike = f"all videos of the validation list have the same {some_of(constant)}"
        if len(constant) == len(data.class_names) and monitor.endswith("r2"):
            raise UserError(
                f"{alike}, so that R2 is not defined and cannot choose best.ckpt; validate on "
                "videos with other values, or set "
                f"callbacks.best.monitor={monitor.removesuffix('r2')}mae callbacks.best.mode=min"
            )
        if constant:
            logger.warning("%s, which does not count in val/r2", alike)
    is_empty = isinstance(manifest, MultiLabelManifest) and not manifest.label_sets.any()
    if is_empty and monitor.endswith("map"):
        raise UserError(
            "no video of the validation list has a class, so that mAP is not defined and cannot "
            "choose best.ckpt; validate on videos with classes, or set "
            "callbacks.best.monitor=val/loss callbacks.best.mode=min"
        )


def refuse_other_tasks(cfg: DictConfig, what: str) -> None:
    """Raise `UserError` where data of another task reaches what is for one class a video."""
    if task_of(cfg) != "single_label":
        raise UserError(f"{what} {ONE_CLASS}, and data.task is {task_of(cfg)}")


def protocol_suffix(cfg: DictConfig) -> str:
    """Return what a protocol says of how views are combined; "" for their mean."""
    is_max = task_of(cfg) == "multi_label" and cfg.data.combine_views == "max"
    return " max" if is_max else ""


def check_card(cfg: DictConfig, card: ModelCard | None, path: str) -> None:
    """Raise `UserError` where a network was trained for another task than that of the data."""
    if card is None and task_of(cfg) == "regression":
        raise UserError(
            f"{path} does not say how its targets were standardized; evaluate a checkpoint of "
            "video-mvit train"
        )
    trained_for = (card and card.task) or "single_label"
    if card is not None and trained_for != task_of(cfg):
        raise UserError(
            f"{path} was trained for {trained_for}, and the data is {task_of(cfg)}; use data of "
            "the same kind"
        )
