"""MViTv2 video classifiers: exact, fast, honest about numbers."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from video_mvit.mvit import MViT, variant_config
from video_mvit.weights.card import ModelCard
from video_mvit.weights.load import plan_init, read_source

__version__ = "0.1.0"
__all__ = ["MViT", "ModelCard", "create_model", "load_model"]


def create_model(name: str, **overrides: Any) -> MViT:
    """A model with fresh weights: a row of `video_mvit.mvit.VARIANTS`, some fields replaced.

    `create_model("mvitv2_s", num_classes=174)(clip)` maps normalised float clips (B, 3, 16, 224,
    224) to logits (B, 174). Raises `ValueError` on an unknown name, an unknown field or an
    impossible value.
    """
    return MViT(variant_config(name, **overrides))


def load_model(
    path_or_hub_id: str,
    *,
    reset: Sequence[str] = (),
    ignore: Sequence[str] = (),
    **overrides: Any,
) -> MViT:
    """A model with the weights of a file, or of "owner/name" on a hub, in evaluation mode.

    Any file will do that holds an MViTv2 classifier: an exported one, a training checkpoint, or one
    of SlowFast, mvit, torchvision, timm or mmaction2; the architecture is read off the shapes. What
    an exported file or checkpoint says besides (class names, normalisation, ...) is `model.card`.
    `load_model("MVITv2_S.pyth", num_classes=12, reset=["head"])` starts a fine-tune.

    Args:
        reset: modules that stay as initialised; see `video_mvit.weights.load.plan_init`.
        ignore: modules of the file that are not used.
        overrides: fields of `MViTConfig` that replace those of the file, for example `crop_size`.

    Raises:
        ValueError, FileNotFoundError: in one sentence, where there is nothing that fits.
    """
    source = read_source(path_or_hub_id)
    model = MViT(variant_config("mvitv2_s", **{**source.architecture, **overrides}))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    plan = plan_init(source, shapes, reset, ignore)
    plan.apply(model)
    if source.card is not None:
        keeps_head = "head.projection.weight" in plan.state
        model.card = replace(
            source.card,
            model=asdict(model.config),
            class_names=source.card.class_names if keeps_head else None,
            evaluation=None if overrides or reset else source.card.evaluation,
        )
    return model.eval()
