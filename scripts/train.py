"""Train a video classifier.

python scripts/train.py experiment=k400_mvitv2_s_16x4 data.root=/path/to/kinetics400
"""

import hydra
import pytorch_lightning as pl
from launch import build_all, build_trainer, find_checkpoint, quiet_libraries
from mistakes import mistakes_in_one_sentence
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def main(cfg: DictConfig) -> None:
    quiet_libraries()
    with mistakes_in_one_sentence():
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        checkpoint = find_checkpoint(cfg.resume_from, cfg.run_dir) if cfg.resume_from else None
        (classifier, data), trainer = build_all(cfg), build_trainer(cfg)
        data.setup("fit")
        classifier.class_names = list(data.class_names)
        trainer.fit(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True)


if __name__ == "__main__":
    main()
