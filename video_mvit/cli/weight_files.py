"""Shared parts of the commands for weight files: model, card and interface of a file."""

import logging
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from video_mvit.cli.runs import CHECKPOINTS, EVALUATION
from video_mvit.data.transforms.augment import Normalize
from video_mvit.errors import UserError
from video_mvit.evaluation.output_folder import RESULTS
from video_mvit.models.config import VARIANTS, MViTConfig, variant_config
from video_mvit.models.mvit import MViT
from video_mvit.prediction.input_spec import Sizes, scoring_of
from video_mvit.weights.checkpoint_files import weights_sha1
from video_mvit.weights.class_names import read_class_names
from video_mvit.weights.convert import published_normalization
from video_mvit.weights.export import Interface, Run, ToUnits, Weights, WithPreprocessing
from video_mvit.weights.load import Source, holds_detector, plan_load, read_file
from video_mvit.weights.model_card import ModelCard, read_evaluation

NON_STRUCTURAL_FIELDS = (
    "num_classes",
    "drop_path_rate",
    "head_dropout",
    "head_init_scale",
    "activation_checkpointing",
)
logger = logging.getLogger(__name__)


def is_detector_file(source: str, weights: str, base: str | None) -> bool:
    """Return whether a weight file holds a detector, not a classifier."""
    return holds_detector(read_file(source, weights, base=base).state)


def model_for(source: Source) -> MViT:
    """Build the model of a file in evaluation mode with its weights; all tensors must fit.

    A file without a head (a detector's backbone) gets a new one.
    """
    config = variant_config("mvitv2_s", **source.architecture)
    model = MViT(config).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    headless = [part for part in ("head", "norm") if not has_part(source.state, part)]
    plan_load(source, shapes, reset=headless).apply(model)
    return model


def variant_of(config: MViTConfig) -> str | None:
    """Return the variant that a configuration is, ignoring classes and rates."""
    for name, row in VARIANTS.items():
        if all(
            getattr(row, f) == getattr(config, f)
            for f in asdict(row)
            if f not in NON_STRUCTURAL_FIELDS
        ):
            return name
    return None


def card_for(
    cfg: DictConfig, source: Source, model: nn.Module
) -> tuple[ModelCard, tuple[str, ...]]:
    """Return the card of a converted model, and the names of fields that were assumed."""
    names = ["frame_stride", "mean", "std", "class_names", "evaluation"]
    wanted: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, names), resolve=True)
    said: dict[str, Any] = {
        name: wanted[name] for name in ("frame_stride", "mean", "std") if wanted[name] is not None
    }
    if wanted["class_names"]:
        said["class_names"] = read_class_names(wanted["class_names"])
    if wanted["evaluation"]:
        said["evaluation"] = read_evaluation(wanted["evaluation"])
    elif not (source.card and source.card.evaluation):
        said |= _evaluation_beside(Path(cfg.source), model)
    card = source.card or ModelCard(
        model={},
        variant=variant_of(model.config) if isinstance(model, MViT) else None,
        key_format=source.key_format,
    )
    known = {name for name in ("mean", "std") if getattr(card, name) is not None} | set(said)
    mean, std = published_normalization(source.architecture)
    published = {"mean": mean, "std": std, "class_names": source.class_names}
    for name, value in published.items():
        if name not in said and getattr(card, name) is None:
            said[name] = value
    assumed = tuple(name for name in ("mean", "std") if name not in known)
    architecture = asdict(model.config) if isinstance(model, MViT) else source.architecture
    return replace(card, model=architecture, **said), assumed


def _evaluation_beside(source: Path, model: nn.Module) -> dict[str, Any]:
    """Return the evaluation in the run folder of a checkpoint, if it is of these weights."""
    path = source.parent.parent / EVALUATION / RESULTS
    if source.parent.name != CHECKPOINTS or not path.is_file():
        return {}
    try:
        if read_evaluation(path).get("weights_sha1") == weights_sha1(model.state_dict()):
            return {"evaluation": read_evaluation(path)}
    except (UserError, OSError) as error:
        logger.warning("%s is not used: %s", path, error)
        return {}
    logger.warning(
        "%s is of other weights than %s, so that the card does not have it", path, source
    )
    return {}


def with_preprocessing(model: nn.Module, card: ModelCard) -> nn.Module:
    """Wrap a model to map uint8 frames to probabilities, or to values in their units."""
    assert card.mean is not None
    assert card.std is not None
    activation: Run = scoring_of(asdict(card)).of_clips
    if card.task == "regression":  # in float32
        activation = ToUnits(card.target_mean or (), card.target_std or ())
    return WithPreprocessing(Normalize(mean=card.mean, std=card.std), model, activation).eval()


def interface_of(
    sizes: Sizes, *, preprocess: bool, weights: Weights, task: str | None = None
) -> tuple[Interface, tuple[Tensor, ...]]:
    """Describe input and output of an export, with random inputs of two batch sizes."""
    T, side = sizes.num_frames, sizes.crop_size
    generator = torch.Generator().manual_seed(0)
    is_of_numbers = task == "regression"
    if preprocess:
        about = Interface(
            input="frames",
            dtype="uint8",
            layout="(B, T, C, H, W), RGB, short side resized, cropped to H x W",
            shape=(T, 3, side, side),
            output="values" if is_of_numbers else "probabilities",
            weights=weights,
        )
        shapes = [(n, *about.shape) for n in (2, 1)]
        return about, tuple(
            torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for shape in shapes
        )
    about = Interface(
        input="clip",
        dtype="float32",
        layout="(B, C, T, H, W), RGB, (pixel / 255 - mean) / std",
        shape=(3, T, side, side),
        output="standardized" if is_of_numbers else "logits",
        weights=weights,
    )
    return about, tuple(torch.randn(n, *about.shape, generator=generator) for n in (2, 1))


def latencies(
    network: Callable[[Tensor], Any], run: Callable[[Tensor], Any], example: Tensor, num_runs: int
) -> tuple[float, float]:
    """Measure median seconds of a model and its export on one input, taking turns."""
    times: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        for _ in range(num_runs + 1):
            for function, found in zip((network, run), times, strict=True):
                start = time.perf_counter()
                function(example)
                found.append(time.perf_counter() - start)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def has_part(state: Mapping[str, Any], part: str) -> bool:
    """Return whether a state has tensors of a module."""
    return any(name.startswith(part + ".") for name in state)
