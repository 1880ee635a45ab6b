"""Evaluate a classifier of videos with several classes: any number, or one in each head."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from video_mvit.class_heads import heads_of, within_heads
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
from video_mvit.data.datamodule import VideoDataModule
from video_mvit.evaluation.multihead_predictions import MultiHeadVideo, write_multihead_predictions
from video_mvit.evaluation.multihead_report import write_multihead_report
from video_mvit.evaluation.multihead_results import (
    check_multihead_folder,
    read_multihead_folder,
    read_multihead_json,
    summarize_multihead,
    summarize_multihead_again,
)
from video_mvit.evaluation.multilabel_predictions import (
    MultiLabelVideo,
    write_multilabel_predictions,
)
from video_mvit.evaluation.multilabel_report import write_multilabel_report
from video_mvit.evaluation.multilabel_results import (
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
from video_mvit.evaluation.view_scores import Task
from video_mvit.training.keep_multihead_predictions import KeepMultiHeadPredictions
from video_mvit.training.keep_multilabel_predictions import KeepMultiLabelPredictions
from video_mvit.training.keep_predictions import KeepPredictions
from video_mvit.training.multihead_record import record_multihead
from video_mvit.training.multilabel_record import record_multilabel


@dataclass(frozen=True, kw_only=True)
class LabelsEvaluation:
    """What an evaluation of one kind of labels consists of: functions of its rooms.

    Attributes:
        video: the result of a video, made of its name, labels, and why it was not evaluated.
        labels: of the listed test videos, as a result has them.
        read: result and predictions in a folder.
    """

    video: Callable[..., Any]
    labels: Callable[[VideoDataModule], Sequence[tuple[int, ...]]]
    keep: type[KeepPredictions]
    check: Callable[[Path, Mapping[str, Any]], None]
    read: Callable[[Path], tuple[Any, list[Any]]]
    read_json: Callable[[Path], dict[str, Any]]
    summarize: Callable[..., Any]
    summarize_again: Callable[[Mapping[str, Any], list[Any]], Any]
    write_predictions: Callable[[Path, list[Any], Sequence[str]], None]
    write_report: Callable[..., Path]
    record: Callable[..., None]


def labels_in_heads(data: VideoDataModule) -> list[tuple[int, ...]]:
    """Return the classes of the test videos, counted within each head."""
    heads = heads_of(data.class_names)
    return [within_heads(labels, heads) for labels in data.test_classes()]


EVALUATIONS: Mapping[Task, LabelsEvaluation] = {
    "multi_label": LabelsEvaluation(
        video=MultiLabelVideo,
        labels=VideoDataModule.test_classes,
        keep=KeepMultiLabelPredictions,
        check=check_multilabel_folder,
        read=read_multilabel_folder,
        read_json=read_multilabel_json,
        summarize=summarize_multilabel,
        summarize_again=summarize_multilabel_again,
        write_predictions=write_multilabel_predictions,
        write_report=write_multilabel_report,
        record=record_multilabel,
    ),
    "multi_head": LabelsEvaluation(
        video=MultiHeadVideo,
        labels=labels_in_heads,
        keep=KeepMultiHeadPredictions,
        check=check_multihead_folder,
        read=read_multihead_folder,
        read_json=read_multihead_json,
        summarize=summarize_multihead,
        summarize_again=summarize_multihead_again,
        write_predictions=write_multihead_predictions,
        write_report=write_multihead_report,
        record=record_multihead,
    ),
}


def classify_labels(cfg: DictConfig, parts: EvaluationParts | None) -> dict[str, str]:
    """Evaluate a classifier, without parts again from its predictions; -> lines, on rank 0."""
    output, of_task = Path(cfg.output), EVALUATIONS[task_of(cfg)]
    if parts is None:
        result, predictions = of_task.read(output)
        result.write(output / RESULTS)
    else:
        result, predictions = evaluate_labels(parts, of_task)
    if not is_first_process():
        return {}
    curves = curves_of(cfg.run_dir, result.origin.checkpoint)
    report = of_task.write_report(
        output, result, predictions, curves, thumbnails=cfg.report.thumbnails
    )
    if not cfg.reuse and is_of_run(cfg.run_dir, result.origin.checkpoint):
        step = last_step(cfg.run_dir)
        tell_loggers(cfg, lambda log: of_task.record(log, result, predictions, step))
    return {**result.lines(), "report": str(report)}


def evaluate_labels(parts: EvaluationParts, of_task: LabelsEvaluation) -> tuple[Any, list[Any]]:
    """Evaluate the test list and, on rank 0, write metrics and predictions; -> both."""
    data, origin, output = parts.data, parts.origin, parts.output
    data.check_shares("test", parts.trainer.world_size)
    if not parts.overwrite:
        of_task.check(output, origin.identity)
    elif is_first_process():
        clear_folder(output)
    kept = of_task.keep(output, origin.identity, data)
    found, unreadable, time_s = score_left(parts, kept)
    predictions = account_for_all(data, of_task, kept.resumed | found, unreadable)
    if kept.resumed and not found and (output / RESULTS).is_file():
        result = of_task.summarize_again(of_task.read_json(output / RESULTS), predictions)
    else:
        pipeline: Any = data.splits["test"].pipeline
        result = of_task.summarize(
            predictions,
            origin,
            time_s=time_s,
            num_clips=len(found) * pipeline.sampler.num_clips * pipeline.crop.num_crops,
            num_resumed=len(kept.resumed),
        )
    if is_first_process():
        of_task.write_predictions(output / PREDICTIONS, predictions, origin.class_names)
        result.write(output / RESULTS)
        clear_partial_results(output)
    return result, predictions


def account_for_all(
    data: VideoDataModule,
    of_task: LabelsEvaluation,
    found: Mapping[int, Any],
    unreadable: Mapping[int, str],
) -> list[Any]:
    """Return one result per listed video: present ones in order, then missing ones.

    Raises `UserError` if the trainer skipped some.
    """
    manifest, labels, video = data.manifests["test"], of_task.labels(data), of_task.video
    refuse_skipped(len(manifest), found.keys() | unreadable.keys())
    present = [
        found.get(i, video(video=name, labels=labels[i], problem=unreadable.get(i, "")))
        for i, name in enumerate(manifest.names)
    ]
    missing = [video(video=name, labels=None, problem=MISSING) for name in manifest.missing]
    return present + missing
