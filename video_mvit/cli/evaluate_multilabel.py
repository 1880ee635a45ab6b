"""Evaluate a classifier of videos with any number of classes: `video-mvit evaluate` does it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from video_mvit.data.datamodule import VideoDataModule
from video_mvit.evaluation.multilabel_predictions import (
    MultiLabelVideo,
    write_multilabel_predictions,
)
from video_mvit.evaluation.multilabel_report import write_multilabel_report
from video_mvit.evaluation.multilabel_results import (
    MultiLabelResult,
    Results,
    check_multilabel_folder,
    read_multilabel_folder,
    read_multilabel_json,
    summarize_multilabel,
    summarize_multilabel_again,
)
from video_mvit.evaluation.output_folder import (
    PREDICTIONS,
    RESULTS,
    clear_folder,
    clear_partial_results,
)
from video_mvit.evaluation.predictions import MISSING
from video_mvit.training.keep_multilabel_predictions import KeepMultiLabelPredictions
from video_mvit.training.multilabel_record import record_multilabel

Evaluated = tuple[MultiLabelResult, list[MultiLabelVideo]]


def classify_multilabel(cfg: DictConfig, parts: EvaluationParts | None) -> dict[str, str]:
    """Evaluate a classifier, without parts again from its predictions; -> lines, on rank 0."""
    output = Path(cfg.output)
    if parts is None:
        result, predictions = read_multilabel_folder(output)
        result.write(output / RESULTS)
    else:
        result, predictions = evaluate_multilabel(parts)
    if not is_first_process():
        return {}
    curves = curves_of(cfg.run_dir, result.origin.checkpoint)
    report = write_multilabel_report(
        output, result, predictions, curves, thumbnails=cfg.report.thumbnails
    )
    if not cfg.reuse and is_of_run(cfg.run_dir, result.origin.checkpoint):
        step = last_step(cfg.run_dir)
        tell_loggers(cfg, lambda log: record_multilabel(log, result, step))
    return {**result.lines(), "report": str(report)}


def evaluate_multilabel(parts: EvaluationParts) -> Evaluated:
    """Evaluate the test list and, on rank 0, write metrics and predictions."""
    data, origin, output = parts.data, parts.origin, parts.output
    data.check_shares("test", parts.trainer.world_size)
    if not parts.overwrite:
        check_multilabel_folder(output, origin.identity)
    elif is_first_process():
        clear_folder(output)
    kept = KeepMultiLabelPredictions(output, origin.identity, data)
    found, unreadable, time_s = score_left(parts, kept)
    predictions = account_for_all(data, kept.resumed | found, unreadable)
    if kept.resumed and not found and (output / RESULTS).is_file():
        before = read_multilabel_json(output / RESULTS)
        result = summarize_multilabel_again(before, predictions)
    else:
        pipeline: Any = data.splits["test"].pipeline
        result = summarize_multilabel(
            predictions,
            origin,
            time_s=time_s,
            num_clips=len(found) * pipeline.sampler.num_clips * pipeline.crop.num_crops,
            num_resumed=len(kept.resumed),
        )
    if is_first_process():
        write_multilabel_predictions(output / PREDICTIONS, predictions, origin.class_names)
        result.write(output / RESULTS)
        clear_partial_results(output)
    return result, predictions


def account_for_all(
    data: VideoDataModule, found: Results, unreadable: Mapping[int, str]
) -> list[MultiLabelVideo]:
    """Return one result per listed video: present ones in order, then missing ones.

    Raises `UserError` if the trainer skipped some.
    """
    manifest, label_sets = data.manifests["test"], data.test_label_sets()
    refuse_skipped(len(manifest), found.keys() | unreadable.keys())
    present = [
        found.get(
            i, MultiLabelVideo(video=name, labels=label_sets[i], problem=unreadable.get(i, ""))
        )
        for i, name in enumerate(manifest.names)
    ]
    missing = [
        MultiLabelVideo(video=name, labels=None, problem=MISSING) for name in manifest.missing
    ]
    return present + missing
