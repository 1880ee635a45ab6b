"""Clips of each class as they are decoded, and as the network gets them in training.

A clip is drawn as in the first epoch: the same frames and the same window. Batches hold clips of
different classes, so that mixing shows what it does to pictures and labels. Where a clip is the
smaller part of its mixture, it is shown in the other mixture of the same two clips.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from video_mvit.data.dataset import ClipPipeline, Crop, read_views
from video_mvit.data.lists.manifest import Manifest
from video_mvit.data.reading.open import VideoDecodeError
from video_mvit.data.transforms.cropping import Box, crop_and_resize

MAX_BATCH, MIN_BATCH = 16, 2  # clips that are augmented, and may be mixed, at once
MAX_TRIES = 3  # videos of a class for each clip
MAX_ASPECT = 2.0  # of a whole frame, wider ones are squeezed
LEAST_SHARE = 0.01  # of a class in a label that is shown

Frames = NDArray[np.uint8]  # (T, H, W, 3)


@dataclass(frozen=True, kw_only=True)
class FilmSize:
    """Pixels of the height of a clip on the page, and the frames that are shown of it."""

    height: int
    num_frames: int


class Drawn(NamedTuple):
    """A clip of a video: whole frames and the training window, (T, C, H, W) uint8."""

    video_index: int
    label: int
    whole: Tensor
    window: Tensor


class ClassShare(NamedTuple):
    """A class in a soft label, and its share."""

    class_name: str
    share: float


class ClipPair(NamedTuple):
    """A clip before and after augmentation, and the label that it is trained with."""

    video_index: int
    label: int
    before: Frames
    after: Frames
    target: tuple[ClassShare, ...]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What happens to a batch on the device, as in training; `mean` and `std` undo `normalize`."""

    augment: nn.Module | None
    normalize: nn.Module
    mean: Sequence[float]
    std: Sequence[float]

    def apply(
        self, clips: Tensor, labels: Tensor, num_classes: int, generator: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Augment clips (B, T, C, H, W) -> what the network sees (B, T, C, H, W), labels (B, K)."""
        if self.augment is None:
            seen = self.normalize(clips)
            targets = torch.nn.functional.one_hot(labels, num_classes).float()
        else:
            seen, targets = self.augment(
                clips,
                labels,
                normalize=self.normalize,
                num_classes=num_classes,
                generator=generator,
            )
        mean, std = (torch.tensor(list(each)).view(3, 1, 1, 1) for each in (self.mean, self.std))
        pixels = (seen.float() * std + mean).mul(255).round().clamp(0, 255).byte()
        return pixels.transpose(1, 2), targets


def pair_clips(  # noqa: PLR0913
    manifest: Manifest,
    pipeline: ClipPipeline,
    augmentation: Augmentation,
    *,
    num_each: int,
    seed: int,
    size: FilmSize,
    on_progress: Callable[[int], None],
) -> list[ClipPair]:
    """Return clips of random videos of each class, before and after augmentation, by class.

    Unreadable videos are replaced by others of their class. `on_progress` receives the number of
    new clips.
    """
    generator = np.random.default_rng([seed, 1])
    pairs: list[ClipPair] = []
    batch: list[Drawn] = []
    for clip in draw_clips(manifest, pipeline, num_each=num_each, seed=seed, size=size):
        batch.append(clip)
        on_progress(1)
        if len(batch) == MAX_BATCH + MIN_BATCH:  # so that the last batch is not too small to mix
            now, batch = batch[:MAX_BATCH], batch[MAX_BATCH:]
            pairs += _augmented(now, augmentation, manifest.class_names, size, generator)
    if batch:
        pairs += _augmented(batch, augmentation, manifest.class_names, size, generator)
    return sorted(pairs, key=lambda pair: (pair.label, pair.video_index))


def draw_clips(
    manifest: Manifest, pipeline: ClipPipeline, *, num_each: int, seed: int, size: FilmSize
) -> Iterator[Drawn]:
    """Read clips as in the first epoch of training, `num_each` of a class, classes in turn."""
    generator = np.random.default_rng(seed)
    videos: dict[int, list[int]] = {}
    for index in generator.permutation(len(manifest)).tolist():
        videos.setdefault(int(manifest.labels[index]), []).append(index)
    left = {label: iter(found[: num_each * MAX_TRIES]) for label, found in videos.items()}
    pipeline = replace(pipeline, crop=_both(pipeline.crop, size), num_samples=1)
    for _ in range(num_each):
        for label in generator.permutation(sorted(left)).tolist():
            for index in left[label]:
                draws = np.random.default_rng([seed, 0, index])  # as `TrainDataset` does
                fingerprint = manifest.fingerprint(index)
                try:
                    whole, window, *_ = read_views(
                        manifest.path(index), pipeline, draws, fingerprint
                    )
                except VideoDecodeError:
                    continue
                yield Drawn(index, label, whole, window)
                break


def _both(crop: Crop, size: FilmSize) -> Crop:
    """Return a crop that gives the whole frames as well, small, before its own windows."""

    def cut(frames: Tensor, generator: np.random.Generator) -> list[Tensor]:
        height, width = frames.shape[2:]
        aspect = min(width / height, MAX_ASPECT)
        small = round(size.height * aspect)
        whole = crop_and_resize(
            frames, Box(0, 0, height, width), size.height, max(small, 1), "bicubic"
        )
        return [whole, *crop(frames, generator)]

    return cut


def _augmented(
    batch: Sequence[Drawn],
    augmentation: Augmentation,
    class_names: Sequence[str],
    size: FilmSize,
    generator: np.random.Generator,
) -> list[ClipPair]:
    clips = torch.stack([clip.window for clip in batch])
    labels = torch.tensor([clip.label for clip in batch])
    with torch.no_grad():
        seen, targets = augmentation.apply(clips, labels, len(class_names), generator)
    places = _larger_share(targets, labels)
    return [
        ClipPair(
            clip.video_index,
            clip.label,
            _film(clip.whole, size),
            _film(_shrunk(pixels, size.height), size),
            _shares(target, class_names),
        )
        for clip, pixels, target in zip(batch, seen[places], targets[places], strict=True)
    ]


def _larger_share(targets: Tensor, labels: Tensor) -> Tensor:
    """Return the place in a batch at which each clip is, or its partner's if more of it is there.

    Partners are opposite each other in a batch (`mixup.py`), and so are both mixtures of them.
    """
    places = torch.arange(len(labels))
    own, opposite = targets[places, labels], targets.flip(0)[places, labels]
    return torch.where(opposite > own, places.flip(0), places)


def _shrunk(pixels: Tensor, height: int) -> Tensor:
    box = Box(0, 0, pixels.shape[2], pixels.shape[3])
    width = max(1, round(height * pixels.shape[3] / pixels.shape[2]))
    return crop_and_resize(pixels, box, height, width, "bicubic")


def _film(frames: Tensor, size: FilmSize) -> Frames:
    """Take evenly spaced frames: (T, C, H, W) -> (T', H, W, 3)."""
    places = np.linspace(0, len(frames) - 1, min(size.num_frames, len(frames))).round().astype(int)
    found: Any = frames[places].permute(0, 2, 3, 1).contiguous().numpy()
    return found  # type: ignore[no-any-return]


def _shares(target: Tensor, class_names: Sequence[str]) -> tuple[ClassShare, ...]:
    values, places = target.sort(descending=True)
    pairs = zip(values.tolist(), places.tolist(), strict=True)
    return tuple(ClassShare(class_names[i], v) for v, i in pairs if v >= LEAST_SHARE)
