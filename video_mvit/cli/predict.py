"""Classify videos, or find objects in pictures and videos: files, folders, patterns.

video-mvit predict runs/finetune clip.mp4
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple, Never, TextIO

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from video_mvit.cli.engines import engine_device, resolve_precision, run_of
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.option_values import check_verb
from video_mvit.cli.own_networks import load_network
from video_mvit.cli.progress_display import ProgressDisplay
from video_mvit.cli.run_folder import find_checkpoint
from video_mvit.cli.run_place import at_newest
from video_mvit.cli.run_summary import in_words
from video_mvit.cli.terminal import Terminal
from video_mvit.cli.weight_files import is_detector_file
from video_mvit.data.reading.open import VideoDecodeError
from video_mvit.errors import MissingFileError, UserError, install_command
from video_mvit.evaluation.multilabel_results import read_thresholds
from video_mvit.files import naming
from video_mvit.models.mvit import MViT
from video_mvit.prediction.annotate import annotate
from video_mvit.prediction.attention_rollout import check_explainable
from video_mvit.prediction.input_spec import OVERRIDES, InputSpec, input_spec_of
from video_mvit.prediction.inputs import find_pictures, find_videos, output_paths
from video_mvit.prediction.predictor import Options, Prediction, predict_videos
from video_mvit.prediction.scorer import FromPixels, Scorer
from video_mvit.prediction.sources import fetched
from video_mvit.prediction.timeline_chart import draw_strip_chart
from video_mvit.prediction.writers import open_writer
from video_mvit.text import printable
from video_mvit.weights.class_names import read_class_names
from video_mvit.weights.convert import published_normalization

EXPLANATIONS = "explanations"  # the folder of explain=true
# Suffixes of the files per video and option; `output_paths` returns those of the first.
SIDE_OUTPUTS = {"annotate": (".mp4",), "timeline_picture": (".png",), "explain": (".html", ".png")}
EXIT_INTERRUPTED, EXIT_PIPE_CLOSED = 130, 141  # exit codes, as shells give them


class PredictSummary(NamedTuple):
    """Counts of written and unreadable videos, and whether the command was interrupted."""

    num_written: int
    num_unreadable: int
    is_interrupted: bool


def check_options(cfg: DictConfig) -> None:
    """Raise `UserError` for an invalid option, before anything is loaded."""
    check_verb(cfg, "predict")
    check_device(cfg)
    resolve_precision(cfg)
    if cfg.output and Path(cfg.output).exists() and not cfg.overwrite:
        raise UserError(f"{cfg.output} exists; overwrite=true replaces it")
    options_of(cfg)


def check_device(cfg: DictConfig) -> None:
    """Raise `UserError` if the device is not there."""
    if cfg.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but no GPU was found; add device=cpu")


def options_of(cfg: DictConfig) -> Options:
    """Return the options of the prediction."""
    wants_all = cfg.timeline == "auto" and cfg.timeline_picture
    return Options(
        num_clips=cfg.num_clips,
        num_crops=cfg.num_crops,
        timeline=True if wants_all else cfg.timeline,
        step_s=cfg.step_s,
        min_score=cfg.min_score,
        thresholds=read_thresholds(Path(cfg.thresholds)) if cfg.thresholds else None,
    )


def load_scorer(cfg: DictConfig) -> Scorer:
    """Load the model onto its device, and prepare what runs it."""
    model, spec = load_with_spec(cfg)
    options_of(cfg).check(spec)
    if cfg.explain:
        if spec.scoring.task == "regression":
            raise UserError(
                "explain shows what speaks for a class, and this model predicts numbers"
            )
        check_explainable(model)
    return Scorer(model, spec, run_of(cfg, FromPixels(spec, model), spec.thw, print_stderr))


def load_with_spec(cfg: DictConfig) -> tuple[nn.Module, InputSpec]:
    """Load the model onto its device, and print the settings that had to be assumed."""
    path = find_checkpoint(cfg.checkpoint, cfg.run_dir)
    model = load_network(cfg, path)
    overrides: Any = OmegaConf.to_container(
        OmegaConf.masked_copy(cfg, list(OVERRIDES)), resolve=True
    )
    if cfg.get("class_names"):  # features have none
        overrides["class_names"] = read_class_names(cfg.class_names)
    architecture = asdict(model.config) if isinstance(model, MViT) else {}
    spec = input_spec_of(model, published_normalization(architecture), overrides)
    if spec.assumed:
        print_stderr(f"{path} is incomplete; assumed: {spec.describe_assumed()}")
    return model.to(engine_device(cfg)), spec


def predict_all(cfg: DictConfig, scorer: Scorer, videos: Sequence[str]) -> PredictSummary:
    """Predict and write one video after another; Ctrl-C stops between two of them."""
    num_written = num_unreadable = 0
    copies = plan_side_outputs(cfg, videos, scorer)
    with (
        fetched(videos) as files,
        opened_output(cfg.output) as file,
        ProgressDisplay(len(videos)) as progress,
    ):
        is_of_numbers = scorer.spec.scoring.task == "regression"
        targets = scorer.spec.class_names if is_of_numbers else ()
        writer = open_writer(cfg.format, file, cfg.top, targets)
        paths = [each.path for each in files]
        try:
            predictions = predict_videos(scorer, paths, options_of(cfg), progress.show_windows)
            for prediction, (_, name) in zip(predictions, files, strict=True):
                with progress.hidden(), uninterrupted():
                    writer.write(replace(prediction, video=name))
                    num_written += 1
                is_copied = copies.make(prediction, name)
                num_unreadable += prediction.is_incomplete or not is_copied
                progress.count_video()
        except KeyboardInterrupt:
            return PredictSummary(num_written, num_unreadable, is_interrupted=True)
    return PredictSummary(num_written, num_unreadable, is_interrupted=False)


class SideOutputs(NamedTuple):
    """Paths of the files made of each video, by video; empty if not requested."""

    scorer: Scorer
    annotated: Mapping[str, Path]
    charts: Mapping[str, Path]
    explanations: Mapping[str, Path]

    def make(self, prediction: Prediction, name: str) -> bool:
        """Write the files of one video; print the reason and return False where that fails.

        `name` is what the video was given as; the prediction has the path of the file.
        """
        if prediction.problem:
            return True
        try:
            if place := self.annotated.get(name):
                annotate(prediction, place)
            if place := self.charts.get(name):
                draw_strip_chart(prediction, place)
            if place := self.explanations.get(name):
                self._explain(prediction, place)
        except (VideoDecodeError, UserError) as error:
            print_stderr(str(error))
            return False
        return True

    def _explain(self, prediction: Prediction, place: Path) -> None:
        """Explain the top class of a video on its central clip."""
        from video_mvit.prediction.explain import explain_video, write_explanation

        best = int(prediction.scores.argmax())
        explanation = explain_video(self.scorer.model, prediction.video, best, self.scorer.spec)
        explanation = replace(explanation, video_score=float(prediction.scores[best]))
        write_explanation(explanation, place.parent, place.stem)


def plan_side_outputs(cfg: DictConfig, videos: Sequence[str], scorer: Scorer) -> SideOutputs:
    """Plan the paths of all side outputs of a classifier."""
    return SideOutputs(scorer, *plan_paths(cfg, videos, SIDE_OUTPUTS))


def plan_paths(
    cfg: DictConfig, videos: Sequence[str], options: Mapping[str, tuple[str, ...]]
) -> list[dict[str, Path]]:
    """Plan the paths of each option, by video; nothing is overwritten unless requested.

    Args:
        options: name -> suffixes of the files per video; the paths are those of the first.
    """
    # Paths that must not be overwritten: videos, checkpoint, output.
    found = []
    taken = {Path(name).resolve() for name in (*videos, cfg.checkpoint)}
    if cfg.output:
        if Path(cfg.output).resolve() in taken:
            raise UserError(f"output would overwrite {cfg.output}; choose another path")
        taken.add(Path(cfg.output).resolve())
    # Paths of each option, all different from those before.
    for option, (suffix, *beside) in options.items():
        target = EXPLANATIONS if cfg[option] is True else cfg[option]
        places = output_paths(option, Path(target), suffix, videos) if target else {}
        others = [place.with_suffix(other) for place in places.values() for other in beside]
        for path in (*places.values(), *others):
            if path.resolve() in taken:
                raise UserError(f"{option} would overwrite {path}; choose another path")
            if path.exists() and not cfg.overwrite:
                raise UserError(f"{path} exists; overwrite=true replaces it")
            taken.add(path.resolve())
        for folder in {place.parent for place in places.values()}:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                reason = f"{option} is {target}, but {folder} cannot be a folder"
                raise UserError(f"{reason}: {error.strerror}") from None
        found.append(places)
    return found


def print_stderr(text: str) -> None:
    """Print a message for the user; stdout is for results only."""
    Terminal(stderr=True).print(printable(text), markup=False)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Defer Ctrl-C to the end of the block, so that no result is written in part."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


@contextlib.contextmanager
def quiet_interrupt() -> Iterator[None]:
    """Exit quietly on Ctrl-C, and on a closed pipe (`| head`)."""
    try:
        yield
    except KeyboardInterrupt:
        exit_now("interrupted before the first video", EXIT_INTERRUPTED)
    except BrokenPipeError:
        exit_now("", EXIT_PIPE_CLOSED)


def exit_now(text: str, code: int) -> Never:
    """Print a message and exit at once, without waiting for decoding threads."""
    if text:
        print_stderr(text)
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    os._exit(code)


@contextlib.contextmanager
def opened_output(output: str | None) -> Iterator[TextIO]:
    """Open a file to write results to; None is the terminal."""
    if output is None:
        yield sys.stdout
        return
    path = Path(output)
    if not path.parent.is_dir():
        raise MissingFileError(f"no folder {path.parent} to write {path.name} to")
    with naming(path), path.open("w", encoding="utf-8", newline="") as file:
        yield file


def main(cfg: DictConfig) -> None:
    """Predict all videos or pictures; exit with an error if some could not be read."""
    with quiet_interrupt(), exit_on_user_error():
        check_options(cfg)
        items, paths = find_inputs(cfg)  # a wrong name is told before anything else
        cfg = at_newest(cfg)
        checkpoint, start_s = find_checkpoint(cfg.checkpoint, cfg.run_dir), time.monotonic()
        if is_detector_file(str(checkpoint), cfg.weights, cfg.base):
            done = import_detection().predict_objects(cfg, checkpoint, paths)
        elif cfg.image:
            raise UserError(
                f"{checkpoint} classifies videos, and image is for detectors; use video={cfg.image}"
            )
        else:
            done = predict_all(cfg, load_scorer(cfg), paths)
    index = index_explanations(cfg)
    if made := files_made(cfg, index):
        took = in_words(time.monotonic() - start_s)
        things = items.removesuffix("s") if done.num_written == 1 else items
        print_stderr(f"{done.num_written:,} {things} in {took}: {made}")
    if done.is_interrupted:
        left = f"interrupted after {done.num_written:,} of {len(paths):,} {items}"
        exit_now(left, EXIT_INTERRUPTED)
    if done.num_unreadable:
        sys.exit(f"{done.num_unreadable:,} of {len(paths):,} {items} could not be read")


def index_explanations(cfg: DictConfig) -> Path | None:
    """Write the page that leads to all explanations, where they are in a folder; -> its path."""
    folder = Path(EXPLANATIONS if cfg.explain is True else cfg.explain or "")
    if not cfg.explain or not folder.is_dir():
        return None
    from video_mvit.prediction.explanation_index import write_index

    return write_index(folder)


def files_made(cfg: DictConfig, index: Path | None) -> str:
    """Name the files and folders that the options ask for; "" for none."""
    made = [str(cfg[name]) for name in ("output", *SIDE_OUTPUTS) if cfg[name] not in (None, False)]
    if cfg.explain:
        page = index or (EXPLANATIONS if cfg.explain is True else cfg.explain)
        made[-1] = f"{page} (open it in a browser)"
    return ", ".join(made)


def find_inputs(cfg: DictConfig) -> tuple[str, list[str]]:
    """Resolve `video` or `image`, and name what they are; raises `UserError` without either."""
    if cfg.video and cfg.image:
        raise UserError("video and image are both given; a detector examines one of them at a time")
    if not cfg.video and not cfg.image:
        raise UserError("name what to examine: video=..., or image=... for a detector")
    places = cfg.video or cfg.image
    places = places if isinstance(places, str) else list(places)
    return ("videos", find_videos(places)) if cfg.video else ("images", find_pictures(places))


def import_detection() -> Any:
    """Import what detectors need; raises `UserError` where the extra is not installed."""
    try:
        from video_mvit.cli import predict_objects
    except ModuleNotFoundError as error:
        if error.name not in ("torchvision", "pycocotools"):
            raise
        raise UserError(f"detection needs {error.name}; {install_command('detection')}") from None
    return predict_objects
