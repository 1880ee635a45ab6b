"""Write features of videos: files, folders, patterns, lists.

video-mvit extract checkpoint=best.ckpt video=videos/ features=mean output=out.safetensors
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from omegaconf import DictConfig

from video_mvit.cli.engines import engine_device, resolve_precision, run_of
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.option_values import check_verb
from video_mvit.cli.predict import (
    EXIT_INTERRUPTED,
    check_device,
    exit_now,
    load_with_spec,
    print_stderr,
)
from video_mvit.cli.progress_display import ProgressDisplay
from video_mvit.cli.run_place import at_newest
from video_mvit.cli.run_summary import in_words
from video_mvit.data.dataset import ClipPipeline
from video_mvit.errors import UserError
from video_mvit.evaluation.view_scores import ClipPasses, clips_at_once
from video_mvit.lock import only_writer
from video_mvit.prediction.features import (
    Extractor,
    FeatureNetwork,
    Parts,
    check_target,
    extract_features,
    join_parts,
    read_list,
    remove_parts,
)
from video_mvit.prediction.inputs import find_videos
from video_mvit.prediction.scorer import FromPixels
from video_mvit.prediction.sources import fetched
from video_mvit.text import printable
from video_mvit.weights.checkpoint_files import weights_sha1

READ = {".safetensors": "safetensors.numpy.load_file({!r})", ".npz": "numpy.load({!r})"}
ADVICE = "wait until it ends, or choose another output"


def main(cfg: DictConfig) -> None:
    """Extract features; exit with an error if videos could not be read."""
    with exit_on_user_error():
        num_unreadable = run(cfg)
    if num_unreadable:
        sys.exit(f"{num_unreadable:,} videos could not be read and were skipped")


def run(cfg: DictConfig) -> int:
    """Check the options, extract missing features and merge all; -> number of unreadable videos."""
    check_verb(cfg, "extract")
    check_device(cfg)
    resolve_precision(cfg)
    check_target(Path(cfg.output), overwrite=cfg.overwrite)
    with only_writer(Path(f"{cfg.output}.lock"), cfg.output, ADVICE):
        return extract_all(cfg)


def extract_all(cfg: DictConfig) -> int:
    """Extract missing features and merge all, as `run` does once the target is locked."""
    target, videos = Path(cfg.output), videos_of(cfg)
    cfg, start_s = at_newest(cfg), time.monotonic()
    if cfg.overwrite:
        remove_parts(target)
    model, spec = load_with_spec(cfg)
    network = FromPixels(spec, FeatureNetwork(model, cfg.features)).eval()
    device = torch.device(engine_device(cfg))
    extractor = Extractor(
        run=run_of(cfg, network, spec.thw, print_stderr),
        passes=ClipPasses(clips_at_once(spec.thw, device)),
        device=device,
    )
    pipeline = spec.pipeline(cfg.num_clips, cfg.num_crops)
    settings = {
        "weights_sha1": weights_sha1(model.state_dict()),
        "features": cfg.features,
        "engine": cfg.engine,
        "precision": resolve_precision(cfg),
        "views": [pipeline.sampler.num_clips, pipeline.crop.num_crops],  # type: ignore[attr-defined]
    }
    of_scores = ("class_names", "scoring")
    overrides = {name: value for name, value in asdict(spec).items() if name not in of_scores}
    settings |= {name: list(v) if isinstance(v, tuple) else v for name, v in overrides.items()}
    # Skip what an earlier run has extracted.
    parts = Parts(target, settings)
    left = [video for video in videos if video not in parts.known]
    if len(left) < len(videos):
        num_done = f"{len(videos) - len(left):,} of {len(videos):,}"
        print_stderr(f"resuming: {num_done} videos were extracted by an earlier run")
    try:
        num_unreadable = extract(extractor, left, pipeline, parts)
    except KeyboardInterrupt:
        kept = f"features of {len(parts.known):,} videos are kept in {parts.folder}"
        exit_now(f"interrupted: {kept}", EXIT_INTERRUPTED)
    if not parts.known:
        raise UserError("none of the videos can be read")
    # One file in the order of the videos.
    join_parts(parts, videos, target, settings)
    width = len(next(iter(parts.known.values())))
    num_videos, took = len(videos) - num_unreadable, in_words(time.monotonic() - start_s)
    print(f"{printable(str(target))}  {num_videos:,} videos x {width:,} features  {took}")  # noqa: T201
    print_stderr(f"next: {READ[target.suffix].format(printable(str(target)))} reads it")
    return num_unreadable


def extract(
    extractor: Extractor, videos: Sequence[str], pipeline: ClipPipeline, parts: Parts
) -> int:
    """Add features of videos to the parts; -> number of unreadable videos, which are printed."""
    num_unreadable = 0
    try:
        with fetched(videos) as files, ProgressDisplay(len(videos)) as progress:
            paths = [file.path for file in files]
            features = extract_features(extractor, paths, pipeline)
            for (_, found), (_, video) in zip(features, files, strict=True):
                if isinstance(found, str):
                    num_unreadable += 1
                    print_stderr(f"{video} cannot be read: {found}")
                else:
                    parts.add(video, found)
                progress.count_video()
    finally:
        parts.write()
    return num_unreadable


def videos_of(cfg: DictConfig) -> list[str]:
    """List the videos that the options name."""
    if isinstance(cfg.video, str) and cfg.video.endswith(".txt"):
        return read_list(Path(cfg.video))
    return find_videos(cfg.video if isinstance(cfg.video, str) else list(cfg.video))
