"""`video-mvit VERB --help`: options, defaults and comments, read from the verb's YAML files.

Reading the files is immediate; composing them with Hydra takes a second.
"""

import re
import shutil
import textwrap
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

OPTION = re.compile(r"(?P<name>[a-z]\w*): (?P<default>.*?)(?:\s+#\s*(?P<comment>.*))?")
GROUP = re.compile(r"  - (?:override )?/?(?P<name>[\w@./]+): (?P<choice>\S+).*")
BASE = re.compile(r"  - (?P<name>(?!_self_)\w+)\s*")
INDENT = 28


class Option(NamedTuple):
    """A top-level key of a YAML file, verbatim."""

    name: str
    default: str
    comment: str


def help_text(verb: str, summary: str, config: str) -> str:
    """Return the help of a verb, wrapped to the terminal."""
    width = min(shutil.get_terminal_size().columns, 120)
    lines = [f"usage: video-mvit {verb} [OPTION=VALUE ...]", "", f"{summary}.", "", "options"]
    for option in options_of(config):
        lines += _entry(f"  {option.name}={option.default}", option.comment, width)
    groups = groups_of(config)
    if groups:
        lines += ["", "groups (GROUP=CHOICE; OPTION of a group: GROUP.OPTION=VALUE)"]
        for name, choice in groups.items():
            lines += _entry(f"  {name}={choice}", ", ".join(choices_of(name)), width)
    lines += ["", f"video-mvit {verb} [OPTION=VALUE ...] --cfg job prints all settings and runs"]
    lines += ["nothing; --config-dir DIR adds YAML files of your own; --multirun sweeps."]
    return "\n".join([*lines, ""])


def options_of(config: str) -> list[Option]:
    """List the top-level options of a YAML file and its bases, those of the file first."""
    return list({option.name: option for option in reversed([*_options(config)])}.values())[::-1]


def groups_of(config: str) -> dict[str, str]:
    """Map the configuration groups of a YAML file and its bases to their default choices."""
    return {name: choice for name, choice in _groups(config) if not name.startswith("hydra")}


def choices_of(group: str) -> list[str]:
    """List the choices of a configuration group."""
    folder = _conf() / group.partition("@")[0]
    names = (item.name for item in folder.iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def _conf() -> Traversable:
    return files("video_mvit") / "conf"


def _options(config: str) -> Iterator[Option]:
    text = (_conf() / f"{config}.yaml").read_text(encoding="utf-8")
    for line in text.splitlines():
        match = OPTION.fullmatch(line)
        if match:
            yield Option(match["name"], match["default"], match["comment"] or "")
    for base in _bases(text):
        yield from _options(base)


def _groups(config: str) -> Iterator[tuple[str, str]]:
    text = (_conf() / f"{config}.yaml").read_text(encoding="utf-8")
    for base in _bases(text):
        yield from _groups(base)
    for line in text.splitlines():
        match = GROUP.fullmatch(line)
        if match:
            yield match["name"], match["choice"]


def _bases(text: str) -> list[str]:
    return [match["name"] for match in map(BASE.fullmatch, text.splitlines()) if match]


def _entry(head: str, comment: str, width: int) -> list[str]:
    """Format head and comment side by side, or below each other for a long head."""
    indent = " " * INDENT
    lines = textwrap.wrap(comment, max(width - INDENT, 20)) if comment else []
    if not lines:
        return [head]
    if len(head) < INDENT:
        return [head.ljust(INDENT) + lines[0], *(indent + line for line in lines[1:])]
    return [head, *(indent + line for line in lines)]
