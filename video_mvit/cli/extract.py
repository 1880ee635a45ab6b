"""Write features of videos: files, folders, patterns, lists.

video-mvit extract checkpoint=best.ckpt video=videos/ features=mean output=out.safetensors
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from video_mvit.cli.errors import mistakes_in_one_sentence
from video_mvit.cli.predict import INTERRUPTED, Bar, check_model_options, leave, load_scorer, tell
from video_mvit.data.dataset import Views
from video_mvit.prediction.features import (
    Extractor,
    Parts,
    check_target,
    extract_features,
    join_parts,
    read_list,
)
from video_mvit.prediction.inputs import find_videos
from video_mvit.weights.checkpoint_files import weights_sha1


def main(cfg: DictConfig) -> None:
    with mistakes_in_one_sentence():
        num_unreadable = run(cfg)
    if num_unreadable:
        sys.exit(f"{num_unreadable:,} videos could not be read and are left out")


def run(cfg: DictConfig) -> int:
    """Extract what is not known yet and join all; -> how many videos could not be read."""
    check_model_options(cfg)
    target = Path(cfg.output)
    check_target(target, overwrite=cfg.overwrite)
    videos = videos_of(cfg)
    # What a prediction also asks for, and features do not.
    extra = {"timeline": False, "hop_s": None, "class_names": None}
    known: dict[str, Any] = {str(name): value for name, value in cfg.items()}
    scorer = load_scorer(OmegaConf.create(known | extra))
    model, facts = scorer.model.eval(), scorer.facts
    extractor = Extractor(
        model=model, facts=facts, kind=cfg.features, clips_per_pass=scorer.clips_per_pass
    )
    views = facts.views(cfg.num_clips, cfg.num_crops)
    settings = {
        "weights_sha1": weights_sha1(model.state_dict()),
        "features": cfg.features,
        "views": [views.sampler.num_clips, views.crop.num_crops],  # type: ignore[attr-defined]
    }
    said = {name: value for name, value in asdict(facts).items() if name != "class_names"}
    settings |= {name: list(v) if isinstance(v, tuple) else v for name, v in said.items()}
    parts = Parts(target, settings)
    left = [video for video in videos if video not in parts.known]
    if len(left) < len(videos):
        tell(f"{len(videos) - len(left):,} of {len(videos):,} videos were done before")
    try:
        num_unreadable = extract(extractor, left, views, parts)
    except KeyboardInterrupt:
        leave(f"stopped; {len(parts.known):,} videos are kept in {parts.folder}", INTERRUPTED)
    if not parts.known:
        raise ValueError("none of the videos can be read")
    join_parts(parts, videos, target, settings)
    width = len(next(iter(parts.known.values())))
    print(f"{target}  {len(videos) - num_unreadable:,} videos x {width:,} features")  # noqa: T201
    return num_unreadable


def extract(extractor: Extractor, videos: Sequence[str], views: Views, parts: Parts) -> int:
    """Add features of videos to the parts; -> how many could not be read, which are told."""
    num_unreadable = 0
    try:
        with Bar(len(videos)) as progress:
            for video, found in extract_features(extractor, videos, views):
                if isinstance(found, str):
                    num_unreadable += 1
                    tell(f"{video} cannot be read: {found}")
                else:
                    parts.add(video, found)
                progress.count_video()
    finally:
        parts.write()
    return num_unreadable


def videos_of(cfg: DictConfig) -> list[str]:
    if isinstance(cfg.video, str) and cfg.video.endswith(".txt"):
        return read_list(Path(cfg.video))
    return find_videos(cfg.video if isinstance(cfg.video, str) else list(cfg.video))
