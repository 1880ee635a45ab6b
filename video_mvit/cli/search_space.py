"""The ranges of a search: a YAML file that says what each option may be."""

import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from video_mvit.cli.config_check import shown
from video_mvit.errors import UserError

OPTION = re.compile(r"\+{0,2}[A-Za-z_][\w./@]*")
# Options that the search itself decides, and those that write somewhere else.
OWN = ("run_dir", "resume_from", "overwrite", "ranges", "num_trials", "pruning", "name")
FIELDS = {"low", "high", "log", "step"}
MAX_BYTES, MAX_RANGES = 100_000, 50


class Draws(Protocol):
    """What is needed of `optuna.trial.Trial`."""

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Values of an option, as they are written on a command line."""

    values: tuple[str, ...]

    def draw(self, name: str, trial: Draws) -> str:
        return str(trial.suggest_categorical(name, self.values))

    def allows(self, value: object) -> bool:
        return value in self.values


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Numbers from `low` to `high`, both included; whole ones where the ends are."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def draw(self, name: str, trial: Draws) -> str:
        if isinstance(self.low, int) and isinstance(self.high, int):
            step = int(self.step or 1)
            return str(trial.suggest_int(name, self.low, self.high, step=step, log=self.log))
        return repr(trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log))

    def allows(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


def read_ranges(path: Path) -> dict[str, Choices | Numbers]:
    """Read option -> what it may be; raises `UserError` with the file and the option."""
    try:
        with path.open("rb") as file:
            content = yaml.safe_load(file.read(MAX_BYTES))
    except OSError as error:
        raise UserError(f"cannot read ranges={path}: {error.strerror or error}") from None
    except (yaml.YAMLError, RecursionError):
        raise UserError(f"{path} is not YAML; a line is optim.lr: [1e-3, 1e-4]") from None
    if not isinstance(content, dict) or not 1 <= len(content) <= MAX_RANGES:
        raise UserError(f"{path} does not map options to ranges; a line is optim.lr: [1e-3, 1e-4]")
    return {_option(path, key): _range(f"{path}: {key}", node) for key, node in content.items()}


def _option(path: Path, key: object) -> str:
    if not isinstance(key, str) or not OPTION.fullmatch(key):
        raise UserError(f"{path}: {shown(key)} is not the name of an option")
    if key.lstrip("+") in OWN or key.startswith("hydra"):
        raise UserError(f"{path}: {key} cannot be searched; remove it")
    return key


def _range(place: str, node: Any) -> Choices | Numbers:
    if isinstance(node, list) and node:
        return Choices(values=tuple(map(_word, node)))
    if not isinstance(node, dict) or not {"low", "high"} <= set(node) <= FIELDS:
        raise UserError(
            f"{place} is {shown(node)}, expected a list of choices, or low and high, with log: "
            "true or a step where wanted"
        )
    numbers = {name: _number(f"{place}.{name}", node[name]) for name in set(node) - {"log"}}
    log, step = node.get("log", False), numbers.get("step")
    if not isinstance(log, bool):
        raise UserError(f"{place}.log is {shown(log)}, expected true or false")
    low, high = numbers["low"], numbers["high"]
    if low >= high or (log and low <= 0) or (step is not None and (log or step <= 0)):
        raise UserError(
            f"{place} is {shown(node)}: low must be below high, above 0 with log: true, and a step "
            "positive and without log"
        )
    return Numbers(low=low, high=high, log=log, step=step)


def _number(place: str, value: Any) -> float:
    """Return a number; YAML takes 1e-3 for a text."""
    number: Any = value
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            number = float(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise UserError(f"{place} is {shown(value)}, expected a number")
    return number


def _word(value: Any) -> str:
    """Return a value as it is written behind an option."""
    if isinstance(value, list):
        return f"[{','.join(map(_word, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_word(each)}' for key, each in value.items())}}}"
    return shown(value) if value is None or isinstance(value, bool) else str(value)
