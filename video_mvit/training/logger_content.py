"""What loggers keep besides numbers: settings, texts, pictures and tables, each in its own way.

TensorBoard, Weights & Biases and MLflow, by the classes that Lightning has for them; of any other
logger, only what Lightning's interface has: settings and numbers.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pytorch_lightning.loggers import (
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)

from video_mvit.text import csv_cell

Scalar = str | float | int | bool


class Table(NamedTuple):
    columns: Sequence[str]
    rows: Sequence[Sequence[Scalar]]


def log_settings(log: Logger, settings: Mapping[str, Scalar], monitor: str) -> None:
    """Log hyperparameters; TensorBoard shows them beside the metric `monitor` of the run."""
    if isinstance(log, CSVLogger):  # the run folder has them
        return
    if isinstance(log, TensorBoardLogger):
        from torch.utils.tensorboard.summary import hparams

        for each in hparams(dict(settings), {monitor: 0.0}):  # type: ignore[no-untyped-call]
            log.experiment._get_file_writer().add_summary(each)
        return
    log.log_hyperparams(dict(settings))


def log_text(log: Logger, name: str, text: str) -> None:
    """Log a text as it is."""
    if isinstance(log, TensorBoardLogger):
        log.experiment.add_text(name, _as_code(text))
    elif isinstance(log, WandbLogger):
        log.log_text(name, columns=["text"], data=[[text]])
    elif isinstance(log, MLFlowLogger):
        log.experiment.log_text(log.run_id, text, f"{name}.txt")


def log_picture(log: Logger, name: str, picture: np.ndarray, step: int = 0) -> None:
    """Log a picture (H, W, 3) of uint8."""
    if isinstance(log, TensorBoardLogger):
        log.experiment.add_image(name, picture, step, dataformats="HWC")
    elif isinstance(log, WandbLogger):
        log.log_image(name, [picture], step)
    elif isinstance(log, MLFlowLogger):
        log.experiment.log_image(log.run_id, picture, f"{name}.png")


def log_table(log: Logger, name: str, table: Table, step: int = 0) -> None:
    """Log a table."""
    if isinstance(log, TensorBoardLogger):
        log.experiment.add_text(name, _as_markdown(table), step)
    elif isinstance(log, WandbLogger):
        log.log_table(name, list(table.columns), [list(row) for row in table.rows], step=step)
    elif isinstance(log, MLFlowLogger):
        file = io.StringIO()
        rows = [[csv_cell(v) if isinstance(v, str) else v for v in row] for row in table.rows]
        csv.writer(file).writerows([table.columns, *rows])
        log.experiment.log_text(log.run_id, file.getvalue(), f"{name}.csv")


def _as_code(text: str) -> str:
    """Return a text as Markdown that shows it as it is."""
    return "".join(f"    {line}\n" for line in text.splitlines())


def _as_markdown(table: Table) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _cell(value: Any) -> str:
    """Return a value of a table for Markdown, in which the name of a class means nothing."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if text == "---" else re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text)
