"""Choose a probe on validation videos, never on those whose number is told.

Letters: B videos; K classes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from video_mvit.errors import UserError
from video_mvit.probing.extraction import SplitFeatures

SMALLEST_SCORE = 1e-12  # of a class that got no vote


class Fitted(Protocol):
    """Trained probes of a grid."""

    def scores(self, number: int, split: SplitFeatures) -> Tensor:
        """Return the scores of one of them, averaged over views: -> (B, K)."""

    def head(self, number: int) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return configuration and tensors of a network's head that is one of them, if one can."""


class Probes(Protocol):
    """A kind of probes and its grid."""

    @property
    def kind(self) -> str:
        """Return its name."""

    @property
    def grid(self) -> Sequence[Any]:
        """Return the places of the grid."""

    def fit(
        self, train: SplitFeatures, num_classes: int, places: Sequence[Any], seed: int
    ) -> Fitted:
        """Train a probe for each of these places."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a place of the grid reached on the videos that decide: `top1` and the mean `loss`."""

    place: Any
    top1: float
    loss: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen:
    """The probe of a kind that was chosen: number `number` of `fitted`, trained on all videos."""

    probes: Probes
    trials: Sequence[Trial]
    best: Trial
    fitted: Fitted
    number: int

    @property
    def kind(self) -> str:
        return self.probes.kind

    @property
    def head(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return configuration and tensors of a network's head that it can be; None for none."""
        return self.fitted.head(self.number)

    def scores(self, split: SplitFeatures) -> Tensor:
        """Return its scores: -> (B, K)."""
        return self.fitted.scores(self.number, split)


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """The videos that decide: a list of their own, or a part of the training list after the other.

    `val` is None for `num_folds` parts of the training list.
    """

    train: SplitFeatures
    val: SplitFeatures | None
    num_classes: int
    num_folds: int
    seed: int

    def choose(self, probes: Probes) -> Chosen:
        """Train the grid of a kind, and choose the best place on the videos that decide."""
        grid, train, counts = probes.grid, self.train, [Count() for _ in probes.grid]
        if self.val is not None:
            fitted = probes.fit(train, self.num_classes, grid, self.seed)
            trials = trials_of(grid, add_scores(counts, fitted, self.val))
            best = best_of(trials)
            number = trials.index(best)
            return Chosen(probes=probes, trials=trials, best=best, fitted=fitted, number=number)
        # Each video is scored once, by probes that were trained without its fold.
        fold_of = stratified_folds(train.labels, train.sources, self.num_folds, self.seed)
        for fold in range(self.num_folds):
            others, mine = (fold_of != fold).nonzero()[:, 0], (fold_of == fold).nonzero()[:, 0]
            fitted = probes.fit(train.take(others), self.num_classes, grid, self.seed)
            counts = add_scores(counts, fitted, train.take(mine))
        trials = trials_of(grid, counts)
        best = best_of(trials)
        # The chosen place once more, on all training videos.
        fitted = probes.fit(train, self.num_classes, [best.place], self.seed)
        return Chosen(probes=probes, trials=trials, best=best, fitted=fitted, number=0)


class Count(NamedTuple):
    """What a probe did on some videos: how many it got right, and the sum of its losses."""

    num_videos: int = 0
    num_right: int = 0
    loss: float = 0.0


def add_scores(counts: Sequence[Count], fitted: Fitted, split: SplitFeatures) -> list[Count]:
    """Return the counts of the probes of a grid, with those on more videos added."""
    added = []
    for number, count in enumerate(counts):
        scores = fitted.scores(number, split)
        right = scores.gather(1, split.labels[:, None]).clamp(min=SMALLEST_SCORE)
        added.append(
            Count(
                num_videos=count.num_videos + len(split),
                num_right=count.num_right + int((scores.argmax(dim=1) == split.labels).sum()),
                loss=count.loss - float(right.double().log().sum()),
            )
        )
    return added


def trials_of(grid: Sequence[Any], counts: Sequence[Count]) -> list[Trial]:
    """Return what each place of a grid reached."""
    return [
        Trial(place=place, top1=each.num_right / each.num_videos, loss=each.loss / each.num_videos)
        for place, each in zip(grid, counts, strict=True)
    ]


def best_of(trials: Sequence[Trial]) -> Trial:
    """Return the trial with the best accuracy; of equal ones, that with the least loss."""
    return min(trials, key=lambda trial: (-trial.top1, trial.loss))


def check_folds(num_folds: int, number: int, what: str = "training videos") -> None:
    """Raise `UserError` for fewer than two folds, or a smaller number of videos than folds."""
    if not 2 <= num_folds <= number:
        raise UserError(f"probe.num_folds is {num_folds}, expected from 2 to the {number} {what}")


def stratified_folds(labels: Tensor, sources: Tensor, num_folds: int, seed: int) -> Tensor:
    """Return the fold of each video: (B,), (B,) -> (B,), classes and folds as equal as can be.

    Clips of one source video stay together, but for a class that has only one.
    """
    units = units_of(labels, sources)
    first = {unit: i for i, unit in reversed(list(enumerate(units.tolist())))}
    unit_labels = labels[torch.tensor([first[unit] for unit in range(len(first))])]
    check_folds(num_folds, len(first), "source videos of the training list")
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(first), generator=generator)
    by_class = shuffled[unit_labels[shuffled].argsort(stable=True)]
    folds = torch.empty(len(first), dtype=torch.int64)
    folds[by_class] = torch.arange(len(first)) % num_folds
    return folds[units]


def units_of(labels: Tensor, sources: Tensor) -> Tensor:
    """Number what is not divided, source videos or single clips of a class of one: -> (B,)."""
    videos = list(zip(labels.tolist(), sources.tolist(), strict=True))
    num_sources = Counter(label for label, _ in set(videos))
    numbers: dict[tuple[str, int], int] = {}
    units = []
    for i, (label, source) in enumerate(videos):
        unit = ("source", source) if num_sources[label] > 1 else ("clip", i)
        units.append(numbers.setdefault(unit, len(numbers)))
    return torch.tensor(units)
