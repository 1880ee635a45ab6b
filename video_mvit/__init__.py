"""MViTv2 video classifiers: exact, fast, honest about numbers."""

from typing import Any

from video_mvit.mvit import MViT, variant_config

__version__ = "0.1.0"
__all__ = ["MViT", "create_model"]


def create_model(name: str, **overrides: Any) -> MViT:
    """A model with fresh weights: a row of `video_mvit.mvit.VARIANTS`, some fields replaced.

    `create_model("mvitv2_s", num_classes=174)(clip)` maps normalised float clips (B, 3, 16, 224,
    224) to logits (B, 174). Raises `ValueError` on an unknown name, an unknown field or an
    impossible value.
    """
    return MViT(variant_config(name, **overrides))
