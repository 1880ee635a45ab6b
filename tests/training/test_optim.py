"""The published schedules and parameter groups."""

from dataclasses import replace

import pytest
import torch

import video_mvit
from video_mvit.training.optim import (
    OptimConfig,
    build_optimizer,
    learning_rate,
    parameter_groups,
    scale_learning_rates,
)

KINETICS = OptimConfig(
    name="adamw",
    lr=1e-4,
    start_lr=1e-6,
    end_lr=1e-6,
    num_epochs=200,
    warmup_epochs=30,
    weight_decay=0.05,
)
SOMETHING = OptimConfig(
    name="sgd",
    lr=2.5e-3,
    start_lr=1e-4,
    end_lr=1e-6,
    num_epochs=100,
    warmup_epochs=3,
    weight_decay=1e-4,
)
IMAGENET = OptimConfig(
    name="adamw",
    lr=2.5e-4,
    start_lr=1e-8,
    end_lr=1e-6,
    num_epochs=300,
    warmup_epochs=70,
    weight_decay=0.05,
)


@pytest.mark.parametrize(
    ("config", "epoch", "expected"),
    [
        (KINETICS, 0, 1e-6),
        (KINETICS, 15, 5.05e-5),
        (KINETICS, 30, 1e-4),
        (KINETICS, 70, 8.70809e-5),
        (KINETICS, 115, 5.05e-5),
        (KINETICS, 199.5, 1.00211e-6),
        (KINETICS, 300, 1e-6),
        (SOMETHING, 0, 1e-4),
        (SOMETHING, 1.5, 1.3e-3),
        (SOMETHING, 15, 2.40681e-3),
        (SOMETHING, 70, 5.45836e-4),
        (IMAGENET, 15, 5.35793e-5),
        (IMAGENET, 70, 2.5e-4),
        (IMAGENET, 115, 2.27213e-4),
    ],
)
def test_learning_rate_matches_published_schedule(
    config: OptimConfig, epoch: float, expected: float
) -> None:
    assert learning_rate(config, epoch) == pytest.approx(expected, rel=1e-5)


def test_biases_and_norms_are_not_decayed_but_relative_positions_and_cls_are() -> None:
    model = video_mvit.create_model(
        "mvitv2_s", depths=[1, 1, 1, 1], embed_dim=16, crop_size=32, num_frames=4
    )
    decayed, free = parameter_groups(model, 0.05)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed_names, free_names = (
        {names[id(p)] for p in group["params"]} for group in (decayed, free)
    )
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    assert decayed_names | free_names == set(names.values())
    assert {
        "cls_token",
        "blocks.0.attn.rel_pos_h",
        "blocks.0.attn.rel_pos_t",
        "blocks.0.attn.pool_q.weight",
    } <= decayed_names
    assert {
        "blocks.0.norm1.weight",
        "blocks.0.attn.norm_q.bias",
        "head.projection.bias",
    } <= free_names


@pytest.mark.parametrize(
    ("config", "kind"), [(KINETICS, torch.optim.AdamW), (SOMETHING, torch.optim.SGD)]
)
def test_optimizer_has_the_published_constants(config: OptimConfig, kind: type) -> None:
    optimizer = build_optimizer(torch.nn.Linear(2, 2), config)
    assert isinstance(optimizer, kind)
    if kind is torch.optim.AdamW:
        assert (optimizer.defaults["betas"], optimizer.defaults["eps"]) == ((0.9, 0.999), 1e-8)
    else:
        assert (optimizer.defaults["momentum"], optimizer.defaults["nesterov"]) == (0.9, True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"name": "lion"}, "name 'lion'"),
        ({"lr": -1.0}, r"lr -1\.0 must not be negative"),
        ({"warmup_epochs": 200}, "warmup_epochs 200 must be less than num_epochs 200"),
    ],
)
def test_impossible_optimizer_is_refused_by_name(
    overrides: dict[str, object], message: str
) -> None:
    values = {**KINETICS.__dict__, **overrides}
    with pytest.raises(ValueError, match=message):
        OptimConfig(**values)


def test_learning_rates_are_scaled_to_the_clips_of_a_step() -> None:
    config = replace(KINETICS, lr=1.6e-3, start_lr=1.6e-5, end_lr=1.6e-5, reference_clips=512)
    one_machine = scale_learning_rates(config, 32)
    for name in ("lr", "start_lr", "end_lr"):
        assert getattr(one_machine, name) == pytest.approx(getattr(KINETICS, name))
    assert scale_learning_rates(one_machine, 64) == one_machine  # once only
    assert scale_learning_rates(KINETICS, 8) == KINETICS
    with pytest.raises(ValueError, match="reference_clips 0 must be positive"):
        replace(config, reference_clips=0)


@pytest.mark.parametrize(("variant", "depth", "decay"), [("s", 16, 0.75), ("l", 48, 0.875)])
def test_layer_decay_scales_from_the_head_down(variant: str, depth: int, decay: float) -> None:
    """As in the MaskFeat fine-tunes."""
    with torch.device("meta"):
        model = video_mvit.create_model(f"mvitv2_{variant}", num_frames=2, crop_size=32)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, 0.05, decay)
    found = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    assert set(found) == set(names.values())
    for name, power in (
        ("patch_embed.proj.weight", depth + 1),
        ("cls_token", depth + 1),
        ("blocks.0.norm1.weight", depth),
        (f"blocks.{depth - 1}.mlp.fc2.bias", 1),
        ("norm.weight", 0),
        ("head.projection.weight", 0),
    ):
        assert found[name] == pytest.approx(decay**power), name
    assert {group["weight_decay"] for group in groups} == {0.0, 0.05}
    config = replace(KINETICS, layer_decay=decay)
    assert len(groups) == len(build_optimizer(model, config).param_groups) == 2 * (depth + 2)


def test_null_is_no_layer_decay() -> None:
    groups = build_optimizer(
        torch.nn.Linear(2, 2), replace(KINETICS, layer_decay=None)
    ).param_groups
    assert {group["lr_scale"] for group in groups} == {1.0}


def test_impossible_layer_decay_is_refused() -> None:
    with pytest.raises(ValueError, match="layer_decay needs a model of patch_embed, "):
        parameter_groups(torch.nn.Linear(2, 2), 0.05, 0.9)
    with pytest.raises(ValueError, match=r"layer_decay 1\.1 is outside"):
        replace(KINETICS, layer_decay=1.1)
