"""A probe as a checkpoint: the frozen network with the probe as its head, to use like any other."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from video_mvit.models.mvit import MViT
from video_mvit.prediction.input_spec import InputSpec
from video_mvit.weights.checkpoint_files import write_checkpoint
from video_mvit.weights.model_card import ModelCard


def with_head(
    model: MViT, options: Mapping[str, Any], head: Mapping[str, Tensor], num_classes: int
) -> MViT:
    """Return the network with another head, and its card; `model` stays as it is."""
    probed = MViT(replace(model.config, num_classes=num_classes, **options))
    body = {name: t for name, t in model.state_dict().items() if not name.startswith("head.")}
    probed.load_state_dict({**body, **{f"head.{name}": tensor for name, tensor in head.items()}})
    probed.card = model.card
    return probed.eval()


def write_probe(path: Path, model: MViT, spec: InputSpec, class_names: Sequence[str]) -> None:
    """Write a network as a checkpoint, with all that a user of it needs to know.

    The card keeps the license and origin of the frozen network's weights.
    """
    before: Any = model.card
    card = ModelCard(
        model=asdict(model.config),
        variant=before and before.variant,
        frame_stride=spec.frame_stride,
        short_side=spec.short_side,
        sampling=spec.sampling,
        interpolation=spec.interpolation,
        mean=spec.mean,
        std=spec.std,
        class_names=tuple(class_names),
        key_format="video_mvit",
        license=before and before.license,
        origin=before and before.origin,
    )
    state = {f"model.{name}": tensor.cpu() for name, tensor in model.state_dict().items()}
    content = {"state_dict": state, "class_names": list(class_names), "card": asdict(card)}
    write_checkpoint(path, content)
