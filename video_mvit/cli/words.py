"""The words of a command line, made ready for Hydra: names of files as they are.

Hydra reads a value by a grammar of its own, in which most punctuation of a file name means
something or is refused. The rule here, for `option=value`:

- What an option of `PATH_OPTIONS` is given is a name and is taken literally, `~` at its start
  being the home folder. Not literal are `null`, `true` and `false`, a value in quotes, a list in
  brackets, `${...}`, and with `--multirun` all that Hydra's grammar accepts. A file that is there
  under exactly that name comes before all of these.
- What any other option is given is read by Hydra's grammar; a text which it refuses is taken
  literally, too.
- A word without an option in front is a file, for the verbs that examine files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf

from video_mvit.cli.nearest import did_you_mean
from video_mvit.errors import UserError

# The last part of the key of every option that takes a file or a folder.
PATH_OPTIONS = frozenset(
    (
        *("annotate", "cache", "checkpoint", "class_names", "classes", "dirpath", "evaluation"),
        *("explain", "folder", "frame_list", "image", "labels", "manifest", "output", "ranges"),
        "resume_from",
        *(
            "root",
            "run_dir",
            "save_dir",
            "scan_report",
            "scan_reports",
            "shards",
            "source",
            "target",
        ),
        *("timeline_picture", "train_list", "val_list", "video"),
    )
)
OPTION = re.compile(r"(?P<mark>\+{0,2}|~)(?P<key>[A-Za-z_$][\w$./@:-]*)=(?P<value>.*)", re.DOTALL)
REMOVED = re.compile(r"~(?P<key>[A-Za-z_][\w.]*)(?:=.*)?", re.DOTALL)  # a setting to remove
WORDS_OF_YAML = ("", "null", "true", "false")
# Flags of Hydra. Those of the first kind have the next word as their value.
FLAGS_WITH_VALUE = (
    *("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn"),
    *("--config-dir", "-cd", "--experimental-rerun"),
)
FLAGS = (
    *("--resolve", "--run", "-r", "--multirun", "-m", "--info", "-i", "--hydra-help"),
    *("--version", "--shell-completion", "-sc"),
)
MULTIRUN = ("--multirun", "-m")


def prepare_words(
    words: Sequence[str], options: Sequence[str], bare: str | None = None, *, nested: bool = False
) -> list[str]:
    """Return the words as Hydra is to get them; raises `UserError` for one that is no option.

    Args:
        options: the names of the verb's own options and groups.
        bare: the option that stands for words without one.
        nested: paths become parts of other settings, so that `${` cannot be literal in them.
    """
    reader = ValueReader(is_multirun=any(word in MULTIRUN for word in words), nested=nested)
    flags, prepared, files = [], [], []
    for word, kind in classified(words):
        match = OPTION.fullmatch(word)
        if kind == "flag":
            flags.append(word)
        elif kind == "word" and REMOVED.fullmatch(word) and not os.path.lexists(word):
            prepared.append(word)
        elif kind == "word" and match and not _is_bare_file(word, match["key"], options):
            prepared.append(f"{match['mark']}{match['key']}={reader.read(match['key'], word)}")
        else:
            if kind == "word" or bare is None:
                _check_bare(word, options, bare)
            files.append(word)
    if files:
        if any(word.partition("=")[0] == bare for word in prepared):
            raise UserError(f"{files[0]!r} and {bare}=... both name what to examine; give one")
        names = [reader.literal(name) for name in files]
        prepared.append(f"{bare}={names[0] if len(names) == 1 else '[' + ','.join(names) + ']'}")
    return [*flags, *prepared]


def classified(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each word with its kind: of a flag, after `--`, or another."""
    rest = iter(words)
    for word in rest:
        if word == "--":
            yield from ((name, "file") for name in rest)
        elif word in FLAGS_WITH_VALUE:
            yield word, "flag"
            yield from ((value, "flag") for value in [next(rest, None)] if value is not None)
        elif word in FLAGS or word.partition("=")[0] in FLAGS_WITH_VALUE:
            yield word, "flag"
        else:
            yield word, "word"


def _is_bare_file(word: str, key: str, options: Sequence[str]) -> bool:
    """Return whether a word like `a=b.mp4` is a file and no option."""
    return key.partition(".")[0] not in options and os.path.lexists(word)


def _check_bare(word: str, options: Sequence[str], bare: str | None) -> None:
    """Raise `UserError` unless a word without an option in front can be a file."""
    if bare is not None and os.path.lexists(os.path.expanduser(word)):
        return
    name, equals, value = word.lstrip("-").partition("=")
    if word.startswith("-"):
        name = name.replace("-", "_")
        advice = did_you_mean(name, options, f"{{}}={value if equals else 'VALUE'}")
        advice = advice or (f"; a file is {bare}={word}" if bare else "; options are NAME=VALUE")
        raise UserError(f"there is no flag {word}{advice}")
    if equals:
        raise UserError(f"{word!r} does not begin with the name of an option, as in NAME=VALUE")
    if word in options:
        raise UserError(f"{word} needs a value: {word}=VALUE")
    advice = did_you_mean(word, options, "{}=VALUE")
    if bare is None or (advice and not _looks_like_path(word)):
        raise UserError(f"{word!r} is no option{advice or '; options are NAME=VALUE'}")


def _looks_like_path(word: str) -> bool:
    return any(mark in word for mark in ("/", os.sep, ".", "*", "?"))


def words_for_settings() -> list[str]:
    """Return the words of the command line that set something, as they stand."""
    words: Any = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    return list(words)


class ValueReader:
    """What follows `=`, in the form that Hydra reads as it was meant."""

    def __init__(self, *, is_multirun: bool, nested: bool) -> None:
        self._parser = OverridesParser.create()
        self._is_multirun, self._nested = is_multirun, nested

    def read(self, key: str, word: str) -> str:
        """Return the value of the word `key=value`."""
        value = word.partition("=")[2]
        if key.rpartition(".")[2] in PATH_OPTIONS:
            return self._read_path(value)
        is_text = not value.startswith(("[", "{", "'", '"'))
        return _quote(value) if is_text and not self._is_accepted(value) else value

    def _read_path(self, value: str) -> str:
        if _is_there(value):
            return self.literal(value)
        if self._is_multirun:
            return value if self._is_accepted(value) else self._read_list(value)
        if value.lower() in WORDS_OF_YAML or self._is_quoted(value):
            return value
        if value.startswith("[") and value.endswith("]"):
            return f"[{self._read_list(value[1:-1])}]"
        return self.literal(value)

    def _read_list(self, text: str) -> str:
        """Read names between commas, of which one that is there may have commas itself."""
        parts, items = text.split(","), []
        while parts:
            num = next((n for n in range(len(parts), 0, -1) if self._is_item(parts[:n])), 1)
            item, parts = ",".join(parts[:num]), parts[num:]
            if not _is_there(item):
                item = item.strip()
            is_plain = item.lower() not in WORDS_OF_YAML and not self._is_quoted(item)
            items.append(self.literal(item) if is_plain or _is_there(item) else item)
        return ",".join(items)

    def _is_item(self, parts: Sequence[str]) -> bool:
        item = ",".join(parts)
        return _is_there(item) or _is_there(item.strip()) or self._is_quoted(item.strip())

    def literal(self, name: str) -> str:
        """Quote a name of a file; `${...}` stays a reference in a name that is not there."""
        is_there = os.path.lexists(name)
        if not is_there and name.startswith("~"):
            name = os.path.expanduser(name)
        if name == "???":  # in YAML, a value that is missing
            name = f".{os.sep}{name}"
        if "${" in name and is_there:
            if self._nested:
                raise UserError(
                    f"{name!r} holds '${{', which refers to another setting; rename it, or make a "
                    "link to it"
                )
            name = re.sub(r"(\\*)\$\{", r"\1\1\\${", name)
        return _quote(name)

    def _is_accepted(self, value: str) -> bool:
        return self._parsed(value) is not None

    def _is_quoted(self, value: str) -> bool:
        return value[:1] in ("'", '"') and isinstance(self._parsed(value), QuotedString)

    def _parsed(self, value: str) -> Any:
        """Return what Hydra makes of a value; None where it refuses it."""
        parse: Callable[[str], Any] = self._parser.parse_override
        try:
            override = parse(f"key={value}")
        except (HydraException, RecursionError):
            return None
        return override._value if override._value is not None else "null"


def _quote(text: str) -> str:
    return QuotedString(text=text, quote=Quote.single).with_quotes()


def _is_there(name: str) -> bool:
    """Return whether a file or folder has a name; a name may be no name at all."""
    try:
        return bool(name) and os.path.lexists(os.path.expanduser(name))
    except ValueError:
        return False
