"""Draw boxes, masks and labels on pictures."""

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
Color = tuple[int, int, int]

# Of the first classes: hues that stay apart, also for most colour-blind people.
PALETTE: tuple[Color, ...] = (
    (255, 176, 0),
    (66, 153, 255),
    (255, 82, 120),
    (20, 200, 140),
    (190, 120, 255),
    (255, 116, 41),
    (0, 205, 220),
    (240, 110, 220),
    (168, 205, 40),
    (140, 150, 255),
)
GOLDEN_ANGLE = 0.381966  # of the circle of hues; successive turns never come close
MASK_OPACITY = 0.4
TEXT_SHARE, MIN_TEXT, MAX_TEXT = 1 / 18, 11, 32  # letters relative to the short side; pixels
MIN_SIDE = 320  # smaller pictures are enlarged, so that labels are readable
DASH = 4  # line widths


@dataclass(frozen=True, kw_only=True)
class DrawnObject:
    """One object: a box, and where they are not None a label on it and a mask (H, W).

    A dashed box marks what is annotated, a solid one what was detected.
    """

    box: Box
    color: Color
    text: str | None = None
    mask: NDArray[np.bool_] | None = None
    is_dashed: bool = False


class _Tag(NamedTuple):
    """Place of a label: left, top, right, bottom."""

    left: int
    top: int
    right: int
    bottom: int

    def overlaps(self, other: "_Tag") -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


@lru_cache(maxsize=1024)
def class_color(label: int) -> Color:
    """Return the colour of a class, the same in all pictures: bright, for dark letters on it."""
    if label < len(PALETTE):
        return PALETTE[label]
    turn = label - len(PALETTE)
    hue = (0.03 + GOLDEN_ANGLE * turn) % 1
    saturation = (0.75, 0.55, 0.95)[turn % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_objects(picture: Picture, objects: Sequence[DrawnObject]) -> Picture:
    """Draw objects, the first one on top, on a copy: (H, W, 3) -> (H, W, 3)."""
    height, width = picture.shape[:2]
    line = max(2, round(min(height, width) / 200))
    drawn = Image.fromarray(_fill_masks(picture, objects))
    pen = ImageDraw.Draw(drawn)
    for each in reversed(objects):
        _draw_box(pen, each, line)
    taken: list[_Tag] = []
    tags = []
    size = min(MAX_TEXT, max(MIN_TEXT, round(min(height, width) * TEXT_SHARE)))
    for each in objects:  # the first ones have the best places
        if each.text:
            text, tag = _place_tag(each.text, each.box, size, (height, width), taken)
            taken.append(tag)
            tags.append((text, tag, each.color))
    for text, tag, color in reversed(tags):
        _draw_tag(pen, text, tag, color, size)
    return np.asarray(drawn)


def enlarge(
    picture: Picture, objects: Sequence[DrawnObject], min_side: int = MIN_SIDE
) -> tuple[Picture, list[DrawnObject]]:
    """Enlarge a picture and its objects to a short side of at least `min_side` pixels."""
    height, width = picture.shape[:2]
    scale = max(1.0, min_side / min(height, width))
    return resize(picture, objects, (round(height * scale), round(width * scale)))


def resize(
    picture: Picture, objects: Sequence[DrawnObject], size: tuple[int, int]
) -> tuple[Picture, list[DrawnObject]]:
    """Resize a picture and its objects to (height, width)."""
    height, width = picture.shape[:2]
    if size == (height, width):
        return picture, list(objects)
    kind = Image.Resampling.BICUBIC if size[1] > width else Image.Resampling.LANCZOS
    resized = Image.fromarray(picture).resize(size[::-1], kind)
    return np.asarray(resized), resize_objects(objects, (height, width), size)


def resize_objects(
    objects: Sequence[DrawnObject], before: tuple[int, int], after: tuple[int, int]
) -> list[DrawnObject]:
    """Move objects from a picture of one (height, width) to the same in another size."""
    y, x = after[0] / before[0], after[1] / before[1]
    return [
        replace(
            each,
            box=(each.box[0] * x, each.box[1] * y, each.box[2] * x, each.box[3] * y),
            mask=None if each.mask is None else _resize_mask(each.mask, after),
        )
        for each in objects
    ]


def crop(
    picture: Picture, objects: Sequence[DrawnObject], window: tuple[int, int, int, int]
) -> tuple[Picture, list[DrawnObject]]:
    """Cut a window (x0, y0, x1, y1) out of a picture and its objects."""
    x0, y0, x1, y1 = window
    return picture[y0:y1, x0:x1], [
        replace(
            each,
            box=(each.box[0] - x0, each.box[1] - y0, each.box[2] - x0, each.box[3] - y0),
            mask=None if each.mask is None else each.mask[y0:y1, x0:x1],
        )
        for each in objects
    ]


def _resize_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    if mask.shape == size:
        return mask
    soft = Image.fromarray(mask.astype(np.uint8) * 255).resize(
        size[::-1], Image.Resampling.BILINEAR
    )
    return np.asarray(np.asarray(soft) > 127, np.bool_)


def _fill_masks(picture: Picture, objects: Sequence[DrawnObject]) -> Picture:
    """Tint masks, and draw their outlines: (H, W, 3) -> a copy."""
    filled = picture.copy()
    for each in reversed(objects):
        if each.mask is None or not each.mask.any():
            continue
        # Work inside the mask's own box: pictures are large, and objects are many.
        rows, columns = (np.flatnonzero(each.mask.any(axis=axis)) for axis in (1, 0))
        part = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        mask, color = each.mask[part], np.array(each.color, np.float32)
        tinted = filled[part][mask] * (1 - MASK_OPACITY) + color * MASK_OPACITY
        filled[part][mask] = tinted.round().astype(np.uint8)
        filled[part][_outline(mask)] = each.color
    return filled


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return pixels of a mask with a neighbour outside: (H, W) -> (H, W)."""
    inside = np.pad(mask, 1)
    whole = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return np.asarray(mask & ~whole, np.bool_)


def _draw_box(pen: ImageDraw.ImageDraw, each: DrawnObject, line: int) -> None:
    """Draw a box with a thin dark rim, which keeps it visible on its own colour."""
    x0, y0, x1, y1 = (round(value) for value in each.box)
    x1, y1 = max(x0 + line, x1) - 1, max(y0 + line, y1) - 1
    if not each.is_dashed:
        pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=(0, 0, 0), width=line + 2)
        pen.rectangle((x0, y0, x1, y1), outline=each.color, width=line)
        return
    sides = [((x0, y0), (x1, y0)), ((x1, y0), (x1, y1)), ((x1, y1), (x0, y1)), ((x0, y1), (x0, y0))]
    for start, end in sides:
        pen.line((*start, *end), fill=(0, 0, 0), width=line + 2)
        length = math.dist(start, end)
        count = max(1, round(length / (2 * DASH * line)))
        for i in range(count):
            places = [(i + share) / count for share in (0.0, 0.5)]
            a, b = (
                [round(s + (e - s) * place) for s, e in zip(start, end, strict=True)]
                for place in places
            )
            pen.line((*a, *b), fill=each.color, width=line)


def _place_tag(
    text: str, box: Box, size: int, picture: tuple[int, int], taken: Sequence[_Tag]
) -> tuple[str, _Tag]:
    """Place a label at its box and inside the picture, beside those that are there already."""
    height, width = picture
    text, text_width = _fitting_text(text, size, width)
    tag_height = round(1.35 * size)
    x0, y0, x1, y1 = (round(value) for value in box)
    left = min(max(x0, 0), max(width - text_width, 0))
    right = min(max(x1 - text_width, 0), max(width - text_width, 0))
    tops = (y0 - tag_height, y0, y1, y1 - tag_height)
    places = [(x, y) for y in tops for x in (left, right)]
    tags = [
        _Tag(x, y, x + text_width, y + tag_height)
        for x, y in places
        if 0 <= y <= height - tag_height
    ]
    fallback = _Tag(left, 0, left + text_width, tag_height)
    free = (tag for tag in tags if not any(tag.overlaps(other) for other in taken))
    return text, next(free, tags[0] if tags else fallback)


@lru_cache(maxsize=1024)
def _fitting_text(text: str, size: int, width: int) -> tuple[str, int]:
    """Shorten a label to the width of the picture, and measure it in pixels."""
    font = _font(size)
    padding = 2 * max(2, size // 4)
    while font.getlength(text) + padding > width and len(text) > 1:
        text = f"{text.removesuffix('…')[:-1]}…"
    return text, math.ceil(font.getlength(text)) + padding


def _draw_tag(pen: ImageDraw.ImageDraw, text: str, tag: _Tag, color: Color, size: int) -> None:
    pen.rectangle((tag.left, tag.top, tag.right - 1, tag.bottom - 1), fill=color)
    ink = (0, 0, 0) if _luminance(color) > 0.4 else (255, 255, 255)
    middle = (tag.top + tag.bottom) / 2
    pen.text((tag.left + max(2, size // 4), middle), text, ink, _font(size), anchor="lm")


def _luminance(color: Color) -> float:
    red, green, blue = (value / 255 for value in color)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
