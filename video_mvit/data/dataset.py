"""Map-style datasets: a manifest selects videos, a sampler frames, a crop windows.

A training item is one clip `(T, C, H, W)`, or several crops of it; an evaluation item is one video,
all its views `(V, T, C, H, W)`, decoded once. Clips are uint8; everything else happens on the
device. Training replaces an unreadable video by another sample, evaluation never does; both record
it in the batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from video_mvit.data.balanced_order import BalancedOrder
from video_mvit.data.lists.actions import ClipSpan
from video_mvit.data.lists.manifest import Manifest, Target
from video_mvit.data.reading.open import READERS, DecodeLimits, VideoDecodeError, open_video
from video_mvit.data.sampling import ClipSampler, FrameIndices, join_clips
from video_mvit.errors import UserError

# A crop maps the frames of a clip (T, C, H, W) to one or more windows (T, C, size, size), all
# uint8.
Crop = Callable[[Tensor, np.random.Generator], list[Tensor]]

MAX_TRIES = 10  # videos tried for one training item


class Unreadable(NamedTuple):
    """A listed video that could not be read, with the reason."""

    video_index: int
    reason: str


class Item(NamedTuple):
    """Clips (N, T, C, H, W) of one video, none if it could not be read.

    `label` is its class, which of the classes (K,) it has, its class in each head (H,), or its
    values (K,).
    """

    clips: list[Tensor]
    label: Target
    video_index: int
    unreadable: tuple[Unreadable, ...] = ()


class Batch(NamedTuple):
    """Training clips (B, T, C, H, W), or all views (B, V, T, C, H, W) of videos; uint8.

    `label` and `video_index` are (B,); labels of videos with several classes are sets of them,
    (B, K) bool, of several heads (B, H), and numbers to predict (B, K) float64. `unreadable` videos
    are not among them.
    """

    clip: Tensor
    label: Tensor
    video_index: Tensor
    unreadable: tuple[Unreadable, ...]


class ClipKey(NamedTuple):
    """Key of a training item, from which all its randomness is derived.

    `copy` counts how often the epoch had the video before.
    """

    epoch: int
    video_index: int
    copy: int = 0


@dataclass(frozen=True, kw_only=True)
class ClipPipeline:
    """How videos become clips: frame sampler, spatial crop, reader.

    `num_samples` crops are taken of the same clip (repeated augmentation, SlowFast
    `AUG.NUM_SAMPLE`). A video that exceeds `decode_limits` counts as unreadable.
    """

    sampler: ClipSampler
    crop: Crop
    reader: str = "pyav"
    num_samples: int = 1
    num_threads: int = 1
    decode_limits: DecodeLimits = field(default_factory=DecodeLimits)

    def __post_init__(self) -> None:
        if self.reader not in READERS:
            raise UserError(f"unknown reader {self.reader!r}; choose one of {', '.join(READERS)}")
        for name in ("num_samples", "num_threads"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} must be positive")


def read_views(
    path: str, pipeline: ClipPipeline, generator: np.random.Generator, fingerprint: int = 0
) -> list[Tensor]:
    """Decode a video once and cut all its views: -> list of (T, C, H, W) uint8.

    Nested order: clips, repeated samples, crops. `fingerprint` is of its index of packets, 0 if it
    is not known (see `header_index`). Raises `VideoDecodeError`.
    """
    return read_views_and_span(path, pipeline, generator, fingerprint)[0]


def read_views_and_span(
    path: str, pipeline: ClipPipeline, generator: np.random.Generator, fingerprint: int = 0
) -> tuple[list[Tensor], ClipSpan]:
    """Return what `read_views` does, and from which frame to which its clips reach."""
    with open_video(
        path, pipeline.reader, pipeline.decode_limits, pipeline.num_threads, fingerprint
    ) as video:
        clips = pipeline.sampler(video.clock, generator)
        wanted, places = join_clips(clips)
        first, last = min(int(clip[0]) for clip in clips), max(int(clip[-1]) for clip in clips)
        span = ClipSpan((first, last), (video.clock.time_s(first), video.clock.time_s(last)))
        frames = torch.from_numpy(video.read(wanted)).permute(0, 3, 1, 2)  # (T, C, H, W)
    views = [
        window
        for place in places
        for clip in [_pick(frames, place)]
        for _ in range(pipeline.num_samples)
        for window in pipeline.crop(clip, generator)
    ]
    return views, span


def _read_listed(
    manifest: Manifest, index: int, pipeline: ClipPipeline, generator: np.random.Generator
) -> tuple[list[Tensor], ClipSpan]:
    path, fingerprint = manifest.path(index), manifest.fingerprint(index)
    return read_views_and_span(path, pipeline, generator, fingerprint)


def _pick(frames: Tensor, place: FrameIndices) -> Tensor:
    """Select frames, as a view where they are contiguous."""
    first, num_frames = int(place[0]), len(place)
    if np.array_equal(place, np.arange(first, first + num_frames)):
        return frames[first : first + num_frames]
    return frames[place]


class TrainDataset(Dataset[Item]):
    """One random clip per video; unreadable videos are replaced by random others."""

    def __init__(self, manifest: Manifest, pipeline: ClipPipeline, seed: int) -> None:
        self.manifest, self.pipeline, self.seed = manifest, pipeline, seed

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, key: ClipKey) -> Item:
        """Return the item of a key, always the same; raises `VideoDecodeError` after ten videos."""
        generator = np.random.default_rng([self.seed, *key])  # a last 0 is as none
        index, unreadable = key.video_index, []
        for _ in range(MAX_TRIES):
            try:
                clips, span = _read_listed(self.manifest, index, self.pipeline, generator)
            except VideoDecodeError as error:
                unreadable.append(Unreadable(index, error.reason))
                index = int(generator.integers(len(self)))
            else:
                target = self.manifest.clip_target(index, span)
                return Item(clips, target, index, tuple(unreadable))
        first = unreadable[0]
        raise VideoDecodeError(
            self.manifest.path(first.video_index),
            f"{first.reason}; neither can {MAX_TRIES - 1} replacements",
        )


class EvaluationDataset(Dataset[Item]):
    """All views of each video; `known_unreadable` ones are not opened."""

    def __init__(
        self, manifest: Manifest, pipeline: ClipPipeline, known_unreadable: Mapping[int, str]
    ) -> None:
        self.manifest, self.pipeline, self.known_unreadable = manifest, pipeline, known_unreadable

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> Item:
        label, reason = self.manifest.target(index), self.known_unreadable.get(index)
        if reason is None:
            try:
                generator = np.random.default_rng(0)  # unused by test samplers and crops
                clips, _ = _read_listed(self.manifest, index, self.pipeline, generator)
                return Item(clips, label, index)
            except VideoDecodeError as error:
                reason = error.reason
        return Item([], label, index, (Unreadable(index, reason),))


@dataclass(frozen=True, kw_only=True, eq=False)
class NearbyOrder:
    """An order that reads shards from start to end: shards shuffled, videos nearly in their order.

    `shards` is the shard number of each video, (N,). A video moves by less than `num_buffered`
    places, as with a shuffle buffer of so many, but the order is known beforehand: a run resumes
    anywhere in it.
    """

    shards: NDArray[np.int64]
    num_buffered: int

    def draw(
        self, generator: np.random.Generator, rank: int, num_ranks: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the videos of a rank, a part of the order in one piece: (N',), each once."""
        num_each = len(self.shards) // num_ranks
        places = generator.permutation(int(self.shards.max()) + 1)[self.shards]
        order = np.argsort(places, kind="stable")
        moved = np.arange(num_each) + generator.uniform(0, self.num_buffered, num_each)
        mine = order[rank * num_each :][:num_each][np.argsort(moved, kind="stable")]
        return mine, np.zeros_like(mine)


class TrainSampler(Sampler[ClipKey]):
    """Shuffle all videos in each epoch, and split them evenly over the ranks.

    A remainder is dropped where the ranks, or the videos per step and rank, do not divide the list.
    `order` draws other ones: videos, and how often the epoch had each before.
    """

    def __init__(
        self,
        num_videos: int,
        *,
        seed: int,
        rank: int,
        num_ranks: int,
        num_together: int = 1,
        order: NearbyOrder | BalancedOrder | None = None,
    ) -> None:
        self._order = order
        self._num_videos, self._seed, self._num_together = num_videos, seed, num_together
        self._rank, self._num_ranks, self._epoch, self._num_done = rank, num_ranks, 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; called by the trainer at the start of each one."""
        self._epoch = epoch

    def skip_once(self, num_videos: int) -> None:
        """Skip the first videos of the next pass: a resumed run was trained on them."""
        self._num_done = num_videos

    def __len__(self) -> int:
        num_mine = self._num_videos // self._num_ranks
        return num_mine - num_mine % self._num_together

    def __iter__(self) -> Iterator[ClipKey]:
        generator = np.random.default_rng([self._seed, self._epoch])
        if self._order is None:
            mine = generator.permutation(self._num_videos)[self._rank :: self._num_ranks]
            copies = np.zeros_like(mine)
        else:
            mine, copies = self._order.draw(generator, self._rank, self._num_ranks)
        left = slice(self._num_done, len(self))
        self._num_done = 0
        pairs = zip(mine[left].tolist(), copies[left].tolist(), strict=True)
        return (ClipKey(self._epoch, index, copy) for index, copy in pairs)


def collate_train(items: Sequence[Item]) -> Batch:
    """Batch items, samples of one video adjacent (SlowFast `datasets/loader.py`)."""
    repeated = [(clip, item) for item in items for clip in item.clips]
    return _collate(items, repeated)


def collate_views(items: Sequence[Item]) -> Batch:
    """Batch videos with all their views, without unreadable ones."""
    return _collate(items, [(torch.stack(item.clips), item) for item in items if item.clips])


def _collate(items: Sequence[Item], rows: Sequence[tuple[Tensor, Item]]) -> Batch:
    clips = [clip for clip, _ in rows]
    return Batch(
        clip=torch.stack(clips) if clips else torch.empty(0, dtype=torch.uint8),
        label=torch.from_numpy(np.stack([item.label for _, item in rows]))
        if rows
        else torch.empty(0, dtype=torch.int64),
        video_index=torch.tensor([item.video_index for _, item in rows], dtype=torch.int64),
        unreadable=tuple(note for item in items for note in item.unreadable),
    )
