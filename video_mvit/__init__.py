"""MViTv2 for video, images and detection: exact, fast, honest about numbers.

Importing the package imports no torch; each public name is loaded when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from video_mvit.api import create_model, load_model, predict
    from video_mvit.cli.library import EvaluationResult, TrainResult, evaluate, finetune, train
    from video_mvit.detection.config import DetectorConfig
    from video_mvit.detection.detector import Detector, create_detector
    from video_mvit.detection.weights import load_detector
    from video_mvit.errors import UserError
    from video_mvit.models.config import MViTConfig
    from video_mvit.models.mvit import MViT
    from video_mvit.weights.model_card import ModelCard

__version__ = "0.2.0"
__all__ = [
    "Detector",
    "DetectorConfig",
    "EvaluationResult",
    "MViT",
    "MViTConfig",
    "ModelCard",
    "TrainResult",
    "UserError",
    "create_detector",
    "create_model",
    "evaluate",
    "finetune",
    "load_detector",
    "load_model",
    "predict",
    "train",
]

# Public name -> the module that defines it.
_HOMES = {
    "Detector": "video_mvit.detection.detector",
    "DetectorConfig": "video_mvit.detection.config",
    "EvaluationResult": "video_mvit.cli.library",
    "MViT": "video_mvit.models.mvit",
    "MViTConfig": "video_mvit.models.config",
    "ModelCard": "video_mvit.weights.model_card",
    "TrainResult": "video_mvit.cli.library",
    "UserError": "video_mvit.errors",
    "create_detector": "video_mvit.detection.detector",
    "create_model": "video_mvit.api",
    "evaluate": "video_mvit.cli.library",
    "finetune": "video_mvit.cli.library",
    "load_detector": "video_mvit.detection.weights",
    "load_model": "video_mvit.api",
    "predict": "video_mvit.api",
    "train": "video_mvit.cli.library",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'video_mvit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _RenamedModules:
    """Finder of modules that version 0.1 had: it finds none, and says where they are now."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.startswith("video_mvit."):
            from video_mvit.renamed import where_is

            if place := where_is(name):
                raise ModuleNotFoundError(place, name=name)


sys.meta_path.append(_RenamedModules())  # the last one: asked only where nothing was found
