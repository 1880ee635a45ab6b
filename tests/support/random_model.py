"""A folder with the demo's videos and a model of random weights, for the commands that use one."""

from dataclasses import asdict
from pathlib import Path

import torch

import video_mvit
from video_mvit.data.preparation.demo import write_demo_dataset
from video_mvit.models.mvit import MViT
from video_mvit.weights.checkpoint_files import write_safetensors
from video_mvit.weights.model_card import ModelCard


def write_random_model(root: Path, num_tested: int) -> MViT:
    """Write `num_tested` videos to test on, and `model.safetensors` with its card; return it."""
    write_demo_dataset(root, {"train": 8, "val": 1, "test": num_tested}, 0, lambda _: None)
    torch.manual_seed(0)
    model = video_mvit.create_model("mvitv2_demo", num_classes=8)
    with torch.no_grad():
        model.head.projection.weight.mul_(50)  # so that scores differ
    card = ModelCard(
        model=asdict(model.config),
        frame_stride=4,
        short_side=32,
        sampling="strided",
        interpolation="bilinear",
        mean=(0.45,) * 3,
        std=(0.225,) * 3,
        class_names=tuple(sorted(folder.name for folder in (root / "train").iterdir())),
    )
    write_safetensors(root / "model.safetensors", model.state_dict(), card)
    return model
