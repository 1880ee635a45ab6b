"""What is wrong with the keys of a command line: one sentence with the nearest that there is.

Hydra's own messages advise to add an unknown key with `+`, which a setting that nothing reads would
take in silence. Here an added key must be one that something reads: an argument of a `_target_`, or
a value that another setting refers to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from video_mvit.cli.help import OF_RUNS, conf_folder
from video_mvit.cli.nearest import did_you_mean, nearest
from video_mvit.cli.words import OPTION, REMOVED
from video_mvit.errors import UserError

FULL_ERROR = "HYDRA_FULL_ERROR"  # where it is 1, Hydra raises its errors
REFERENCE = re.compile(r"\$\{\.*([\w.]+)")
OPEN_GROUPS = ("callbacks", "logger", "hydra")  # of which every entry is read
# Targets that take the fields of a configuration, and that configuration.
NETWORKS = {
    "video_mvit.create_model": "video_mvit.models.config.MViTConfig",
    "video_mvit.create_detector": "video_mvit.detection.config.DetectorConfig",
}
GROUPS_OF_TRAINING = ("experiment", "clip", "data", "augment", "optim", "init", "trainer")
MAX_LISTED = 40  # choices of a group
COMPOSING = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError)


class Composition:
    """The time in which Hydra composes the settings, whose errors are mistakes of the user's."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words, self._full_error = words, os.environ.get(FULL_ERROR)

    @contextlib.contextmanager
    def explained(self, verb: str) -> Iterator[None]:
        """Turn an error of composing the settings of a verb into a `UserError`."""
        self._begin()
        try:
            yield
        except COMPOSING as error:
            if os.environ.get(FULL_ERROR) != "1" or self._full_error == "1":
                raise
            raise UserError(explain(error, self._words, verb)) from None
        finally:
            self._end()

    @contextlib.contextmanager
    def interrupted(self) -> Iterator[None]:
        """Run what follows a composition; an error of it is not one of composing."""
        self._end()
        yield
        self._begin()  # the next job of a sweep

    def _begin(self) -> None:
        os.environ[FULL_ERROR] = "1"

    def _end(self) -> None:
        if self._full_error is None:
            os.environ.pop(FULL_ERROR, None)
        else:
            os.environ[FULL_ERROR] = self._full_error


def explain(error: Exception, words: Sequence[str], verb: str) -> str:
    """Say in one sentence why the words cannot be composed for a verb."""
    text = str(error) or str(error.__cause__ or "")
    cause = error.__cause__
    if isinstance(error, MissingConfigException):
        return _about_choice(error)
    if isinstance(error, OverrideParseException):
        return _about_word(error.override)
    if text.startswith("Could not override") and isinstance(cause, OmegaConfBaseException):
        return _about_unknown_key(cause, words)
    if match := re.match(r"Could not append to config\. An item is already at '(.*)'", text):
        return f"{match[1]} is there already; change it without +, as {match[1]}=VALUE"
    if match := re.match(r"Ambiguous value for argument '([^=]*)=(.*?)'\n", text, re.DOTALL):
        key, value = match[1], match[2]
        return (
            f"{key}={value} are several values: a list is written {key}=[{value}], and --multirun "
            "runs the command for each"
        )
    if match := re.match(r"Could not delete.*?'([\w./@=]+)'", text):
        return f"~{match[1]} removes what is not set"
    if match := re.match(r"Could not override '(.*?)'\. No match", text):
        return _about_group(match[1], verb)
    if text.startswith("Config group override must be"):
        return _about_value_of_group(words) or " ".join(text.split())
    return " ".join(line.strip() for line in text.splitlines() if "hydra.cc" not in line)


def _about_choice(error: MissingConfigException) -> str:
    group, _, choice = (error.missing_cfg_file or "").rpartition("/")
    options = sorted(error.options or ())
    if not options:
        return " ".join(str(error).split())
    kind = f"{group}={choice} is no choice of {group}"
    if found := did_you_mean(choice, options, f"{group}={{}}"):
        return f"{kind}{found} --help lists all {len(options)}"
    return f"{kind}; choose one of {_listed(options)}"


def _listed(options: Sequence[str]) -> str:
    more = len(options) - MAX_LISTED
    return ", ".join(options[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def _about_group(group: str, verb: str) -> str:
    """Say what takes the place of a group that a verb does not have."""
    if group in GROUPS_OF_TRAINING and verb in OF_RUNS:
        return (
            f"video-mvit {verb} has no {group}=...: network, clips and classes are those of the "
            "weights, a run folder (RUN_FOLDER) or a file (checkpoint=FILE, or source=FILE)"
        )
    return f"there is no group {group} to choose from"


def _about_word(word: str) -> str:
    match = OPTION.fullmatch(word)
    if match is None:
        return f"{word!r} does not begin with the name of an option, as in NAME=VALUE"
    return (
        f"{match['key']}={match['value']} is no value; a list is [a,b], a mapping {{a:1,b:2}}, and "
        f"any text can stand in quotes, in a shell as {match['key']}=\"'TEXT'\""
    )


def _about_value_of_group(words: Sequence[str]) -> str | None:
    """Name the word that gives a group a number, null or the like; None where none is found."""
    from video_mvit.cli.help import choices_of

    for word in words:
        match = OPTION.fullmatch(word)
        if match and "." not in match["key"]:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                choices = choices_of(match["key"])
                if choices and match["value"] not in choices:
                    name = match["key"]
                    return f"{word} is no choice of {name}; choose one of {_listed(choices)}"
    return None


def _about_unknown_key(error: OmegaConfBaseException, words: Sequence[str]) -> str:
    key, node = str(error.full_key), error.parent_node
    root: Any = node._get_root()
    parent = key.rpartition(".")[0]
    given = next((word for word in words if word.partition("=")[0] == key), f"{key}=VALUE")
    if not isinstance(node, DictConfig):
        return f"{key} is no option, as {parent} has no parts"
    if "_target_" in node and (known := _arguments(node)) is not None:
        name = key.rpartition(".")[2]
        if name in known:
            return f"{key} is not set yet, which + does: +{given}"
        # What is not set yet needs a +.
        keys = [f"{parent}.{each}" if each in node else f"+{parent}.{each}" for each in known]
        near = [keys[known.index(each)] for each in nearest(name, known)]
        found = f"; did you mean {' or '.join(f'{each}=VALUE' for each in near)}?" if near else ""
        return f"there is no option {key}{found or f'; {parent} has {_listed(known)}'}"
    return f"there is no option {key}{suggest(key, root)}"


def _arguments(node: DictConfig) -> list[str] | None:
    """Return the arguments of a target; None where it cannot be imported or takes any."""
    from video_mvit.cli.config_check import arguments_of

    if fields := NETWORKS.get(node["_target_"]):
        module, _, name = fields.rpartition(".")
        return [each.name for each in dataclasses.fields(getattr(import_module(module), name))]
    try:
        return arguments_of(node)
    except (UserError, ImportError):
        return None


def suggest(key: str, root: DictConfig) -> str:
    """Return "; did you mean ...?" for an unknown key, preferring those beside it."""
    content: Any = OmegaConf.to_container(root, resolve=False)
    parent, _, name = key.rpartition(".")
    if choices := _choices_with(key):
        return f"; it is one of {' and '.join(choices[:2])}"
    beside = OmegaConf.select(root, parent) if parent else root
    prefix = f"{parent}." if parent else ""
    names = [str(each) for each in beside if each != "hydra"] if OmegaConf.is_dict(beside) else []
    found = [f"{prefix}{each}" for each in nearest(name, names)]
    if not found:
        keys = [each for each, _ in flat(content) if not each.startswith("hydra.")]
        found = [each for each in keys if each.rpartition(".")[2] == name][:2]
        found = found or nearest(key, keys)
    if found:
        return f"; did you mean {' or '.join(f'{each}=...' for each in found)}?"
    shown = ", ".join(names[:MAX_LISTED])
    return f"; {f'{parent} has' if parent else 'there are'} {shown}" if shown else ""


def _choices_with(key: str) -> list[str]:
    """List the choices of a key's group in whose YAML file the key itself is set."""
    group, _, name = key.partition(".")
    folder: Any = conf_folder() / group
    found = []
    for file in sorted(folder.iterdir(), key=str) if name and folder.is_dir() else ():
        if file.name.endswith(".yaml"):
            content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            if name in {each for each, _ in flat(content)}:
                found.append(f"{group}={file.name.removesuffix('.yaml')}")
    return found


def flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys of all depths, those of mappings included, with their values."""
    for key, value in content.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")


def check_keys(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Raise `UserError` for a key that words add and nothing reads, or remove and something reads.

    Args:
        overrides: the words for the settings, of the command line.
    """
    content: Any = OmegaConf.to_container(cfg, resolve=False)
    for word in overrides:
        for key, mark in _added(word):
            if not _is_read(key, content, mark):
                raise UserError(f"nothing reads {key}{suggest(key, without(cfg, key))}")
        if match := REMOVED.fullmatch(word):
            key = match["key"]
            parent = OmegaConf.select(cfg, key.rpartition(".")[0]) if "." in key else cfg
            is_part = OmegaConf.is_dict(parent) and "_target_" in parent
            is_entry = "." in key and key.partition(".")[0] in OPEN_GROUPS
            if not (is_part or is_entry):
                raise UserError(
                    f"{word} removes an option that the command reads; give it another value"
                )


def _added(word: str) -> Iterator[tuple[str, str]]:
    """Yield the keys that a word adds, with `+` or `++`: those of a mapping may be there."""
    match = OPTION.fullmatch(word)
    if not match or not match["mark"].startswith("+"):
        return
    value: Any = OverridesParser.create().parse_override(word).value()
    if not isinstance(value, dict) or not value:
        yield match["key"], match["mark"]
    elif "_target_" not in value:
        inner = flat(value, f"{match['key']}.")
        yield from ((key, "++") for key, part in inner if not isinstance(part, dict))


def without(cfg: DictConfig, key: str) -> DictConfig:
    """Return a copy of the settings without a key."""
    copy: Any = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(copy, parent) if parent else copy
    if OmegaConf.is_dict(node) and name in node:
        del node[name]
    return copy  # type: ignore[no-any-return]


def _is_read(key: str, content: Mapping[str, Any], mark: str) -> bool:
    """Return whether something reads an added key, or it is the choice of a group."""
    names = key.split(".")
    if names[0] in OPEN_GROUPS or not _is_in(content, names):
        return True
    node: Any = content
    for name in names:
        if isinstance(node, Mapping) and "_target_" in node:
            return True
        node = node[name] if isinstance(node, Mapping) and name in node else None
    if isinstance(node, Mapping) and "_target_" in node:
        return True
    texts = [text for other, text in flat(content) if other != key and isinstance(text, str)]
    found = {reference for text in texts for reference in REFERENCE.findall(text)}
    if any(key == each or key.endswith(f".{each}") or each.startswith(f"{key}.") for each in found):
        return True
    return mark == "++" and key in shipped_keys()


def _is_in(content: Mapping[str, Any], names: Sequence[str]) -> bool:
    node: Any = content
    for name in names:
        if not isinstance(node, Mapping) or name not in node:
            return False
        node = node[name]
    return True


def shipped_keys() -> frozenset[str]:
    """Return the keys that the package's own YAML files set, of all choices of all groups."""
    found: set[str] = set()
    folder: Any = conf_folder()
    for place in (folder, *(each for each in folder.iterdir() if each.is_dir())):
        for file in (each for each in place.iterdir() if each.name.endswith(".yaml")):
            content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            is_root = place is folder or place.name in ("experiment", "debug")
            found |= {key for key, _ in flat(content, "" if is_root else f"{place.name}.")}
    return frozenset(found)
