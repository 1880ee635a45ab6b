"""Crops: where they lie, that all frames share one, and that resizing is the plain bilinear one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from video_mvit.data.transforms.cropping import (
    Box,
    RandomResizedCrop,
    ShortSideCrop,
    UniformCrops,
    crop_and_resize,
    random_resized_box,
    short_side_size,
    uniform_boxes,
)


def test_random_boxes_fit_and_spread_over_area_and_aspect() -> None:
    generator = np.random.default_rng(0)
    boxes = [
        random_resized_box(240, 320, (0.08, 1.0), (3 / 4, 4 / 3), generator) for _ in range(3000)
    ]
    assert all(0 <= b.top <= 240 - b.height and 0 <= b.left <= 320 - b.width for b in boxes)
    areas = np.array([b.height * b.width / (240 * 320) for b in boxes])
    aspects = np.array([b.width / b.height for b in boxes])
    assert 0.07 < areas.min() < 0.1
    assert 0.9 < areas.max() <= 1
    assert 0.72 < aspects.min() < 0.78
    assert 1.28 < aspects.max() < 1.36


def test_box_falls_back_to_the_largest_central_one() -> None:
    box = random_resized_box(10, 400, (0.9, 1.0), (1.0, 1.0), np.random.default_rng(0))
    assert box == Box(0, 195, 10, 10)


def test_short_side_size_rounds_the_long_side_down() -> None:
    assert short_side_size(240, 427, 256) == (256, 455)
    assert short_side_size(427, 240, 256) == (455, 256)
    assert short_side_size(100, 100, 64) == (64, 64)


@pytest.mark.parametrize(
    ("height", "width", "num_crops", "expected"),
    [
        (256, 341, 1, [(16, 59)]),
        (224, 301, 3, [(0, 0), (0, 39), (0, 77)]),
        (301, 224, 3, [(0, 0), (39, 0), (77, 0)]),
    ],
)
def test_uniform_boxes_match_official_offsets(
    height: int, width: int, num_crops: int, expected: list[tuple[int, int]]
) -> None:
    assert [box[:2] for box in uniform_boxes(height, width, 224, num_crops)] == expected


def test_resize_is_bilinear_without_antialiasing() -> None:
    frames = torch.randint(0, 256, (3, 3, 40, 50), dtype=torch.uint8)
    box = Box(4, 6, 30, 20)
    got = crop_and_resize(frames, box, 16, 16).float()
    window = frames[:, :, 4:34, 6:26].float()
    expected = F.interpolate(window, size=(16, 16), mode="bilinear", align_corners=False)
    assert float((got - expected).abs().max()) <= 1.0  # rounding to uint8


@pytest.mark.parametrize("size", [(16, 16), (64, 80), (30, 45)])
def test_bicubic_resize_is_that_of_pillow(size: tuple[int, int]) -> None:
    """On frames as readers give them, (T, H, W, C); values that no kernel carries beyond 0..255."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(60, 200, (2, 60, 50, 3), dtype=torch.uint8, generator=generator)
    frames, box = pixels.permute(0, 3, 1, 2), Box(4, 6, 50, 40)
    found = crop_and_resize(frames, box, *size, "bicubic")
    for frame, resized in zip(frames, found, strict=True):
        picture = Image.fromarray(frame.permute(1, 2, 0).numpy())
        window = picture.crop((6, 4, 46, 54)).resize(size[::-1], Image.Resampling.BICUBIC)
        expected = torch.from_numpy(np.array(window)).permute(2, 0, 1)
        assert (resized.int() - expected.int()).abs().max() <= 1  # of 255: weights are rounded


def test_evaluation_crop_of_pictures_is_that_of_pillow() -> None:
    """Short side 256, the central 224, as the published image models are tested."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (300, 400, 3), np.uint8)
    crop = UniformCrops(size=224, short_side=256, interpolation="bicubic")
    (found,) = crop(torch.from_numpy(pixels).permute(2, 0, 1)[None], generator)
    resized = Image.fromarray(pixels).resize((341, 256), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(resized.crop((59, 16, 59 + 224, 16 + 224))))
    assert (found[0].int() - expected.permute(2, 0, 1).int()).abs().max() <= 1


@pytest.mark.parametrize(
    "crop",
    [
        RandomResizedCrop(size=32),
        RandomResizedCrop(size=32, interpolation="bicubic"),
        ShortSideCrop(size=32, short_side=(36, 48)),
        UniformCrops(size=32, short_side=36),
    ],
)
def test_same_crop_for_every_frame(crop) -> None:
    frame = torch.randint(0, 256, (1, 3, 50, 60), dtype=torch.uint8)
    frames = frame.expand(5, -1, -1, -1).contiguous()
    for window in crop(frames, np.random.default_rng(0)):
        assert window.shape == (5, 3, 32, 32)
        assert window.dtype == torch.uint8
        assert (window == window[:1]).all()


def test_flip_rate_decides_how_often_clips_are_mirrored() -> None:
    frames = torch.arange(32, dtype=torch.uint8).expand(1, 3, 32, 32).contiguous()
    for rate, low, high in ((0.0, 0, 0), (0.5, 60, 140), (1.0, 200, 200)):
        crop = RandomResizedCrop(size=32, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip_prob=rate)
        generator = np.random.default_rng(0)
        mirrored = sum(bool(crop(frames, generator)[0][0, 0, 0, 0] == 31) for _ in range(200))
        assert low <= mirrored <= high


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomResizedCrop(size=32, scale=(0.5, 0.1)), "scale"),
        (lambda: RandomResizedCrop(size=32, flip_prob=2), "flip_prob 2"),
        (lambda: RandomResizedCrop(size=32, interpolation="cubic"), "interpolation 'cubic'"),
        (lambda: UniformCrops(size=32, short_side=32, interpolation=""), "interpolation ''"),
        (lambda: ShortSideCrop(size=64, short_side=(32, 48)), "short_side"),
        (lambda: UniformCrops(size=64, short_side=32), "smaller than the crop"),
        (lambda: UniformCrops(size=32, short_side=32, num_crops=2), "num_crops 2"),
    ],
)
def test_impossible_crop_is_refused_by_name(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
