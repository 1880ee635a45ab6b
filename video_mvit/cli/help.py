"""`video-mvit VERB --help`: options, defaults and comments, read from the verb's YAML files.

Reading the files is immediate; composing them with Hydra takes a second.
"""

import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

OPTION = re.compile(r"(?P<name>[a-z]\w*):(?P<default> [^#].*?)?(?:\s+#\s*(?P<comment>.*))?")
GROUP = re.compile(r"  - (?:override )?/?(?P<name>[\w@./]+): (?P<choice>\S+).*")
BASE = re.compile(r"  - (?P<name>(?!_self_)\w+)\s*")
INDENT = 28
# Verbs that take a run folder first.
OF_RUNS = ("evaluate", "predict", "extract", "probe", "export", "convert", "push", "summary")


class Option(NamedTuple):
    """A top-level key of a YAML file, verbatim."""

    name: str
    default: str
    comment: str


def help_text(
    verb: str,
    summary: str,
    config: str,
    only_groups: Sequence[str] | None = None,
    bare: str | None = None,
) -> str:
    """Return the help of a verb, wrapped to the terminal; `bare` is the option of bare words."""
    width = min(shutil.get_terminal_size().columns, 120)
    run = "[RUN_FOLDER] " if verb in OF_RUNS else ""
    words = f"{run}{f'[{bare.upper()} ...] ' if bare else ''}[OPTION=VALUE ...]"
    lines = [f"usage: video-mvit {verb} {words}", "", f"{summary}.", "", "options"]
    for option in options_of(config) if only_groups is None else own_options(config):
        lines += _entry(f"  {option.name}={option.default}", option.comment, width)
    found = groups_of(config).items()
    groups = {name: choice for name, choice in found if only_groups is None or name in only_groups}
    if groups:
        lines += ["", "groups (GROUP=CHOICE; OPTION of a group: GROUP.OPTION=VALUE)"]
        for name, choice in groups.items():
            lines += _entry(f"  {name}={choice}", ", ".join(choices_of(name)), width)
    lines += ["", f"video-mvit {verb} [OPTION=VALUE ...] --cfg job prints all settings and runs"]
    lines += ["nothing; --config-dir DIR adds YAML files of your own; --multirun sweeps."]
    return "\n".join([*lines, ""])


def options_of(config: str) -> list[Option]:
    """List the top-level options of a YAML file and its bases, those of the file first."""
    options = own_options(config)
    for base in _bases(_text(config)):
        known = {option.name for option in options}
        options += [option for option in options_of(base) if option.name not in known]
    return options


def own_options(config: str) -> list[Option]:
    """Return the top-level options that a YAML file itself sets."""
    found = (OPTION.fullmatch(line) for line in _text(config).splitlines())
    return [
        Option(match["name"], (match["default"] or "...").strip(), match["comment"] or "")
        for match in found
        if match and match["name"] not in ("defaults", "hydra")
    ]


def groups_of(config: str) -> dict[str, str]:
    """Map the configuration groups of a YAML file and its bases to their default choices."""
    return {name: choice for name, choice in _groups(config) if not name.startswith("hydra")}


def choices_of(group: str) -> list[str]:
    """List the choices of a configuration group."""
    folder = conf_folder() / group.partition("@")[0]
    names = (item.name for item in folder.iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def conf_folder() -> Traversable:
    """Return the folder of the YAML files that are shipped."""
    return files("video_mvit") / "conf"


def _text(config: str) -> str:
    return (conf_folder() / f"{config}.yaml").read_text(encoding="utf-8")


def _groups(config: str) -> Iterator[tuple[str, str]]:
    text = _text(config)
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
