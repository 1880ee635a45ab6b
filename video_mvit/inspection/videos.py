"""Open videos of a list, each in five places: sizes, rates, lengths, and a glance at its pictures.

Videos are opened in processes of their own, so that one that crashes a decoder is only unreadable.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from video_mvit.data.frame_clock import describe_rate
from video_mvit.data.lists.manifest import Manifest
from video_mvit.data.preparation.scan import HANG_FACTOR
from video_mvit.data.preparation.scan_report import own_name
from video_mvit.data.preparation.worker_pool import WorkerCrashed, map_in_processes
from video_mvit.data.reading.open import DecodeLimits, VideoDecodeError, open_video

NUM_GLANCES = 5  # frames that are read, evenly spread from the first to the last one
GLANCE_SIDE = 16  # pixels

Glances = NDArray[np.uint8]  # (NUM_GLANCES, GLANCE_SIDE, GLANCE_SIDE, 3), RGB


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OpenedVideo:
    """Properties of a video, and its glances; `size` is (H, W)."""

    num_frames: int
    fps: float
    is_variable: bool
    duration_s: float
    size: tuple[int, int]
    codec: str
    glances: Glances

    @property
    def rate_text(self) -> str:
        return describe_rate(self.fps, is_variable=self.is_variable)


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The list of a split, and what was found of it, by index in the list."""

    name: str
    manifest: Manifest
    opened: dict[int, OpenedVideo]
    unreadable: dict[int, str]

    @property
    def num_tried(self) -> int:
        """Return the number of videos that were opened, or could not be."""
        return len(self.opened) + len(self.unreadable)

    def video_name(self, index: int) -> str:
        """Return the name of a video in its list, without its place in a shard."""
        return own_name(self.manifest.names[index])


def spread(num_videos: int, limit: int | None) -> list[int]:
    """Choose at most `limit` indices of a list, evenly spread."""
    if limit is None or limit >= num_videos:
        return list(range(num_videos))
    return [i * num_videos // limit for i in range(limit)]


def open_split(  # noqa: PLR0913
    name: str,
    manifest: Manifest,
    *,
    known_bad: dict[int, str],
    limit: int | None,
    num_workers: int,
    decode_limits: DecodeLimits,
    on_progress: Callable[[int], None],
) -> Split:
    """Open videos of a list, at most `limit`, without those that are known to be unreadable."""
    chosen = [index for index in spread(len(manifest), limit) if index not in known_bad]
    opened: dict[int, OpenedVideo] = {}
    unreadable = dict(known_bad)
    results = map_in_processes(
        partial(glance_at, decode_limits=decode_limits),
        [(index, manifest.path(index)) for index in chosen],
        num_workers=num_workers,
        time_limit_s=decode_limits.time_s * HANG_FACTOR,
    )
    with contextlib.closing(results):
        for (index, _), result in results:
            if isinstance(result, WorkerCrashed):
                unreadable[index] = result.reason
            elif isinstance(result, str):
                unreadable[index] = result
            else:
                opened[index] = result
            on_progress(1)
    return Split(
        name=name,
        manifest=manifest,
        opened=dict(sorted(opened.items())),
        unreadable=dict(sorted(unreadable.items())),
    )


def glance_at(item: tuple[int, str], decode_limits: DecodeLimits) -> OpenedVideo | str:
    """Open a video, given an index and its path; return the reason where it is unreadable."""
    try:
        with open_video(item[1], decode_limits=decode_limits) as video:
            places = np.linspace(0, video.num_frames - 1, NUM_GLANCES).round().astype(np.int64)
            frames = [video.read([place])[0] for place in places.tolist()]
            return OpenedVideo(
                num_frames=video.num_frames,
                fps=video.fps,
                is_variable=video.clock.is_variable,
                duration_s=video.clock.duration_s,
                size=video.size,
                codec=video.codec,
                glances=shrink(frames),
            )
    except VideoDecodeError as error:
        return error.reason


def shrink(frames: Sequence[NDArray[np.uint8]]) -> Glances:
    """Average frames (H, W, 3) over cells: -> (T, 16, 16, 3)."""
    side = (GLANCE_SIDE, GLANCE_SIDE)
    small = (Image.fromarray(f).resize(side, Image.Resampling.BOX) for f in frames)
    return np.stack([np.asarray(each) for each in small])
