"""Search for better settings: trainings with values drawn by optuna, the hopeless ones ended early.

video-mvit tune ranges=ranges.yaml experiment=finetune data.root=/videos init.source=MVITv2_S.pyth
"""

import csv
import importlib.util
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from video_mvit.cli.build import quiet_libraries
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.option_values import check_verb
from video_mvit.cli.run_folder import open_folder, writing_alone
from video_mvit.cli.run_place import folder_of
from video_mvit.cli.search_space import OWN, Choices, Numbers, read_ranges
from video_mvit.cli.terminal import Terminal
from video_mvit.cli.words import PATH_OPTIONS
from video_mvit.errors import UserError, install_command
from video_mvit.training.curves import read_rows
from video_mvit.training.preemption import EXIT_INTERRUPTED, EXIT_PREEMPTED

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

STUDY, NAME = "study.log", "video_mvit"  # file in the folder of a search, name of its study
QUOTED = re.compile(r"(?P<key>[\w.]+)='(?P<path>[^'\\$\[{\"]+)'")
POLL_S = 1.0  # between two looks at the metrics of a training
NUM_UNPRUNED = 4  # trainings before any is ended early
NUM_SHOWN, WIDTH = 10, 80  # trials in the table, columns
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched: the words of each training, its ranges, and the metric of best.ckpt."""

    folder: Path
    words: Sequence[str]
    ranges: Mapping[str, Choices | Numbers]
    monitor: str
    mode: str

    def folder_of(self, number: int) -> Path:
        return self.folder / str(number)

    def command(self, number: int, drawn: Sequence[str]) -> list[str]:
        """Return the words of a training behind `video-mvit`."""
        return ["train", *self.words, *drawn, f"run_dir={self.folder_of(number)}"]


def main(cfg: DictConfig) -> None:
    """Train until there are `num_trials`, and print which settings were best."""
    quiet_libraries()
    with exit_on_user_error():
        check_verb(cfg, "tune")
        search = search_of(cfg, sys.argv[1:])
        with writing_alone(search.folder, "run_dir"):
            open_folder(str(search.folder), "tune")
            study = open_study(search, cfg)
            run_trials(study, search, cfg.num_trials)
    console = Terminal(markup=False)
    for line in summary_of(study, search):
        console.print(line)


def search_of(cfg: DictConfig, words: Sequence[str]) -> Search:
    """Return what is searched; raises `UserError` where it cannot be."""
    if importlib.util.find_spec("optuna") is None:
        raise UserError(
            f"tune needs the package optuna, which is not installed; {install_command('tune')}"
        )
    if any(name in os.environ for name in ("TORCHELASTIC_RUN_ID", "SLURM_PROCID")):
        raise UserError(
            "tune starts its trainings itself, on one device; start it without torchrun"
        )
    if any(word in ("--multirun", "-m") for word in words):
        raise UserError("tune is a search already; remove --multirun")
    best, loggers = cfg.callbacks.get("best"), cfg.logger.values()
    if not isinstance(best, DictConfig) or not best.get("monitor"):
        raise UserError("tune looks at the metric of callbacks.best, which is not there")
    if not any(str(each.get("_target_")).endswith("CsvLogger") for each in loggers):
        raise UserError(
            "tune reads what logger.csv writes, which is not there; choose another logger"
        )
    own = [word for word in words if word.lstrip("+").partition("=")[0] not in OWN]
    return Search(
        folder=folder_of(cfg),
        words=[*own, "overwrite=true"] if cfg.overwrite else own,
        ranges=read_ranges(Path(cfg.ranges)),
        monitor=str(best.monitor),
        mode=str(best.mode),
    )


def open_study(search: Search, cfg: DictConfig) -> "Study":
    """Open the study in the folder of a search, or begin it; its words and ranges must be these."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = search.folder / STUDY
    if path.is_symlink():
        raise UserError(f"{path} is a link; remove it, or choose another folder with run_dir=...")
    if cfg.overwrite:
        path.unlink(missing_ok=True)
    pruner: Any = optuna.pruners.NopPruner()
    if cfg.pruning:
        pruner = optuna.pruners.MedianPruner(n_startup_trials=NUM_UNPRUNED)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(path))),
        study_name=NAME,
        direction="maximize" if search.mode == "max" else "minimize",
        pruner=pruner,
        load_if_exists=True,
    )
    study.sampler = optuna.samplers.TPESampler(seed=cfg.seed + len(study.trials))
    made_of = json.dumps([list(search.words), {key: str(r) for key, r in search.ranges.items()}])
    if study.trials and study.user_attrs.get("made_of") != made_of:
        raise UserError(
            f"{search.folder} holds a search of another command line or other ranges; run_dir=... "
            "begins another one, overwrite=true replaces it"
        )
    study.set_user_attr("made_of", made_of)
    return study


def run_trials(
    study: "Study", search: Search, num_trials: int, start: "Starter | None" = None
) -> None:
    """Go on with the trial that was interrupted, if any, then draw new ones.

    `start` begins a training, by default in a process of its own.
    """
    start = start or Training
    from optuna.trial import Trial, TrialState

    for interrupted in study.get_trials(states=(TrialState.RUNNING,)):
        run_trial(study, Trial(study, interrupted._trial_id), search, start)
    while len(study.trials) < num_trials:
        run_trial(study, study.ask(), search, start)


def run_trial(study: "Study", trial: "Trial", search: Search, start: "Starter") -> None:
    """Train with the values of a trial, and tell the study what came of it."""
    from optuna.trial import TrialState

    drawn = [f"{name}={each.draw(name, trial)}" for name, each in search.ranges.items()]
    logger.info("trial %d  %s", trial.number, " ".join(map(_short, drawn)))
    words = search.command(trial.number, drawn)
    if (search.folder_of(trial.number) / "checkpoints" / "last.ckpt").is_file():
        words = [*(word for word in words if word != "overwrite=true"), "resume_from=last"]
    output = search.folder / f"{trial.number}.log"
    training = start(words, output)
    is_pruned = follow(training, trial, search)
    values = [value for _, value in values_of(search, trial.number)]
    if training.code in (EXIT_PREEMPTED, EXIT_INTERRUPTED) and not is_pruned:
        logger.info("interrupted in trial %d; the same command goes on", trial.number)
        raise SystemExit(training.code)
    if is_pruned:
        study.tell(trial, state=TrialState.PRUNED)
        logger.info("trial %d ended early: %s %.4g", trial.number, search.monitor, values[-1])
    elif training.code == 0 and values:
        value = max(values) if search.mode == "max" else min(values)
        study.tell(trial, value)
        logger.info("trial %d: %s %.4g", trial.number, search.monitor, value)
    else:
        study.tell(trial, state=TrialState.FAIL)
        problem = training.problem() or f"it has logged no {search.monitor}"
        if not any(each.value is not None for each in study.trials):
            raise UserError(f"trial {trial.number} failed: {problem} ({output})")
        logger.warning("trial %d failed: %s (%s)", trial.number, problem, output)


Starter = Callable[[Sequence[str], Path], "Training"]


class Training:
    """`video-mvit WORDS` in a process of its own, which gets the signals of this one."""

    def __init__(self, words: Sequence[str], output: Path) -> None:
        self.output = output
        self._start = output.stat().st_size if output.is_file() else 0
        with output.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "video_mvit", *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches it once, through this process
            )

    @property
    def code(self) -> int | None:
        return self.process.returncode

    def ended(self) -> bool:
        """Wait for a moment, and return whether the training has ended."""
        try:
            self.process.wait(POLL_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    def problem(self) -> str:
        """Return the last line of what it has printed, if it did not end well."""
        if self.code == 0:
            return ""
        with self.output.open("rb") as file:
            file.seek(self._start)
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
        return (lines[-1] if lines else f"exit code {self.code}").removeprefix("error: ")


def follow(training: Training, trial: "Trial", search: Search) -> bool:
    """Report the metric of each epoch until a training ends; return whether it was ended early."""
    names = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {
        number: signal.signal(number, lambda n, _: training.process.send_signal(n))
        for number in names
    }
    reported = set(trial.study.trials[trial.number].intermediate_values)  # of an earlier start
    is_pruned = False
    try:
        while not training.ended():
            for epoch, value in values_of(search, trial.number):
                if epoch not in reported:
                    trial.report(value, epoch)
                    reported.add(epoch)
            if not is_pruned and trial.should_prune():
                is_pruned = True
                training.process.send_signal(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if training.process.poll() is None:
            training.process.kill()
            training.process.wait()
    return is_pruned


def values_of(search: Search, number: int) -> list[tuple[int, float]]:
    """Return the epochs of a training so far that were validated, with the metric."""
    try:
        rows = read_rows(search.folder_of(number) / "metrics")
    except (OSError, ValueError, csv.Error):  # a row is just being written
        return []
    return [(row.epoch, row.values[search.monitor]) for row in rows if search.monitor in row.values]


def summary_of(study: "Study", search: Search) -> Iterator[str]:
    """Yield a table of the trials, best first, and the command of the best."""
    sign = -1 if search.mode == "max" else 1
    done = [each for each in study.trials if each.value is not None]
    done.sort(key=lambda each: (each.state.name != "COMPLETE", sign * float(each.value or 0.0)))
    yield f"{'trial':>7}  {search.monitor:<12}{'epochs':>7}  settings"
    for each in done[:NUM_SHOWN]:
        drawn = " ".join(map(_short, _drawn(search, each))) or "unknown"
        early = " (ended early)" if each.state.name == "PRUNED" else ""
        head = f"{each.number:>7}  {each.value:<12.4g}{_num_epochs(search, each):>7}  "
        yield from textwrap.wrap(
            f"{drawn}{early}",
            WIDTH,
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_long_words=False,
            break_on_hyphens=False,
        )
    failed = [str(each.number) for each in study.trials if each.state.name == "FAIL"]
    if failed:
        yield f"failed: {', '.join(failed)}"
    if not done or done[0].state.name != "COMPLETE":
        return
    best = done[0]
    yield f"best: {search.folder_of(best.number) / 'checkpoints' / 'best.ckpt'}"
    words = ["train", *search.words, *_drawn(search, best)]
    yield shlex.join(["video-mvit", *map(_as_typed, words)])


def _drawn(search: Search, trial: "FrozenTrial") -> list[str]:
    """Return the words that a trial has drawn; only such as the ranges allow count."""
    pairs = ((name, each, trial.params.get(name)) for name, each in search.ranges.items())
    return [f"{name}={value}" for name, each, value in pairs if each.allows(value)]


def _num_epochs(search: Search, trial: "FrozenTrial") -> int:
    return 1 + max((epoch for epoch, _ in values_of(search, trial.number)), default=-1)


def _as_typed(word: str) -> str:
    """Return the word of a path without the quotes that it got for Hydra, and gets again."""
    match = QUOTED.fullmatch(word)
    is_path = match and match["key"].rpartition(".")[2] in PATH_OPTIONS
    return f"{match['key']}={match['path']}" if match and is_path else word


def _short(word: str) -> str:
    """Return `option=value` with three digits of a number, for people."""
    name, _, value = word.partition("=")
    try:
        return f"{name}={float(value):.3g}" if "." in value or "e" in value else word
    except ValueError:
        return word
