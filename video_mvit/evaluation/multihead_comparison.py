"""Compare two evaluations with several heads: each head, and all together, as a single label."""

from collections.abc import Sequence

from video_mvit.class_heads import ALL, classes_of_heads
from video_mvit.errors import UserError
from video_mvit.evaluation.comparison import Comparison, compare
from video_mvit.evaluation.multihead_predictions import (
    MultiHeadVideo,
    combine,
    name_of,
    of_head,
)
from video_mvit.evaluation.multihead_results import MultiHeadResult

Evaluated = tuple[MultiHeadResult, Sequence[MultiHeadVideo]]


def compare_heads(before: Evaluated, after: Evaluated) -> dict[str, Comparison]:
    """Compare video by video: "all", and each head. Raises `UserError` where heads differ."""
    classes = [classes_of_heads(one.origin.class_names, one.sizes) for one, _ in (before, after)]
    if list(classes[0]) != list(classes[1]):
        raise UserError(
            f"the two evaluations have other heads, {', '.join(classes[0])} and "
            f"{', '.join(classes[1])}"
        )
    (old, before_names), (new, after_names) = (
        (together.predictions, [name_of(labels, names) for labels in together.combinations])
        for together, names in (
            (combine(predictions), names)
            for (_, predictions), names in zip((before, after), classes, strict=True)
        )
    )
    found = {ALL: compare(old, new, (before_names, after_names))}
    for place, head in enumerate(classes[0]):
        found[head] = compare(
            of_head(before[1], place),
            of_head(after[1], place),
            (classes[0][head], classes[1][head]),
        )
    return found
