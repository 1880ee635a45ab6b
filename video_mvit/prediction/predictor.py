"""Predict videos: clips of several files share a forward pass, decoding runs ahead."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from video_mvit.class_heads import SEPARATOR, Heads, parts_of
from video_mvit.errors import UserError
from video_mvit.evaluation.view_scores import Task
from video_mvit.prediction.clips import VideoClips
from video_mvit.prediction.input_spec import InputSpec
from video_mvit.prediction.prefetch import read_groups
from video_mvit.prediction.scorer import Scorer
from video_mvit.prediction.sliding_window import slide
from video_mvit.prediction.timeline import Segment, Timeline
from video_mvit.text import short

MIN_SCORE = 0.5  # more than all other classes together
NUM_LONG = 10  # clips: "auto" makes a timeline of longer videos
OnWindows = Callable[[int, int], None]  # called with the number of finished and of all windows


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Prediction of one video: the scores of its views combined (K,), on the host.

    `problem` is the reason if the video could not be read; there are no scores then. `thresholds`
    are those of the classes, of a model of several labels; None: its classes exclude each other,
    with several `heads` those of each. Where `task` is regression, scores are the `values` of
    targets, named by `class_names`.
    """

    video: str
    class_names: tuple[str, ...]
    scores: Tensor
    num_frames: int = 0
    duration_s: float = 0.0
    problem: str = ""
    timeline: Timeline | None = None
    thresholds: tuple[float, ...] | None = None
    heads: Heads | None = None
    task: Task = "single_label"

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Return the segments of the timeline, in order; empty without a timeline."""
        has_classes = self.timeline and self.task != "regression"
        return self.timeline.segments if self.timeline and has_classes else ()

    @property
    def has_several(self) -> bool:
        """Return whether a video shows several classes at once."""
        return self.thresholds is not None or self.heads is not None

    @property
    def is_incomplete(self) -> bool:
        """Return whether a part of the video could not be read."""
        return bool(self.problem or (self.timeline and self.timeline.problem))

    def top(self, num_classes: int = 5) -> list[tuple[str, float]]:
        """Return names and scores of the top classes, best first; ties by index.

        With several heads, those of the first, then those of the second, and so on. Raises
        `UserError` where a model predicts numbers, not classes.
        """
        if self.task == "regression":
            raise UserError("the model predicts numbers, of which none is on top; use values()")
        return [pair for ranked in self.rankings(num_classes) for pair in ranked]

    def by_head(self, num_classes: int = 5) -> dict[str, list[tuple[str, float]]]:
        """Return names and scores of the top classes of each head, best first.

        Raises `UserError` for a model without heads.
        """
        if self.heads is None:
            raise UserError("the model has no heads; .top(5) has its best classes")
        return {
            head: [(name.removeprefix(head + SEPARATOR), score) for name, score in ranked]
            for head, ranked in zip(self.heads, self.rankings(num_classes), strict=True)
        }

    def rankings(self, num_classes: int = 5) -> list[list[tuple[str, float]]]:
        """Return the top classes of each head, of a model without heads of all."""
        heads = self.heads or {"": len(self.scores)}
        found = []
        for part in parts_of(heads):
            best = self.scores[part].sort(descending=True, stable=True)
            pairs = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
            names = self.class_names[part]
            found.append([(names[label], score) for label, score in pairs[:num_classes]])
        return found

    def values(self) -> dict[str, float]:
        """Return the number of each target, in its units.

        Raises `UserError` where a model tells classes, not numbers.
        """
        if self.task != "regression":
            raise UserError("the model tells classes, not numbers; use top()")
        return dict(zip(self.class_names, self.scores.tolist(), strict=False))

    def seen(self, num_classes: int = 5) -> list[tuple[str, float]]:
        """Return the classes that a video shows, best first, with their scores.

        These are the top ones (of each head), or, of several labels, all that reach their
        thresholds.
        """
        if self.thresholds is None:
            return self.top(num_classes)
        least = dict(zip(self.class_names, self.thresholds, strict=True))
        every = self.top(len(self.class_names))
        return [(name, score) for name, score in every if score >= least[name]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a prediction; None: as published for such a model.

    A timeline covers a video with windows of one clip, `step_s` apart (None: half a clip); "auto"
    does so for videos longer than ten clips. Stretches in which no class scores `min_score` are
    uncertain. A model of several labels sees the classes that score `min_score`, or their own of
    `thresholds` by name.
    """

    num_clips: int | None = None
    num_crops: int | None = None
    timeline: bool | Literal["auto"] = "auto"
    step_s: float | None = None
    min_score: float = MIN_SCORE
    thresholds: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.timeline not in (True, False, "auto"):
            raise UserError(f"timeline is {self.timeline!r}, expected true, false or auto")
        if self.step_s is not None and not (type(self.step_s) in (int, float) and self.step_s > 0):
            raise UserError(f"step_s is {self.step_s!r}, expected positive seconds or null")
        if type(self.min_score) not in (int, float) or not 0 <= self.min_score <= 1:
            raise UserError(f"min_score is {self.min_score!r}, expected a number from 0 to 1")
        for name in ("num_clips", "num_crops"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise UserError(f"{name} is {value!r}, expected a positive int or null")

    def check(self, spec: InputSpec) -> None:
        """Raise `UserError` if the model does not support the options."""
        spec.pipeline(self.num_clips, self.num_crops)
        self.thresholds_for(spec)
        if spec.scoring.task == "regression" and self.min_score != MIN_SCORE:
            raise UserError("min_score is for classes, and this model predicts numbers")
        if self.timeline is True and spec.sampling == "segments":
            raise UserError(
                "timeline is true, but a segment-based model covers a whole video with one clip; "
                "use timeline=false, or sampling=strided with its frame_stride"
            )

    def thresholds_for(self, spec: InputSpec) -> tuple[float, ...] | None:
        """Return the thresholds of the classes of a model, None of one with a single label.

        Raises `UserError` for thresholds that are not of its classes.
        """
        if spec.scoring.task != "multi_label":
            if self.thresholds is not None:
                raise UserError("thresholds are for a model of several labels, which this is not")
            return None
        known = {} if self.thresholds is None else self.thresholds
        if unknown := [name for name in known if name not in spec.class_names]:
            raise UserError(f"thresholds have {short(unknown[0])}, which is no class of the model")
        return tuple(known.get(name, self.min_score) for name in spec.class_names)

    def wants_timeline(self, spec: InputSpec, duration_s: float) -> bool:
        """Return whether a video of this duration gets a timeline."""
        if self.timeline != "auto":
            return self.timeline
        return spec.sampling == "strided" and duration_s > NUM_LONG * 2 * spec.step_s


def predict_videos(
    scorer: Scorer,
    videos: Sequence[str],
    options: Options,
    on_windows: OnWindows = lambda _done, _all: None,
) -> Iterator[Prediction]:
    """Yield a prediction of each video, in order, as soon as its pass is full."""
    options.check(scorer.spec)
    pipeline = scorer.spec.pipeline(options.num_clips, options.num_crops)
    task = scorer.spec.scoring.task
    names, thresholds = scorer.spec.class_names, options.thresholds_for(scorer.spec)
    heads = scorer.spec.scoring.heads or None
    for group in read_groups(videos, pipeline, scorer.clips_per_pass):
        clips = [
            video_clips.clips for _, video_clips in group if isinstance(video_clips, VideoClips)
        ]
        scores = iter(_mean_scores(scorer, clips))
        for video, video_clips in group:
            if isinstance(video_clips, VideoClips):
                timeline = None
                if options.wants_timeline(scorer.spec, video_clips.duration_s):
                    timeline = slide(scorer, video, options.step_s, on_windows)
                    timeline = replace(
                        timeline, min_score=options.min_score, thresholds=thresholds, heads=heads
                    )
                yield Prediction(
                    video=video,
                    class_names=names,
                    scores=next(scores),
                    num_frames=video_clips.num_frames,
                    duration_s=video_clips.duration_s,
                    timeline=timeline,
                    thresholds=thresholds,
                    heads=heads,
                    task=task,
                )
            else:
                yield Prediction(
                    video=video,
                    class_names=names,
                    scores=torch.empty(0),
                    problem=video_clips,
                    task=task,
                )


def _mean_scores(scorer: Scorer, clips: Sequence[Tensor]) -> list[Tensor]:
    """Combine the scores of the views of each video: list of (V, T, C, H, W) -> list of (K,)."""
    if not clips:
        return []
    scores = scorer.score(torch.cat(list(clips)))
    by_video = torch.split(scores, [len(views) for views in clips])
    return [scorer.spec.scoring.of_video(each) for each in by_video]
