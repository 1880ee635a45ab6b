"""What a classifier is trained for, decided by its data: one class of a video, or any number."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from video_mvit.errors import UserError
from video_mvit.evaluation.view_scores import Task
from video_mvit.training.classifier import VideoClassifier
from video_mvit.training.multilabel_classifier import MultiLabelClassifier
from video_mvit.weights.model_card import ModelCard

CLASSIFIERS: Mapping[Task, type[VideoClassifier]] = {
    "single_label": VideoClassifier,
    "multi_label": MultiLabelClassifier,
}
MONITORS = {"val/top1": "val/map", "val/ema_top1": "val/ema_map"}  # of best.ckpt


def task_of(cfg: DictConfig) -> Task:
    """Return the task that the data says, by default a single label."""
    return "multi_label" if cfg.data.get("task") == "multi_label" else "single_label"


def classifier_class(cfg: DictConfig) -> type[VideoClassifier]:
    """Return the class of the classifier for the task."""
    return CLASSIFIERS[task_of(cfg)]


def task_arguments(cfg: DictConfig) -> dict[str, Any]:
    """Return the arguments of a classifier that only its task has."""
    return {} if task_of(cfg) == "single_label" else {"combine_views": cfg.data.combine_views}


def task_facts(cfg: DictConfig) -> dict[str, Any]:
    """Return the fields of a model card that say the task; none for a single label."""
    if task_of(cfg) == "single_label":
        return {}
    return {"task": "multi_label", "combine_views": cfg.data.combine_views}


def resolve_task(cfg: DictConfig) -> None:
    """Let a run with several labels monitor mAP, and refuse what it cannot do."""
    if task_of(cfg) == "single_label":
        return
    refuse_single_label_options(cfg)
    best = cfg.callbacks.get("best")
    if best is not None and best.get("monitor") in MONITORS:
        best.monitor = MONITORS[best.monitor]


def refuse_single_label_options(cfg: DictConfig) -> None:
    """Raise `UserError` for an option that needs one label a video."""
    for name in ("shards", "balanced"):
        if cfg.data.get(name):
            raise UserError(
                f"data.{name} is for videos of one class each, and data.task is multi_label; "
                "remove it"
            )
    if cfg.logit_adjustment is not None:
        raise UserError(
            "logit_adjustment is for classes that exclude each other, and data.task is multi_label"
        )
    if cfg.get("motion"):
        raise UserError("motion is for videos of one class each, and data.task is multi_label")


def refuse_multi_label(cfg: DictConfig, what: str) -> None:
    """Raise `UserError` where data with several labels reaches what shows or keeps one."""
    if task_of(cfg) == "multi_label":
        raise UserError(f"{what} is for videos of one class each, and data.task is multi_label")


def protocol_suffix(cfg: DictConfig) -> str:
    """Return what a protocol says of how views are combined; "" for their mean."""
    is_max = task_of(cfg) == "multi_label" and cfg.data.combine_views == "max"
    return " max" if is_max else ""


def check_card(cfg: DictConfig, card: ModelCard | None, path: str) -> None:
    """Raise `UserError` where a network was trained for another task than that of the data."""
    trained_for = (card and card.task) or "single_label"
    if card is not None and trained_for != task_of(cfg):
        raise UserError(
            f"{path} was trained for {trained_for}, and the data is {task_of(cfg)}; use data of "
            "the same kind"
        )
