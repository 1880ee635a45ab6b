"""Resizing, crops and flips of an image together with its objects.

Images are resized by Pillow, bilinear with antialiasing, on uint8, as those of the published
detectors. Coordinates are continuous: a pixel covers [x, x + 1), so that flipping maps x to W - x.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from video_mvit.detection.data.polygons import clip_polygons
from video_mvit.detection.instances import Instances, Mask
from video_mvit.errors import UserError

MIN_SIDE = 1e-5  # pixels of a box; detectron2 drops smaller ones

Transform = Callable[["AnnotatedImage", np.random.Generator], "AnnotatedImage"]


@dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
    """An image on its way to the detector: boxes (N, 4) float64, labels (N,), N masks."""

    image: Image.Image
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    masks: Sequence[Mask]

    @property
    def size(self) -> tuple[int, int]:
        """Return (height, width)."""
        return self.image.height, self.image.width

    def pixels(self) -> Tensor:
        """Return the image: (3, H, W) uint8."""
        return torch.from_numpy(np.array(self.image)).permute(2, 0, 1)

    def instances(self) -> Instances:
        """Return the objects that are left: boxes clipped to the image, none empty."""
        height, width = self.size
        boxes = self.boxes.clip(0, (width, height, width, height))
        has_box = (boxes[:, 2:] - boxes[:, :2] > MIN_SIDE).all(axis=1)
        left = [i for i in np.flatnonzero(has_box).tolist() if not _is_empty(self.masks[i])]
        return Instances(
            boxes=torch.from_numpy(boxes[left].astype(np.float32)),
            labels=torch.from_numpy(self.labels[left]),
            masks=[self.masks[i] for i in left],
        )


def _is_empty(mask: Mask) -> bool:
    return not mask if isinstance(mask, list) else not mask.any()


def fit_short_side(
    size: tuple[int, int], short_side: int, long_side: float = float("inf")
) -> tuple[int, int]:
    """Scale a (height, width) to a short side, or less where the long side would exceed a limit."""
    height, width = size
    scale = short_side / min(size)
    new_h, new_w = (short_side, scale * width) if height < width else (scale * height, short_side)
    if (longest := max(new_h, new_w)) > long_side:
        new_h, new_w = new_h * (long_side / longest), new_w * (long_side / longest)
    return max(1, int(new_h + 0.5)), max(1, int(new_w + 0.5))


def fit_square(size: tuple[int, int], side: float) -> tuple[int, int]:
    """Scale a (height, width) to fit into a square; halves are rounded to even numbers."""
    height, width = size
    scale = min(side / height, side / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize(sample: AnnotatedImage, size: tuple[int, int]) -> AnnotatedImage:
    """Resize to a (height, width); bitmaps of objects by nearest neighbours."""
    if size == sample.size:
        return sample
    (old_h, old_w), (height, width) = sample.size, size
    factors = np.array([width / old_w, height / old_h])

    def resize_mask(mask: Mask) -> Mask:
        if isinstance(mask, list):
            return [(each.reshape(-1, 2) * factors).ravel() for each in mask]
        bitmap = Image.fromarray(mask.view(np.uint8))
        return np.array(bitmap.resize((width, height), Image.Resampling.NEAREST)).view(np.bool_)

    return replace(
        sample,
        image=sample.image.resize((width, height), Image.Resampling.BILINEAR),
        boxes=sample.boxes * np.tile(factors, 2),
        masks=[resize_mask(mask) for mask in sample.masks],
    )


def crop(sample: AnnotatedImage, top: int, left: int, size: tuple[int, int]) -> AnnotatedImage:
    """Cut a window of a (height, width); polygons are clipped to it, boxes are not."""
    height, width = size

    def crop_mask(mask: Mask) -> Mask:
        if isinstance(mask, list):
            moved = [(each.reshape(-1, 2) - (left, top)).ravel() for each in mask]
            return clip_polygons(moved, width, height)
        return mask[top : top + height, left : left + width]

    whole = (top, left, *sample.size) == (0, 0, height, width)
    window = (left, top, left + width, top + height)
    return replace(
        sample,
        image=sample.image if whole else sample.image.crop(window),
        boxes=sample.boxes - (left, top, left, top),
        masks=[crop_mask(mask) for mask in sample.masks],
    )


def resize_and_crop(
    sample: AnnotatedImage, size: tuple[int, int], window: tuple[int, int, int, int]
) -> AnnotatedImage:
    """Resize to a (height, width) and cut a window (top, left, height, width) of that.

    Only the pixels of the window are computed. Pillow keeps its place in single precision, so that
    a value in a thousand differs by one from those of a resized and then cropped image.
    """
    (old_h, old_w), (top, left, height, width) = sample.size, window
    factors, origin = np.array([size[1] / old_w, size[0] / old_h]), np.array([left, top])
    x0, y0 = (origin / factors).tolist()
    x1, y1 = ((origin + np.array([width, height])) / factors).tolist()
    source = (x0, y0, min(x1, old_w), min(y1, old_h))

    def change_mask(mask: Mask) -> Mask:
        if isinstance(mask, list):
            moved = [(each.reshape(-1, 2) * factors - origin).ravel() for each in mask]
            return clip_polygons(moved, width, height)
        bitmap = Image.fromarray(mask.view(np.uint8))
        bitmap = bitmap.resize((width, height), Image.Resampling.NEAREST, source)
        return np.array(bitmap).view(np.bool_)

    return replace(
        sample,
        image=sample.image.resize((width, height), Image.Resampling.BILINEAR, source),
        boxes=sample.boxes * np.tile(factors, 2) - np.tile(origin, 2),
        masks=[change_mask(mask) for mask in sample.masks],
    )


def flip(sample: AnnotatedImage) -> AnnotatedImage:
    """Mirror left and right."""
    width = sample.image.width

    def flip_mask(mask: Mask) -> Mask:
        if isinstance(mask, list):
            return [((width, 0) + each.reshape(-1, 2) * (-1, 1)).ravel() for each in mask]
        return np.ascontiguousarray(mask[:, ::-1])

    x0, y0, x1, y1 = sample.boxes.T
    return replace(
        sample,
        image=ImageOps.mirror(sample.image),
        boxes=np.stack([width - x1, y0, width - x0, y1], axis=1),
        masks=[flip_mask(mask) for mask in sample.masks],
    )


def pad(sample: AnnotatedImage, size: tuple[int, int], value: int) -> AnnotatedImage:
    """Extend an image at the bottom and right by a grey value to a (height, width)."""
    height, width = size

    def pad_mask(mask: Mask) -> Mask:
        if isinstance(mask, list):
            return mask
        return np.pad(mask, [(0, height - mask.shape[0]), (0, width - mask.shape[1])])

    image = Image.new("RGB", (width, height), (value, value, value))
    image.paste(sample.image)
    return replace(sample, image=image, masks=[pad_mask(mask) for mask in sample.masks])


def box_masks(sample: AnnotatedImage) -> AnnotatedImage:
    """Replace boxes by those of the masks; an empty mask gets an empty box."""
    boxes = [_box_of(mask) for mask in sample.masks]
    return replace(sample, boxes=np.array(boxes, np.float64).reshape(-1, 4))


def _box_of(mask: Mask) -> tuple[float, float, float, float]:
    if _is_empty(mask):
        return 0, 0, 0, 0
    if isinstance(mask, list):
        points = np.concatenate(mask).reshape(-1, 2)
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        return x0, y0, x1, y1
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


@dataclass(frozen=True, kw_only=True)
class ResizeShortSide:
    """Resize for evaluation: the short side, unless the long side would exceed its limit."""

    short_side: int = 800
    long_side: int = 1333

    def __post_init__(self) -> None:
        _check_positive(self)

    def __call__(self, sample: AnnotatedImage, generator: np.random.Generator) -> AnnotatedImage:
        return resize(sample, fit_short_side(sample.size, self.short_side, self.long_side))


@dataclass(frozen=True, kw_only=True)
class MultiScaleCrop:
    """Augment as DETR does: perhaps a random crop, then a random size, then perhaps a flip.

    With `crop_prob`, the short side becomes one of `crop_short_sides`, and a window is cut whose
    height and width are uniform in `crop_range`. Boxes are clipped by the window, and not drawn
    anew around what is left of a mask.
    """

    short_sides: Sequence[int] = tuple(range(480, 801, 32))
    long_side: int = 1333
    crop_prob: float = 0.5
    crop_short_sides: Sequence[int] = (400, 500, 600)
    crop_range: tuple[int, int] = (384, 600)
    flip_prob: float = 0.5

    def __post_init__(self) -> None:
        _check_positive(self)
        _check_probabilities(self)
        if self.crop_range[0] > self.crop_range[1]:
            raise UserError(f"crop_range {self.crop_range} must ascend")

    def __call__(self, sample: AnnotatedImage, generator: np.random.Generator) -> AnnotatedImage:
        if generator.random() < self.crop_prob:
            short_side = int(generator.choice(self.crop_short_sides))
            sample = self._crop(resize(sample, fit_short_side(sample.size, short_side)), generator)
        short_side = int(generator.choice(self.short_sides))
        sample = resize(sample, fit_short_side(sample.size, short_side, self.long_side))
        return flip(sample) if generator.random() < self.flip_prob else sample

    def _crop(self, sample: AnnotatedImage, generator: np.random.Generator) -> AnnotatedImage:
        low, high = self.crop_range
        height, width = (
            int(generator.integers(min(side, low), min(side, high), endpoint=True))
            for side in sample.size
        )
        top = int(generator.integers(sample.size[0] - height, endpoint=True))
        left = int(generator.integers(sample.size[1] - width, endpoint=True))
        return crop(sample, top, left, (height, width))


@dataclass(frozen=True, kw_only=True)
class LargeScaleJitter:
    """Augment by a flip, a size of 0.1 to 2 times a square, and a crop to that square (LSJ).

    Boxes are drawn anew around the cropped masks. `padding` is the grey value that fills the
    square, which then counts as image (recipe A); with None the image keeps its size (recipe B).
    """

    side: int = 1024
    scale: tuple[float, float] = (0.1, 2.0)
    flip_prob: float = 0.5
    padding: int | None = 128

    def __post_init__(self) -> None:
        _check_positive(self, but="padding")
        _check_probabilities(self)
        if self.scale[0] > self.scale[1]:
            raise UserError(f"scale {self.scale} must ascend")
        if self.padding is not None and not 0 <= self.padding <= 255:
            raise UserError(f"padding {self.padding} is no grey value of 0 to 255")

    def __call__(self, sample: AnnotatedImage, generator: np.random.Generator) -> AnnotatedImage:
        if generator.random() < self.flip_prob:
            sample = flip(sample)
        scale, place = generator.uniform(*self.scale), generator.random()
        return self.at(sample, scale, place)

    def at(self, sample: AnnotatedImage, scale: float, place: float) -> AnnotatedImage:
        """Resize by a scale and crop at a place in [0, 1], which is that of both axes."""
        size = fit_square(sample.size, scale * self.side)
        top, left = (round(place * max(side - self.side, 0)) for side in size)
        window = (top, left, min(size[0], self.side), min(size[1], self.side))
        sample = box_masks(resize_and_crop(sample, size, window))
        if self.padding is None:
            return sample
        return pad(sample, (self.side, self.side), self.padding)


def _check_positive(settings: object, but: str | None = None) -> None:
    """Raise `UserError` for a number that is not positive; probabilities may be zero."""
    for name, value in vars(settings).items():
        numbers = value if isinstance(value, Sequence) else [value]
        if name != but and not name.endswith("_prob") and (not numbers or min(numbers) <= 0):
            raise UserError(f"{name} {value} must be positive")


def _check_probabilities(settings: object) -> None:
    for name, value in vars(settings).items():
        if name.endswith("_prob") and not 0 <= value <= 1:
            raise UserError(f"{name} {value} is outside [0, 1]")
