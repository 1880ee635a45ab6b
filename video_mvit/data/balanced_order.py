"""An order of training videos in which all classes are equally frequent."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from video_mvit.errors import UserError


@dataclass(frozen=True, kw_only=True, eq=False)
class BalancedOrder:
    """Draw as many videos in an epoch as there are, with the same number of each class.

    Videos of a rare class are repeated, each as often as the others but for one time; of a frequent
    class, others are left out in each epoch. `labels` are those of the videos, (N,).
    """

    labels: NDArray[np.int32]

    def draw(
        self, generator: np.random.Generator, rank: int, num_ranks: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the videos of a rank, and how often the epoch had each before: two arrays (N',)."""
        order = self.draw_all(generator)
        return order[rank::num_ranks], count_copies(order)[rank::num_ranks]

    def draw_all(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """Draw the videos of an epoch, in order: (N,)."""
        by_label = np.argsort(self.labels, kind="stable")
        _, sizes = np.unique(self.labels, return_counts=True)
        classes = np.split(by_label, np.cumsum(sizes)[:-1])
        quotas = np.full(len(classes), len(self.labels) // len(classes))
        rest = len(self.labels) % len(classes)
        quotas[generator.permutation(len(classes))[:rest]] += 1
        drawn = [
            _repeat(videos, quota, generator) for videos, quota in zip(classes, quotas, strict=True)
        ]
        return generator.permutation(np.concatenate(drawn))

    def summary(self, class_names: tuple[str, ...]) -> str:
        """Say how often classes and videos are read in an epoch."""
        labels, sizes = np.unique(self.labels, return_counts=True)
        each = len(self.labels) / len(labels)
        if sizes.min() == sizes.max():
            return f"all {len(labels)} classes have {each:,.0f} videos, so that nothing changes"
        rare, frequent = (
            f"a video of {class_names[labels[place]]!r} {each / sizes[place]:.3g} times"
            for place in (sizes.argmin(), sizes.argmax())
        )
        return (
            f"each of {len(labels)} classes is in {each:,.0f} of {len(self.labels):,} samples of "
            f"an epoch, {rare}, {frequent}"
        )


def count_copies(videos: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how often each video was there before in an order: (N,) -> (N,)."""
    order = np.argsort(videos, kind="stable")
    _, first = np.unique(videos[order], return_index=True)
    starts = np.zeros(len(videos), np.int64)
    starts[first] = first
    copies = np.empty(len(videos), np.int64)
    copies[order] = np.arange(len(videos)) - np.maximum.accumulate(starts)
    return copies


def check_order(*, balanced: bool, shuffle_buffer: int | None) -> None:
    """Raise `UserError` if two orders of an epoch are asked for."""
    if balanced and shuffle_buffer is not None:
        raise UserError(
            "data.balanced draws videos in any order, and data.shuffle_buffer reads them nearly in "
            "that of the shards; remove one of them"
        )


def _repeat(
    videos: NDArray[np.int64], quota: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Draw `quota` of some videos: all of them in each round, in random order."""
    num_rounds = -(-quota // len(videos))
    rounds = [generator.permutation(videos) for _ in range(num_rounds)]
    return np.concatenate([videos[:0], *rounds])[:quota]
