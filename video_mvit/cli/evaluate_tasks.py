"""Evaluate videos with several labels or heads, or with numbers: `video-mvit evaluate` does it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from video_mvit.cli.evaluate import (
    EvaluationParts,
    curves_of,
    is_of_run,
    last_step,
    refuse_skipped,
    score_left,
)
from video_mvit.cli.run_folder import is_first_process
from video_mvit.cli.run_loggers import tell_loggers
from video_mvit.cli.tasks import task_of
from video_mvit.data.lists.manifest import Manifest
from video_mvit.evaluation import multihead_results as heads
from video_mvit.evaluation import multilabel_results as several
from video_mvit.evaluation import regression_results as numbers
from video_mvit.evaluation.listed_results import facts_again
from video_mvit.evaluation.multihead_predictions import MultiHeadVideo, write_multihead_predictions
from video_mvit.evaluation.multihead_report import write_multihead_report
from video_mvit.evaluation.multilabel_predictions import (
    MultiLabelVideo,
    write_multilabel_predictions,
)
from video_mvit.evaluation.multilabel_report import write_multilabel_report
from video_mvit.evaluation.output_folder import (
    PREDICTIONS,
    RESULTS,
    clear_folder,
    clear_partial_results,
)
from video_mvit.evaluation.predictions import MISSING
from video_mvit.evaluation.regression_predictions import (
    RegressionVideo,
    write_regression_predictions,
)
from video_mvit.evaluation.regression_report import write_regression_report
from video_mvit.evaluation.view_scores import Task
from video_mvit.training.keep_multihead_predictions import KeepMultiHeadPredictions
from video_mvit.training.keep_multilabel_predictions import KeepMultiLabelPredictions
from video_mvit.training.keep_predictions import KeepPredictions
from video_mvit.training.keep_regression_predictions import KeepRegressionPredictions
from video_mvit.training.multihead_record import record_multihead
from video_mvit.training.multilabel_record import record_multilabel
from video_mvit.training.regression_record import record_regression


@dataclass(frozen=True, kw_only=True)
class EvaluationKind:
    """What differs between the evaluations of tasks; see the functions for their arguments.

    Attributes:
        listed: a video of the list without a result: its name, what the list says of it (None of a
            missing one), and its problem.
        facts: what the summary needs of the evaluation beside the predictions.
    """

    keep: type[KeepPredictions]
    check_folder: Callable[[Path, Mapping[str, Any]], None]
    read_folder: Callable[[Path], tuple[Any, list[Any]]]
    read_json: Callable[[Path], dict[str, Any]]
    summarize: Callable[..., Any]
    write_predictions: Callable[..., None]
    write_report: Callable[..., Path]
    record: Callable[..., None]
    listed: Callable[[str, Any, str], Any]
    facts: Callable[[EvaluationParts], dict[str, Any]] = lambda _: {}


KINDS: Mapping[Task, EvaluationKind] = {
    "multi_label": EvaluationKind(
        keep=KeepMultiLabelPredictions,
        check_folder=several.check_multilabel_folder,
        read_folder=several.read_multilabel_folder,
        read_json=several.read_multilabel_json,
        summarize=several.summarize_multilabel,
        write_predictions=write_multilabel_predictions,
        write_report=write_multilabel_report,
        record=record_multilabel,
        listed=lambda video, target, problem: MultiLabelVideo(
            video=video,
            labels=None if target is None else tuple(np.flatnonzero(target).tolist()),
            problem=problem,
        ),
    ),
    "multi_head": EvaluationKind(
        keep=KeepMultiHeadPredictions,
        check_folder=heads.check_multihead_folder,
        read_folder=heads.read_multihead_folder,
        read_json=heads.read_multihead_json,
        summarize=heads.summarize_multihead,
        write_predictions=write_multihead_predictions,
        write_report=write_multihead_report,
        record=record_multihead,
        listed=lambda video, target, problem: MultiHeadVideo(
            video=video,
            labels=None if target is None else tuple(target.tolist()),
            problem=problem,
        ),
    ),
    "regression": EvaluationKind(
        keep=KeepRegressionPredictions,
        check_folder=numbers.check_regression_folder,
        read_folder=numbers.read_regression_folder,
        read_json=numbers.read_regression_json,
        summarize=numbers.summarize_regression,
        write_predictions=write_regression_predictions,
        write_report=write_regression_report,
        record=record_regression,
        listed=lambda video, target, problem: RegressionVideo(
            video=video,
            truth=None if target is None else tuple(target.tolist()),
            problem=problem,
        ),
        facts=lambda parts: {"target_mean": parts.classifier.scoring.target_mean},
    ),
}


def classify_task(cfg: DictConfig, parts: EvaluationParts | None) -> dict[str, str]:
    """Evaluate a network, without parts again from its predictions; -> lines, on rank 0."""
    output, kind = Path(cfg.output), KINDS[task_of(cfg)]
    if parts is None:
        result, predictions = kind.read_folder(output)
        result.write(output / RESULTS)
    else:
        result, predictions = evaluate_task(parts, kind)
    if not is_first_process():
        return {}
    curves = curves_of(cfg.run_dir, result.origin.checkpoint)
    report = kind.write_report(
        output, result, predictions, curves, thumbnails=cfg.report.thumbnails
    )
    if not cfg.reuse and is_of_run(cfg.run_dir, result.origin.checkpoint):
        step = last_step(cfg.run_dir)
        tell_loggers(cfg, lambda log: kind.record(log, result, predictions, step))
    return {**result.lines(), "report": str(report)}


def evaluate_task(parts: EvaluationParts, kind: EvaluationKind) -> tuple[Any, list[Any]]:
    """Evaluate the test list and, on rank 0, write metrics and predictions."""
    data, origin, output = parts.data, parts.origin, parts.output
    data.check_shares("test", parts.trainer.world_size)
    if not parts.overwrite:
        kind.check_folder(output, origin.identity)
    elif is_first_process():
        clear_folder(output)
    kept = kind.keep(output, origin.identity, data)
    found, unreadable, time_s = score_left(parts, kept)
    predictions = account_for_all(data.manifests["test"], kept.resumed | found, unreadable, kind)
    if kept.resumed and not found and (output / RESULTS).is_file():
        facts = facts_again(kind.read_json(output / RESULTS))
    else:
        pipeline: Any = data.splits["test"].pipeline
        facts = {
            "origin": origin,
            "time_s": time_s,
            "num_clips": len(found) * pipeline.sampler.num_clips * pipeline.crop.num_crops,
            "num_resumed": len(kept.resumed),
        }
    result = kind.summarize(predictions, **facts, **kind.facts(parts))
    if is_first_process():
        kind.write_predictions(output / PREDICTIONS, predictions, origin.class_names)
        result.write(output / RESULTS)
        clear_partial_results(output)
    return result, predictions


def account_for_all(
    manifest: Manifest,
    found: Mapping[int, Any],
    unreadable: Mapping[int, str],
    kind: EvaluationKind,
) -> list[Any]:
    """Return one result per listed video: present ones in order, then missing ones.

    Raises `UserError` if the trainer skipped some.
    """
    refuse_skipped(len(manifest), found.keys() | unreadable.keys())
    present = [
        found[i] if i in found else kind.listed(name, manifest.target(i), unreadable.get(i, ""))
        for i, name in enumerate(manifest.names)
    ]
    return present + [kind.listed(name, None, MISSING) for name in manifest.missing]
