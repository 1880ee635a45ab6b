"""Train, fine-tune and evaluate from Python: the commands, with objects beside their words.

Settings are those of the YAML files, as for the commands; there are no defaults here but "nothing".
A call leaves the process as it was: random numbers, log, signals, environment, threads.
"""

import contextlib
import json
import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from video_mvit.cli import VERBS
from video_mvit.cli.build import quiet_libraries
from video_mvit.cli.composition import COMPOSING, check_keys, explain, flat
from video_mvit.cli.errors import raised_to_caller
from video_mvit.cli.evaluate import evaluate_as_configured
from video_mvit.cli.given_objects import giving, refer
from video_mvit.cli.help import groups_of, options_of
from video_mvit.cli.renamed_options import find_in_words
from video_mvit.cli.run_folder import CHECKPOINTS, is_first_process
from video_mvit.cli.run_log import RunLog
from video_mvit.cli.runs import expand_run
from video_mvit.cli.train import train as train_as_configured
from video_mvit.cli.words import OPTION, prepare_words, words_for_settings
from video_mvit.errors import UserError
from video_mvit.evaluation.output_folder import REPORT, RESULTS
from video_mvit.text import PrintableRecord
from video_mvit.training.progress import TerminalHandler

FolderName = str | os.PathLike[str]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
SHAPE_OF_LINES = ("%(asctime)s  %(message)s", "%H:%M:%S")  # as in conf/config.yaml


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished training.

    Attributes:
        folder: of the run, with checkpoints, logs, curves and settings.
        best, last: checkpoints: of the best validation (None without any), and of the end.
        metrics: at the end, such as "train/epoch_loss" and "val/top1".
        given: the objects that it was given, for an evaluation of it.
    """

    folder: Path
    best: Path | None
    last: Path
    metrics: Mapping[str, float]
    given: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """A finished evaluation.

    Attributes:
        folder: of results, predictions and report.
        report: the page to look at.
        metrics: such as "top1", "top5" and "calibration_error"; of a detector, its APs.
    """

    folder: Path
    report: Path
    metrics: Mapping[str, float]


def train(
    *words: str,
    model: nn.Module | None = None,
    rows: Iterable[object] | None = None,
    val_rows: Iterable[object] | None = None,
    transforms: Sequence[Callable[[Tensor], Tensor]] | None = None,
    config_dir: FolderName | None = None,
) -> TrainResult:
    """Train as `video-mvit train WORDS` does: `train("experiment=demo", "optim.num_epochs=5")`.

    Args:
        words: options of the command.
        model: a network to train a copy of, which maps clips (B, 3, T, H, W) to logits (B, K).
        rows: the data set: pairs of a path and a label, mappings, or a pandas frame; see
            `video_mvit.data.lists.rows.Rows`. Paths are below the current folder, or `data.root`.
        val_rows: those to validate on; None: a part of `rows` is held out.
        transforms: of each training clip (T, C, H, W), before the other augmentation.
        config_dir: folder of YAML files of your own, as `--config-dir`.

    Raises:
        UserError: in one sentence, for a mistake in words, objects or data.
    """
    objects = _given(model=model, rows=rows, val_rows=val_rows, transforms=transforms)
    with _as_command("train", _with_rows(words, objects), objects, config_dir) as cfg:
        parts, run = train_as_configured(cfg)
    folder = run.folder
    best, last = (folder / CHECKPOINTS / f"{name}.ckpt" for name in ("best", "last"))
    return TrainResult(
        folder=folder,
        best=best if best.is_file() else None,
        last=last,
        metrics={name: float(value) for name, value in parts.trainer.callback_metrics.items()},
        given=objects,
    )


def finetune(
    videos: FolderName | Iterable[object],
    source: FolderName | None = None,
    *words: str,
    model: nn.Module | None = None,
    val_rows: Iterable[object] | None = None,
    transforms: Sequence[Callable[[Tensor], Tensor]] | None = None,
    config_dir: FolderName | None = None,
) -> TrainResult:
    """Fine-tune on your own videos, as `video-mvit train experiment=finetune` does.

    Args:
        videos: a folder with one folder for each class, or with lists; or rows, as for `train`.
        source: the weights to start from; None: from scratch.
        words: more options of the command, such as "optim.num_epochs=20".
        model, val_rows, transforms, config_dir: as for `train`.

    Raises:
        UserError: as `train`.
    """
    is_folder = isinstance(videos, str | os.PathLike)
    root = [f"data.root={os.fspath(videos)}"] if isinstance(videos, str | os.PathLike) else []
    init = ["init=scratch"] if source is None else [f"init.source={os.fspath(source)}"]
    return train(
        *("experiment=finetune", *root, *init, *words),
        model=model,
        rows=None if is_folder else videos,  # type: ignore[arg-type]
        val_rows=val_rows,
        transforms=transforms,
        config_dir=config_dir,
    )


def evaluate(
    run: TrainResult | FolderName,
    *words: str,
    model: nn.Module | None = None,
    rows: Iterable[object] | None = None,
    config_dir: FolderName | None = None,
) -> EvaluationResult:
    """Evaluate as `video-mvit evaluate RUN WORDS` does, a result of `train` or a run folder.

    Args:
        run: a training, or the folder of one; or the first of the words.
        words: options of the command, such as "motion=[frozen]" or "overwrite=true".
        model: the network of the run, if it was given to its training.
        rows: videos to evaluate on instead of those that the run validated on.
        config_dir: as for `train`.

    Raises:
        UserError: as `train`.
    """
    before: Mapping[str, Any] = {}
    if isinstance(run, TrainResult):
        before, run = dict(run.given), run.folder
    objects = {**before, **_given(model=model)}
    used = {name: value for name, value in objects.items() if name != "transforms"}
    chosen = _with_rows((os.fspath(run), *words), used)
    given = {**used, **_given(test_rows=rows)}
    with _as_command("evaluate", chosen, given, config_dir) as cfg:
        folder, _ = evaluate_as_configured(cfg)
    return EvaluationResult(folder=folder, report=folder / REPORT, metrics=_metrics_in(folder))


def _metrics_in(folder: Path) -> dict[str, float]:
    """Return the numbers of an evaluation; none in other processes than the first, which writes."""
    if not is_first_process():
        return {}
    content = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    return {
        name: value
        for name, value in flat(content)
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _given(**objects: Any) -> dict[str, Any]:
    """Return the objects that there are; an iterator, which can be read once, as a list."""
    given = {name: value for name, value in objects.items() if value is not None}
    return {name: list(v) if isinstance(v, Iterator) else v for name, v in given.items()}


def _with_rows(words: Sequence[str], objects: Mapping[str, Any]) -> list[str]:
    """Return words that choose the data set of given rows, below the current folder by default."""
    if "val_rows" in objects and "rows" not in objects:
        raise UserError("val_rows are given without rows to train on; give both")
    if "rows" not in objects:
        return list(words)
    known = {match["key"] for match in map(OPTION.fullmatch, words) if match}
    if "data" in known:
        raise UserError("rows and data=... both name the data set; give one")
    root = [] if "data.root" in known else ["data.root=."]
    return [*words, "data=rows", *root]


@contextlib.contextmanager
def _as_command(
    verb: str, words: Sequence[str], objects: Mapping[str, Any], config_dir: FolderName | None
) -> Iterator[DictConfig]:
    """Compose the settings of a verb, and let the block run as the command would."""
    with _process_kept(), raised_to_caller(), giving(objects):
        quiet_libraries()
        with _composed(verb, words, config_dir) as cfg:
            refer(cfg, objects)
            yield cfg


@contextlib.contextmanager
def _composed(
    verb: str, words: Sequence[str], config_dir: FolderName | None
) -> Iterator[DictConfig]:
    """Compose the settings of a verb; Hydra knows them in the block, and afterwards what before."""
    config = VERBS[verb].config
    assert config is not None
    if sentence := find_in_words(words):
        raise UserError(sentence)
    folder = [] if config_dir is None else [f"--config-dir={os.path.abspath(config_dir)}"]
    known = [*(option.name for option in options_of(config)), *groups_of(config)]
    prepared = prepare_words(expand_run(verb, [*folder, *words]), known, nested=True)
    overrides = [word for word in prepared if word not in folder]
    searched = [f"hydra.searchpath=['file://{os.path.abspath(config_dir)}']"] if config_dir else []
    singleton = HydraConfig.instance()
    before = singleton.cfg
    with initialize_config_module("video_mvit.conf", version_base="1.3"):
        try:
            cfg = compose(config, [*overrides, *searched], return_hydra_config=True)
        except COMPOSING as error:
            raise UserError(explain(error, words, verb)) from None
        singleton.set_config(cfg)
        try:
            with open_dict(cfg):
                del cfg["hydra"]
            check_keys(cfg, words_for_settings())
            yield cfg
        finally:
            singleton.cfg = before


@contextlib.contextmanager
def _process_kept() -> Iterator[None]:
    """Log as the commands do in the block; then restore what a command changes in its process."""
    root = logging.getLogger()
    levels = {each: each.level for each in _loggers()}
    handlers, factory = list(root.handlers), logging.getLogRecordFactory()
    environment, num_threads = dict(os.environ), torch.get_num_threads()
    products = torch.get_float32_matmul_precision()
    waiting = {number: signal.getsignal(number) for number in SIGNALS}
    terminal = TerminalHandler()
    terminal.setFormatter(logging.Formatter(*SHAPE_OF_LINES))
    root.addHandler(terminal)
    root.setLevel(logging.INFO)
    logging.setLogRecordFactory(PrintableRecord)
    try:
        with warnings.catch_warnings(), isolate_rng():
            yield
    finally:
        for handler in [each for each in root.handlers if each not in handlers]:
            root.removeHandler(handler)
            if isinstance(handler, RunLog):
                handler.close()
        for each in _loggers():
            each.setLevel(levels.get(each, logging.NOTSET))
        logging.setLogRecordFactory(factory)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        torch.set_num_threads(num_threads)
        torch.set_float32_matmul_precision(products)
        for number, handler_before in waiting.items():
            if signal.getsignal(number) is not handler_before:
                signal.signal(number, handler_before)


def _loggers() -> list[logging.Logger]:
    found = logging.Logger.manager.loggerDict.values()
    return [logging.getLogger(), *(each for each in found if isinstance(each, logging.Logger))]
