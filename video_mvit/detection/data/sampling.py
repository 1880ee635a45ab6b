"""Order of the training images of an epoch: shuffled, repeated, grouped by orientation, split."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from video_mvit.detection.data.annotations import Annotations


class ImageKey(NamedTuple):
    """Key of a training item, from which all its randomness is derived.

    `place` counts from 0 in the order of the epoch: an image that is repeated differs each time.
    """

    epoch: int
    image_index: int
    place: int


def repeat_factors(
    annotations: Annotations, image_indices: NDArray[np.int64], threshold: float
) -> NDArray[np.float64]:
    """Return how often an epoch shows each image: (M,), at least 1.

    A class in a share f of the images asks for sqrt(threshold / f); the rarest class of an image
    decides (LVIS, https://arxiv.org/abs/1908.03195, appendix B.2).
    """
    per_image = [np.unique(annotations.labels[annotations.targets_of(i)]) for i in image_indices]
    owner = np.repeat(np.arange(len(per_image)), [len(each) for each in per_image])
    labels = np.concatenate(per_image)
    share = np.bincount(labels, minlength=len(annotations.categories.ids)) / len(image_indices)
    factors = np.ones(len(image_indices))
    np.maximum.at(factors, owner, np.sqrt(threshold / share[labels]))
    return factors


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingImages:
    """The M images of an epoch: indices, orientations, and how often each is shown."""

    indices: NDArray[np.int64]
    is_landscape: NDArray[np.bool_]
    repeats: NDArray[np.float64]

    @classmethod
    def of(
        cls, annotations: Annotations, indices: NDArray[np.int64], repeat_threshold: float | None
    ) -> "TrainingImages":
        """Take images of a split, each once, or repeated by `repeat_factors`."""
        height, width = annotations.sizes[indices].T
        repeats = np.ones(len(indices))
        if repeat_threshold is not None:
            repeats = repeat_factors(annotations, indices, repeat_threshold)
        return cls(indices=indices, is_landscape=np.greater(width, height), repeats=repeats)


class GroupedSampler(Sampler[ImageKey]):
    """Yield an epoch's images so that each batch holds images of one orientation.

    Batches of all ranks are made together, of what is left over the last ones, and dealt out in
    turns, so that each rank has the same number of them in every epoch. What does not fill a batch
    on each rank, or `batches_per_step` of them, is dropped.
    """

    def __init__(
        self,
        images: TrainingImages,
        *,
        batch_size: int,
        batches_per_step: int = 1,
        seed: int,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self._images, self._batch_size = images, batch_size
        self._seed, self._rank, self._num_ranks = seed, rank, num_ranks
        self._epoch = self._num_done = 0
        total = int(images.repeats.sum())
        together = batch_size * num_ranks * batches_per_step
        self._num_images, self._num_kept = total, total - total % together

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; called by the trainer at the start of each one."""
        self._epoch = epoch

    def skip_once(self, num_images: int) -> None:
        """Skip the first images of the next pass: a resumed run was trained on them."""
        self._num_done = num_images

    def __len__(self) -> int:
        return self._num_kept // self._num_ranks

    def __iter__(self) -> Iterator[ImageKey]:
        generator = np.random.default_rng([self._seed, self._epoch])
        order = self._shuffled(generator)
        order = order[self._grouped(self._images.is_landscape[order])]
        num_batches = self._num_images // self._batch_size
        batches = np.arange(num_batches * self._batch_size).reshape(num_batches, self._batch_size)
        batches = generator.permutation(batches)[: self._num_kept // self._batch_size]
        places = batches[self._rank :: self._num_ranks].ravel()[self._num_done :]
        self._num_done = 0
        images = self._images.indices[order[places]]
        keys = zip(images.tolist(), places.tolist(), strict=True)
        return (ImageKey(self._epoch, image, place) for image, place in keys)

    def _shuffled(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """Shuffle the images, each as often as its factor says on average."""
        order = generator.permutation(len(self._images.indices))
        stops = np.floor(np.cumsum(self._images.repeats[order]) + generator.random())
        stops[-1] = max(stops[-1], self._num_images)  # against rounding
        drawn = np.repeat(order, np.diff(stops, prepend=0).astype(np.int64))
        return generator.permutation(drawn)[: self._num_images]

    def _grouped(self, is_landscape: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Order images into full batches of one orientation, then what is left over."""
        groups = [np.flatnonzero(is_landscape), np.flatnonzero(~is_landscape)]
        num_full = [len(group) - len(group) % self._batch_size for group in groups]
        full = [group[:num] for group, num in zip(groups, num_full, strict=True)]
        rest = [group[num:] for group, num in zip(groups, num_full, strict=True)]
        return np.concatenate([*full, *rest])
