"""Train a video classifier, or a detector.

video-mvit train experiment=k400_mvitv2_s_16x4 data.root=/path/to/kinetics400
"""

import copy
import time
from pathlib import Path

import pytorch_lightning as pl
from omegaconf import DictConfig

from video_mvit.cli.adapter import has_adapters, refuse_other_adapters, write_adapter_of
from video_mvit.cli.auto_hardware import resolve_hardware
from video_mvit.cli.auto_memory import fit_to_memory
from video_mvit.cli.auto_settings import apply_auto_settings
from video_mvit.cli.build import TrainingParts, build_training, is_detection, quiet_libraries
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.failed_starts import leaving_nothing
from video_mvit.cli.num_classes import fill_num_classes
from video_mvit.cli.option_values import check_verb
from video_mvit.cli.run_folder import (
    Run,
    Settings,
    check_class_names,
    flat_settings,
    keep_configuration,
    open_run,
    refuse_changes,
    remove_old_checkpoints,
    writing_alone,
)
from video_mvit.cli.run_log import problems_of_logs, refuse_incomplete
from video_mvit.cli.run_place import folder_of
from video_mvit.cli.run_summary import close_run
from video_mvit.cli.tasks import resolve_task
from video_mvit.training.checkpoints import checkpoint_io_of
from video_mvit.training.loggers import problems_of_loggers


def main(cfg: DictConfig) -> None:
    """Train as configured; a user error ends it with one sentence."""
    quiet_libraries()
    with exit_on_user_error():
        train(cfg)


def train(cfg: DictConfig) -> tuple[TrainingParts, Run]:
    """Train as configured; return what was trained, and where."""
    check_verb(cfg, "train")
    placed = copy.deepcopy(cfg)
    placed.run_dir = str(folder_of(cfg))
    with writing_alone(Path(placed.run_dir), "run_dir"):
        with leaving_nothing(Path(placed.run_dir)):
            run = open_run(placed)
            parts = build_parts(resolve(placed, run))
            begin(parts, run)
        fit(parts, run)
    return parts, run


def build_parts(settings: Settings) -> TrainingParts:
    """Build all of a training, of a classifier or a detector."""
    if not is_detection(settings.config):
        return build_training(settings)
    from video_mvit.cli.build_detection import build_detection_training  # needs an extra

    return build_detection_training(settings)


def resolve(cfg: DictConfig, run: Run) -> Settings:
    """Return the settings of a run: everything decided that the configuration leaves open."""
    config = copy.deepcopy(cfg)
    config.run_dir, config.resume_from = str(run.folder), run.resume_from
    resolve_hardware(config, "training")
    if config.auto_settings and not is_detection(config):
        apply_auto_settings(config, run.checkpoint.get("card", {}) if run.path else None)
    if not is_detection(config):
        resolve_task(config)
        fill_num_classes(config)
    recorded = flat_settings(config)
    # A resumed run must have the settings that it began with.
    if run.path:
        refuse_changes(config, run.checkpoint["settings"], recorded)
        refuse_other_adapters(run.checkpoint["settings"], recorded)
    if not is_detection(config):
        fit_to_memory(config)
    return Settings(config=config, recorded=recorded)


def begin(parts: TrainingParts, run: Run) -> None:
    """Make the run folder this run's, once everything has been built, and check its videos."""
    if run.path:
        check_class_names(run.path, run.checkpoint, parts.data.class_names)
    # From here on the run folder is this run's.
    remove_old_checkpoints(run)
    keep_configuration(run, parts.configuration)
    parts.data.sanity_check()


def fit(parts: TrainingParts, run: Run) -> None:
    """Train or resume, and say what was made."""
    start_s = time.monotonic()
    parts.trainer.fit(parts.module, datamodule=parts.data, ckpt_path=run.path, weights_only=True)
    raise_unwritten(parts.trainer)
    if parts.trainer.is_global_zero and has_adapters(parts.trainer):
        write_adapter_of(run.folder)
    close_run(parts.trainer, run.folder, time.monotonic() - start_s)


def raise_unwritten(trainer: pl.Trainer) -> None:
    """Raise `UserError` if a file of the run is not as it should be at its end."""
    others = [*problems_of_loggers(trainer), *problems_of_logs()]
    checkpoint_io_of(trainer).raise_problem(others)
    refuse_incomplete(others)
