"""Sanity check before a run: read some videos and report their properties."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from video_mvit.data.dataset import ClipPipeline, Unreadable, read_views
from video_mvit.data.lists.manifest import Manifest
from video_mvit.data.preparation.scan_report import describe_mix
from video_mvit.data.reading.open import VideoDecodeError, open_video
from video_mvit.errors import UserError

NUM_PROBED = 32  # videos tried
NO_EPOCH = 2**32 - 1  # clips that no epoch has


@dataclass(frozen=True, kw_only=True)
class ProbedVideo:
    """Properties of one video; `size` is (H, W)."""

    num_frames: int
    rate_text: str
    size: tuple[int, int]
    codec: str


@dataclass(frozen=True, kw_only=True)
class VideoSample:
    """A sample of a list: readable and unreadable videos."""

    num_listed: int
    probed: tuple[ProbedVideo, ...]
    unreadable: tuple[Unreadable, ...]

    def summary(self) -> str:
        """Summarize the sample in one line."""
        num_tried = len(self.probed) + len(self.unreadable)
        first = f"checked {num_tried} of {self.num_listed:,} training videos: "
        first += f"{len(self.unreadable)} unreadable" if self.unreadable else "all readable"
        if not self.probed:
            return first
        lengths = [video.num_frames for video in self.probed]
        rates = describe_mix(video.rate_text for video in self.probed)
        parts = [f"{_span(lengths)} frames", rates] if max(lengths) > 1 else ["single pictures"]
        parts += [
            describe_mix(f"{video.size[1]}x{video.size[0]}" for video in self.probed),
            describe_mix(video.codec for video in self.probed),
        ]
        return "; ".join([first, *parts])


def sanity_check_videos(
    manifest: Manifest, pipeline: ClipPipeline, *, num_videos: int, seed: int
) -> VideoSample:
    """Read a clip of each of some random videos, as training will."""
    generator = np.random.default_rng([seed, NO_EPOCH])
    chosen = generator.permutation(len(manifest))[:num_videos].tolist()
    probed, unreadable = [], []
    for index in chosen:
        try:
            probed.append(_look(manifest.path(index), pipeline, generator))
        except VideoDecodeError as error:
            unreadable.append(Unreadable(index, error.reason))
    return VideoSample(num_listed=len(manifest), probed=tuple(probed), unreadable=tuple(unreadable))


def measure_lengths(
    manifest: Manifest, pipeline: ClipPipeline, *, seed: int, num_videos: int = NUM_PROBED
) -> list[float]:
    """Measure the seconds of some random videos, of those that are readable.

    Raises `UserError` if none is.
    """
    generator = np.random.default_rng([seed, NO_EPOCH])
    lengths, reasons = [], []
    for index in generator.permutation(len(manifest))[:num_videos].tolist():
        try:
            with open_video(manifest.path(index), pipeline.reader, pipeline.decode_limits) as video:
                lengths.append(video.clock.duration_s)
        except VideoDecodeError as error:
            reasons.append(f"{manifest.path(index)}: {error.reason}")
    if not lengths:
        raise UserError(f"none of {len(reasons)} training videos can be read; {reasons[0]}")
    return lengths


def _look(path: str, pipeline: ClipPipeline, generator: np.random.Generator) -> ProbedVideo:
    read_views(path, pipeline, generator)
    with open_video(path, pipeline.reader, pipeline.decode_limits) as video:
        return ProbedVideo(
            num_frames=video.num_frames,
            rate_text=video.clock.rate_text,
            size=video.size,
            codec=video.codec,
        )


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"
