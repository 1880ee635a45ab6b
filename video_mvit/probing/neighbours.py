"""Nearest neighbours: each training video votes for its class, the more the more alike it is.

As Wu et al. 2018 (arXiv 1805.01978) weigh the votes: exp(cosine / temperature), of the k nearest.

Letters: B videos; C channels; K classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from video_mvit.errors import UserError
from video_mvit.probing.extraction import SplitFeatures

VIDEOS_AT_ONCE = 1024


class Vote(NamedTuple):
    """How many neighbours vote, and how fast their weight falls with the distance."""

    k: int
    temperature: float

    def __str__(self) -> str:
        return f"k {self.k}, temperature {self.temperature:g}"


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The grid of votes; every pair of `k` and `temperature` is tried."""

    k: Sequence[int]
    temperature: Sequence[float]
    kind: ClassVar[str] = "neighbours"

    def __post_init__(self) -> None:
        if not self.k or min(self.k) < 1:
            raise UserError(f"k is {list(self.k)}, expected a list of positive numbers")
        if not all(math.isfinite(each) and each > 0 for each in self.temperature) or not len(
            self.temperature
        ):
            raise UserError(
                f"temperature is {list(self.temperature)}, expected a list of positive numbers"
            )

    @property
    def grid(self) -> list[Vote]:
        """Return every pair of the grid."""
        return [Vote(*pair) for pair in product(self.k, self.temperature)]

    def fit(
        self, train: SplitFeatures, num_classes: int, votes: Sequence[Vote], seed: int
    ) -> "FittedNeighbours":
        """Keep the training videos; nothing is drawn, `seed` is that of other probes."""
        del seed
        return FittedNeighbours(
            directions=directions(train), labels=train.labels, num_classes=num_classes, votes=votes
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedNeighbours:
    """Training videos as unit vectors (B, C), and their labels (B,)."""

    directions: Tensor
    labels: Tensor
    num_classes: int
    votes: Sequence[Vote]

    def scores(self, number: int, split: SplitFeatures) -> Tensor:
        """Return the shares of the votes: -> (B, K)."""
        vote = self.votes[number]
        k = min(vote.k, len(self.labels))
        found = []
        for some in torch.split(directions(split), VIDEOS_AT_ONCE):
            cosines, nearest = (some @ self.directions.T).topk(k, dim=1)  # (b, k)
            weights = (cosines / vote.temperature).softmax(dim=1)
            shares = torch.zeros(len(some), self.num_classes)
            found.append(shares.scatter_add_(1, self.labels[nearest], weights))
        return torch.cat(found)

    def head(self, number: int) -> None:
        """Return that there is none: the training videos themselves are the probe."""
        del number


def directions(split: SplitFeatures) -> Tensor:
    """Return the mean features of each video as a unit vector: -> (B, C)."""
    return F.normalize(split.features.mean(dim=1), dim=1)
