"""memory=auto: measure a training step, and split it so that it fits the device."""

import copy
import json
import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, open_dict
from torch import Tensor

from video_mvit.cli.build import build_all, check_devices
from video_mvit.cli.config_check import fits
from video_mvit.cli.run_folder import num_devices
from video_mvit.data.transforms.augment import Augment
from video_mvit.errors import UserError
from video_mvit.files import replace_atomically
from video_mvit.models.checkpointing import MODES
from video_mvit.models.mvit import MViT
from video_mvit.training.classifier import Batch
from video_mvit.training.memory_fit import (
    RESERVE,
    UNIT,
    BatchSpec,
    MemoryModel,
    StepPlan,
    TrialStep,
    check_measurable,
    fit_step,
    free_memory,
    measure_memory,
)
from video_mvit.training.throughput import DTYPES

logger = logging.getLogger(__name__)

DECIDED = {"trainer.accumulate_grad_batches": 1, "model.activation_checkpointing": "none"}
FILE = "memory_plan.json"  # in the run folder: a resumed run uses the same plan
MAX_BYTES = 10_000  # of that file


def fit_to_memory(cfg: DictConfig, free: float | None = None) -> None:
    """Split a step so that it fits the device, in the configuration, if it has memory=auto.

    The number of videos per step does not change. Raises `UserError` where nothing fits, or where
    the user has set what this decides. `free` overrides the free bytes of the device.
    """
    if cfg.memory is None:
        return
    if cfg.memory != "auto":
        raise UserError(f"memory is {cfg.memory!r}, expected 'auto' or null")
    for key, default in DECIDED.items():
        group, name = key.split(".")
        if cfg[group].get(name, default) != default:
            raise UserError(
                f"memory=auto decides {key}, which is set to {cfg[group][name]}; remove one of them"
            )
    path = Path(cfg.run_dir, FILE)
    if cfg.resume_from:
        if not path.is_file():
            raise UserError(
                f"{cfg.run_dir} was not started with memory=auto, {FILE} is missing there; "
                "resume without memory=auto"
            )
        plan = _read_plan(path)
        if plan.num_videos * plan.num_passes != cfg.data.train_batch_size:
            raise UserError(
                f"data.train_batch_size is {cfg.data.train_batch_size}, but {path} splits "
                f"{plan.num_videos * plan.num_passes}; resume without memory=auto"
            )
        _apply(plan, cfg)
        logger.info("memory=auto, as at the start of this run: %s", _overrides(plan))
        return
    device = device_to_measure(cfg)
    check_measurable(device)
    plan = _decide(cfg, device, free_memory(device) if free is None else free)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(path) as temporary:
        temporary.write_text(json.dumps(vars(plan)))
    _apply(plan, cfg)


def _read_plan(path: Path) -> StepPlan:
    """Read the plan that a run began with; raises `UserError` for anything else."""
    with path.open("rb") as file:
        text = file.read(MAX_BYTES)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and "checkpoint_activations" in content:  # written by version 0.1
        mode = "full" if content.pop("checkpoint_activations") is True else "none"
        content["activation_checkpointing"] = mode
    if not isinstance(content, dict) or not _is_plan(content):
        raise UserError(f"{path} is not a plan of memory=auto; resume without memory=auto")
    return StepPlan(**content)


def _is_plan(content: dict[str, Any]) -> bool:
    """Return whether a table has the fields of a plan, with possible values."""
    counts = [content.get(name) for name in ("num_videos", "num_passes")]
    return (
        set(content) == {field.name for field in fields(StepPlan)}
        and all(type(count) is int and count > 0 for count in counts)
        and content["activation_checkpointing"] in MODES
        and fits(content["needed"], float)
    )


def _decide(cfg: DictConfig, device: torch.device, free: float) -> StepPlan:
    """Measure, choose a plan, and log the reason."""
    # What a pass must contain: samples of a video stay together, mixing needs two clips.
    classifier, _ = build_all(cfg)
    augment, min_clips = classifier.augment, 1
    num_clips = cfg.data.train_batch_size * cfg.data.num_samples
    if isinstance(augment, Augment):
        augment.check_num_clips(num_clips)
        min_clips = augment.min_clips
    batch = BatchSpec(
        num_videos=cfg.data.train_batch_size,
        num_samples=cfg.data.num_samples,
        min_clips=min_clips,
    )
    modes = MODES if isinstance(classifier.model, MViT) else MODES[:1]
    del classifier, augment
    # Memory of one step, without and with activation checkpointing.
    sizes = (batch.min_clips, 2 * batch.min_clips)
    needs = {mode: measure_step(cfg, device, sizes, mode) for mode in modes}
    smallest = batch.passes()[-1]
    usable = (1 - RESERVE) * free
    facts = (
        f"a step of {num_clips} clips needs {_gb(needs['none'].of(num_clips))}, {_gb(free)} are "
        f"free, {_gb(free - usable)} of that in reserve"
    )
    # The fastest plan that fits.
    plan = fit_step(needs, batch, usable)
    if plan is None:
        least = smallest * batch.num_samples
        needed = min(need.of(least) for need in needs.values())
        raise UserError(
            f"memory=auto: {facts}; even {least} clip{'s' * (least > 1)} at a time "
            f"{'with activation checkpointing ' * (len(modes) > 1)}need{'s' * (least == 1)} "
            f"{_gb(needed)}; use a smaller model, clip.crop_size or clip.num_frames"
        )
    is_whole = plan.num_passes == 1 and plan.activation_checkpointing == "none"
    chosen = "it fits" if is_whole else f"{_overrides(plan)}, which needs {_gb(plan.needed)}"
    logger.info("memory=auto: %s: %s", facts, chosen)
    return plan


def measure_step(
    cfg: DictConfig, device: torch.device, sizes: tuple[int, int], mode: str
) -> MemoryModel:
    """Measure training steps of two numbers of clips, with a mode of activation checkpointing."""
    cfg = copy.deepcopy(cfg)
    if "freeze_epochs" in cfg.optim:  # what is thawed later has to fit as well
        cfg.optim.freeze_epochs = None
    if mode != "none":
        with open_dict(cfg):
            cfg.model.activation_checkpointing = mode
    precision = str(cfg.trainer.precision)
    dtype = DTYPES.get(precision.partition("-")[0])

    def build() -> TrialStep:
        classifier, _ = build_all(cfg)
        classifier.log = lambda *_, **__: None  # type: ignore[method-assign]
        classifier.to(device, dtype if precision.endswith("-true") else None).train()

        def loss(num_clips: int) -> Tensor:
            side = cfg.clip.crop_size
            clip = torch.zeros(num_clips, cfg.clip.num_frames, 3, side, side, dtype=torch.uint8)
            label = classifier.example_labels(num_clips)
            batch = Batch(clip.to(device), label.to(device), torch.arange(num_clips))
            autocast: AbstractContextManager[object] = nullcontext()
            if dtype is not None and not precision.endswith("-true"):
                autocast = torch.autocast(device.type, dtype)
            with autocast:
                return classifier.training_step(batch, 0)

        return TrialStep(optimizer=classifier.configure_optimizers(), loss=loss)

    # Leave the random state as it would be without measuring.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        return measure_memory(build, device, sizes)


def device_to_measure(cfg: DictConfig) -> torch.device:
    """Return the device of a run that has one; raises `UserError` for another run."""
    if num_devices(cfg) > 1:
        raise UserError(
            "memory=auto measures on one device only; run it once with trainer.devices=1 and set "
            "the values that it prints"
        )
    check_devices(cfg)
    accelerator = cfg.trainer.accelerator
    if accelerator not in ("gpu", "cuda", "cpu", "auto"):
        raise UserError(f"memory=auto measures on 'gpu' and 'cpu', not on {accelerator!r}")
    is_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    return torch.device("cuda", 0) if is_gpu else torch.device("cpu")


def _apply(plan: StepPlan, cfg: DictConfig) -> None:
    with open_dict(cfg):
        cfg.data.train_batch_size = plan.num_videos
        cfg.trainer.accumulate_grad_batches = plan.num_passes
        if plan.activation_checkpointing != "none":
            cfg.model.activation_checkpointing = plan.activation_checkpointing


def _overrides(plan: StepPlan) -> str:
    """Return the plan as command-line overrides."""
    text = f"data.train_batch_size={plan.num_videos}"
    if plan.num_passes > 1:
        text += f" trainer.accumulate_grad_batches={plan.num_passes}"
    if plan.activation_checkpointing != "none":
        text += f" +model.activation_checkpointing={plan.activation_checkpointing}"
    return text


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / UNIT:.3g} GB"
