"""Windows and segments of a long video: pure arithmetic on times and scores, no files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from video_mvit.class_heads import Heads, parts_of

WEIGHTS = (1.0, 4.0, 6.0, 4.0, 1.0)  # binomial weights of neighbouring windows
UNCERTAIN = "uncertain"  # shown instead of a class
MIN_REST = 0.5  # fraction of a frame at the end that no window covers


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of one class; `score` is its mean over the windows of the stretch.

    `label` is None where no class has the minimum score; `score` is then that of the best one,
    smoothed.
    """

    start_s: float
    end_s: float
    label: int | None
    score: float

    def name(self, class_names: Sequence[str]) -> str:
        """Return the name of the class, "uncertain" without one."""
        return UNCERTAIN if self.label is None else class_names[self.label]


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Scores of the W windows of a video (W, K); window i covers bounds_s[i] to [i + 1].

    Windows whose best class scores less than `min_score` are uncertain. With `thresholds` of the
    classes, of a model of several labels, the segments of different classes overlap; with `heads`,
    those of different heads, and uncertain ones are left out. `problem` is the reason if the video
    could not be read to its end.
    """

    bounds_s: tuple[float, ...]
    scores: Tensor
    min_score: float = 0.0
    problem: str = ""
    thresholds: tuple[float, ...] | None = None
    heads: Heads | None = None

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Return the segments, in the order of their starts."""
        if self.heads is not None:
            return find_head_segments(self.scores, self.bounds_s, self.heads, self.min_score)
        if self.thresholds is not None:
            return find_class_segments(self.scores, self.bounds_s, self.thresholds)
        return find_segments(self.scores, self.bounds_s, self.min_score)


def window_starts(num_frames: float, span: float, hop: float) -> NDArray[np.float64]:
    """Return the first frames of windows of `span` frames, `hop` apart; (W,).

    The last window ends with the video; a single one starts with it.
    """
    last = max(num_frames - span, 0.0)
    starts = np.arange(0.0, last + 1e-9, max(hop, 1.0))
    return np.append(starts, last) if last - starts[-1] > MIN_REST else starts


def window_bounds(
    starts: NDArray[np.float64], span: float, num_frames: float
) -> NDArray[np.float64]:
    """Return the frames at which windows hand over, midway between their centres; (W + 1,)."""
    centres = starts + span / 2
    return np.concatenate([[0.0], (centres[:-1] + centres[1:]) / 2, [num_frames]])


def smooth(scores: Tensor) -> Tensor:
    """Average each window with its neighbours, weighted: (W, K) -> (W, K)."""
    num_windows, reach = len(scores), len(WEIGHTS) // 2
    total, weights = torch.zeros_like(scores), torch.zeros(num_windows, 1)
    for shift, weight in enumerate(WEIGHTS, start=-reach):
        first, end = max(0, -shift), num_windows - max(0, shift)
        if first < end:
            total[first:end] += weight * scores[first + shift : end + shift]
            weights[first:end] += weight
    return total / weights


def find_segments(
    scores: Tensor, bounds_s: tuple[float, ...], min_score: float = 0.0
) -> tuple[Segment, ...]:
    """Group windows with the same top class of the smoothed scores, and uncertain ones."""
    if not len(scores):
        return ()
    best = smooth(scores).max(dim=1)
    labels = torch.where(best.values >= min_score, best.indices, -1)
    changes = (torch.nonzero(labels[1:] != labels[:-1]).flatten() + 1).tolist()
    edges = [0, *changes, len(labels)]
    segments = []
    for first, end in pairwise(edges):
        label = int(labels[first])
        # Below the minimum are the smoothed scores, perhaps not those of the windows.
        windows = best.values[first:end] if label < 0 else scores[first:end, label]
        segments.append(
            Segment(
                start_s=bounds_s[first],
                end_s=bounds_s[end],
                label=None if label < 0 else label,
                score=float(windows.mean()),
            )
        )
    return tuple(segments)


def find_head_segments(
    scores: Tensor, bounds_s: tuple[float, ...], heads: Heads, min_score: float
) -> tuple[Segment, ...]:
    """Find the stretches of the top class of each head, but those where it is uncertain."""
    segments = []
    for part in parts_of(heads):
        for each in find_segments(scores[:, part], bounds_s, min_score):
            if each.label is not None:
                segments.append(replace(each, label=part.start + each.label))
    return tuple(sorted(segments, key=lambda each: (each.start_s, each.label)))


def find_class_segments(
    scores: Tensor, bounds_s: tuple[float, ...], thresholds: Sequence[float]
) -> tuple[Segment, ...]:
    """Find the stretches of each class in which its smoothed score reaches its threshold."""
    if not len(scores):
        return ()
    is_seen = smooth(scores) >= torch.tensor(thresholds)  # (W, K)
    segments = []
    for label in torch.nonzero(is_seen.any(dim=0)).flatten().tolist():
        edges = torch.nonzero(torch.diff(torch.nn.functional.pad(is_seen[:, label].int(), (1, 1))))
        for first, end in edges.view(-1, 2).tolist():
            segments.append(
                Segment(
                    start_s=bounds_s[first],
                    end_s=bounds_s[end],
                    label=label,
                    score=float(scores[first:end, label].mean()),
                )
            )
    return tuple(sorted(segments, key=lambda each: (each.start_s, each.end_s, each.label)))
