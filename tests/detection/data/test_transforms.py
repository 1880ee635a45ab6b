"""Transforms: published sizes, and objects that follow their pixels."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from video_mvit.detection.data import transforms
from video_mvit.detection.data.polygons import clip_polygons
from video_mvit.detection.data.transforms import (
    AnnotatedImage,
    LargeScaleJitter,
    MultiScaleCrop,
    ResizeShortSide,
    box_masks,
    crop,
    fit_short_side,
    fit_square,
    flip,
    pad,
    resize,
)
from video_mvit.errors import UserError


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),
        ((427, 640), (800, 1199)),
        ((640, 427), (1199, 800)),
        ((333, 500), (800, 1201)),
        ((1000, 300), (1333, 400)),
        ((200, 1000), (267, 1333)),
    ],
)
def test_short_side_gives_the_sizes_of_detectron2(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fit_short_side(size, 800, 1333) == expected


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((480, 640), 0.1, (77, 102)),
        ((480, 640), 0.7, (538, 717)),
        ((480, 640), 1.0, (768, 1024)),
        ((480, 640), 1.37, (1052, 1403)),
        ((480, 640), 2.0, (1536, 2048)),
        ((427, 640), 0.1, (68, 102)),
        ((427, 640), 0.7, (478, 717)),
        ((427, 640), 1.0, (683, 1024)),
        ((427, 640), 1.37, (936, 1403)),
        ((427, 640), 2.0, (1366, 2048)),
        ((333, 500), 1.0, (682, 1024)),
    ],
)
def test_jitter_gives_the_sizes_of_detectron2(
    size: tuple[int, int], scale: float, expected: tuple[int, int]
) -> None:
    assert fit_square(size, 1024 * scale) == expected
    sample = scene(size, [])
    window = LargeScaleJitter(padding=None).at(sample, scale, 0.5)
    assert window.size == tuple(min(side, 1024) for side in expected)


# Objects and pixels

Polygon = np.ndarray


def star(generator: np.random.Generator, size: tuple[int, int], reach: float = 1.0) -> Polygon:
    """A polygon of 12 points that is not convex, and may be partly outside of the image.

    Its spikes are sharper the further it reaches: at 1 they have pixels up to their ends.
    """
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False) + generator.uniform(0, 1)
    radii = generator.uniform(0.38 / reach, 0.5, 12) * min(size) * reach
    centre = generator.uniform(0, 1, 2) * size[::-1]
    return (centre + np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]).ravel()


def rasterize(polygons: list[Polygon], size: tuple[int, int]) -> np.ndarray:
    if not polygons:
        return np.zeros(size, bool)
    lists = [polygon.tolist() for polygon in polygons]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(lists, *size))).astype(bool)


def scene(size: tuple[int, int], polygons: list[Polygon]) -> AnnotatedImage:
    """White polygons on black, each an object; then the same objects as bitmaps."""
    image = Image.new("RGB", size[::-1])
    for polygon in polygons:
        ImageDraw.Draw(image).polygon([tuple(p) for p in polygon.reshape(-1, 2)], fill="white")
    masks = [[polygon] for polygon in polygons]
    masks += [rasterize([polygon], size) for polygon in polygons]
    labels = np.tile(np.arange(len(polygons)), 2)
    empty = AnnotatedImage(image=image, boxes=np.zeros((0, 4)), labels=labels, masks=masks)
    return box_masks(empty)


RECIPES: dict[str, Callable[[], object]] = {
    "multi-scale crop": lambda: MultiScaleCrop(
        short_sides=(80, 120, 200),
        long_side=260,
        crop_prob=1,
        crop_short_sides=(90, 140),
        crop_range=(60, 100),
    ),
    "jitter with padding": lambda: LargeScaleJitter(side=160, scale=(0.5, 2)),
    "jitter": lambda: LargeScaleJitter(side=160, scale=(0.5, 2), padding=None),
    "resizing": lambda: ResizeShortSide(short_side=133, long_side=170),
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("seed", range(12))
def test_polygon_bitmap_and_pixels_of_an_object_stay_together(name: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    size = tuple(generator.integers(90, 180, 2).tolist())
    transform = RECIPES[name]()
    result = transform(scene(size, [star(generator, size)]), generator)
    # Pixels of the original are up to two wide in the result, so that an edge differs by as many.
    pixels = np.asarray(result.image)[:, :, 0] > (128 if "padding" in name else 127)
    polygon = rasterize(result.masks[0], result.size)
    for other in (pixels, result.masks[1]) if polygon.sum() > 100 else ():  # of a sliver, nothing
        edge = polygon ^ _grown(polygon) | ~polygon ^ _grown(~polygon)
        assert not (polygon ^ other)[~_grown(_grown(_grown(edge)))].any()
        if polygon.sum() > 500:
            offset = np.mean(np.nonzero(polygon), axis=1) - np.mean(np.nonzero(other), axis=1)
            assert (abs(offset) < 0.8).all()
    instances = result.instances()
    height, width = result.size
    for box, mask in zip(instances.boxes.numpy(), instances.masks, strict=True):
        assert (box >= 0).all()
        assert (box <= (width, height, width, height)).all()
        bitmap = mask if isinstance(mask, np.ndarray) else rasterize(mask, result.size)
        if bitmap.sum() > 100 and name != "multi-scale crop":
            y, x = np.nonzero(bitmap)
            tight = [x.min(), y.min(), x.max() + 1, y.max() + 1]
            np.testing.assert_allclose(box, tight, atol=3.01)


def _grown(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1, mode="edge")
    height, width = mask.shape
    shifted = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.any(shifted, axis=0)


@pytest.mark.parametrize("seed", range(60))
def test_clipped_polygon_is_the_polygon_inside_the_window(seed: int) -> None:
    generator = np.random.default_rng(seed)
    size, window = (60, 80), (50, 64)
    polygon = star(generator, size, reach=2.5)
    if seed % 2:  # corners and edges on the border of the window
        polygon = polygon.round(-1).clip(0, 70)
    parts = clip_polygons([polygon], window[1], window[0])
    large = (400, 400)  # more than the polygon reaches
    shifted = polygon + 150
    whole = rasterize([shifted], large)[150:200, 150:214]
    inside = rasterize([part + 150 for part in parts], large)[150:200, 150:214]
    # pycocotools draws a border once it goes along it, so that a pixel may differ there.
    edge = whole ^ _grown(whole) | ~whole ^ _grown(~whole)
    assert not (whole ^ inside)[~edge].any()
    for part in parts:
        points = part.reshape(-1, 2)
        assert (points >= 0).all()
        assert (points <= (window[1], window[0])).all()


def area(polygon: Polygon) -> float:
    x, y = polygon.reshape(-1, 2).T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def test_polygon_that_falls_apart_gives_parts_without_seams() -> None:
    comb = np.array([-5, 0, 4, 0, 4, 2, -2, 2, -2, 6, 4, 6, 4, 8, -5, 8.0])  # a C open to the right
    parts = clip_polygons([comb], 10, 10)
    assert sorted(part.reshape(-1, 2).min(axis=0).tolist() for part in parts) == [[0, 0], [0, 6]]
    assert [area(part) for part in parts] == [8, 8]
    around = np.array([-4, 5, -4, -4, 5, -4, 5, 1, 2, 1, 2, -2, -2, -2, -2, 2, 1, 2, 1, 5.0])
    parts = clip_polygons([around], 10, 10)  # it goes around the corner outside
    bounds = sorted(part.reshape(-1, 2).min(axis=0).tolist() for part in parts)
    assert bounds == [[0, 2], [2, 0]]


def test_what_only_touches_the_window_is_no_part() -> None:
    teeth = np.array([-5, 0, 2, 1, -5, 2, 0, 5, -5, 8.0])
    (part,) = clip_polygons([teeth], 10, 10)
    assert part.reshape(-1, 2).max(axis=0).tolist()[0] == 2


def test_outline_that_crosses_itself_keeps_its_even_odd_inside() -> None:
    spiral = np.array([-1, 0, 4, 0, 4, 3, -1, 3, -1, 1, 3, 1, 3, 2, -2, 2, -2, 0.0])
    (part,) = clip_polygons([spiral], 10, 10)
    assert area(part) == 4 * 3 - 3 * 1


def test_polygon_inside_stays_and_outside_goes() -> None:
    inside = np.array([0, 0, 10, 0, 10, 10, 0, 10.0])
    assert clip_polygons([inside], 10, 10)[0] is inside
    assert clip_polygons([inside + 10], 10, 10) == []
    assert clip_polygons([inside - 10], 10, 10) == []
    assert [area(part) for part in clip_polygons([inside + 5], 10, 10)] == [25]
    assert [area(part) for part in clip_polygons([inside * 4 - 10], 10, 10)] == [100]


def test_flip_twice_is_nothing_and_once_mirrors() -> None:
    generator = np.random.default_rng(0)
    sample = scene((50, 70), [star(generator, (50, 70)), star(generator, (50, 70))])
    once, twice = flip(sample), flip(flip(sample))
    np.testing.assert_array_equal(np.asarray(twice.image), np.asarray(sample.image))
    np.testing.assert_allclose(twice.boxes, sample.boxes)
    np.testing.assert_array_equal(once.masks[2], sample.masks[2][:, ::-1])
    np.testing.assert_allclose(once.boxes[:, 0], 70 - sample.boxes[:, 2])


def test_images_are_resized_and_cropped_as_pillow_does() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    sample = AnnotatedImage(
        image=Image.fromarray(pixels), boxes=np.zeros((0, 4)), labels=np.zeros(0, int), masks=[]
    )
    result = LargeScaleJitter(side=64, flip_prob=0).at(sample, 1.5, 0.3)
    resized = np.asarray(Image.fromarray(pixels).resize((96, 64), Image.Resampling.BILINEAR))
    difference = np.asarray(result.image).astype(int) - resized[:, 10:74]  # round(0.3 * 32)
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.01
    small = LargeScaleJitter(side=64, flip_prob=0).at(sample, 0.5, 0.3)
    assert small.size == (64, 64)
    halved = np.asarray(Image.fromarray(pixels).resize((32, 21), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(np.asarray(small.image)[:21, :32], halved)
    assert (np.asarray(small.image)[21:] == 128).all()
    assert (np.asarray(small.image)[:, 32:] == 128).all()
    assert small.pixels().shape == (3, 64, 64)
    bare = LargeScaleJitter(side=64, padding=None).at(sample, 0.5, 0.3)
    assert bare.size == (21, 32)


def test_crop_keeps_boxes_and_jitter_draws_them_anew() -> None:
    triangle = np.array([10, 10, 50, 10, 10, 50.0])
    sample = scene((60, 60), [triangle])
    cut = crop(sample, 30, 0, (30, 60))
    assert cut.instances().boxes[0].tolist() == [10, 0, 50, 20]
    assert box_masks(cut).instances().boxes[0].tolist() == [10, 0, 30, 20]
    gone = crop(sample, 45, 45, (15, 15))  # of the box, something is left, of the triangle nothing
    assert len(gone.instances().labels) == 0
    assert len(box_masks(gone).instances().labels) == 0


def test_nothing_is_changed_in_place() -> None:
    sample = scene((40, 60), [star(np.random.default_rng(3), (40, 60))])
    before = sample.masks[0][0].copy(), sample.masks[1].copy(), np.array(sample.image)
    for change in (
        lambda s: resize(s, (20, 31)),
        lambda s: crop(s, 3, 5, (20, 20)),
        flip,
        lambda s: pad(s, (90, 90), 7),
    ):
        change(sample)
    after = sample.masks[0][0], sample.masks[1], np.array(sample.image)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_draws_of_the_multi_scale_crop_are_those_of_detr(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    windows: list[tuple[int, int]] = []

    def note_size(_: AnnotatedImage, size: tuple[int, int]) -> AnnotatedImage:
        sizes.append(size)
        return _blank(size)

    def note_window(_: AnnotatedImage, *window: object) -> AnnotatedImage:
        windows.append(window[-1])
        return _blank(window[-1])

    monkeypatch.setattr(transforms, "resize", note_size)
    monkeypatch.setattr(transforms, "crop", note_window)
    generator = np.random.default_rng(0)
    for _ in range(200):
        MultiScaleCrop()(_blank((427, 640)), generator)
    assert 70 < len(windows) < 130
    assert {min(size) for size in sizes if max(size) < 1333} <= {
        400,
        500,
        *range(480, 801, 32),
        600,
    }
    assert all(384 <= side <= 600 for window in windows for side in window)
    assert max(max(size) for size in sizes) <= 1333


def _blank(size: tuple[int, int]) -> AnnotatedImage:
    image = Image.new("RGB", size[::-1])
    return AnnotatedImage(image=image, boxes=np.zeros((0, 4)), labels=np.zeros(0, int), masks=[])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LargeScaleJitter(side=0), "side 0 must be positive"),
        (lambda: LargeScaleJitter(scale=(2, 1)), "scale"),
        (lambda: LargeScaleJitter(padding=256), "padding 256"),
        (lambda: MultiScaleCrop(short_sides=[]), "short_sides"),
        (lambda: MultiScaleCrop(flip_prob=1.5), "flip_prob 1.5 is outside"),
        (lambda: MultiScaleCrop(crop_range=(9, 8)), "crop_range"),
        (lambda: ResizeShortSide(short_side=-1), "short_side -1"),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
