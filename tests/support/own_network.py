"""A network of a user's own, in a module and a YAML file, and a checkpoint of it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from video_mvit.weights.model_card import OWN_NAMES, ModelCard

MODULE = "tiny_networks"
CODE = """
from torch import nn


class Tiny3D(nn.Module):
    def __init__(self, *, num_classes, width=8):
        super().__init__()
        self.convolution = nn.Conv3d(3, width, 3, stride=4, padding=1)
        self.head = nn.Linear(width, num_classes)

    def forward(self, clip):
        return self.head(self.pooled(clip))

    def pooled(self, clip):
        return self.convolution(clip).relu().mean((2, 3, 4))


class TinyFeatures(Tiny3D):
    def forward_features(self, clip):
        return self.pooled(clip)
"""
YAML = """_target_: tiny_networks.{name}
num_classes: ${{data.num_classes}}
width: 8
"""
SIZES = {"num_frames": 8, "crop_size": 32}


@contextmanager
def own_project(folder: Path) -> Iterator[Path]:
    """Write a module of networks and a folder of YAML files; the module can be imported."""
    (folder / f"{MODULE}.py").write_text(CODE)
    models = folder / "conf" / "model"
    models.mkdir(parents=True)
    for name in ("Tiny3D", "TinyFeatures"):
        (models / f"{name.lower()}.yaml").write_text(YAML.format(name=name))
    sys.path.insert(0, str(folder))
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(MODULE, None)


def searched(folder: Path) -> str:
    """The word that `--config-dir` stands for."""
    return f"hydra.searchpath=[file://{folder}/conf]"


def network(num_classes: int) -> nn.Module:
    """A network of random weights whose scores differ."""
    torch.manual_seed(0)
    model: nn.Module = import_module(MODULE).Tiny3D(num_classes=num_classes)
    with torch.no_grad():
        model.head.weight.mul_(50)  # type: ignore[operator, union-attr]
    return model.eval()


def write_checkpoint(path: Path, model: nn.Module, class_names: list[str]) -> None:
    """Write what `video-mvit train` writes of a network, as far as it is read again."""
    card = ModelCard(
        model={"num_classes": len(class_names), **SIZES},
        frame_stride=4,
        short_side=32,
        sampling="strided",
        interpolation="bilinear",
        mean=(0.45,) * 3,
        std=(0.225,) * 3,
        class_names=tuple(class_names),
        key_format=OWN_NAMES,
    )
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    content = {"state_dict": state, "class_names": class_names, "settings": {}}
    torch.save({**content, "card": asdict(card)}, path)
