"""What the commands for weight files share: a source, its network, the card of a new file."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from video_mvit.mvit import VARIANTS, MViT, MViTConfig, variant_config
from video_mvit.weights.card import ModelCard, read_evaluation
from video_mvit.weights.class_names import read_class_names
from video_mvit.weights.convert import published_normalisation
from video_mvit.weights.load import Source, plan_init, read_source

FREE = ("num_classes", "drop_path_rate", "head_dropout", "checkpoint_activations")


def open_source(name: str) -> Source:
    """Read a weight file."""
    return read_source(name)


def model_for(source: Source) -> MViT:
    """The network that a file holds, with its weights, in evaluation mode; all tensors must fit.

    A file without a head (a detector's backbone) gets a new one.
    """
    config = variant_config("mvitv2_s", **source.architecture)
    model = MViT(config).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    headless = [part for part in ("head", "norm") if not _has(source.state, part)]
    plan_init(source, shapes, reset=headless).apply(model)
    return model


def variant_of(config: MViTConfig) -> str | None:
    """The row of the table of variants that a configuration is, classes and rates aside."""
    for name, row in VARIANTS.items():
        if all(getattr(row, f) == getattr(config, f) for f in asdict(row) if f not in FREE):
            return name
    return None


def card_for(cfg: DictConfig, source: Source, model: MViT) -> tuple[ModelCard, tuple[str, ...]]:
    """The card of a converted model, and the names of values in it that nobody stated."""
    wanted = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(wanted, Mapping)
    said: dict[str, Any] = {
        name: wanted[name] for name in ("frame_stride", "mean", "std") if wanted[name] is not None
    }
    if wanted["class_names"]:
        said["class_names"] = read_class_names(wanted["class_names"])
    if wanted["evaluation"]:
        said["evaluation"] = read_evaluation(wanted["evaluation"])
    card = source.card or ModelCard(
        model={}, variant=variant_of(model.config), dialect=source.dialect
    )
    known = {name for name in ("mean", "std") if getattr(card, name) is not None} | set(said)
    mean, std = published_normalisation(source.architecture)
    published = {"mean": mean, "std": std, "class_names": source.class_names}
    for name, value in published.items():
        if name not in said and getattr(card, name) is None:
            said[name] = value
    assumed = tuple(name for name in ("mean", "std") if name not in known)
    return replace(card, model=asdict(model.config), **said), assumed


def _has(state: Mapping[str, Any], part: str) -> bool:
    return any(name.startswith(part + ".") for name in state)
