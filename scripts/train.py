"""Train a video classifier.

python scripts/train.py experiment=k400_mvitv2_s_16x4 data.root=/path/to/kinetics400
"""

import hydra
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def main(cfg: DictConfig) -> None:
    from training_run import train  # takes seconds, which --help need not wait for

    train(cfg)


if __name__ == "__main__":
    main()
