"""Settings of `adapter=lora`: what they work with, the adapted network, and its adapter file."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig
from torch import nn

from video_mvit.cli.config_check import check_values
from video_mvit.cli.runs import CHECKPOINTS, best_of, checkpoints_of
from video_mvit.errors import UserError
from video_mvit.models.mvit import MViT
from video_mvit.training.adapters import (
    KeepAdapterRecord,
    LoraAdapters,
    add_adapters,
    check_installed,
)
from video_mvit.weights.adapter_files import adapter_of, base_sha1, write_adapter
from video_mvit.weights.adapters import AdapterRecord, read_record
from video_mvit.weights.initialize import FromWeights
from video_mvit.weights.load import Source
from video_mvit.weights.load_plan import Plan
from video_mvit.weights.model_card import card_of
from video_mvit.weights.published_files import published_name_at
from video_mvit.weights.torch_files import read_torch_file

FILE = "adapter.safetensors"  # in a run folder
logger = logging.getLogger(__name__)


def adapters_of(cfg: DictConfig) -> LoraAdapters | None:
    """Return the adapters that settings ask for; None for a training of all weights.

    Raises `UserError` for what they do not work with.
    """
    node = cfg.get("adapter")
    if not node:
        return None
    check_installed()
    check_values(node, "adapter")
    if not issubclass(get_class(node._target_), LoraAdapters):
        raise UserError(f"adapter._target_ is {node._target_}, expected LoraAdapters")
    if cfg.trainer.strategy == "fsdp":
        raise UserError("adapter does not work with trainer.strategy=fsdp; remove it")
    is_loaded = "_target_" in cfg.init and get_class(cfg.init._target_) is FromWeights
    if not is_loaded:
        raise UserError(
            "adapter is for weights that were trained: init=weights init.source=FILE; an image "
            "model is inflated by video-mvit inflate before"
        )
    if cfg.init.ignore:
        raise UserError("adapter does not work with init.ignore; video-mvit convert the weights")
    return instantiate(node, _convert_="all")  # type: ignore[no-any-return]


def adapt_network(
    cfg: DictConfig, network: nn.Module, loaded: tuple[Source, Plan] | None
) -> dict[str, Any] | None:
    """Give a network the adapters that settings ask for, in place, and freeze the rest.

    Returns what its checkpoints note of them, None without adapters. `loaded` is None for a run
    that is resumed, whose checkpoint has the note.
    """
    adapters = adapters_of(cfg)
    if adapters is None:
        return None
    if not isinstance(network, MViT):
        raise UserError(f"adapter is for MViTv2 classifiers, not for {type(network).__name__}")
    whole = adapters.whole_parts(network)
    record = {} if loaded is None else asdict(_record(*loaded, adapters.alpha, whole))
    add_adapters(network, adapters, network.config.depths)
    return record


def _record(source: Source, plan: Plan, alpha: int, whole: set[str]) -> AdapterRecord:
    """Return what adapters of loaded weights belong to."""
    new = [row.name for row in plan.rows if row.action == "new" and row.name not in whole]
    if new:
        raise UserError(
            f"{new[0]} is not of the weights, and adapters would leave it as initialized; name it "
            "in adapter.whole"
        )
    own = whole | {row.name for row in plan.rows if row.action == "resized"}
    return AdapterRecord(
        alpha=float(alpha),
        base_sha1=base_sha1(source.state, own),
        base=published_name_at(source.path),
        own=tuple(sorted(own)),
    )


def refuse_other_adapters(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `UserError` where a run is resumed with other adapters, which have no weights there."""
    if "adapter.rank" in before:  # of runs that do not say
        before = {"adapter.stages": [1, 2, 3, 4], **before}
    for key in sorted({**before, **now}):
        if key.startswith("adapter.") and before.get(key) != now.get(key):
            raise UserError(
                f"{key} is {now.get(key)}, and was {before.get(key)} in the run to resume; "
                "init=weights init.source=... starts a new run from its weights"
            )


def has_adapters(trainer: pl.Trainer) -> bool:
    """Return whether a training is one of adapters."""
    callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]
    return any(isinstance(each, KeepAdapterRecord) for each in callbacks)


def write_adapter_of(folder: Path) -> None:
    """Write what the adapters of a run learned as its adapter file, of its best checkpoint.

    Raises `UserError` where the file cannot be written.
    """
    if not checkpoints_of(folder):
        return
    path, target = folder / CHECKPOINTS / f"{best_of(folder)}.ckpt", folder / FILE
    content: Any = read_torch_file(path)
    state = content.get("ema") or {
        name.removeprefix("model."): tensor for name, tensor in content["state_dict"].items()
    }
    record = read_record(content.get("adapter"), str(path))
    card = card_of(content["card"], f"the card in {path}")
    try:
        write_adapter(target, adapter_of(state, record, card))
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror or error}") from None
    base = f"base={record.base}" if record.base else "base=... the weights it started from"
    size_mb = target.stat().st_size / 1e6
    logger.info("adapter of %s: %s  %.1f MB, used with %s", path.name, target, size_mb, base)
