"""The run folder: who may write into it, what it holds, and whether a run may resume in it."""

import contextlib
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from video_mvit.cli.run_log import RunLog
from video_mvit.cli.run_place import remove_empty
from video_mvit.cli.saved_settings import check_saved_settings, shorten
from video_mvit.cli.words import words_for_settings
from video_mvit.errors import MissingFileError, UserError
from video_mvit.files import clear_leftovers, replace_atomically
from video_mvit.lock import only_writer
from video_mvit.training.old_checkpoints import translate_checkpoint
from video_mvit.weights.checkpoint_files import weight_file_at
from video_mvit.weights.hub import fetch, is_hub_id
from video_mvit.weights.published_files import fetch_published, is_published
from video_mvit.weights.torch_files import is_torch_file, read_torch_file

RESUMABLE = {"state_dict", "class_names", "settings"}  # keys that a checkpoint must have
# Settings that do not change what a run computes, rounding aside, so that they may differ when it
# is resumed, on another machine for one. `trainer.precision` does count, as it was resolved.
RESUME_IGNORED_KEYS = (
    "name",
    "run_dir",
    "resume_from",
    "overwrite",
    "allow_config_changes",
    "data.num_workers",
    "data.decode_threads",
    "data.timeout_s",
    "data.module.loader.timeout_s",
    "data.scan_reports",
    "trainer.enable_progress_bar",
    "trainer.accelerator",
    "float32_matmul",
    "rank_timeout_s",
    "init.weights",  # the weights of a resumed run are those of its checkpoint
)
NUM_SHOWN = 8  # differences
CHECKPOINTS, LOCK = "checkpoints", ".lock"  # in the folder of a run
logger = logging.getLogger(__name__)


def is_first_process(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this is rank 0 (torchrun, SLURM, or a single process)."""
    return int(environment.get("RANK") or environment.get("SLURM_PROCID") or 0) == 0


def find_checkpoint(name: str, run_dir: str | None) -> Path:
    """Find a checkpoint: "last", "best", "e003" of the run folder, a path, or one to be fetched."""
    if is_published(name):
        return fetch_published(name)
    if is_hub_id(name):
        return fetch(name)
    named = Path(run_dir or "", CHECKPOINTS, f"{name}.ckpt")
    is_named = name in ("last", "best") or named.is_file()
    path = named if is_named else weight_file_at(name)
    if not path.is_file():
        raise MissingFileError(
            f"no checkpoint {path}; use 'last' or 'best' (of run_dir {run_dir}), or a path"
        )
    return path


@dataclass(frozen=True, kw_only=True)
class Run:
    """The folder of a training, opened, and the checkpoint that it goes on from, if any.

    `overrides` are a person's words for the settings, `replaces` says that the checkpoints of
    another run in the folder are removed.
    """

    folder: Path
    resume_from: str | None
    path: Path | None
    checkpoint: Mapping[str, Any]
    replaces: bool
    overrides: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run, decided: nobody writes to them.

    `recorded` are those that its checkpoints keep, in plain values.
    """

    config: DictConfig
    recorded: Mapping[str, Any]


@contextlib.contextmanager
def writing_alone(folder: Path, option: str) -> Iterator[None]:
    """Keep other processes from writing to a folder during the block; all ranks of a run may.

    Must come before anything in the folder is read or changed. `option` names another folder.
    """
    if not is_first_process():
        yield
        return
    try:
        is_new = not folder.exists() or not any(folder.iterdir())
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from None
    advice = f"wait until it ends, or choose another folder with {option}=..."
    try:
        with only_writer(folder / LOCK, str(folder), advice):
            yield
    finally:
        if is_new:
            remove_empty(folder)


def open_run(cfg: DictConfig) -> Run:
    """Find what is resumed, make the folder `run_dir` of the run, and log into it."""
    path: Path | None = None
    checkpoint: dict[str, Any] = {}
    resume_from = checkpoint_to_resume(cfg)
    if resume_from:
        path, checkpoint = read_checkpoint(resume_from, cfg.run_dir)
        check_saved_settings(path, checkpoint)
    open_folder(cfg.run_dir, "train")
    remove_unfinished(Path(cfg.run_dir, CHECKPOINTS), ["*.ckpt"])
    remove_unfinished(Path(cfg.run_dir, "config"), ["*.yaml"])
    return Run(
        folder=Path(cfg.run_dir),
        resume_from=resume_from,
        path=path,
        checkpoint=checkpoint,
        replaces=bool(cfg.overwrite and not resume_from),
        overrides=words_for_settings(),
    )


def open_folder(path: str, log_name: str) -> None:
    """Create a folder and log into it; other ranks than 0 only log warnings.

    Raises `UserError` if the folder is not writable.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if not is_first_process():
            logging.getLogger().setLevel(logging.WARNING)
            return
        handler = RunLog(folder / f"{log_name}.log")
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror or error}") from None
    logging.getLogger().addHandler(handler)


def remove_unfinished(folder: Path, patterns: Iterable[str]) -> None:
    """Remove what killed processes left of files in a folder, which this run must hold alone."""
    if is_first_process():
        for pattern in patterns:
            clear_leftovers(folder, pattern)


def keep_configuration(run: Run, configuration: str) -> None:
    """Write the composed configuration and the overrides into the run folder."""
    if not is_first_process():
        return
    folder = run.folder / "config"
    folder.mkdir(exist_ok=True)
    overrides = OmegaConf.to_yaml(OmegaConf.create(list(run.overrides)))
    for name, content in (("config", configuration), ("overrides", overrides)):
        with replace_atomically(folder / f"{name}.yaml") as temporary:
            temporary.write_text(content, encoding="utf-8")


def checkpoint_to_resume(cfg: DictConfig) -> str | None:
    """Return what `resume_from` names; refuses to overwrite an existing run."""
    has_run = Path(cfg.run_dir, CHECKPOINTS, "last.ckpt").exists()
    if cfg.resume_from == "auto":
        return "last" if has_run else None
    if has_run and not cfg.resume_from and not cfg.overwrite:
        raise UserError(
            f"{cfg.run_dir} holds a run; resume_from=last continues it, run_dir=... starts "
            "another one, overwrite=true replaces it"
        )
    return cfg.resume_from  # type: ignore[no-any-return]


def read_checkpoint(name: str, run_dir: str) -> tuple[Path, dict[str, Any]]:
    """Read a training checkpoint to resume from, tensors and plain values only, verified."""
    path = find_checkpoint(name, run_dir)
    try:
        content = read_torch_file(path) if is_torch_file(path) else None
    except UserError as error:
        raise UserError(f"{error}, or resume_from another checkpoint of the run") from None
    if not isinstance(content, dict) or not _is_resumable(content):
        raise UserError(
            f"{path} is not a checkpoint of video-mvit train, or is damaged; to start from its "
            f"weights: init=weights init.source={path}"
        )
    return path, translate_checkpoint(content)


def _is_resumable(content: Mapping[Any, Any]) -> bool:
    """Return whether a file has what a checkpoint of a training must have, of the right kind."""
    if not all(isinstance(key, str) for key in content) or not set(content) >= RESUMABLE:
        return False
    names, callbacks = content["class_names"], content.get("callbacks", {})
    mappings = (content["state_dict"], content["settings"], callbacks)
    return (
        isinstance(names, list | tuple)
        and all(isinstance(name, str) for name in names)
        and all(isinstance(part, Mapping) for part in mappings)
        and all(isinstance(key, str) for part in mappings for key in part)
    )


def check_class_names(
    path: Path, checkpoint: Mapping[str, Any], class_names: Sequence[str]
) -> None:
    """Raise `UserError` if checkpoint and data set differ in the meaning of a label."""
    pairs = enumerate(zip_longest(checkpoint["class_names"], class_names))
    for label, (trained, listed) in pairs:
        if trained != listed:
            raise UserError(f"class {label} is {trained!r} in {path}, but {listed!r} in the data")


def num_devices(cfg: DictConfig) -> int:
    """Return the number of devices of all nodes; raises `UserError` unless set in numbers."""
    for name in ("devices", "num_nodes"):
        value = cfg.trainer[name]
        if type(value) is not int or value < 1:
            raise UserError(f"trainer.{name} is {value!r}, expected a positive int")
    return int(cfg.trainer.devices * cfg.trainer.num_nodes)


def remove_old_checkpoints(run: Run) -> None:
    """Remove the checkpoints of the run that `overwrite=true` replaces.

    Otherwise resuming before the first new checkpoint would continue the old run.
    """
    if run.replaces and is_first_process():
        remove_checkpoints(run.folder)


def remove_checkpoints(run_folder: Path) -> None:
    """Remove all checkpoints in a run folder; raises `UserError` where that cannot be."""
    folder = run_folder / CHECKPOINTS
    if folder.is_symlink():
        raise UserError(
            f"{folder} is a link, and overwrite=true removes nothing outside of the run; remove "
            "the link, or choose another folder with run_dir=..."
        )
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"cannot remove {folder}: {error.strerror or error}") from None


def flat_settings(cfg: DictConfig) -> dict[str, Any]:
    """Flatten the configuration to the settings that checkpoints hold."""
    content = OmegaConf.to_container(cfg, resolve=False)
    return {**flat(content), "number of devices": num_devices(cfg)}


def diff_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List differences such as "optim.lr: 0.1, now 0.2", without irrelevant settings.

    A setting that a version added counts as null in the runs of those before; an empty list, too.
    """
    keys = [key for key in {**before, **now} if not _is_ignored(key)]
    return [
        f"{shorten(key)}: {_words(before, key)}, now {_words(now, key)}"
        for key in keys
        if before.get(key) != now.get(key) and not (_is_null(before, key) and _is_null(now, key))
    ]


def _is_null(settings: Mapping[str, Any], key: str) -> bool:
    """Return whether a setting is absent, null, an empty list, or that of another one which is."""
    value = settings.get(key)
    if isinstance(value, str) and (other := re.fullmatch(r"\$\{([\w.]+)\}", value)):
        value = settings.get(other[1])
    return value is None or value == []


def _is_ignored(key: str) -> bool:
    """Return whether a setting may differ in a resumed run; loggers only write numbers down."""
    return key in RESUME_IGNORED_KEYS or key.partition(".")[0] == "logger"


def refuse_changes(cfg: DictConfig, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `UserError` for changed settings unless `allow_config_changes` is true."""
    changes = diff_settings(before, now)
    if not changes:
        return
    more = len(changes) - NUM_SHOWN
    shown = "; ".join(changes[:NUM_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    if not cfg.allow_config_changes:
        raise UserError(
            f"the run to resume had different settings: {shown}; allow_config_changes=true "
            "continues with the new ones"
        )
    logger.warning("resuming with changed settings: %s", shown)


def _words(settings: Mapping[str, Any], key: str) -> str:
    return shorten(settings[key]) if key in settings else "not set"


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings: {"optim": {"lr": 1}} -> {"optim.lr": 1}; lists are values."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
