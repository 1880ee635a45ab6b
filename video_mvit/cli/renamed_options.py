"""Refuse options and group choices of version 0.1 in one sentence with the new name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from video_mvit.renamed import (
    GROUP_CHOICES,
    OPTION_VALUES,
    rename_option,
    rename_target,
)

# A line of a defaults list: "- override /data: own".
DEFAULT = re.compile(r"\s*- (?:override )?/?(?P<group>[\w/]+): (?P<choice>\w+).*")


def find_in_words(words: Sequence[str]) -> str | None:
    """Describe the first old name on a command line; None without one."""
    for word in words:
        key, equals, value = word.lstrip("+~").partition("=")
        new = rename_option(key)
        if not word.startswith("-") and new != key:
            # Some options take other values than before.
            values = OPTION_VALUES.get(new, {})
            if _plain(value) in values:
                return f"{key}={value} is now called {new}={_written(values[_plain(value)])}"
            return f"the option {key} is now called {new}"
        for each in value.split(",") if equals else ():
            if sentence := _about_choice(key, each):
                return sentence
    for folder in _config_dirs(words):
        if sentence := _in_folder(folder):
            return sentence
    return None


def find_in_config(content: Mapping[str, Any]) -> str | None:
    """Describe the first old name in a composed configuration; None without one."""
    for key, value in _flat(content):
        if rename_option(key) != key:
            return f"the option {key} is now called {rename_option(key)}"
        name = key.rpartition(".")[2]
        if name == "_target_" and isinstance(value, str) and rename_target(value) != value:
            return f"{key} is {value}, which is now called {rename_target(value)}"
        if sentence := _about_choice(key, value):
            return sentence
    return None


def _about_choice(key: str, value: Any) -> str | None:
    """Describe an old value of an option, or an old choice of a group."""
    new = GROUP_CHOICES.get(f"{key}={value}")
    values = OPTION_VALUES.get(key, {})
    if new is None and isinstance(value, str | bool) and _plain(value) in values:
        new = f"{key}={_written(values[_plain(value)])}"
    return None if new is None else f"{key}={_written(value)} is now called {new}"


def _plain(value: Any) -> Any:
    """Return a word of a command line as YAML reads it."""
    return {"true": True, "false": False}.get(str(value).lower(), value)


def _written(value: Any) -> str:
    """Return a value as YAML writes it."""
    return {None: "null", True: "true", False: "false"}.get(value, str(value))


def _config_dirs(words: Sequence[str]) -> Iterator[Path]:
    """Yield the folders that `--config-dir` names."""
    for word, following in zip(words, [*words[1:], ""][: len(words)], strict=True):
        option, equals, value = word.partition("=")
        if option in ("--config-dir", "-cd"):
            yield Path(value if equals else following)


def _in_folder(folder: Path) -> str | None:
    """Describe the first old choice in the defaults of the user's own YAML files."""
    for path in sorted(folder.rglob("*.yaml")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            match = DEFAULT.fullmatch(line)
            if match and (sentence := _about_choice(match["group"], match["choice"])):
                return f"{path}: {sentence}"
    return None


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of all depths with their values."""
    for key, value in content.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
