"""Videos in, predictions out: clips of several files share a pass, decoding runs ahead."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from video_mvit.data.dataset import Views
from video_mvit.data.decoding import VideoDecodeError
from video_mvit.machine import num_usable_cores
from video_mvit.prediction.background import map_ahead
from video_mvit.prediction.footage import Footage, read_footage
from video_mvit.prediction.scoring import Scorer

MAX_THREADS = 4  # that decode


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model says of one video: the mean softmax of its views (K,), on the host.

    `problem` says why a video could not be read; it then has no scores.
    """

    video: str
    class_names: tuple[str, ...]
    scores: Tensor
    num_frames: int = 0
    duration_s: float = 0.0
    problem: str = ""

    def top(self, num_classes: int = 5) -> list[tuple[str, float]]:
        """Names and scores of the best classes, best first; of equal ones, the first."""
        best = self.scores.sort(descending=True, stable=True)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(self.class_names[label], score) for label, score in list(pairs)[:num_classes]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How videos are predicted; None: as published for such a model."""

    num_clips: int | None = None
    num_crops: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_clips", "num_crops"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} is {value!r}, expected a positive int or null")


def predict_videos(scorer: Scorer, videos: Sequence[str], options: Options) -> Iterator[Prediction]:
    """A prediction of each video, in order, as soon as its pass is full; unreadable ones too."""
    views = scorer.facts.views(options.num_clips, options.num_crops)
    num_threads = max(1, min(MAX_THREADS, num_usable_cores()))
    found = map_ahead(lambda video: _read(video, views), videos, num_threads=num_threads)
    names = scorer.facts.class_names
    for group in _passes(found, scorer.clips_per_pass):
        clips = [footage.clips for _, footage in group if isinstance(footage, Footage)]
        scores = iter(_mean_scores(scorer, clips))
        for video, footage in group:
            if isinstance(footage, Footage):
                yield Prediction(
                    video=video,
                    class_names=names,
                    scores=next(scores),
                    num_frames=footage.num_frames,
                    duration_s=footage.duration_s,
                )
            else:
                yield Prediction(
                    video=video, class_names=names, scores=torch.empty(0), problem=footage
                )


def predict_video(scorer: Scorer, video: str, options: Options) -> Prediction:
    """A prediction of one video; raises `VideoDecodeError` where it cannot be read."""
    (prediction,) = predict_videos(scorer, [video], options)
    if prediction.problem:
        raise VideoDecodeError(video, prediction.problem)
    return prediction


def _read(video: str, views: Views) -> Footage | str:
    """All views of a video, or why it has none."""
    try:
        return read_footage(video, views)
    except VideoDecodeError as error:
        return error.reason


def _passes(
    found: Iterable[tuple[str, Footage | str]], num_clips: int
) -> Iterator[list[tuple[str, Footage | str]]]:
    """Neighbouring videos that together have clips enough for a pass."""
    group: list[tuple[str, Footage | str]] = []
    num_waiting = 0
    for video, footage in found:
        group.append((video, footage))
        num_waiting += len(footage.clips) if isinstance(footage, Footage) else 0
        if num_waiting >= num_clips:
            yield group
            group, num_waiting = [], 0
    if group:
        yield group


def _mean_scores(scorer: Scorer, clips: Sequence[Tensor]) -> list[Tensor]:
    """Mean over the views of each video: list of (V, T, C, H, W) -> list of (K,)."""
    if not clips:
        return []
    scores = scorer.score(torch.cat(list(clips)))
    return [each.mean(dim=0) for each in torch.split(scores, [len(views) for views in clips])]
