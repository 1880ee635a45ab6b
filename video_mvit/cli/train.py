"""Train a video classifier.

video-mvit train experiment=k400_mvitv2_s_16x4 data.root=/path/to/kinetics400
"""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig

from video_mvit.cli.auto_memory import fit_to_memory
from video_mvit.cli.auto_settings import apply_auto_settings
from video_mvit.cli.build import (
    build_all,
    build_trainer,
    check_class_names,
    describe,
    fit_schedule_to_step,
    quiet_libraries,
    read_checkpoint,
    start_weights,
)
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.run_folder import (
    checkpoint_to_resume,
    flat_settings,
    keep_configuration,
    open_folder,
    refuse_changes,
    remove_old_checkpoints,
    set_run_dir,
)
from video_mvit.training.checkpoints import checkpoint_io_of


def main(cfg: DictConfig) -> None:
    """Train as configured; a user error ends it with one sentence."""
    quiet_libraries()
    with exit_on_user_error():
        # The run folder, and the checkpoint to resume from.
        set_run_dir(cfg)
        path: Path | None = None
        checkpoint: dict[str, Any] = {}
        cfg.resume_from = checkpoint_to_resume(cfg)
        if cfg.resume_from:
            path, checkpoint = read_checkpoint(cfg.resume_from, cfg.run_dir)
        open_folder(cfg.run_dir, "train")
        # Settings; a resumed run must have those that it began with.
        if cfg.auto_settings:
            apply_auto_settings(cfg)
        settings = flat_settings(cfg)  # before building, which resolves references
        if path:
            refuse_changes(cfg, checkpoint["settings"], settings)
        # Model, data and trainer.
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        fit_to_memory(cfg)
        (classifier, data), trainer = build_all(cfg), build_trainer(cfg)
        classifier.settings = settings
        fit_schedule_to_step(cfg, classifier, trainer)
        data.setup("fit")
        data.check_shares("fit", trainer.world_size)
        # Initial weights: from the checkpoint, or as `init` says.
        if path:
            check_class_names(path, checkpoint, data)
        else:
            start_weights(cfg, classifier, data)
        # From here on the run folder is this run's.
        remove_old_checkpoints(cfg)
        keep_configuration(cfg)
        data.sanity_check_training_videos()
        classifier.class_names = list(data.class_names)
        classifier.card = describe(cfg, classifier, data)
        trainer.fit(classifier, datamodule=data, ckpt_path=path, weights_only=True)
        checkpoint_io_of(trainer).raise_problem()
