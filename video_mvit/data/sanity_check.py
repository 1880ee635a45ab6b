"""A look at some videos before a run: what they are, and whether they can be read at all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from video_mvit.data.dataset import Unreadable, Views, read_views
from video_mvit.data.lists.manifest import Manifest
from video_mvit.data.preparation.scan import describe_mix
from video_mvit.data.reading.open import VideoDecodeError, open_video

NUM_FIRST_LOOK = 32  # videos tried
NO_EPOCH = 2**32 - 1  # clips other than those of any epoch


@dataclass(frozen=True, kw_only=True)
class Glimpse:
    """What one video showed; `size` is (H, W)."""

    num_frames: int
    fps: float
    size: tuple[int, int]
    codec: str


@dataclass(frozen=True, kw_only=True)
class FirstLook:
    """Some videos of a list, those that could be read and those that could not."""

    num_listed: int
    glimpses: tuple[Glimpse, ...]
    unreadable: tuple[Unreadable, ...]

    def summary(self) -> str:
        """What a person should know before a long run, in one line."""
        num_tried = len(self.glimpses) + len(self.unreadable)
        first = f"tried {num_tried} of {self.num_listed:,} training videos: "
        first += f"{len(self.unreadable)} unreadable" if self.unreadable else "all can be read"
        if not self.glimpses:
            return first
        lengths = [glimpse.num_frames for glimpse in self.glimpses]
        rates = describe_mix(f"{glimpse.fps:.4g} fps" for glimpse in self.glimpses)
        parts = [f"{_span(lengths)} frames", rates] if max(lengths) > 1 else ["single pictures"]
        parts += [
            describe_mix(f"{glimpse.size[1]}x{glimpse.size[0]}" for glimpse in self.glimpses),
            describe_mix(glimpse.codec for glimpse in self.glimpses),
        ]
        return "; ".join([first, *parts])


def look_at_some(manifest: Manifest, views: Views, *, num_videos: int, seed: int) -> FirstLook:
    """Read a clip of each of some random videos, as training will."""
    generator = np.random.default_rng([seed, NO_EPOCH])
    chosen = generator.permutation(len(manifest))[:num_videos].tolist()
    glimpses, unreadable = [], []
    for index in chosen:
        try:
            glimpses.append(_look(manifest.path(index), views, generator))
        except VideoDecodeError as error:
            unreadable.append(Unreadable(index, error.reason))
    return FirstLook(
        num_listed=len(manifest), glimpses=tuple(glimpses), unreadable=tuple(unreadable)
    )


def measure_lengths(
    manifest: Manifest, views: Views, *, seed: int, num_videos: int = NUM_FIRST_LOOK
) -> list[float]:
    """Seconds that some random videos last, of those that can be read.

    Raises `ValueError` where none can.
    """
    generator = np.random.default_rng([seed, NO_EPOCH])
    lengths, reasons = [], []
    for index in generator.permutation(len(manifest))[:num_videos].tolist():
        try:
            with open_video(manifest.path(index), views.reader, views.budget) as video:
                lengths.append(video.num_frames / video.fps)
        except VideoDecodeError as error:
            reasons.append(f"{manifest.path(index)}: {error.reason}")
    if not lengths:
        raise ValueError(f"none of {len(reasons)} training videos can be read; {reasons[0]}")
    return lengths


def _look(path: str, views: Views, generator: np.random.Generator) -> Glimpse:
    read_views(path, views, generator)
    with open_video(path, views.reader, views.budget) as video:
        return Glimpse(
            num_frames=video.num_frames, fps=video.fps, size=video.size, codec=video.codec
        )


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"
