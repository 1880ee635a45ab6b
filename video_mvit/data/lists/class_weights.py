"""Weights of classes in the loss: balanced, in a list, or in a file of classes and weights."""

import logging
import math
from collections import Counter
from collections.abc import Sequence

from video_mvit.class_heads import Heads, parts_of
from video_mvit.data.lists.text import read_csv
from video_mvit.errors import UserError
from video_mvit.text import short

logger = logging.getLogger(__name__)

HEADER = ["class", "weight"]


def class_weights(
    given: str | Sequence[float] | None,
    class_names: Sequence[str],
    labels: Sequence[int],
    heads: Heads | None = None,
) -> tuple[float, ...] | None:
    """Return the weight of each class; None where none are given.

    Args:
        given: "balanced", the weights in the order of the classes, or the path of a file with rows
            of a class and its weight.
        labels: of the training videos. Balanced weights are inverse to the number of videos of a
            class, and 1 on average over the videos; of several heads, in each.
        heads: whose classes these are; None: of one.
    """
    if given is None:
        return None
    if given == "balanced":
        weights = _balanced(labels, heads or {"": len(class_names)})
    elif isinstance(given, str):
        weights = _from_file(given, class_names)
    else:
        weights = tuple(float(weight) for weight in given)
    if len(weights) != len(class_names):
        raise UserError(
            f"class_weights has {len(weights)} weights, but there are {len(class_names)} classes: "
            f"{', '.join(map(short, class_names[:6]))}{', ...' * (len(class_names) > 6)}"
        )
    if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise UserError("class_weights must be 0 or more, and finite, and not all 0")
    low, high = (choose(zip(weights, class_names, strict=True)) for choose in (min, max))
    logger.info("class weights: from %.3g (%s) to %.3g (%s)", *low, *high)
    return weights


def _balanced(labels: Sequence[int], heads: Heads) -> tuple[float, ...]:
    counts, weights = Counter(labels), list[float]()
    for part in parts_of(heads):
        found = {label: n for label, n in counts.items() if part.start <= label < part.stop}
        mean = sum(found.values()) / max(len(found), 1)
        weights += [mean / found[k] if k in found else 1.0 for k in range(part.start, part.stop)]
    return tuple(weights)


def _from_file(path: str, class_names: Sequence[str]) -> tuple[float, ...]:
    """Read rows of a class and its weight, in any order; each class has one."""
    found: dict[str, float] = {}
    for number, row in read_csv(path, ","):
        if row == HEADER and not found:
            continue
        name, weight = row[0], _number(row[1]) if len(row) == 2 else None
        if weight is None or name not in class_names or name in found:
            raise UserError(
                f"{path} line {number}: {short(','.join(row))} is not a class of the data and its "
                "weight, given once, such as walk,2.5"
            )
        found[name] = weight
    if absent := [name for name in class_names if name not in found]:
        raise UserError(f"{path} has no weight for {len(absent)} classes, first: {absent[0]!r}")
    return tuple(found[name] for name in class_names)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
