"""The experiments of detectors hold the published recipes, and instantiate."""

import copy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from omegaconf import DictConfig
from support.commands import composed as composed_of
from support.paths import CONF
from torch import nn

from video_mvit.cli.auto_hardware import resolve_hardware
from video_mvit.cli.build import build, build_trainer, is_detection
from video_mvit.cli.build_detection import check_settings
from video_mvit.detection.config import DETECTORS, detector_config
from video_mvit.detection.data.datamodule import DetectionDataModule
from video_mvit.detection.data.transforms import (
    LargeScaleJitter,
    MultiScaleCrop,
    ResizeShortSide,
)
from video_mvit.detection.detector import Detector
from video_mvit.detection.layers import ChannelNorm
from video_mvit.detection.optim import build_optimizer, learning_rate, scale_to_images

pytestmark = pytest.mark.slow


@cache
def composed(experiment: str) -> DictConfig:
    """What evaluation makes of an experiment: the training's settings, and its own."""
    words = ["data.root=/data", "trainer.accelerator=cpu", f"experiment={experiment}"]
    cfg = composed_of("evaluate", *words)
    resolve_hardware(cfg)
    return cfg


class Schedule(NamedTuple):
    """Steps of 64 pictures, and at which of them the learning rate falls to a tenth."""

    num_steps: int
    drops: tuple[int, int]


EPOCHS_36 = Schedule(67_500, (52_500, 62_500))
EPOCHS_50 = Schedule(92_187, (81_944, 88_773))
EPOCHS_100 = Schedule(184_375, (163_889, 177_546))
DETR_STYLE = MultiScaleCrop(
    short_sides=(480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
    long_side=1333,
    crop_prob=0.5,
    crop_short_sides=(400, 500, 600),
    crop_range=(384, 600),
    flip_prob=0.5,
)
LSJ_GREY = LargeScaleJitter(side=1024, scale=(0.1, 2.0), flip_prob=0.5, padding=128)
LSJ_UNPADDED = LargeScaleJitter(side=1024, scale=(0.1, 2.0), flip_prob=0.5, padding=None)
TEST_A = ResizeShortSide(short_side=800, long_side=1333)
TEST_B = ResizeShortSide(short_side=1024, long_side=1024)


class Recipe(NamedTuple):
    """A row of the published tables; box and mask AP as the paper or the release gives them."""

    ap: tuple[float, float]
    schedule: Schedule
    lr: float
    drop_path: float
    augmentation: Any
    test: ResizeShortSide = TEST_A
    square_pad: int = 0
    decays_positions: bool = False
    source: str = "ImageNet-1K"


def recipe_b(ap: tuple[float, float], schedule: Schedule, lr: float, drop_path: float) -> Recipe:
    return Recipe(
        ap,
        schedule,
        lr,
        drop_path,
        LSJ_UNPADDED,
        test=TEST_B,
        square_pad=1024,
        decays_positions=True,
        source="ImageNet-21K",
    )


# projects/MViTv2 (A), projects/ViTDet (B, `_lsj`), and the paper's rows of Mask R-CNN, B.3 of which
# gives the schedule of all sizes.
RECIPES = {
    "mask_rcnn_mvitv2_t": Recipe((48.2, 43.8), EPOCHS_36, 1.6e-4, 0.2, DETR_STYLE),
    "mask_rcnn_mvitv2_s": Recipe((49.9, 45.1), EPOCHS_36, 1.6e-4, 0.2, DETR_STYLE),
    "mask_rcnn_mvitv2_b": Recipe((51.0, 45.7), EPOCHS_36, 1.6e-4, 0.4, DETR_STYLE),
    "mask_rcnn_mvitv2_l": Recipe(
        (52.7, 46.8), EPOCHS_36, 1.6e-4, 0.5, DETR_STYLE, source="ImageNet-21K"
    ),
    "cascade_mask_rcnn_mvitv2_t": Recipe((52.2, 45.0), EPOCHS_36, 1.6e-4, 0.2, DETR_STYLE),
    "cascade_mask_rcnn_mvitv2_s": Recipe((53.2, 46.0), EPOCHS_36, 1.6e-4, 0.2, DETR_STYLE),
    "cascade_mask_rcnn_mvitv2_b": Recipe((54.1, 46.8), EPOCHS_36, 1.6e-4, 0.4, DETR_STYLE),
    "cascade_mask_rcnn_mvitv2_l": Recipe(
        (55.8, 48.3), EPOCHS_50, 1e-4, 0.5, LSJ_GREY, source="ImageNet-21K"
    ),
    "cascade_mask_rcnn_mvitv2_h": Recipe(
        (56.1, 48.5), EPOCHS_36, 1.6e-4, 0.6, LSJ_GREY, source="ImageNet-21K"
    ),
    "cascade_mask_rcnn_mvitv2_b_lsj": recipe_b((55.6, 48.1), EPOCHS_100, 8e-5, 0.4),
    "cascade_mask_rcnn_mvitv2_l_lsj": recipe_b((55.7, 48.3), EPOCHS_50, 8e-5, 0.5),
    "cascade_mask_rcnn_mvitv2_h_lsj": recipe_b((55.9, 48.3), EPOCHS_36, 1.6e-4, 0.6),
}
EXPERIMENTS = {"demo_detection", "finetune_detector", *(f"coco_{name}" for name in RECIPES)}


def test_every_detector_has_an_experiment_and_its_recipe() -> None:
    is_there = {p.stem for p in (CONF / "experiment").glob("*.yaml") if "rcnn" in p.read_text()}
    assert is_there == EXPERIMENTS
    assert {*RECIPES, "mask_rcnn_mvitv2_demo"} == set(DETECTORS)


@pytest.mark.parametrize("name", RECIPES)
def test_experiment_holds_the_published_recipe(name: str) -> None:
    cfg, recipe = composed(f"coco_{name}"), RECIPES[name]
    assert cfg.name == f"coco_{name}"
    assert cfg.model == {
        "_target_": "video_mvit.create_detector",
        "name": name,
        "num_classes": 80,
    }
    config = detector_config(cfg.model.name)
    # The network.
    assert config.heads == (
        "mask_rcnn"
        if not name.startswith("cascade")
        else "cascade_layer_norm"
        if name.endswith("lsj")
        else "cascade_batch_norm"
    )
    assert (config.num_classes, config.square_pad) == (80, recipe.square_pad)
    assert config.backbone.drop_path_rate == recipe.drop_path
    is_huge = "mvitv2_h" in name
    assert config.backbone.activation_checkpointing == ("full" if is_huge else "none")
    # The schedule; neither clipping nor EMA.
    optim = build(cfg.optim)
    schedule = Schedule(optim.num_steps, optim.drops)
    assert (schedule, optim.lr) == (recipe.schedule, recipe.lr)
    assert (optim.reference_images, optim.weight_decay) == (64, 0.1)
    assert (optim.warmup_steps, optim.warmup_factor) == (250, 0.001)
    assert optim.decay_positions == recipe.decays_positions
    assert cfg.trainer.gradient_clip_val is None
    assert "ema" not in cfg.callbacks
    # The data.
    data: DetectionDataModule = build(cfg.data.module)
    assert data.splits["train"].transform == recipe.augmentation
    assert data.splits["val"].transform == recipe.test
    assert data.splits["val"].batch_size == 1
    assert data.splits["train"].repeat_threshold is None


@pytest.mark.parametrize("name", RECIPES)
def test_experiment_says_what_was_published_and_where_it_starts(name: str) -> None:
    recipe = RECIPES[name]
    text = (CONF / "experiment" / f"coco_{name}.yaml").read_text()
    box, mask = recipe.ap
    assert f"published box AP {box}" in text
    assert f"mask AP {mask}" in text
    assert f"trained on {recipe.source}" in text
    assert composed(f"coco_{name}").init._target_.endswith(".FromWeights")


@pytest.mark.parametrize("experiment", sorted(EXPERIMENTS))
def test_experiment_instantiates(experiment: str, tmp_path: Path) -> None:
    cfg = copy.deepcopy(composed(experiment))
    cfg.run_dir = str(tmp_path)
    assert is_detection(cfg)
    check_settings(cfg)
    if experiment == "finetune_detector":
        cfg.data.num_classes = 5  # of the annotations
    with torch.device("meta"):  # shapes, no values
        detector = build(cfg.model)
    assert isinstance(detector, Detector)
    assert detector.config.num_classes == cfg.data.num_classes
    assert build(cfg.data.module).num_classes == cfg.data.num_classes
    trainer = build_trainer(cfg)
    assert (trainer.max_epochs, cfg.name) == (-1, experiment)


RATES = {
    0: 0.001,
    1: 0.004996,
    125: 0.5005,
    249: 0.996004,
    250: 1,
    52_499: 1,
    52_500: 0.1,
    62_499: 0.1,
    62_500: 0.01,
}
RATES_OF_L = {81_943: 1, 81_944: 0.1, 88_772: 0.1, 88_773: 0.01}


@pytest.mark.parametrize(
    ("name", "rates"),
    [("mask_rcnn_mvitv2_t", RATES), ("cascade_mask_rcnn_mvitv2_l", RATES_OF_L)],
)
def test_learning_rate_is_the_published_one(name: str, rates: dict[int, float]) -> None:
    optim = build(composed(f"coco_{name}").optim)
    at_reference = scale_to_images(optim, 64)
    for step, rate in rates.items():
        assert learning_rate(at_reference, step) == pytest.approx(RECIPES[name].lr * rate), step


def test_schedule_is_scaled_to_the_pictures_of_a_step() -> None:
    optim = scale_to_images(build(composed("coco_mask_rcnn_mvitv2_t").optim), 16)
    assert optim.lr == pytest.approx(1.6e-4 / 4)
    assert (optim.num_steps, optim.drops) == (270_000, (210_000, 250_000))
    assert (optim.warmup_steps, optim.reference_images) == (250, None)
    assert scale_to_images(optim, 128) == optim


@pytest.mark.parametrize("name", ["mask_rcnn_mvitv2_t", "cascade_mask_rcnn_mvitv2_b_lsj"])
def test_weight_decay_acts_on_the_published_parameters(name: str) -> None:
    """Not on norms and absolute positions; recipe B: on relative ones and the norm of channels."""
    cfg, recipe = composed(f"coco_{name}"), RECIPES[name]
    with torch.device("meta"):
        detector = build(cfg.model, absolute_positions=True)
    optimizer = build_optimizer(detector, build(cfg.optim))
    groups = optimizer.param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decays) == len(list(detector.parameters()))
    kinds: set[str] = set()
    for path, module in detector.named_modules():
        for short_name, parameter in module.named_parameters(recurse=False):
            kind = "norm" if isinstance(module, nn.LayerNorm | nn.BatchNorm2d) else "other"
            kind = "channel norm" if isinstance(module, ChannelNorm) else kind
            kind = "rel_pos" if short_name.startswith("rel_pos") else kind
            kind = "pos_embed" if short_name == "pos_embed" else kind
            kinds.add(kind)
            is_free = kind in ("norm", "pos_embed") or (
                kind == "rel_pos" and not recipe.decays_positions
            )
            assert decays[id(parameter)] == (0 if is_free else 0.1), f"{path}.{short_name}"
    of_b = {"channel norm"} if recipe.decays_positions else set()
    assert kinds == {"norm", "other", "rel_pos", "pos_embed"} | of_b
    assert {(g["betas"], g["eps"], g["lr"]) for g in groups} == {
        ((0.9, 0.999), 1e-8, recipe.lr * 0.001)
    }
