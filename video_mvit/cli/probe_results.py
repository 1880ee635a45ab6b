"""What a probing leaves: the best probe as a checkpoint, its results, and a table of all."""

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from video_mvit.cli.build_probe import ProbingParts, precision_of
from video_mvit.cli.evaluate import account_for_all, versions
from video_mvit.cli.run_folder import CHECKPOINTS
from video_mvit.cli.run_words import OVERRIDES, key_of
from video_mvit.cli.tables import table_of, wide_console
from video_mvit.cli.words import words_for_settings
from video_mvit.evaluation.predictions import VideoResult, best_classes
from video_mvit.evaluation.results import (
    Origin,
    Result,
    describe_normalization,
    describe_protocol,
    summarize,
)
from video_mvit.files import replace_atomically
from video_mvit.probing.checkpoint import with_head, write_probe
from video_mvit.probing.extraction import SplitFeatures
from video_mvit.probing.selection import Chosen
from video_mvit.text import percent
from video_mvit.weights.checkpoint_files import weights_sha1

TRIALS = "probes.csv"  # in the run folder: what each place of each grid reached
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """How many videos of a list were read now, in which time, and how many were known."""

    num_read: int
    num_known: int
    time_s: float


def best_kind(chosen: Sequence[Chosen]) -> int:
    """Return which of the kinds is written: the best on validation that a checkpoint can hold."""
    order = sorted(range(len(chosen)), key=lambda i: -chosen[i].best.top1)
    can = [i for i in order if chosen[i].head]
    best = can[0] if can else order[0]
    if order[0] != best:
        logger.info(
            "%s are better on validation, %s against %s, but no checkpoint can hold them",
            chosen[order[0]].kind,
            percent(chosen[order[0]].best.top1),
            percent(chosen[best].best.top1),
        )
    return best


def write_best(parts: ProbingParts, chosen: Chosen, folder: Path) -> Origin:
    """Write the chosen probe as a checkpoint, if it can be one; return what its results are of."""
    path, digest = parts.checkpoint, weights_sha1(parts.model.state_dict())
    if head := chosen.head:
        model = with_head(parts.model.cpu(), *head, len(parts.class_names))
        path, digest = folder / CHECKPOINTS / "best.ckpt", weights_sha1(model.state_dict())
        path.parent.mkdir(exist_ok=True)
        write_probe(path, model, parts.spec, parts.class_names)
        write_words(folder, parts)
    else:
        logger.info("%s have no checkpoint: they are the training videos", chosen.kind)
    cfg, manifest = parts.config, parts.lists["test"].manifest
    return Origin(
        protocol=describe_protocol(parts.pipeline.sampler, parts.pipeline.crop),
        normalization=describe_normalization(parts.spec.mean, parts.spec.std),
        motion=(),
        precision=precision_of(cfg),
        list_sha1=manifest.digest(),
        weights_sha1=digest,
        checkpoint=str(path),
        weights=f"{chosen.kind} probe, {chosen.best.place}",
        list_root=manifest.root,
        class_names=parts.class_names,
        versions=versions("gpu" if parts.extractor.device.type == "cuda" else "cpu"),
    )


def write_words(folder: Path, parts: ProbingParts) -> None:
    """Write the words with which `video-mvit evaluate RUN_FOLDER` evaluates the same videos."""
    crop, sampler = parts.pipeline.crop, parts.pipeline.sampler
    views = {
        "num_clips": sampler.num_clips,  # type: ignore[attr-defined]
        "num_crops": crop.num_crops,  # type: ignore[attr-defined]
        "short_side": parts.spec.short_side,
        "interpolation": parts.spec.interpolation,
    }
    given = [word for word in words_for_settings() if key_of(word).startswith("data.")]
    given = [word for word in given if key_of(word).removeprefix("data.") not in views]
    words = [f"data={HydraConfig.get().runtime.choices['data']}", "auto_settings=true", *given]
    words += [f"data.{name}={value}" for name, value in views.items()]
    path = folder / OVERRIDES
    path.parent.mkdir(exist_ok=True)
    with replace_atomically(path) as temporary:
        temporary.write_text(OmegaConf.to_yaml(OmegaConf.create(words)), encoding="utf-8")


def summarize_scores(
    parts: ProbingParts,
    scores: torch.Tensor,
    test: SplitFeatures,
    unreadable: Mapping[int, str],
    origin: Origin,
    told: Extracted,
) -> tuple[Result, list[VideoResult]]:
    """Return the result of an evaluation with these scores, (B, K), and all predictions."""
    manifest = parts.lists["test"].manifest
    found = {}
    for row, i, label in zip(scores, test.indices.tolist(), test.labels.tolist(), strict=True):
        classes, values = best_classes(row)
        found[i] = VideoResult(video=manifest.names[i], label=label, classes=classes, scores=values)
    predictions = account_for_all(manifest, found, unreadable)
    result = summarize(
        predictions,
        origin,
        time_s=told.time_s,
        num_clips=told.num_read * parts.cache.sizes.num_views,
        num_resumed=told.num_known,
    )
    return result, predictions


def print_table(
    chosen: Sequence[Chosen],
    scores: Sequence[torch.Tensor],
    test: SplitFeatures,
    num_folds: int | None,
) -> None:
    """Print what each kind reached: on the videos that decided, and on those that are told."""
    table = table_of("probe", "chosen", f"{num_folds} folds" if num_folds else "val", "test")
    for each, of_test in zip(chosen, scores, strict=True):
        top1 = float((of_test.argmax(dim=1) == test.labels).double().mean())
        table.add_row(each.kind, str(each.best.place), percent(each.best.top1), percent(top1))
    wide_console().print(table)


def write_trials(path: Path, chosen: Sequence[Chosen]) -> None:
    """Write what each place of each grid reached on the videos that decided."""
    with replace_atomically(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["probe", "place", "top1", "loss", "chosen"])
        for each in chosen:
            for trial in each.trials:
                is_best = int(trial is each.best)
                row = [str(trial.place), f"{trial.top1:.6f}", f"{trial.loss:.6f}", is_best]
                writer.writerow([each.kind, *row])
