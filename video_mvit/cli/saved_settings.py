"""Check settings that come back from a file: known keys and plain values, nothing that runs.

What a run folder or a checkpoint says is data: it decides numbers and names of the settings that
`auto_settings` chooses, never a class, an interpolation or another key.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from video_mvit.cli.config_check import describe_hint, fits
from video_mvit.errors import UserError
from video_mvit.models.config import VARIANTS, MViTConfig
from video_mvit.renamed import rename_option, rename_value
from video_mvit.training.finetune_settings import KEYS, UNCHANGED, Suggestion

OF_CLIP = ("num_classes", "num_frames", "crop_size")  # fields of a model with keys of their own
# Settings that decide how large the network is, and the fields of its configuration.
SIZES = {
    **{f"model.{name}": name for name in ("depths", "embed_dim", "num_heads", "stride_kv")},
    "clip.num_frames": "num_frames",
    "clip.crop_size": "crop_size",
    "data.num_classes": "num_classes",
}
# Upper bounds of what else decides how much is allocated.
LARGEST = {"data.train_batch_size": 65_536, "data.short_side": 8192}
MAX_BYTES, MAX_NESTING = 100_000, 4  # of the file
MAX_ITEMS, MAX_TEXT, MAX_NUMBER = 100, 300, 1e9  # of a value
MAX_SETTINGS, MAX_DEPTH = 10_000, 8  # of a checkpoint
MAX_CLASSES = 1_000_000
NUM_SHOWN = 60  # characters of a file's content in a message


def shorten(text: object) -> str:
    """Return a text from a file for a message: short, and without control characters."""
    shown = str(text)[: NUM_SHOWN + 1]
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)
    return shown if len(shown) <= NUM_SHOWN else f"{shown[: NUM_SHOWN - 3]}..."


def setting_hints() -> dict[str, Any]:
    """Return the type of each setting that may come from a file, by key."""
    hints = get_type_hints(MViTConfig).items()
    return {**KEYS, **{f"model.{name}": hint for name, hint in hints if name not in OF_CLIP}}


def problem_of(key: str, value: object) -> str:
    """Say what is wrong with a setting from a file; "" where it may be applied."""
    hints = setting_hints()
    if key not in hints:
        return f"{shorten(key)} is not a setting that auto_settings chooses"
    items = value if isinstance(value, list) else [value]
    if len(items) > MAX_ITEMS or not fits(value, hints[key]) or not all(map(_is_plain, items)):
        return f"{key} is not {describe_hint(hints[key])}"
    if key == "model.name" and value not in VARIANTS:
        return f"{key} is none of {', '.join(VARIANTS)}"
    if key in LARGEST and isinstance(value, int) and not 1 <= value <= LARGEST[key]:
        return f"{key} is outside 1 to {LARGEST[key]:,}"
    return ""


def _is_plain(value: object) -> bool:
    """Return whether a value is a scalar of bounded size without an interpolation."""
    if isinstance(value, str):
        return len(value) <= MAX_TEXT and "${" not in value and value != "???"
    if isinstance(value, int | float):
        return math.isfinite(value) and abs(value) <= MAX_NUMBER
    return value is None


def read_suggestions(path: Path, kept: Sequence[str] = ()) -> list[Suggestion]:
    """Read the settings that a run began with; `kept` are keys whose values are not used.

    Raises `UserError` that names the file and the key.
    """
    suggestions: dict[str, Suggestion] = {}
    for number, row in enumerate(read_rows(path), 1):
        suggestion = _suggestion(row)
        if suggestion is None:
            raise UserError(_advise(path, f"entry {number} is not a setting"))
        if suggestion.key in suggestions:
            raise UserError(_advise(path, f"{shorten(suggestion.key)} is there twice"))
        is_used = suggestion.value is not UNCHANGED and suggestion.key not in kept
        if is_used and (problem := problem_of(suggestion.key, suggestion.value)):
            raise UserError(_advise(path, problem))
        suggestions[suggestion.key] = suggestion
    return list(suggestions.values())


def _suggestion(row: object) -> Suggestion | None:
    """Return a row as a suggestion, under today's names; None where it is none."""
    if not isinstance(row, dict) or not {"key"} <= set(row) <= {"key", "value", "reason"}:
        return None
    key, reason = row["key"], row.get("reason", "")
    if not isinstance(key, str) or not isinstance(reason, str) or len(key) > MAX_TEXT:
        return None
    key = rename_option(key)
    value = rename_value(key, row["value"]) if "value" in row else UNCHANGED
    return Suggestion(key, value, "".join(c if c.isprintable() else "?" for c in reason[:MAX_TEXT]))


def read_rows(path: Path) -> list[Any]:
    """Read a YAML list of bounded size, without aliases, which may stand for gigabytes."""
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UserError(_advise(path, f"it is larger than {MAX_BYTES:,} bytes"))
    try:
        text = content.decode()
        if _is_flat(text):
            rows: Any = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
            if isinstance(rows, list):
                return rows
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, OSError):
        pass
    raise UserError(_advise(path, "it is not a list of settings"))


def _is_flat(text: str) -> bool:
    """Return whether a YAML text has no aliases, and no deep nesting."""
    nesting = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            return False
        nesting += isinstance(event, yaml.CollectionStartEvent)
        nesting -= isinstance(event, yaml.CollectionEndEvent)
        if nesting > MAX_NESTING:
            return False
    return True


def _advise(path: Path, problem: str) -> str:
    return f"{path}: {problem}; remove the file and give the settings of the run as options"


def check_architecture(
    suggestions: Sequence[Suggestion],
    card: Mapping[str, Any],
    path: Path,
    kept: Sequence[str] = (),
) -> None:
    """Raise `UserError` where settings read from `path` build another network than the checkpoint.

    So no number in the file makes the process allocate more than the weights justify. `card` is the
    model card in the checkpoint; `kept` are keys whose values are not those of the file.
    """
    trained = card.get("model") or {}
    stated = {key: value for key, value, _ in suggestions if value is not UNCHANGED}
    if row := VARIANTS.get(stated.get("model.name", "")):
        own = {key: getattr(row, name) for key, name in SIZES.items() if key.startswith("model.")}
        stated = {**own, **stated}
    for key, name in SIZES.items():
        if key in stated and key not in kept and as_list(stated[key]) != as_list(trained.get(name)):
            raise UserError(_advise(path, f"{key} is not that of the checkpoint"))


def as_list(value: Any) -> Any:
    """Return a tuple as a list, and any other value as it is."""
    return list(value) if isinstance(value, tuple) else value


def check_saved_settings(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Raise `UserError` unless settings and class names of a checkpoint are plain values."""
    settings, names = checkpoint["settings"], checkpoint["class_names"]
    problem = ""
    if not isinstance(settings, dict) or len(settings) > MAX_SETTINGS:
        problem = "its settings are not a table"
    elif not all(isinstance(key, str) and _is_tree(value) for key, value in settings.items()):
        problem = "its settings are not plain values"
    elif not isinstance(names, list) or len(names) > MAX_CLASSES:
        problem = "its class names are not a list"
    elif not all(isinstance(name, str) for name in names):
        problem = "its class names are not texts"
    if problem:
        raise UserError(
            f"{path} cannot be resumed: {problem}; to start from its weights: init=weights "
            f"init.source={path}"
        )


def _is_tree(value: object, depth: int = 0) -> bool:
    """Return whether a value is plain, or lists and mappings of plain values."""
    if depth > MAX_DEPTH:
        return False
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_tree(value[key], depth + 1) for key in value)
    if isinstance(value, list | tuple):
        return all(_is_tree(item, depth + 1) for item in value)
    return value is None or isinstance(value, bool | int | float | str)
