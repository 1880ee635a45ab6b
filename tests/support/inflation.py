"""Small image models with weights of some size, and video models made of them."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

import video_mvit
from video_mvit.models.mvit import MViT
from video_mvit.weights.inflate import plan_inflation
from video_mvit.weights.load import Source
from video_mvit.weights.load_plan import Shape

IMAGE = {
    "num_frames": 1,
    "crop_size": 32,
    "embed_dim": 16,
    "depths": (1, 1, 1, 1),
    "num_classes": 5,
    "cls_token": False,
    "head": "mean",
    "stride_kv": (1, 4, 4),
}


def model_of(**overrides: Any) -> MViT:
    model = video_mvit.create_model("mvitv2_s", **{**IMAGE, **overrides}).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # weights large enough for a wrong one to show
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def shapes(model: MViT) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def source_of(state: dict[str, Tensor], config: Any) -> Source:
    return Source(
        path="image.pyth",
        container="SlowFast checkpoint",
        key_format="mvit",
        state=state,
        architecture=asdict(config),
        unused=(),
        card=None,
        class_names=None,
    )


def inflated(image: MViT, video: MViT, *options: Any) -> MViT:
    plan_inflation(source_of(image.state_dict(), image.config), shapes(video), *options).apply(
        video
    )
    return video
