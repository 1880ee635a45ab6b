"""Train small heads on the features of a frozen network, and write the best one as a checkpoint.

video-mvit probe checkpoint=mvitv2_s_k400 data.root=/videos
"""

import copy
import logging
import os
import shlex
import time
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig

from video_mvit.cli.build import is_detection, quiet_libraries
from video_mvit.cli.build_probe import SPLITS, ProbingParts, build_probing
from video_mvit.cli.engines import resolve_precision
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.failed_starts import leaving_nothing
from video_mvit.cli.option_values import check_verb
from video_mvit.cli.predict import EXIT_INTERRUPTED, check_device, exit_now
from video_mvit.cli.probe_results import (
    TRIALS,
    Extracted,
    best_kind,
    print_table,
    summarize_scores,
    write_best,
    write_trials,
)
from video_mvit.cli.progress_display import ProgressDisplay
from video_mvit.cli.run_folder import (
    CHECKPOINTS,
    open_folder,
    remove_checkpoints,
    writing_alone,
)
from video_mvit.cli.run_log import problems_of_logs, refuse_incomplete
from video_mvit.cli.run_place import folder_of
from video_mvit.cli.tasks import refuse_other_tasks
from video_mvit.cli.terminal import Terminal
from video_mvit.data.lists.manifest import Manifest
from video_mvit.errors import UserError
from video_mvit.evaluation.output_folder import PREDICTIONS, RESULTS
from video_mvit.evaluation.predictions import write_predictions
from video_mvit.evaluation.report_files import write_report
from video_mvit.lock import only_writer
from video_mvit.probing.extraction import extract_missing, features_of
from video_mvit.probing.features_cache import identity
from video_mvit.probing.selection import Chosen, Probes, Selection

logger = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    """Extract features, train probes, write the best one and its evaluation."""
    quiet_libraries()
    with exit_on_user_error():
        lines = run(cfg)
    console = Terminal(markup=False)
    for name, text in lines.items():
        console.print(f"  {name:<22} {text}")


def run(cfg: DictConfig) -> dict[str, str]:
    """Probe as configured; Ctrl-C ends it with a sentence, and features are kept."""
    try:
        return probe(cfg)
    except KeyboardInterrupt:
        kept = f"what was extracted is kept in {cfg.cache}, and not extracted again"
        exit_now(f"interrupted: {kept}", EXIT_INTERRUPTED)


def probe(cfg: DictConfig) -> dict[str, str]:
    """Probe as configured; return the lines of the summary."""
    cfg = resolve(cfg)
    folder = Path(cfg.run_dir)
    with writing_alone(folder, "run_dir"), leaving_nothing(folder, but=Path(cfg.cache)):
        check_folder(folder, Path(cfg.output), overwrite=cfg.overwrite)
        open_folder(str(folder), "probe")
        parts = build_probing(cfg)
        lines = probe_all(parts)
    refuse_incomplete(problems_of_logs())
    return lines


def resolve(cfg: DictConfig) -> DictConfig:
    """Return the settings with a folder of their own; raises `UserError` for what cannot run."""
    check_verb(cfg, "probe")
    check_device(cfg)
    resolve_precision(cfg)
    if is_detection(cfg):
        raise UserError("probe is for classifiers of videos, not for detectors")
    refuse_other_tasks(cfg, "probe")
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise UserError("probe runs in one process; start it without torchrun")
    cfg = copy.deepcopy(cfg)
    cfg.run_dir = str(folder_of(cfg))
    return cfg


def check_folder(folder: Path, output: Path, *, overwrite: bool) -> None:
    """Raise `UserError` where the folders hold a run, or its results."""
    if (output / RESULTS).exists() and not overwrite:
        raise UserError(
            f"{output} holds an evaluation; output=... keeps it, overwrite=true replaces it"
        )
    if any((folder / CHECKPOINTS).glob("*.ckpt")) and not overwrite:
        raise UserError(
            f"{folder} holds a run; run_dir=... names another folder, overwrite=true replaces it"
        )


def probe_all(parts: ProbingParts) -> dict[str, str]:
    """Extract, train, choose, and write; return the lines of the summary."""
    cfg, folder = parts.config, Path(parts.config.run_dir)
    names = [name for name in SPLITS if name != "val" or parts.num_folds is None]
    splits, unreadable, told = {}, {}, dict[str, Extracted]()
    advice = "wait until it ends, or choose another folder with cache=..."
    parts.cache.folder.mkdir(parents=True, exist_ok=True)
    with only_writer(parts.cache.folder / ".lock", str(parts.cache.folder), advice):
        parts.cache.open()
        for name in names:
            manifest = parts.lists[name].manifest
            known_by = {i: identity(manifest.path(i)) for i in range(len(manifest))}
            unreadable[name], told[name] = extract(parts, name, known_by)
            splits[name] = features_of(
                parts.cache, manifest, known_by, unreadable[name], parts.extractor.device
            )
    selection = Selection(
        train=splits["train"],
        val=splits.get("val"),
        num_classes=len(parts.class_names),
        num_folds=parts.num_folds or 0,
        seed=cfg.seed,
    )
    chosen = [train_kind(selection, probes) for probes in parts.kinds]
    scores = [each.scores(splits["test"]) for each in chosen]
    print_table(chosen, scores, splits["test"], parts.num_folds)
    write_trials(folder / TRIALS, chosen)
    best = best_kind(chosen)
    if cfg.overwrite:
        remove_checkpoints(folder)
    origin = write_best(parts, chosen[best], folder)
    result, predictions = summarize_scores(
        parts, scores[best], splits["test"], unreadable["test"], origin, told["test"]
    )
    output = Path(cfg.output)
    output.mkdir(parents=True, exist_ok=True)
    write_predictions(output / PREDICTIONS, predictions, parts.class_names)
    result.write(output / RESULTS)
    report = write_report(output, result, predictions, {}, thumbnails=cfg.report.thumbnails)
    lines = {**result.lines(), "report": str(report)}
    if chosen[best].head:
        lines["next"] = f"video-mvit predict {shlex.quote(str(folder))} VIDEO"
    return lines


def extract(
    parts: ProbingParts, name: str, known_by: Mapping[int, str]
) -> tuple[dict[int, str], Extracted]:
    """Extract what the cache lacks of a list; return its unreadable videos, and what was done."""
    cache, listed = parts.cache, parts.lists[name]
    wanted = {i: listed.manifest.path(i) for i in known_by if i not in listed.known_bad}
    missing = {path: known_by[i] for i, path in wanted.items() if known_by[i] not in cache}
    cache.check_room(len(missing))
    start_s = time.monotonic()
    if missing:
        size = len(missing) * cache.sizes.num_bytes / 1e6
        logger.info(
            "%s: features of %s videos, %d views each, %.1f MB in %s",
            *(name, f"{len(missing):,}", cache.sizes.num_views, size, cache.folder),
        )
    with ProgressDisplay(len(missing), f"{name} videos") as progress:
        found = extract_missing(
            cache, missing, parts.extractor, parts.pipeline, progress.count_video
        )
    for path, reason in found.items():
        logger.warning("cannot decode %s: %s; it is left out", path, reason)
    bad = dict(listed.known_bad) | {i: found[path] for i, path in wanted.items() if path in found}
    if name == "train":
        check_share(bad, listed.manifest, parts.config.data.max_unreadable_fraction)
    return bad, Extracted(
        num_read=len(missing) - len(found),
        num_known=len(wanted) - len(missing),
        time_s=time.monotonic() - start_s,
    )


def check_share(unreadable: Mapping[int, str], manifest: Manifest, most: float) -> None:
    """Raise `UserError` if more training videos are unreadable than tolerated."""
    if len(unreadable) > most * len(manifest):
        first = next(iter(unreadable))
        raise UserError(
            f"{len(unreadable)} of {len(manifest)} training videos are unreadable, more than "
            f"data.max_unreadable_fraction={most:g}; the first is {manifest.path(first)}: "
            f"{unreadable[first]}"
        )


def train_kind(selection: Selection, probes: Probes) -> Chosen:
    """Train the grid of a kind, choose its best place, and say so."""
    start_s = time.monotonic()
    chosen = selection.choose(probes)
    logger.info(
        "%s: %d probes in %.1f s, %s",
        probes.kind,
        len(chosen.trials),
        time.monotonic() - start_s,
        chosen.best.place,
    )
    return chosen
