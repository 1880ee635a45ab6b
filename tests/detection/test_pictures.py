"""Drawn pictures: colours, masks, places of labels."""

import itertools

import numpy as np
import pytest

from video_mvit.detection.pictures import DrawnObject, class_color, crop, draw_objects, enlarge

GREY = np.full((200, 300, 3), 128, np.uint8)


def drawn(*boxes: tuple[float, float, float, float], text: str | None = None) -> list[DrawnObject]:
    return [
        DrawnObject(box=box, color=class_color(i), text=text and f"{text} {i}")
        for i, box in enumerate(boxes)
    ]


def pixels_of(picture: np.ndarray, label: int) -> np.ndarray:
    return (picture == class_color(label)).all(axis=2)


def test_colours_of_80_classes_differ_and_carry_dark_letters() -> None:
    colors = np.array([class_color(label) for label in range(80)], float)
    assert len(np.unique(colors, axis=0)) == 80
    assert min(np.abs(a - b).sum() for a, b in itertools.combinations(colors[:10], 2)) > 60
    assert min(color @ (0.2126, 0.7152, 0.0722) for color in colors[:10]) > 100


def test_box_is_drawn_on_a_copy_with_its_mask() -> None:
    before = GREY.copy()
    mask = np.zeros((200, 300), bool)
    mask[60:90, 50:100] = True
    each = DrawnObject(box=(50, 60, 100, 90), color=(255, 0, 0), mask=mask)
    picture = draw_objects(GREY, [each])
    assert np.array_equal(GREY, before)
    assert (picture[60, 50:100] == (255, 0, 0)).all()
    assert (picture[89, 50:100] == (255, 0, 0)).all()
    assert (picture[75, 75] == (179, 77, 77)).all()  # 40 % of the colour
    changed = np.flatnonzero((picture != GREY).any(axis=(1, 2)))
    assert (changed[0], changed[-1]) == (59, 90)  # a dark rim of a pixel


def test_labels_of_one_place_do_not_hide_each_other() -> None:
    box = (80.0, 60.0, 220.0, 150.0)
    picture = draw_objects(GREY, drawn(box, box, box, text="class"))
    areas = [pixels_of(picture, label).sum() for label in range(3)]
    assert min(areas) > 400


@pytest.mark.parametrize(
    "box", [(0, 0, 300, 200), (-20, -20, 30, 30), (290, 190, 300, 200), (5, 5, 5, 5)]
)
def test_labels_stay_inside_the_picture(box: tuple[float, float, float, float]) -> None:
    picture = draw_objects(GREY, drawn(box, text="some class"))
    assert pixels_of(picture, 0).sum() > 500


def test_long_and_odd_labels_are_drawn() -> None:
    texts = ["word " * 100, "<b>&", "猫", "a\tb"]
    objects = [DrawnObject(box=(9, 9, 99, 99), color=(255, 0, 0), text=text) for text in texts]
    assert draw_objects(GREY, objects).shape == GREY.shape
    assert draw_objects(GREY[:4, :4], objects).shape == (4, 4, 3)


def test_objects_are_cut_and_enlarged_with_the_picture() -> None:
    mask = np.zeros((200, 300), bool)
    mask[60:90, 50:100] = True
    each = DrawnObject(box=(50, 60, 100, 90), color=(255, 0, 0), mask=mask, is_dashed=True)
    picture, (moved,) = crop(GREY, [each], (40, 50, 120, 130))
    assert picture.shape == (80, 80, 3)
    assert moved.box == (10, 10, 60, 40)
    picture, (large,) = enlarge(picture, [moved], 320)
    assert picture.shape == (320, 320, 3)
    assert large.box == (40, 40, 240, 160)
    rows, columns = (np.flatnonzero(large.mask.any(axis=axis)) for axis in (1, 0))
    assert (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == (40, 40, 240, 160)
    assert enlarge(GREY, [], 100)[0] is GREY
