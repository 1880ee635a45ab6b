"""Networks that are no MViTv2: built by the user's own settings, with the weights of a file.

A file never says what code builds its network. That is what `model=NAME` on the command line
chooses, a YAML file of this package or of the user's `--config-dir`; the file has the numbers that
the settings refer to: its classes, and frames and pixels of its clips.
"""

from pathlib import Path
from typing import Any

import torch
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from torch import nn

from video_mvit.api import load_model
from video_mvit.cli.build import build
from video_mvit.cli.config_check import check_values
from video_mvit.cli.weight_files import model_for
from video_mvit.errors import UserError
from video_mvit.prediction.input_spec import Sizes
from video_mvit.weights.checkpoint_files import WeightFile
from video_mvit.weights.load import Source, read_file, read_plain_source, read_source

CREATE_MODEL = "video_mvit.create_model"
OURS = (CREATE_MODEL, "video_mvit.create_detector")


def is_own(cfg: DictConfig) -> bool:
    """Return whether the settings name a network that is no MViTv2; raises for one of ours."""
    node = cfg.get("model")
    if not node:
        return False
    if node.get("_target_") in OURS:
        raise UserError(
            "model=... is for a network of your own; of an MViTv2 (also a file of plain weights) "
            "the tensors say which it is, so remove the option"
        )
    return True


def load_network(cfg: DictConfig, path: str | Path) -> nn.Module:
    """Load the network of a file, in evaluation mode: an MViTv2, or what the settings name.

    What the file says about it is in its `card`.
    """
    if not is_own(cfg):
        return load_model(str(path), weights=cfg.weights, base=cfg.base)
    network = build_for(cfg.model, path, cfg.weights)
    return load_model(str(path), model=network, weights=cfg.weights)


def read_network(cfg: DictConfig, path: str | Path) -> tuple[Source, nn.Module]:
    """Do the same, and return the content of the file as well; all of its tensors must fit."""
    if not is_own(cfg):
        source = read_source(path, cfg.weights, cfg.base)
        return source, model_for(source)
    network = load_network(cfg, path)
    return read_plain_source(path, list(network.state_dict()), cfg.weights), network


def build_for(node: DictConfig, path: str | Path, weights: str) -> nn.Module:
    """Build the network that settings name for the classes and the clips of a weight file.

    Raises `UserError` if the file does not say which these are.
    """
    file = read_file(path, weights)
    stride = file.card.frame_stride if file.card else None
    sizes = sizes_in(file)
    refers_to: dict[str, Any] = {
        "model": OmegaConf.to_container(node, resolve=False),
        "clip": {**sizes._asdict(), "frame_stride": stride},
        "data": {"num_classes": sizes.num_classes},
    }
    settings = OmegaConf.create(refers_to)
    check_values(settings.model, "model")
    check_size(settings.model, sum(tensor.numel() for tensor in file.state.values()), path)
    network = build(settings.model)
    if not isinstance(network, nn.Module):
        raise UserError(f"{node._target_} makes a {type(network).__name__}, expected an nn.Module")
    return network


def check_size(node: DictConfig, num_there: int, path: str | Path) -> None:
    """Raise `UserError` where settings make a network of more numbers than are in a file.

    It is built without memory first. One that cannot be (since it computes with its weights as they
    are made) is not checked.
    """
    try:
        with torch.device("meta"):
            network = build(node)
    except HydraException:
        return
    if not isinstance(network, nn.Module):
        return
    num_built = sum(tensor.numel() for tensor in network.state_dict().values())
    if num_built > num_there:
        raise UserError(
            f"{path} has {num_there:,} numbers, but {node._target_} with these settings "
            f"{num_built:,}: they are of another network"
        )


def sizes_in(file: WeightFile) -> Sizes:
    """Return the sizes that a file says of its network; its tensors must have as many classes.

    Raises `UserError` for a file without them.
    """
    said = file.card.model if file.card else {}
    found = [said.get(name) for name in Sizes._fields]
    if None in found:
        raise UserError(
            f"{file.path} does not say {', '.join(Sizes._fields)} of its network; it must be a "
            "checkpoint of this version of video-mvit train, or a file converted from one"
        )
    sizes = Sizes(*found)  # type: ignore[arg-type]
    if not any(sizes.num_classes in tensor.shape for tensor in file.state.values()):
        raise UserError(
            f"{file.path} says {sizes.num_classes:,} classes, which no tensor in it has"
        )
    return sizes
