"""Behind predict.py: the model with all that is known of it, and results written as they come."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple, Never, TextIO, get_args

import torch
from mistakes import check_value
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from run_folder import find_checkpoint

import video_mvit
from video_mvit.mvit import MViT
from video_mvit.prediction.facts import SAID, facts_of
from video_mvit.prediction.predictor import Options, predict_videos
from video_mvit.prediction.scoring import Scorer
from video_mvit.prediction.writing import Format, open_writer
from video_mvit.weights.class_names import read_class_names
from video_mvit.weights.convert import published_normalisation

INTERRUPTED = 130  # exit code after Ctrl-C


class Done(NamedTuple):
    """What became of the videos of a command."""

    num_written: int
    num_unreadable: int
    is_interrupted: bool


def check_options(cfg: DictConfig) -> None:
    """Raise `ValueError` where an option has an impossible value, before anything is loaded."""
    for name, kind in (("checkpoint", str), ("top", int), ("overwrite", bool)):
        check_value(name, cfg[name], kind)
    if cfg.top < 1:
        raise ValueError(f"top is {cfg.top}, expected a positive number of classes")
    for name, allowed in (("format", get_args(Format)), ("device", ("auto", "cpu", "cuda"))):
        if cfg[name] not in allowed:
            raise ValueError(f"{name} is {cfg[name]!r}, expected one of {', '.join(allowed)}")
    if cfg.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch finds none; try device=cpu")
    if cfg.output and Path(cfg.output).exists() and not cfg.overwrite:
        raise ValueError(f"{cfg.output} exists; overwrite=true replaces it")
    options_of(cfg)


def options_of(cfg: DictConfig) -> Options:
    return Options(num_clips=cfg.num_clips, num_crops=cfg.num_crops)


def load_scorer(cfg: DictConfig) -> Scorer:
    """The model on its device; one line says what nobody has stated about it."""
    path = find_checkpoint(cfg.checkpoint, cfg.run_dir)
    model = video_mvit.load_model(str(path))
    wanted = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(wanted, dict)
    said = {name: wanted[name] for name in SAID}
    if cfg.class_names:
        said["class_names"] = read_class_names(cfg.class_names)
    facts = facts_of(model, published_normalisation(asdict(model.config)), said)
    facts.views(cfg.num_clips, cfg.num_crops)  # refuses what is impossible
    if facts.assumed:
        tell(f"{path} does not say all; assumed: {facts.describe_assumed()}")
    return Scorer(_placed(model, cfg.device), facts)


def predict_all(cfg: DictConfig, scorer: Scorer, videos: Sequence[str]) -> Done:
    """Predict and write one video after another; Ctrl-C ends it between two of them."""
    num_written = num_unreadable = 0
    with _opened(cfg.output) as file, _progress(len(videos), file) as progress:
        writer = open_writer(cfg.format, file, cfg.top)
        try:
            for prediction in predict_videos(scorer, videos, options_of(cfg)):
                writer.write(prediction)
                num_written += 1
                num_unreadable += bool(prediction.problem)
                progress.advance(progress.task_ids[0])
        except KeyboardInterrupt:
            return Done(num_written, num_unreadable, is_interrupted=True)
    return Done(num_written, num_unreadable, is_interrupted=False)


def tell(text: str) -> None:
    """One line for the person; results alone go to where they were asked for."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def leave(text: str, code: int) -> Never:
    """Say why, and end at once, whatever still decodes in other threads."""
    tell(text)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _placed(model: MViT, device: str) -> MViT:
    wants_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return model.to("cuda" if wants_gpu else "cpu")


@contextlib.contextmanager
def _opened(output: str | None) -> Iterator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    path = Path(output)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} to")
    with path.open("w", encoding="utf-8", newline="") as file:
        yield file


def _progress(num_videos: int, results: TextIO) -> Progress:
    """A bar on the terminal, unless the results themselves are shown there."""
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("videos"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal or results.isatty(),
        redirect_stdout=False,
        transient=True,
    )
    progress.add_task("", total=num_videos)
    return progress
