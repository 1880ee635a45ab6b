"""Names of the classes of several heads: `verb: open`, `noun: door`, those of a head in one piece.

The logits of a network with several heads are those of the first, then those of the second, and so
on. Heads are told as name -> number of classes, in this order.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from video_mvit.errors import UserError
from video_mvit.text import short

Heads = Mapping[str, int]
SEPARATOR = ": "  # between the name of a head and that of a class
ALL = "all"  # stands for all heads together, where numbers are told
MAX_HEADS = 32
HEAD_NAME = re.compile(r"\w(?:[\w -]{0,98}\w)?")
RESERVED = (ALL, "video", "problem")  # columns of predictions
EMA = "ema_"  # before the names of metrics of averaged weights


def check_head_names(names: Sequence[str], where: str) -> None:
    """Raise `UserError` for names of heads that cannot be told apart, or from other words."""
    if not 1 <= len(names) <= MAX_HEADS:
        raise UserError(f"{where}: {len(names)} heads, expected 1 to {MAX_HEADS}")
    for name in names:
        if not HEAD_NAME.fullmatch(name) or name in RESERVED or name.startswith(EMA):
            raise UserError(
                f"{where}: {short(name)} cannot be the name of a head: rename it to letters, "
                f"digits, _ and -, with spaces between them, but not to {', '.join(RESERVED)} nor "
                f"to what begins with {EMA}"
            )
        if list(names).count(name) > 1:
            raise UserError(f"{where}: two heads have the name {short(name)}")


def full_names(classes: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the classes of all heads as the network has them, from those of each head."""
    return tuple(f"{head}{SEPARATOR}{name}" for head, names in classes.items() for name in names)


def heads_of(class_names: Sequence[str]) -> dict[str, int]:
    """Return the heads that full names of classes are of.

    Raises `UserError` for names without a head, and heads that are not in one piece.
    """
    found: dict[str, int] = {}
    last = None
    for name in class_names:
        head, separator, rest = name.partition(SEPARATOR)
        if not separator or not rest:
            raise UserError(
                f"class {short(name)} has no head; of several heads, classes have names such as "
                "'verb: open'"
            )
        if head != last and head in found:
            raise UserError(f"the classes of head {short(head)} are not in one piece")
        found[head] = found.get(head, 0) + 1
        last = head
    return found


def classes_of_heads(class_names: Sequence[str], heads: Heads) -> dict[str, tuple[str, ...]]:
    """Return the names of the classes of each head, without that of the head where they have it."""
    return {
        head: tuple(name.removeprefix(head + SEPARATOR) for name in class_names[part])
        for head, part in zip(heads, parts_of(heads), strict=True)
    }


def parts_of(heads: Heads) -> Iterator[slice]:
    """Yield where the classes of each head are among all."""
    start = 0
    for size in heads.values():
        yield slice(start, start + size)
        start += size


def within_heads(labels: Sequence[int], heads: Heads) -> tuple[int, ...]:
    """Return the class of each head counted within it, from its index among all classes."""
    return tuple(label - part.start for label, part in zip(labels, parts_of(heads), strict=True))


def check_heads(heads: Heads, class_names: Sequence[str] | None, num_classes: int | None) -> None:
    """Raise `UserError` where heads are not those of the classes of a network."""
    check_head_names(list(heads), "heads")
    if num_classes is not None and sum(heads.values()) != num_classes:
        raise UserError(f"heads have {sum(heads.values())} classes, the network {num_classes}")
    if class_names is None:
        return
    if len(set(class_names)) < len(class_names):
        raise UserError("two classes of several heads have the same name")
    if list(heads_of(class_names).items()) != list(heads.items()):
        raise UserError("the names of the classes are of other heads, or of more or fewer classes")
