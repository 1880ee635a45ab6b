"""Training checkpoints of version 0.1 under today's names, so that old runs resume and evaluate."""

from collections.abc import Mapping
from typing import Any

from video_mvit.renamed import (
    CHECKPOINT_KEYS,
    CLASSES,
    LOG_KEYS,
    rename_card,
    rename_settings,
)

# Lightning keys the state of a callback by the name of its class.
CLASS_NAMES = {old.rpartition(".")[2]: new.rpartition(".")[2] for old, new in CLASSES.items()}


def translate_checkpoint(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return a loaded checkpoint with all names of version 0.1 replaced; today's stay as they are.

    The given one is left alone; tensors are shared.
    """
    translated = {CHECKPOINT_KEYS.get(key, key): value for key, value in checkpoint.items()}
    if isinstance(callbacks := translated.get("callbacks"), Mapping):
        translated["callbacks"] = {
            _state_key(key): _state(state) for key, state in callbacks.items()
        }
    if isinstance(settings := translated.get("settings"), Mapping):
        translated["settings"] = rename_settings(settings)
    if isinstance(card := translated.get("card"), Mapping):
        translated["card"] = rename_card(card)
    return translated


def _state_key(key: str) -> str:
    """Rename the class in a callback's key, and the metric that it monitors."""
    name, brace, arguments = key.partition("{")
    for old, new in LOG_KEYS.items():
        arguments = arguments.replace(f"'{old}'", f"'{new}'")
    return f"{CLASS_NAMES.get(name, name)}{brace}{arguments}"


def _state(state: Any) -> Any:
    """Rename the metric that a callback's state says it monitors."""
    if not isinstance(state, Mapping) or state.get("monitor") not in LOG_KEYS:
        return state
    return {**state, "monitor": LOG_KEYS[state["monitor"]]}
