"""Train a video classifier.

python scripts/train.py experiment=k400_mvitv2_s_16x4 data.root=/path/to/kinetics400
"""

from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
from launch import (
    build_all,
    build_trainer,
    check_class_names,
    describe,
    fit_schedule_to_step,
    quiet_libraries,
    read_checkpoint,
    start_weights,
)
from mistakes import mistakes_in_one_sentence
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def main(cfg: DictConfig) -> None:
    quiet_libraries()
    with mistakes_in_one_sentence():
        path: Path | None = None
        checkpoint: dict[str, Any] = {}
        if cfg.resume_from:
            path, checkpoint = read_checkpoint(cfg.resume_from, cfg.run_dir)
        elif Path(cfg.run_dir, "checkpoints", "last.ckpt").exists() and not cfg.overwrite:
            raise ValueError(
                f"{cfg.run_dir} holds a run; resume_from=last continues it, name=... starts "
                "another one, overwrite=true starts again in its place"
            )
        pl.seed_everything(cfg.seed, workers=True, verbose=False)  # of initialisation
        (classifier, data), trainer = build_all(cfg), build_trainer(cfg)
        fit_schedule_to_step(cfg, classifier, trainer)
        data.setup("fit")
        if path:
            check_class_names(path, checkpoint, data)
        else:
            start_weights(cfg, classifier, data)
        data.look_at_training_videos()
        classifier.class_names = list(data.class_names)
        classifier.card = describe(cfg, classifier, data)
        trainer.fit(classifier, datamodule=data, ckpt_path=path, weights_only=True)


if __name__ == "__main__":
    main()
