"""Look at a data set before training: a page of clips, numbers, copies and broken files.

video-mvit browse data=custom data.root=/videos
"""

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from video_mvit.cli.auto_hardware import resolve_hardware
from video_mvit.cli.auto_settings import apply_auto_settings
from video_mvit.cli.build import build, is_detection, quiet_libraries
from video_mvit.cli.config_check import check_values
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.option_values import check_verb
from video_mvit.cli.prepare import progress_bar
from video_mvit.cli.tasks import refuse_other_tasks
from video_mvit.cli.terminal import Terminal
from video_mvit.data.datamodule import Split as ListedSplit
from video_mvit.errors import UserError
from video_mvit.host import num_usable_cores
from video_mvit.inspection.clips import Augmentation, ClipPair, pair_clips
from video_mvit.inspection.copies import find_copies
from video_mvit.inspection.films import size_of_films
from video_mvit.inspection.page import Findings, is_page, warnings_of, write_page
from video_mvit.inspection.videos import Split, open_split, spread

NUM_CLIPS, MOST_EACH = 40, 4  # clips of all classes that are aimed at, and most of one

NOTHING_FOUND = "no copies, unreadable, missing or short videos and no uneven classes were found"


def main(cfg: DictConfig) -> None:
    """Open videos, draw clips, look for copies; write the page, and print what was found."""
    quiet_libraries()
    with exit_on_user_error():
        check_verb(cfg, "browse")
        if is_detection(cfg):
            raise UserError("browse shows videos of a classifier, not the images of a detector")
        refuse_other_tasks(cfg, "browse")
        output = Path(cfg.output)
        check_output(output, overwrite=cfg.overwrite)
        cfg = resolve(cfg)
        findings = browse(cfg)
        write_page(output, findings)
    console = Terminal(markup=False)
    for split in findings.splits:
        console.print(f"{split.name:<6} {split.manifest.summary()}")
    console.print(*(warnings_of(findings) or [NOTHING_FOUND]), sep="\n")
    console.print(f"page   {output}  {output.stat().st_size / 1e6:.1f} MB")


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raise `UserError` for a place where no page can be written, or another file is."""
    if path.is_dir() or not path.parent.is_dir():
        where = "is a folder" if path.is_dir() else f"cannot be written, {path.parent} is no folder"
        raise UserError(f"output={path} {where}; name a file, such as output=browse.html")
    if path.exists() and not overwrite and not is_page(path):
        raise UserError(f"{path} is there and is no page of browse; overwrite=true replaces it")


def resolve(cfg: DictConfig) -> DictConfig:
    """Return the settings of a training on this data, in which nothing is left open."""
    cfg = copy.deepcopy(cfg)
    cfg.run_dir = cfg.run_dir or cfg.name  # nothing is written
    resolve_hardware(cfg)
    if cfg.auto_settings:
        with tempfile.TemporaryDirectory() as folder:  # of the record of what is chosen
            cfg.run_dir = folder
            apply_auto_settings(cfg)
    for name in ("model", "data", "augment", "optim", "trainer", "callbacks"):
        check_values(cfg[name], name)
    return cfg


def browse(cfg: DictConfig) -> Findings:
    """Collect all that the page shows."""
    splits = list(open_splits(cfg))
    pairs = draw(cfg, splits[0])
    return Findings(
        root=str(cfg.data.root),
        splits=splits,
        pairs=pairs,
        copies=find_copies(splits) if cfg.copies else None,
        clip_s=_clip_s(cfg),
        settings=describe(cfg),
    )


def open_splits(cfg: DictConfig) -> Iterator[Split]:
    """Read the list of each split, and open videos of it; lists that are there twice are skipped.

    The training list decides the classes and their order.
    """
    seen: list[Any] = []
    class_names: tuple[str, ...] | None = None
    num_workers = cfg.num_workers or num_usable_cores()
    for name in ("train", "val", "test"):
        node = OmegaConf.to_container(cfg.data.module[name].source, resolve=True)
        if node in seen:
            continue
        seen.append(node)
        listed: ListedSplit = build(cfg.data.module[name])
        manifest = listed.read(class_names)
        class_names = class_names or manifest.class_names
        manifest, bad = listed.apply_scan_report(manifest, 1.0)
        num_chosen = len(set(spread(len(manifest), cfg.max_videos)) - bad.keys())
        with progress_bar(f"open {name}", num_chosen) as on_progress:
            on_progress(0)
            yield open_split(
                name,
                manifest,
                known_bad=bad,
                limit=cfg.max_videos,
                num_workers=num_workers,
                decode_limits=listed.pipeline.decode_limits,
                on_progress=on_progress,
            )


def draw(cfg: DictConfig, train: Split) -> list[ClipPair]:
    """Draw clips of each class, as a training with these settings does."""
    num_classes = len(train.manifest.class_names)
    num_each = cfg.clips_per_class or max(1, min(MOST_EACH, NUM_CLIPS // num_classes))
    listed: ListedSplit = build(cfg.data.module.train)
    augmentation = Augmentation(
        augment=build(cfg.augment) if "_target_" in cfg.augment else None,
        normalize=build(cfg.data.normalize),
        mean=cfg.data.normalize.mean,
        std=cfg.data.normalize.std,
    )
    with progress_bar("clips", num_each * num_classes) as on_progress:
        on_progress(0)
        return pair_clips(
            train.manifest,
            listed.pipeline,
            augmentation,
            num_each=num_each,
            seed=cfg.seed,
            size=size_of_films(2 * num_each * num_classes),
            on_progress=on_progress,
        )


def _clip_s(cfg: DictConfig) -> float:
    """Return the seconds of a clip; 0 for one that is spread over the whole video."""
    clip = getattr(build(cfg.data.samplers.train), "clip", None)
    is_strided = "RandomClip" in str(cfg.data.samplers.train._target_)
    return float(clip.span_s) if clip is not None and is_strided and clip.num_frames > 1 else 0.0


def describe(cfg: DictConfig) -> dict[str, str]:
    """Describe the settings that decide what the network sees."""
    augment = cfg.augment if "_target_" in cfg.augment else {}
    mixing = augment.get("mixing") or {}
    crop = cfg.data.train_crop
    options = ", ".join(f"{key} {crop[key]}" for key in crop if key != "_target_")
    return {
        "clip": f"{cfg.clip.num_frames}x{cfg.clip.frame_stride}, {cfg.clip.crop_size} pixels",
        "crop": f"{str(crop._target_).rpartition('.')[2]}: {options}",
        "augmentation": f"{augment.get('policy') or 'no RandAugment'}; random erasing of "
        f"{100 * (augment.get('erase_prob') or 0):g} % of the clips",
        "mixing": ", ".join(f"{key} {value}" for key, value in mixing.items() if key != "_target_")
        or "none",
        "seed": str(cfg.seed),
    }
