"""Show what a network is made of: outputs, parameters, multiply-adds and memory of each part.

video-mvit summary model=mvitv2_b clip=32x3
video-mvit summary runs/finetune
"""

import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from video_mvit.cli.auto_hardware import resolve_hardware
from video_mvit.cli.auto_memory import device_to_measure, measure_step
from video_mvit.cli.auto_settings import use_settings_of
from video_mvit.cli.build import build, is_detection
from video_mvit.cli.config_check import check_values
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.num_classes import fill_num_classes
from video_mvit.cli.option_values import check_verb
from video_mvit.cli.own_networks import CREATE_MODEL, check_size
from video_mvit.cli.run_folder import find_checkpoint
from video_mvit.cli.runs import best_of, checkpoints_of
from video_mvit.cli.terminal import Terminal
from video_mvit.cli.trained_network import check_network
from video_mvit.errors import UserError
from video_mvit.inspection.network import (
    PRECISIONS,
    NetworkCost,
    Part,
    PartCost,
    children_of,
    examine,
    layers_of,
    step_bytes,
)
from video_mvit.models.mvit import MViT
from video_mvit.training.memory_fit import check_measurable

NAME_WIDTH, OUTPUT_WIDTH = 22, 13
WIDTHS = (13, 9, 11, 9)  # of the numbers of a row
MEGA, GIGA = 1e6, 1e9
NUM_CLASSES = {"classifier": 400, "detector": 80}  # of Kinetics-400 and COCO, where none is given
STATES = {"adamw": ("AdamW", 2), "sgd": ("momentum", 1)}  # optimizer -> numbers for each weight


def main(cfg: DictConfig) -> None:
    """Print the table of the parts, the totals, and the memory of a training step."""
    with exit_on_user_error():
        check_verb(cfg, "summary")
        lines = list(describe_detector(cfg) if is_detection(cfg) else describe_classifier(cfg))
    Terminal(markup=False).print(*lines, sep="\n")


def describe_classifier(cfg: DictConfig) -> Iterator[str]:
    """Yield the lines about a classifier."""
    if cfg.image_size is not None:
        raise UserError("image_size is for detectors; clip.crop_size is the side of a clip")
    cfg = copy.deepcopy(cfg)
    assumed = _fill_classes(cfg)
    model, clip = _build_without_values(cfg), cfg.clip
    cost = examine(model, _parts(model, cfg.level), partial(_run_clips, clip=clip))
    what = f"{clip.num_frames}x{clip.frame_stride} clips"
    if clip.num_frames == 1:
        what = "images"
    yield f"{_name(cfg)}: {what} of {clip.crop_size} pixels, {cfg.data.num_classes:,} classes"
    if assumed:
        yield assumed
    yield from _table(cost, model)
    num_clips = cfg.data.train_batch_size * cfg.data.num_samples
    yield from _memory_lines(cfg, cost, num_clips, "clip" if clip.num_frames > 1 else "image")
    mode = cfg.model.get("activation_checkpointing", "none")
    if mode != "none":
        yield f"  without activation_checkpointing={mode}, which keeps less; measure=true measures"
    if cfg.measure:
        yield from _measured_lines(cfg, num_clips)


def describe_detector(cfg: DictConfig) -> Iterator[str]:
    """Yield the lines about a detector."""
    from video_mvit.inspection.detector_parts import parts_of, run_parts  # needs an extra

    if cfg.measure:
        raise UserError("measure=true is for classifiers; a detector's step depends on its images")
    cfg = copy.deepcopy(cfg)
    assumed = _fill_classes(cfg)
    detector: Any = _build_without_values(cfg)
    height, width = cfg.image_size or (cfg.data.short_side, cfg.data.max_side)
    size = detector.padded_size([(height, width)])
    parts = parts_of(detector) if cfg.level == "stages" else _parts(detector, cfg.level)
    cost = examine(detector, parts, partial(run_parts, size=size))
    yield (
        f"{_name(cfg)}: images of {size[0]}x{size[1]} pixels, {cfg.data.num_classes:,} classes, "
        f"{detector.config.num_proposals:,} proposals"
    )
    if assumed:
        yield assumed
    yield from _table(cost, detector)
    yield from _memory_lines(cfg, cost, cfg.data.train_batch_size, "image")


def _build_without_values(cfg: DictConfig) -> nn.Module:
    """Build the configured network, our own without values."""
    if OmegaConf.is_missing(cfg.data, "root"):
        cfg.data.root = "."  # nothing is read
    cfg.run_dir = cfg.run_dir or cfg.name  # nothing is written
    for group in ("model", "data", "augment", "optim", "callbacks"):
        check_values(cfg[group], group)
    run = Path(cfg.run_dir)
    if checkpoints_of(run):  # its settings are data: they must not decide how much is allocated
        path = find_checkpoint(best_of(run), cfg.run_dir)
        if cfg.model._target_ == CREATE_MODEL:
            check_network(cfg.model, path, "ema")
        elif not is_detection(cfg):
            check_size(cfg.model, path.stat().st_size, path)
    if not str(cfg.model._target_).startswith("video_mvit.create_"):
        return build(cfg.model)  # type: ignore[no-any-return]  # which may need values
    with torch.device("meta"):
        return build(cfg.model)  # type: ignore[no-any-return]


def _fill_classes(cfg: DictConfig) -> str:
    """Set the number of classes where it is open, and return a line that says where it is from.

    That of a run is in its checkpoint, like its other settings that were chosen from its videos.
    """
    run = Path(cfg.run_dir or "")
    if cfg.run_dir and checkpoints_of(run):
        if cfg.auto_settings and not is_detection(cfg):
            use_settings_of(cfg, best_of(run))
        fill_num_classes(cfg, best_of(run))
    if not OmegaConf.is_missing(cfg.data, "num_classes") and cfg.data.num_classes is not None:
        return ""
    if not OmegaConf.is_missing(cfg.data, "root") and not is_detection(cfg):
        fill_num_classes(cfg)
        return ""
    cfg.data.num_classes = NUM_CLASSES["detector" if is_detection(cfg) else "classifier"]
    return "  classes assumed: data.num_classes=N says how many, data.root=FOLDER counts them"


def _run_clips(model: nn.Module, num_clips: int, clip: DictConfig) -> None:
    device = next(model.parameters()).device
    side = clip.crop_size
    model(torch.empty(num_clips, 3, clip.num_frames, side, side, device=device))


def _parts(model: nn.Module, level: str) -> list[Part]:
    if level == "layers":
        return layers_of(model)
    parts = children_of(model)
    if level == "blocks" or not isinstance(model, MViT):
        return parts
    # The blocks of a stage in one row.
    blocks, start = [part for part in parts if part.name.startswith("blocks.")], 0
    stages = []
    for depth in model.config.depths:
        names = tuple(part.name for part in blocks[start : start + depth])
        more = f"-{start + depth - 1}" if depth > 1 else ""
        stages.append(Part(f"{names[0]}{more}", names))
        start += depth
    first = parts.index(blocks[0])
    return [*parts[:first], *stages, *parts[first + len(blocks) :]]


def _table(cost: NetworkCost, model: nn.Module) -> Iterator[str]:
    """Yield the rows of all parts, within 80 columns."""
    digits = 2 if (cost.macs or GIGA) >= GIGA else 4
    yield ""
    yield _row("part", "output", "parameters", "GMACs", *(f"MB {name}" for name in PRECISIONS))
    for part in cost.parts:
        kept = part.kept or {}
        yield _row(
            part.name,
            _output(part, model),
            f"{part.num_parameters:,}",
            _number(part.macs, GIGA, digits),
            *(_number(kept.get(name), MEGA, 1) for name in PRECISIONS),
        )
    kept_total = [_number(cost.kept(name), MEGA, 1) for name in PRECISIONS]
    yield _row(
        "total", "", f"{cost.num_parameters:,}", _number(cost.macs, GIGA, digits), *kept_total
    )
    yield ""
    yield from cost.uncounted


def _row(name: str, output: str, *numbers: str) -> str:
    if len(name) > NAME_WIDTH:
        name = f"...{name[3 - NAME_WIDTH :]}"
    columns = (f"{number:>{width}}" for number, width in zip(numbers, WIDTHS, strict=True))
    return f"{name:<{NAME_WIDTH}} {output:<{OUTPUT_WIDTH}}{''.join(columns)}"


def _number(value: int | None, unit: float, digits: int) -> str:
    return "?" if value is None else f"{value / unit:,.{digits}f}"


def _output(part: PartCost, model: nn.Module) -> str:
    """Return the shape of an output; tokens of an MViT as channels and grid."""
    if part.output is None:
        return ""
    if isinstance(model, MViT) and len(part.output) == 2:
        num_tokens, dim = part.output
        grids = [model.config.patch_grid, *(spec.q_thw for spec in model.schedule)]
        for t, h, w in grids:
            if num_tokens - t * h * w in (0, model.schedule[0].num_cls):
                return f"{dim}x{t}x{h}x{w}"
    return "x".join(map(str, part.output))


def _memory_lines(cfg: DictConfig, cost: NetworkCost, num_items: int, item: str) -> Iterator[str]:
    """Yield the estimated memory of a training step as configured."""
    optimizer, num_states = STATES[cfg.optim.get("name", "adamw")]
    has_ema = any("ema" in name for name in cfg.callbacks)
    states = 1 + num_states + int(has_ema)
    sizes = {name: step_bytes(cost, num_items, name, states) for name in PRECISIONS}
    if None in sizes.values():
        return
    fixed = 4 * cost.num_parameters * (1 + states) / GIGA
    each = " or ".join(_number(cost.kept(name), MEGA, 1) for name in PRECISIONS)
    totals = ", ".join(f"{(size or 0) / GIGA:.3g} GB in {name}" for name, size in sizes.items())
    yield f"a training step of {num_items} {item}s, estimated: {totals}"
    yield (
        f"  {fixed:.2g} GB of weights, gradients, {optimizer}{' and EMA' * has_ema}; "
        f"{each} MB kept of each {item}"
    )


def _measured_lines(cfg: DictConfig, num_clips: int) -> Iterator[str]:
    """Run steps of one clip and of two, or of what mixing needs, and yield what they took."""
    resolve_hardware(cfg)
    device = device_to_measure(cfg)
    check_measurable(device)
    mode = cfg.model.get("activation_checkpointing", "none")
    memory = measure_step(cfg, device, (2, 4), mode)
    yield (
        f"  measured on this {device.type}, {cfg.trainer.precision}: "
        f"{memory.of(num_clips) / GIGA:.3g} GB; {memory.per_clip / MEGA:,.1f} MB of each clip"
    )


def _name(cfg: DictConfig) -> str:
    return str(cfg.model.get("name") or str(cfg.model._target_).rpartition(".")[2])
