"""Evaluate a checkpoint, averaging several views of each video.

python scripts/evaluate.py experiment=k400_mvitv2_s_16x4 data.root=/path/to/kinetics400
"""

import hydra
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="../conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    from evaluation_run import run_evaluation  # takes seconds, which --help need not wait for

    run_evaluation(cfg)


if __name__ == "__main__":
    main()
