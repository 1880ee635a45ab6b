"""Where a run is: the folder that `run_dir` names, or one with a date that all its processes share.

Without `run_dir`, a training makes `runs/<name>/<date>_<time>`, or `runs/<name>/slurm-<job>` in a
job of SLURM, which a requeued job finds again; what reads a run takes the newest of `runs/<name>`.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from video_mvit.cli.run_words import key_of
from video_mvit.cli.runs import CHECKPOINTS, find_run, tell_run
from video_mvit.errors import UserError
from video_mvit.host import slurm_job

RUNS = "runs"
DATE = "%Y-%m-%d_%H-%M-%S"
SHARED_KEY = "video_mvit/run_folder"
FAILED = "!"  # in front of the sentence of the first process, which no path begins with


def runs_of(cfg: DictConfig) -> Path:
    """Return the folder of all runs of a name."""
    return Path(RUNS, str(cfg.name))


def folder_of(cfg: DictConfig, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of a training; each job of a sweep has one in that of the sweep.

    Of several processes, the first decides. Call it once: it makes a folder with a date.
    """
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return Path(HydraConfig.get().runtime.output_dir)
    if cfg.run_dir is not None:
        return Path(cfg.run_dir)
    return Path(shared(lambda: str(_default_folder(cfg, environment)), environment))


def _default_folder(cfg: DictConfig, environment: Mapping[str, str]) -> Path:
    """Choose the folder of a training that has no `run_dir`."""
    runs, resume, job = runs_of(cfg), cfg.resume_from, slurm_job(environment)
    own = runs / f"slurm-{job}" if job else None
    if own and (resume in (None, "auto") or (own / CHECKPOINTS / "last.ckpt").is_file()):
        return own
    if resume is None:
        return make_dated(runs)
    named = Path(resume)
    if named.is_file():
        return named.parent.parent if named.parent.name == CHECKPOINTS else make_dated(runs)
    newest = find_run(runs)
    if newest and newest != runs:
        tell_run(runs, newest)
    if newest is None and resume != "auto":
        raise UserError(f"there is no run in {runs} to resume; run_dir=... names another folder")
    return newest or make_dated(runs)


def make_dated(runs: Path) -> Path:
    """Make a folder with the date and time, which no other process has."""
    start = datetime.now().strftime(DATE)
    try:
        runs.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = runs / (start if number == 1 else f"{start}_{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise UserError(f"cannot write to {runs}: {error.strerror or error}") from None
    raise AssertionError


def remove_empty(folder: Path) -> None:
    """Remove a folder where nothing was written, and those that were made around it."""
    with contextlib.suppress(OSError):
        folder.rmdir()
        if len(folder.parts) == 3 and folder.parts[0] == RUNS:
            folder.parent.rmdir()
            folder.parent.parent.rmdir()


def shared(choose: Callable[[], str], environment: Mapping[str, str]) -> str:
    """Let the first process of a run choose a folder; return its choice in all of them.

    They meet at the store of torchrun, where it also stays for processes that torchrun restarts.
    Tasks of SLURM choose each for itself, by the number of their job.
    """
    num_processes = int(environment.get("WORLD_SIZE") or 1)
    if num_processes == 1 or slurm_job(environment):
        return choose()
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise UserError(
            "these processes cannot agree on the date of their run; name its folder: run_dir=..."
        )
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    timeout = timedelta(seconds=600)
    store = TCPStore(address, port, num_processes, False, timeout)  # noqa: FBT003
    if int(environment["RANK"]) == 0 and not store.check([SHARED_KEY]):
        try:
            store.set(SHARED_KEY, choose())
        except UserError as error:
            store.set(SHARED_KEY, f"{FAILED}{error}")
    choice = store.get(SHARED_KEY).decode()
    if choice.startswith(FAILED):
        raise UserError(choice.removeprefix(FAILED))
    return choice


def trained_folder(cfg: DictConfig) -> Path:
    """Return the run that an evaluation is of: `run_dir`, or the one that its checkpoint lies in.

    Without either it is the newest of its name. A folder of runs stands for its newest.
    """
    checkpoint = Path(cfg.checkpoint)
    if cfg.run_dir is None and checkpoint.is_file() and checkpoint.parent.name == CHECKPOINTS:
        return checkpoint.parent.parent
    named = runs_of(cfg) if cfg.run_dir is None else Path(cfg.run_dir)
    run = find_run(named)
    if run is None:
        return named
    tell_run(named, run)
    return run


def at_newest(cfg: DictConfig) -> DictConfig:
    """Return a configuration whose `run_dir`, where it is a folder of runs, is the newest of it."""
    named = Path(cfg.run_dir)
    run = find_run(named)
    if run is None or run == named:
        return cfg
    tell_run(named, run)
    placed = copy.deepcopy(cfg)
    placed.run_dir = str(run)
    return placed


def sweep_folder(
    verb: str, words: Sequence[str], environment: Mapping[str, str] = os.environ
) -> str | None:
    """Return the folder of a sweep that names none, for Hydra, which fills in the name."""
    if verb not in ("train", "evaluate", "probe") or {"run_dir", "hydra.sweep.dir"} & set(
        map(key_of, words)
    ):
        return None
    if verb == "evaluate":
        return f"{RUNS}/${{name}}"
    job = slurm_job(environment)
    return f"{RUNS}/${{name}}/{f'slurm-{job}' if job else datetime.now().strftime(DATE)}"
