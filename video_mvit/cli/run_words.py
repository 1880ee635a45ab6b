"""The words that a run began with, replayed: `video-mvit evaluate runs/x` needs no others.

A run folder is data. Of its `config/overrides.yaml` only words that choose a group or a plain value
are used; none names a class, refers to the environment, or says where to write. The settings that
are stored beside it, which do, are never read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from video_mvit.cli.help import choices_of, groups_of, options_of
from video_mvit.cli.saved_settings import MAX_ITEMS, MAX_NUMBER, MAX_TEXT, read_rows, shorten
from video_mvit.cli.words import OPTION, REMOVED
from video_mvit.errors import UserError
from video_mvit.renamed import GROUP_CHOICES, rename_option

Use = Literal["evaluate", "resume"]
OVERRIDES = "config/overrides.yaml"  # in a run folder
# What an evaluation needs of a training: the network, its clips, and the data.
OF_EVALUATION = ("experiment", "clip", "model", "data", "auto_settings")
# What belongs to a start of a run and to its machine, not to the run.
OF_START = (
    *("run_dir", "resume_from", "overwrite", "allow_config_changes", "rank_timeout_s", "logger"),
    *("data.num_workers", "data.decode_threads", "data.timeout_s"),
)
READ_PATHS = ("data", "init")  # groups whose texts name files to read; elsewhere a path is refused
NAMES_OF_METRICS = ("monitor",)  # which have a slash
WRITTEN = ("dirpath", "filename", "folder", "save_dir", "default_root_dir", "output")
REFERENCE = re.compile(r"\$\{(?:data|clip|optim)\.\w+\}")
LARGEST_COUNT = 65_536  # of whole numbers that decide how much is allocated
ALLOCATING = ("clip", "data", "model")


def words_of_run(
    folder: Path, use: Use, given: Sequence[str] = (), config_dirs: Sequence[Path] = ()
) -> list[str]:
    """Return the words of the command line that a run began with, as far as they are to be used.

    Args:
        use: an evaluation takes what it needs; a resumed run takes all but its start's own.
        given: words of the person; what they set is not taken from the run.
        config_dirs: folders of the person's own YAML files, which may have choices of groups.

    Raises:
        UserError: where there are none, or for a word that a file may not decide.
    """
    path = folder / OVERRIDES
    if not path.is_file():
        raise UserError(
            f"{folder} has no {OVERRIDES}, so that its settings are unknown; give them as options, "
            f"with run_dir={folder}"
        )
    set_by_user = {key_of(word) for word in given}
    taken: list[str] = []
    for row in read_rows(path):
        if not isinstance(row, str) or len(row) > MAX_TEXT * 10:
            raise UserError(f"{path}: {shorten(row)} is not an option; give the settings yourself")
        word = _today(row)
        key = key_of(word)
        if key in set_by_user or _is_left_out(key, use):
            continue
        if problem := problem_of_word(word, config_dirs):
            raise UserError(
                f"{path}: {shorten(word)} {problem}; give {shorten(key)}=... yourself, as you want"
            )
        taken.append(word)
    return taken


def key_of(word: str) -> str:
    """Return the option or group of a word, without its mark: "+model.depths=[1]", "~logger"."""
    return re.split("[=@]", word.lstrip("+~"), maxsplit=1)[0].replace("/", ".")


def _today(word: str) -> str:
    """Return a word of an earlier version under today's name."""
    word = GROUP_CHOICES.get(word, word)
    match = OPTION.fullmatch(word)
    return f"{match['mark']}{rename_option(match['key'])}={match['value']}" if match else word


def _is_left_out(key: str, use: Use) -> bool:
    root = key.partition(".")[0]
    if use == "evaluate" and root not in OF_EVALUATION:
        return True
    return key in OF_START or root in OF_START


def problem_of_word(word: str, config_dirs: Sequence[Path] = ()) -> str:
    """Say why a word of a file must not be used; "" where it may."""
    key = key_of(word)
    root = key.partition(".")[0]
    groups, names = set(groups_of("config")), {option.name for option in options_of("config")}
    if root not in groups | names:
        return "is none of the options of a training"
    if "_target_" in word:
        return "names code to run"
    if "$" in REFERENCE.sub("", word):
        return "refers to something outside of the run"
    if REMOVED.fullmatch(word):
        return "" if "." in key and "=" not in word else "removes more than one option"
    match = OPTION.fullmatch(word)
    if not match or "@" in match["key"] or ":" in match["key"] or "/" in match["key"]:
        return "is not an option"
    try:
        override: Any = OverridesParser.create().parse_override(word)
        value = None if override.is_sweep_override() else override.value()
    except (HydraException, RecursionError, ValueError):
        return "is not an option"
    if override.is_sweep_override():
        return "has several values"
    if key in groups:
        return _problem_of_choice(key, value, config_dirs)
    return _problem_of_value(key, value)


def _problem_of_choice(group: str, choice: object, config_dirs: Sequence[Path]) -> str:
    own = [path.stem for each in config_dirs for path in (each / group).glob("*.yaml")]
    if choice is None or choice in [*choices_of(group), *own]:
        return ""
    return "is no choice there is; --config-dir DIR adds YAML files of your own"


def _problem_of_value(key: str, value: object, depth: int = 0) -> str:
    """Say what is wrong with a value: it must be plain, bounded, and no path to write to."""
    root, name = key.partition(".")[0], key.rpartition(".")[2]
    if isinstance(value, list | dict):
        if depth > 2 or len(value) > MAX_ITEMS:
            return "is too large"
        parts = value.items() if isinstance(value, dict) else ((name, each) for each in value)
        problems = (_problem_of_value(f"{key}.{part}", each, depth + 1) for part, each in parts)
        return next(filter(None, problems), "")
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, int | float):
        largest = LARGEST_COUNT if root in ALLOCATING and isinstance(value, int) else MAX_NUMBER
        return "" if math.isfinite(value) and abs(value) <= largest else f"is above {largest:g}"
    text = str(value)
    if len(text) > MAX_TEXT or not text.isprintable():
        return "is not a short text"
    if "://" in text:
        return "names an address"
    is_path = name in WRITTEN or any(mark in text for mark in "/\\:~")
    if is_path and root not in READ_PATHS and name not in NAMES_OF_METRICS:
        return "names a place outside of the run"
    return ""
