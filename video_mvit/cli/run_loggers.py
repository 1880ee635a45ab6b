"""The loggers of a run: built anew for each start, and for an evaluation, as the same run."""

import importlib.util
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger, MLFlowLogger, WandbLogger

from video_mvit.cli.run_folder import flat
from video_mvit.errors import install_command
from video_mvit.files import is_plain_file, replace_atomically
from video_mvit.training.loggers import LoggerGuard
from video_mvit.training.run_record import RunRecord

# Argument of a logger that continues a run of its server, by the last part of its `_target_`.
RUN_ARGUMENTS = {"WandbLogger": "id", "MLFlowLogger": "run_id"}
RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
MAX_BYTES = 10_000  # of the file of ids
GROUPS = ("clip", "model", "init", "augment", "data", "optim", "trainer")
Scalar = str | float | int | bool
logger = logging.getLogger(__name__)


def build_loggers(cfg: DictConfig) -> list[Logger]:
    """Build the configured loggers; those of a run that is resumed go on with it."""
    ids = read_ids(Path(cfg.run_dir)) if cfg.resume_from else {}
    if len(usable_loggers(cfg)) < len(cfg.logger):
        tell_missing_tensorboard()
    return [_build(node, ids.get(name)) for name, node in usable_loggers(cfg).items()]


def usable_loggers(cfg: DictConfig) -> dict[str, DictConfig]:
    """Return the configured loggers by name, without TensorBoard where it is not installed.

    It is one of the loggers of every run, and no run needs it.
    """
    has_tensorboard = importlib.util.find_spec("tensorboard") is not None
    return {
        str(name): node
        for name, node in cfg.logger.items()
        if has_tensorboard or _kind(node) != "TensorBoardLogger"
    }


def tell_missing_tensorboard() -> None:
    command = install_command("tensorboard")
    logger.info("no files for TensorBoard, which is not installed: %s", command)


def _kind(node: DictConfig) -> str:
    return str(node["_target_"]).rpartition(".")[2]


def _build(node: DictConfig, run_id: str | None) -> Logger:
    kind = _kind(node)
    if kind == "MLFlowLogger" and not node.get("tracking_uri"):
        # Files in the run folder, which newer versions of MLflow refuse unless this is said.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    argument = RUN_ARGUMENTS.get(kind)
    extra: dict[str, Any] = {}
    if argument and run_id and node.get(argument) is None:
        extra[argument] = run_id
        if argument == "id":
            extra["resume"] = "allow"
    log: Logger = instantiate(node, _convert_="all", **extra)
    return log


def ids_file(run_dir: Path) -> Path:
    """Return the file in a run folder that holds the ids of the run on its servers."""
    return run_dir / "config" / "loggers.json"


def read_ids(run_dir: Path) -> dict[str, str]:
    """Return name -> id of the loggers that a run has; only ids of plain letters and digits."""
    path = ids_file(run_dir)
    if not is_plain_file(path):
        return {}
    with path.open("rb") as file:
        text = file.read(MAX_BYTES)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    pairs = content.items() if isinstance(content, dict) else ()
    return {k: v for k, v in pairs if isinstance(v, str) and RUN_ID.fullmatch(v)}


def keep_ids(run_dir: Path, loggers: Mapping[str, Logger]) -> None:
    """Write down how the loggers call this run, so that it can be gone on with."""
    ids = {
        name: str(log.version if isinstance(log, WandbLogger) else log.run_id)
        for name, log in loggers.items()
        if isinstance(log, WandbLogger | MLFlowLogger)
    }
    if not ids:
        return
    path = ids_file(run_dir)
    path.parent.mkdir(exist_ok=True)
    with replace_atomically(path) as temporary:
        temporary.write_text(json.dumps(ids))


def record_of(cfg: DictConfig, configuration: str) -> RunRecord:
    """Return the callback that tells the loggers of a training what it is made of."""
    best = cfg.callbacks.get("best") or {}
    names = list(usable_loggers(cfg))
    return RunRecord(
        settings=dict(hyperparameters(cfg)),
        configuration=configuration,
        monitor=best.get("monitor") or "val/loss",
        curves=Path(cfg.run_dir, "curves.png"),
        keep_ids=lambda loggers: keep_ids(
            Path(cfg.run_dir), dict(zip(names, loggers, strict=False))
        ),
    )


def hyperparameters(cfg: DictConfig) -> Iterator[tuple[str, Scalar]]:
    """Yield the settings that decide what is learned, by dotted key, as loggers take them."""
    content: Any = OmegaConf.to_container(cfg, resolve=True)
    chosen = {key: value for key, value in content.items() if not isinstance(value, Mapping)}
    chosen |= {key: content[key] for key in GROUPS}
    for key, value in flat(chosen).items():
        if not key.rpartition(".")[2].startswith("_") and value not in (None, {}):
            plain = isinstance(value, str | int | float)
            yield key, value if plain else json.dumps(value, default=str)


def tell_loggers(cfg: DictConfig, write: Callable[[Logger], None]) -> None:
    """Let an evaluation be written to those loggers of its run that have the run."""
    ids = read_ids(Path(cfg.run_dir))
    usable = usable_loggers(cfg)
    for name, node in cfg.logger.items():
        if not _has_run(node, ids.get(name)):
            continue
        if name not in usable:
            tell_missing_tensorboard()
            continue
        log = _build(node, ids.get(name))
        guard = LoggerGuard(log)
        guard.write(lambda log: write(checked(log)))
        log.finalize("success")


def _has_run(node: DictConfig, run_id: str | None) -> bool:
    """Return whether a logger has the run: its folder, or its id."""
    kind = _kind(node)
    if kind != "TensorBoardLogger":
        return kind in RUN_ARGUMENTS and run_id is not None
    folder = Path(node.save_dir, node.get("name") or "", node.get("version") or "")
    return folder.is_dir() and not folder.is_symlink()


def checked(log: Logger) -> Logger:
    """Return a logger whose files lie where the settings say; a run folder may say otherwise."""
    if isinstance(log, MLFlowLogger) and log.save_dir is not None:
        place = str(log.experiment.get_run(log.run_id).info.artifact_uri).removeprefix("file://")
        if not Path(place).resolve().is_relative_to(Path(log.save_dir).resolve()):
            raise ValueError(f"its artifacts would be written to {place}, outside of the run")
    return log
