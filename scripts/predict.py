"""Say what is seen in videos: files, folders, patterns.

python scripts/predict.py checkpoint=runs/train/checkpoints/best.ckpt video=clip.mp4
"""

import sys

import hydra
from mistakes import mistakes_in_one_sentence
from omegaconf import DictConfig
from prediction_run import (
    INTERRUPTED,
    check_options,
    leave,
    load_scorer,
    predict_all,
    stopped_by_person,
)

from video_mvit.prediction.finding import find_videos


@hydra.main(version_base="1.3", config_path="../conf", config_name="predict")
def main(cfg: DictConfig) -> None:
    with stopped_by_person(), mistakes_in_one_sentence():
        check_options(cfg)
        videos = find_videos(cfg.video if isinstance(cfg.video, str) else list(cfg.video))
        scorer = load_scorer(cfg)
        done = predict_all(cfg, scorer, videos)
    if done.is_interrupted:
        left = f"stopped after {done.num_written:,} of {len(videos):,} videos"
        leave(left, INTERRUPTED)
    if done.num_unreadable:
        sys.exit(f"{done.num_unreadable:,} of {len(videos):,} videos could not be read")


if __name__ == "__main__":
    main()
