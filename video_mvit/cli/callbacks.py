"""Build the callbacks of a training, with what they are to know of its settings."""

import shlex
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from video_mvit.cli.run_words import key_of
from video_mvit.cli.words import words_for_settings
from video_mvit.errors import UserError
from video_mvit.training.early_stopping import EarlyStopping
from video_mvit.training.loggers import LoggerGuards
from video_mvit.training.preemption import GracefulShutdown
from video_mvit.training.progress import EpochSummary
from video_mvit.training.step_profile import StepProfile

# Options of the data set that say nothing about which videos there are.
OF_TRAINING = (
    *("num_workers", "train_batch_size", "eval_batch_size", "num_samples", "balanced"),
    *("num_classes", "short_side", "decode_threads", "timeout_s", "max_unreadable_fraction"),
)


def build_callbacks(cfg: DictConfig, loggers: Sequence[Any]) -> list[pl.Callback]:
    """Build the configured callbacks in the order in which they are to run."""
    told = {"transcode": transcode_command(cfg)}
    callbacks: list[pl.Callback] = [LoggerGuards(loggers)]
    for node in cfg.callbacks.values():
        advises = get_class(node["_target_"]) in (EpochSummary, StepProfile)
        callbacks.append(instantiate(node, _convert_="all", **(told if advises else {})))
    if cfg.early_stopping is not None:
        callbacks.append(build_early_stopping(cfg))
    # These run after all others: one measures data wait, the other saves the state of all.
    last = (EpochSummary, GracefulShutdown)
    callbacks.sort(key=lambda each: last.index(type(each)) if type(each) in last else -1)
    return callbacks


def build_early_stopping(cfg: DictConfig) -> EarlyStopping:
    """Build the callback that ends training when the metric of best.ckpt no longer improves."""
    best = cfg.callbacks.get("best")
    if best is None or not best.get("monitor"):
        raise UserError(
            "early_stopping watches the metric of callbacks.best, which is not there; remove one"
        )
    return EarlyStopping(patience=cfg.early_stopping, monitor=best.monitor, mode=best.mode)


def transcode_command(cfg: DictConfig) -> str | None:
    """Return the command that transcodes the videos of a training; None if it reads no files."""
    data = cfg.get("data") or {}
    root = None if OmegaConf.is_missing(data, "root") else data.get("root")
    is_detection = str(cfg.model.get("_target_")).rpartition(".")[2] == "create_detector"
    if not root or is_detection or cfg.clip.num_frames == 1 or data.get("shards"):
        return None
    if not HydraConfig.initialized():  # composed by other means
        return None
    words = {key_of(word): word for word in words_for_settings()}
    choice = HydraConfig.get().runtime.choices.get("data")
    if choice is None or (choice == "rows" and "data.rows._target_" not in words):
        return None
    about = [
        shlex.quote(word)
        for key, word in words.items()
        if key.startswith("data.") and key != "data.root" and key[5:] not in OF_TRAINING
    ]
    place, copy = f"data.root={root}", f"output={str(root).rstrip('/')}_fast"
    words_of_data = [f"data={choice}", shlex.quote(place), *about]
    return " ".join(["video-mvit prepare", *words_of_data, "mode=transcode", shlex.quote(copy)])
