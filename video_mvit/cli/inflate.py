"""Inflate an image model to a video model, and check it on a static clip.

video-mvit inflate source=mvitv2_s_in1k.pyth model=mvitv2_s target=s_inflated.safetensors
"""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig

from video_mvit import load_model
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.option_values import check_verb
from video_mvit.cli.tables import (
    describe_card,
    describe_model,
    print_plan,
    print_proof,
    wide_console,
)
from video_mvit.cli.weight_files import model_for
from video_mvit.models.config import MViTConfig, variant_config
from video_mvit.models.mvit import MViT
from video_mvit.weights.convert import check_target, published_normalization, write_key_format
from video_mvit.weights.inflate import RULES, Rule, plan_inflation
from video_mvit.weights.inflation_check import Difference, compare_static_clip
from video_mvit.weights.load import Source, provenance_of, read_source
from video_mvit.weights.load_plan import Plan
from video_mvit.weights.model_card import ModelCard


def video_config(cfg: DictConfig, source: Source) -> MViTConfig:
    """Return the configuration of the video model."""
    options = {name: value for name, value in cfg.model.items() if name not in ("name", "_target_")}
    wanted: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if cfg.model.cls_token is False:
        wanted["head"] = "mean"
    if cfg.keep_stride_kv:
        wanted["stride_kv"] = source.architecture["stride_kv"]
    if cfg.head == "keep" and "num_classes" in source.architecture:
        wanted["num_classes"] = source.architecture["num_classes"]
    return variant_config(cfg.model.name, **wanted)


def inflated(
    source: Source, config: MViTConfig, rule: Rule, head: Literal["new", "keep"], seed: int
) -> tuple[MViT, Plan]:
    """Build a video model with the weights of an image model, and return what was loaded."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MViT(config).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    plan = plan_inflation(source, shapes, rule, head)
    plan.apply(model)
    return model, plan


def card_of(cfg: DictConfig, source: Source, model: MViT) -> ModelCard:
    """Return the card of the video model; normalization is that of the image model."""
    mean, std = published_normalization(source.architecture)
    card = source.card or ModelCard(model={})
    return ModelCard(
        model=asdict(model.config),
        variant=cfg.model.name,
        mean=card.mean or mean,
        std=card.std or std,
        class_names=source.class_names if cfg.head == "keep" else None,
        key_format=source.key_format,
        **provenance_of(source),
    )


def prove(source: Source, target: Path, rule: Rule, seed: int) -> Mapping[Rule, list[Difference]]:
    """Compare a static clip with its image, for all rules; the written file stands for its rule.

    The image model is built for the video model's crop. Both classify as the image model does.
    """
    written = load_model(str(target))
    side = written.config.crop_size
    as_image = {**source.architecture, "crop_size": side}
    image_model = model_for(replace(source, architecture=as_image))
    config = replace(written.config, num_classes=image_model.config.num_classes)
    head: Literal["new", "keep"] = "keep" if "num_classes" in source.architecture else "new"
    image = torch.randn(1, 3, 1, side, side, generator=torch.Generator().manual_seed(seed))
    proofs = {}
    for each in (rule, *(other for other in RULES if other != rule)):
        model, _ = inflated(source, config, each, head, seed)
        if each == rule:
            body = {n: t for n, t in written.state_dict().items() if not n.startswith("head.")}
            model.load_state_dict({**model.state_dict(), **body})
        proofs[each] = compare_static_clip(image_model, model, image, each)
    return proofs


def main(cfg: DictConfig) -> None:
    """Inflate, verify by re-reading, and print the comparison."""
    console = wide_console()
    with exit_on_user_error():
        check_verb(cfg, "inflate")
        target = Path(cfg.target)
        check_target(target, "video_mvit", overwrite=cfg.overwrite)
        source = read_source(cfg.source, cfg.weights)
        config = video_config(cfg, source)
        model, plan = inflated(source, config, cfg.rule, cfg.head, cfg.seed)
        card = card_of(cfg, source, model)
        write_key_format(target, model.state_dict(), "video_mvit", card)
        print_plan(console, source, plan)
        size_mb = target.stat().st_size / 1e6
        console.print(f"\n[bold]{target}[/]  {size_mb:.1f} MB, verified by re-reading")
        console.print(f"  {describe_model(model)}", *describe_card(card), sep="\n  ")
        console.print("\nstatic clip vs. image (should match):")
        proofs = prove(source, target, cfg.rule, cfg.seed)
        print_proof(console, proofs)
        if any(difference.fails for proof in proofs.values() for difference in proof):
            sys.exit("error: the static clip differs where it should match; do not use this file")
        place = shlex.quote(f"init.source={target}")
        command = f"video-mvit train experiment=finetune data.root=FOLDER {place}"
        console.print(f"next: {command}", markup=False)
