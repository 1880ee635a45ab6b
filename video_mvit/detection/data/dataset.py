"""Map-style datasets of annotated images.

Training replaces an unreadable image by another one, evaluation never does; both record it in the
batch.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from video_mvit.data.dataset import MAX_TRIES, Unreadable
from video_mvit.data.reading.reader import VideoDecodeError
from video_mvit.detection.data.annotations import Annotations
from video_mvit.detection.data.images import read_annotated_image
from video_mvit.detection.data.sampling import ImageKey
from video_mvit.detection.data.transforms import AnnotatedImage, Transform
from video_mvit.detection.instances import DetectionBatch, Instances

NO_OBJECTS = np.empty(0, np.int64)


class DetectionItem(NamedTuple):
    """An image (3, H, W) uint8 as the detector gets it, with its objects.

    `image` is None where it could not be read. `original_size` is the (height, width) of the file.
    """

    image: Tensor | None
    target: Instances
    image_index: int
    original_size: tuple[int, int]
    unreadable: tuple[Unreadable, ...] = ()


def read_sample(
    annotations: Annotations, image_index: int, objects: NDArray[np.int64]
) -> AnnotatedImage:
    """Read an image with some of its objects. Raises `VideoDecodeError`."""
    size = annotations.size(image_index)
    x, y, width, height = annotations.boxes[objects].T
    return AnnotatedImage(
        image=read_annotated_image(annotations.image_path(image_index), size),
        boxes=np.stack([x, y, x + width, y + height], axis=1),
        labels=annotations.labels[objects].astype(np.int64),
        masks=[annotations.mask(index, size) for index in objects.tolist()],
    )


class TrainDetectionDataset(Dataset[DetectionItem]):
    """Augmented images with their objects; unreadable ones are replaced by random others."""

    def __init__(
        self,
        annotations: Annotations,
        image_indices: NDArray[np.int64],
        transform: Transform,
        seed: int,
    ) -> None:
        self.annotations, self.image_indices = annotations, image_indices
        self.transform, self.seed = transform, seed

    def __len__(self) -> int:
        return len(self.image_indices)

    def __getitem__(self, key: ImageKey) -> DetectionItem:
        """Return the item of a key, always the same; raises `VideoDecodeError` after ten images."""
        generator = np.random.default_rng([self.seed, *key])
        index, unreadable = key.image_index, []
        for _ in range(MAX_TRIES):
            try:
                sample = read_sample(self.annotations, index, self.annotations.targets_of(index))
            except VideoDecodeError as error:
                unreadable.append(Unreadable(index, error.reason))
                index = int(generator.choice(self.image_indices))
            else:
                sample = self.transform(sample, generator)
                size = self.annotations.size(index)
                return DetectionItem(
                    sample.pixels(), sample.instances(), index, size, tuple(unreadable)
                )
        first = unreadable[0]
        raise VideoDecodeError(
            self.annotations.image_path(first.video_index),
            f"{first.reason}; neither can {MAX_TRIES - 1} replacements",
        )


class DetectionDataset(Dataset[DetectionItem]):
    """Images for evaluation, without objects; `known_unreadable` ones are not opened."""

    def __init__(
        self,
        annotations: Annotations,
        transform: Transform,
        known_unreadable: Mapping[int, str] | None = None,
    ) -> None:
        self.annotations, self.transform = annotations, transform
        self.known_unreadable = known_unreadable or {}

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> DetectionItem:
        size, reason = self.annotations.size(index), self.known_unreadable.get(index)
        if reason is None:
            try:
                sample = read_sample(self.annotations, index, NO_OBJECTS)
            except VideoDecodeError as error:
                reason = error.reason
            else:
                generator = np.random.default_rng(0)  # unused by transforms of evaluation
                sample = self.transform(sample, generator)
                return DetectionItem(sample.pixels(), sample.instances(), index, size)
        nothing = Instances(
            boxes=torch.empty(0, 4), labels=torch.empty(0, dtype=torch.int64), masks=[]
        )
        return DetectionItem(None, nothing, index, size, (Unreadable(index, reason),))


def collate_training(items: Sequence[DetectionItem]) -> DetectionBatch:
    """Batch images with their objects."""
    return collate(items)._replace(targets=[item.target for item in items])


def collate(items: Sequence[DetectionItem]) -> DetectionBatch:
    """Batch images without objects, and without unreadable ones."""
    readable = [(item.image, item) for item in items if item.image is not None]
    return DetectionBatch(
        images=[image for image, _ in readable],
        targets=[],
        image_index=torch.tensor([item.image_index for _, item in readable], dtype=torch.int64),
        original_sizes=[item.original_size for _, item in readable],
        unreadable=tuple(note for item in items for note in item.unreadable),
    )
