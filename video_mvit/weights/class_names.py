"""Class names of the rows of a head: reading them, and reordering a head."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from video_mvit.errors import MissingFileError, UserError

NUM_NAMED = 3


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """Read names in label order: one per line, a JSON list, or a JSON object of name -> label.

    Raises `FileNotFoundError` or `UserError`.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no file of class names {path}")
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except ValueError as error:
        raise UserError(f"{path} contains no class names: {error}") from None
    if isinstance(content, dict):
        try:
            labels = {name: int(label) for name, label in content.items()}
        except (TypeError, ValueError):
            raise UserError(f"{path} must give each class name its label, a number") from None
        if sorted(labels.values()) != list(range(len(labels))):
            raise UserError(f"{path} must number its {len(labels)} classes 0, 1, 2, ...")
        content = sorted(labels, key=lambda name: labels[name])
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{path} must be a list of class names, or names with their labels")
    names = tuple(name.strip() for name in content if name.strip())
    if not names:
        raise UserError(f"{path} contains no class name")
    return names


def label_permutation(saved: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Return the index in `saved` of every wanted class.

    Raises `UserError` unless both have the same distinct classes.
    """
    for names in (saved, wanted):
        if twice := sorted(name for name, number in Counter(names).items() if number > 1):
            raise UserError(f"class {twice[0]!r} occurs twice, so that classes cannot be matched")
    places = {name: i for i, name in enumerate(saved)}
    known = set(wanted)
    missing = [name for name in wanted if name not in places]
    strange = [name for name in saved if name not in known]
    if missing or strange:
        parts = [f"its {len(saved)} classes are not the {len(wanted)} of the data"]
        parts += [f"it has no {_some(missing)}"] if missing else []
        parts += [f"the data has no {_some(strange)}"] if strange else []
        raise UserError("; ".join(parts))
    return [places[name] for name in wanted]


def reorder_head(
    state: Mapping[str, Tensor], permutation: Sequence[int], head: str = "head.projection."
) -> dict[str, Tensor]:
    """Return the state with the rows of its head, weight and bias, in another order."""
    order = list(permutation)
    return {
        name: tensor[order] if name.startswith(head) else tensor for name, tensor in state.items()
    }


def _some(names: Sequence[str]) -> str:
    more = len(names) - NUM_NAMED
    return ", ".join(map(repr, names[:NUM_NAMED])) + (f" and {more} more" if more > 0 else "")
