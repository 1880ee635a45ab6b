"""The same classes in another order: which row of a head means which class."""

from collections.abc import Mapping, Sequence

from torch import Tensor

NUM_NAMED = 3


def label_permutation(saved: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Place in `saved` of every wanted class.

    Raises `ValueError` where both are not the same classes, each there once.
    """
    for names in (saved, wanted):
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"class {twice[0]!r} is there twice, so that classes cannot be matched"
            )
    missing = [name for name in wanted if name not in saved]
    strange = [name for name in saved if name not in wanted]
    if missing or strange:
        parts = [f"its {len(saved)} classes are not the {len(wanted)} of the data"]
        parts += [f"it has no {_some(missing)}"] if missing else []
        parts += [f"the data has no {_some(strange)}"] if strange else []
        raise ValueError("; ".join(parts))
    places = {name: i for i, name in enumerate(saved)}
    return [places[name] for name in wanted]


def reorder_head(
    state: Mapping[str, Tensor], permutation: Sequence[int], head: str = "head.projection."
) -> dict[str, Tensor]:
    """The state with the rows of its head, weight and bias, in another order."""
    order = list(permutation)
    return {
        name: tensor[order] if name.startswith(head) else tensor for name, tensor in state.items()
    }


def _some(names: Sequence[str]) -> str:
    more = len(names) - NUM_NAMED
    return ", ".join(map(repr, names[:NUM_NAMED])) + (f" and {more} more" if more > 0 else "")
