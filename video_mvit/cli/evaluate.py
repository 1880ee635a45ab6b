"""Evaluate a checkpoint: several views of each video averaged, or COCO AP of a detector.

video-mvit evaluate experiment=k400_mvitv2_s_16x4 data.root=/path/to/kinetics400
"""

import copy
import csv
import logging
import platform
import shlex
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch import nn

import video_mvit
from video_mvit.cli.auto_hardware import resolve_hardware
from video_mvit.cli.auto_settings import use_settings_of
from video_mvit.cli.build import (
    build,
    build_trainer,
    classifier_arguments,
    is_detection,
    quiet_libraries,
)
from video_mvit.cli.engines import choose_precision, open_on_clips
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.failed_starts import leaving_nothing
from video_mvit.cli.given_objects import TAKE
from video_mvit.cli.num_classes import fill_num_classes
from video_mvit.cli.option_values import check_verb
from video_mvit.cli.own_networks import CREATE_MODEL, check_size
from video_mvit.cli.run_folder import (
    find_checkpoint,
    is_first_process,
    open_folder,
    remove_unfinished,
    writing_alone,
)
from video_mvit.cli.run_log import problems_of_logs, refuse_incomplete
from video_mvit.cli.run_loggers import tell_loggers
from video_mvit.cli.run_place import trained_folder
from video_mvit.cli.runs import checkpoints_of
from video_mvit.cli.tasks import (
    check_card,
    parts_of_task,
    protocol_suffix,
    resolve_task,
    scale_in_card,
    task_of,
)
from video_mvit.cli.terminal import Terminal
from video_mvit.cli.trained_network import advising_settings, check_network
from video_mvit.data.datamodule import VideoDataModule
from video_mvit.data.lists.manifest import Manifest
from video_mvit.errors import UserError
from video_mvit.evaluation.learning_curves import Point
from video_mvit.evaluation.motion_tests import MOTION_TESTS
from video_mvit.evaluation.output_folder import (
    PREDICTIONS,
    REPORT,
    RESULTS,
    VideoResults,
    check_folder,
    clear_folder,
    clear_partial_results,
    read_folder,
)
from video_mvit.evaluation.predictions import (
    MISSING,
    VideoResult,
    write_predictions,
)
from video_mvit.evaluation.report_files import write_report
from video_mvit.evaluation.results import (
    Origin,
    Result,
    describe_normalization,
    describe_protocol,
    read_result,
    summarize,
    summarize_again,
)
from video_mvit.training.classifier import VideoClassifier
from video_mvit.training.curves import read_rows, series
from video_mvit.training.distributed import merge_over_ranks
from video_mvit.training.evaluation_record import record_evaluation
from video_mvit.training.keep_predictions import KeepPredictions
from video_mvit.weights.checkpoint_files import weights_sha1
from video_mvit.weights.engines import EngineNetwork, check_engine
from video_mvit.weights.initialize import FromWeights, initialize_from
from video_mvit.weights.model_card import ModelCard
from video_mvit.weights.openvino_graphs import Precision

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvaluationParts:
    """What an evaluation works with, and where it writes."""

    classifier: VideoClassifier
    data: VideoDataModule
    trainer: pl.Trainer
    origin: Origin
    output: Path
    overwrite: bool


def main(cfg: DictConfig) -> None:
    """Evaluate, write all results, and print a summary."""
    quiet_libraries()
    with exit_on_user_error():
        _, lines = evaluate_as_configured(cfg)
    console = Terminal(markup=False)
    for name, text in lines.items():
        console.print(f"  {name:<22} {text}")


def evaluate_as_configured(cfg: DictConfig) -> tuple[Path, dict[str, str]]:
    """Evaluate, and write all results; return their folder and, on rank 0, the summary's lines."""
    check_verb(cfg, "evaluate")
    cfg = copy.deepcopy(cfg)
    cfg.run_dir = str(trained_folder(cfg))
    with writing_alone(Path(cfg.output), "output"):
        with leaving_nothing(Path(cfg.output)):
            open_folder(cfg.output, "evaluate")
            settings = None if cfg.reuse else resolve(cfg)
            parts = build_evaluation(settings) if settings and not is_detection(cfg) else None
        lines = detect(cfg, settings) if is_detection(cfg) else classify(cfg, parts)
    refuse_incomplete(problems_of_logs())
    if lines and checkpoints_of(Path(cfg.run_dir)):
        what = "image=PICTURE" if is_detection(cfg) else "VIDEO"
        lines["next"] = f"video-mvit predict {shlex.quote(cfg.run_dir)} {what}"
    return Path(cfg.output), lines


def classify(cfg: DictConfig, parts: EvaluationParts | None) -> dict[str, str]:
    """Evaluate a classifier, without parts again from its predictions; -> lines, on rank 0."""
    output = Path(cfg.output)
    remove_unfinished(output, (RESULTS, PREDICTIONS, REPORT))
    if task_of(cfg) != "single_label":
        from video_mvit.cli.evaluate_tasks import classify_task  # which imports this

        return classify_task(cfg, parts)
    result, predictions = evaluate(parts) if parts else recompute_metrics(output)
    if not is_first_process():
        return {}
    curves = curves_of(cfg.run_dir, result.origin.checkpoint)
    report = write_report(output, result, predictions, curves, thumbnails=cfg.report.thumbnails)
    if not cfg.reuse and is_of_run(cfg.run_dir, result.origin.checkpoint):
        step = last_step(cfg.run_dir)
        tell_loggers(cfg, lambda log: record_evaluation(log, result, predictions, step))
    return {**result.lines(), "report": str(report)}


def detect(cfg: DictConfig, settings: DictConfig | None) -> dict[str, str]:
    """Evaluate a detector; return the lines of the summary, on rank 0."""
    from video_mvit.cli.evaluate_detection import evaluate_detector  # needs an extra
    from video_mvit.detection.detection_record import record_detections

    evaluated = evaluate_detector(settings or resolve(cfg))
    if evaluated is None:
        return {}
    result, report = evaluated
    if is_of_run(cfg.run_dir, result.origin.checkpoint):
        step = last_step(cfg.run_dir)
        tell_loggers(cfg, lambda log: record_detections(log, result, step))
    return {**result.lines(), "report": str(report)}


def is_of_run(run_dir: str, checkpoint: str) -> bool:
    """Return whether a checkpoint is one of the run in a folder."""
    return Path(checkpoint).resolve().parent == Path(run_dir, "checkpoints").resolve()


def last_step(run_dir: str) -> int:
    """Return the step that the loggers of a run have come to; 0 where that is not known."""
    try:
        return max((row.step for row in read_rows(Path(run_dir, "metrics"))), default=0)
    except (ValueError, OSError, csv.Error):
        return 0


def curves_of(run_dir: str, checkpoint: str) -> dict[str, list[Point]]:
    """Return the training curves of `run_dir`, if the checkpoint belongs to that run."""
    if not is_of_run(run_dir, checkpoint):
        return {}
    try:
        return series(read_rows(Path(run_dir, "metrics")))
    except (ValueError, OSError, csv.Error) as error:
        logger.warning("the report has no training curves: %s", error)
        return {}


def resolve(cfg: DictConfig) -> DictConfig:
    """Return the configuration with everything decided that it leaves open."""
    config = copy.deepcopy(cfg)
    resolve_engine(config)
    resolve_hardware(config)
    if config.auto_settings and not is_detection(config):
        use_settings_of(config, config.checkpoint)
    if not is_detection(config):
        resolve_task(config)
        fill_num_classes(config, config.checkpoint)
    return config


def resolve_engine(cfg: DictConfig) -> None:
    """Replace auto by what the engine needs or has on a CPU; a GPU is left to `resolve_hardware`.

    Raises `UserError` if an engine other than PyTorch's is asked for something it does not do.
    """
    trainer = cfg.trainer
    if cfg.engine != "torch":
        if is_detection(cfg) or cfg.compile:
            what = "a detector" if is_detection(cfg) else "compile"
            raise UserError(f"engine={cfg.engine} does not work with {what}; use engine=torch")
        if trainer.accelerator not in ("auto", "cpu"):
            raise UserError(f"engine={cfg.engine} runs on a CPU; use trainer=cpu, or engine=torch")
        trainer.accelerator = "cpu"
    on_cpu = trainer.accelerator == "cpu" or not torch.cuda.is_available()
    has_bf16 = on_cpu and choose_precision(cfg.engine, "cpu") == "bf16"
    if trainer.precision == "auto" and has_bf16 and not is_detection(cfg):
        trainer.precision = "bf16-mixed"
        logger.info("precision bf16-mixed (trainer.precision=32-true computes in float32)")
    if cfg.engine != "torch" or cfg.precision:
        check_engine(cfg.engine, engine_precision(cfg))


def engine_precision(cfg: DictConfig) -> Precision:
    """Return an engine's precision: int8, or that of the trainer, whose auto is float32 by now."""
    if cfg.precision == "int8":
        return "int8"
    precision = cfg.trainer.precision
    names: dict[str, Precision] = {"32": "float32", "32-true": "float32", "auto": "float32"}
    names |= {"bf16-mixed": "bf16", "bf16": "bf16"}
    if str(precision) not in names:
        raise UserError(f"trainer.precision is {precision!r}; engines have 32-true and bf16-mixed")
    return names[str(precision)]


def build_evaluation(settings: DictConfig) -> EvaluationParts:
    """Build an evaluation from its settings: load the weights, read the list."""
    cfg = copy.deepcopy(settings)  # building fills in references
    cfg.augment = {}  # of training only
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    path = find_checkpoint(cfg.checkpoint, cfg.run_dir)
    if cfg.model.get("_target_") == CREATE_MODEL:
        check_network(cfg.model, path, cfg.weights, cfg.base)
    elif cfg.model.get("_target_") != TAKE:
        check_size(cfg.model, path.stat().st_size, path)  # a number has a byte or more
    arguments, data = classifier_arguments(cfg), build(cfg.data.module)
    # An engine computes in a precision of its own; the trainer has only its outputs.
    own = {} if cfg.engine == "torch" else {"precision": "32-true"}
    trainer = build_trainer(cfg, logger=False, **own)
    origin, card = load_weights(cfg, arguments["model"], data)
    if cfg.engine != "torch":
        arguments |= by_engine(cfg, arguments)
    classifier = parts_of_task(cfg).classifier(
        **arguments,
        **scale_in_card(card),
        class_names=origin.class_names,
        clips_per_pass=cfg.clips_per_pass,
        motion_tests={name: MOTION_TESTS[name] for name in origin.motion},
    )
    return EvaluationParts(
        classifier=classifier,
        data=data,
        trainer=trainer,
        origin=origin,
        output=Path(cfg.output),
        overwrite=cfg.overwrite,
    )


def by_engine(cfg: DictConfig, arguments: Mapping[str, Any]) -> dict[str, nn.Module]:
    """Return the arguments of a classifier whose pixels go through another engine."""
    network = nn.Sequential(arguments["preprocess"], arguments["model"]).eval()
    thw = (cfg.clip.num_frames, cfg.clip.crop_size, cfg.clip.crop_size)
    precision = engine_precision(cfg)
    run = open_on_clips(network, thw, cfg.engine, precision, logger.info)
    return {"preprocess": nn.Identity(), "model": EngineNetwork(run)}


def evaluate(parts: EvaluationParts) -> tuple[Result, list[VideoResult]]:
    """Evaluate the test list and, on rank 0, write metrics and predictions."""
    data, origin, output = parts.data, parts.origin, parts.output
    data.check_shares("test", parts.trainer.world_size)
    if not parts.overwrite:
        check_folder(output, origin.identity)
    elif is_first_process():
        clear_folder(output)
    kept = KeepPredictions(output, origin.identity, data)
    found, unreadable, time_s = score_left(parts, kept)
    predictions = account_for_all(data.manifests["test"], kept.resumed | found, unreadable)
    if kept.resumed and not found and (output / RESULTS).is_file():
        result = summarize_again(read_result(output / RESULTS), predictions)
    else:
        pipeline: Any = data.splits["test"].pipeline
        num_clips = pipeline.sampler.num_clips * pipeline.crop.num_crops * (1 + len(origin.motion))
        result = summarize(
            predictions,
            origin,
            time_s=time_s,
            num_clips=len(found) * num_clips,
            num_resumed=len(kept.resumed),
        )
    if is_first_process():
        write_predictions(output / PREDICTIONS, predictions, origin.class_names)
        result.write(output / RESULTS)
        clear_partial_results(output)
    return result, predictions


def score_left(
    parts: EvaluationParts, kept: KeepPredictions
) -> tuple[dict[int, Any], dict[int, str], float]:
    """Score the videos that an earlier run has not, and merge the ranks.

    Returns the results, and why videos cannot be read, by their index in the list; and the seconds.
    """
    parts.trainer.callbacks.append(kept)  # type: ignore[attr-defined]
    start = time.perf_counter()
    parts.trainer.test(parts.classifier, datamodule=parts.data, verbose=False)
    time_s = time.perf_counter() - start
    unreadable = merge_over_ranks(parts.data.unreadable["test"])
    return merge_over_ranks(kept.new), unreadable, time_s


def load_weights(
    cfg: DictConfig, model: nn.Module, data: VideoDataModule
) -> tuple[Origin, ModelCard | None]:
    """Load the weights, and read the list in their class order; -> its origin, and their card."""
    engine = "" if cfg.engine == "torch" else f", {cfg.engine}"
    path = find_checkpoint(cfg.checkpoint, cfg.run_dir)
    init = FromWeights(source=str(path), weights=cfg.weights, base=cfg.base)
    with advising_settings():
        source, _ = initialize_from(init, model)
    check_card(cfg, source.card, str(path))
    data.class_names = source.class_names or ()  # determines the order of labels in the lists
    data.setup("test")
    pipeline, manifest = data.splits["test"].pipeline, data.manifests["test"]
    origin = Origin(
        protocol=describe_protocol(pipeline.sampler, pipeline.crop) + protocol_suffix(cfg),
        normalization=describe_normalization(cfg.data.normalize.mean, cfg.data.normalize.std),
        motion=tuple(name for name in MOTION_TESTS if name in cfg.motion),
        precision=f"{cfg.precision or cfg.trainer.precision}{engine}",
        list_sha1=manifest.digest(),
        weights_sha1=weights_sha1(model.state_dict()),
        checkpoint=str(path),
        weights=source.container,
        list_root=manifest.root,
        class_names=data.class_names,
        versions=versions(cfg.trainer.accelerator),
    )
    return origin, source.card


def account_for_all(
    manifest: Manifest, found: VideoResults, unreadable: Mapping[int, str]
) -> list[VideoResult]:
    """Return one result per listed video: present ones in order, then missing ones.

    Raises `UserError` if the trainer skipped some.
    """
    refuse_skipped(len(manifest), found.keys() | unreadable.keys())
    present = []
    for i, name in enumerate(manifest.names):
        problem = VideoResult(
            video=name, label=int(manifest.labels[i]), problem=unreadable.get(i, "")
        )
        present.append(found.get(i, problem))
    missing = [VideoResult(video=name, label=None, problem=MISSING) for name in manifest.missing]
    return present + missing


def refuse_skipped(num_listed: int, done: Set[int]) -> None:
    """Raise `UserError` where some of the listed videos were not evaluated."""
    if num_left := num_listed - len(done):
        raise UserError(
            f"{num_left:,} of {num_listed:,} videos were not evaluated; remove "
            "trainer.limit_test_batches (data.module.test.num_videos limits the videos)"
        )


def versions(accelerator: str) -> dict[str, str]:
    """Return the versions of the libraries, and the device."""
    on_gpu = accelerator in ("gpu", "cuda") and torch.cuda.is_available()
    return {
        "video_mvit": video_mvit.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if on_gpu else f"{platform.machine()} CPU",
    }


def recompute_metrics(output: Path) -> tuple[Result, list[VideoResult]]:
    """Recompute the metrics from the predictions in the output folder, without a model."""
    before, predictions = read_folder(output)
    result = summarize_again(before, predictions)
    result.write(output / RESULTS)
    return result, predictions
