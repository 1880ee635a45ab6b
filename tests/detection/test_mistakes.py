"""Confusions, false positives and misses of hand-made images."""

import pytest
from support.coco import annotation, row, truth

pytest.importorskip("pycocotools")

from video_mvit.detection.mistakes import (
    BACKGROUND,
    NO_THRESHOLD,
    best_threshold,
    confident_false_positives,
    count_classes,
    count_confusions,
    largest_misses,
    match_images,
)

A, B, C = (10, 10, 40, 40), (80, 10, 40, 40), (10, 70, 40, 40)
POOR = (30, 10, 40, 40)  # IoU with A: 20 of 60 columns
CAT, DOG = 1, 4


def test_each_detection_has_its_reason() -> None:
    objects = [annotation(5, CAT, A), annotation(5, DOG, B)]
    rows = [
        row(5, CAT, A, 0.9),
        row(5, CAT, A, 0.8),
        row(5, CAT, B, 0.7),
        row(5, CAT, POOR, 0.6),
        row(5, CAT, C, 0.5),
    ]
    matches = match_images(truth([5], objects), {5: rows[::-1]})
    wrong = confident_false_positives(matches, 10)
    assert [each.row for each in wrong] == rows[1:]
    assert [each.reason for each in wrong] == ["duplicate", "wrong class", "poor box", "background"]
    assert [each.other for each in wrong] == [objects[0], objects[1], objects[0], None]
    assert [each.iou for each in wrong] == pytest.approx([1, 1, 1 / 3, 0])
    assert [each.row for each in confident_false_positives(matches, 2)] == rows[1:3]


def test_confusions_count_misses_and_background() -> None:
    objects = [annotation(5, CAT, A), annotation(5, DOG, B), annotation(9, DOG, A)]
    found = {
        5: [row(5, CAT, A, 0.9), row(5, CAT, A, 0.8), row(5, CAT, B, 0.7), row(5, DOG, C, 0.6)],
        9: [],
        12: [row(12, DOG, A, 0.1)],
    }
    matches = match_images(truth([5, 9, 12], objects), found)
    assert count_confusions(matches, 0.5) == {
        (CAT, CAT): 1,
        (BACKGROUND, CAT): 1,  # the duplicate
        (DOG, CAT): 1,
        (BACKGROUND, DOG): 1,
        (DOG, BACKGROUND): 1,
    }
    assert count_confusions(matches, 0.95) == {(CAT, BACKGROUND): 1, (DOG, BACKGROUND): 2}
    assert count_classes(matches, 0.5) == {CAT: (3, 1), DOG: (1, 0)}
    misses, num_misses = largest_misses(matches, 1)
    assert num_misses == 2
    assert (misses[0].image_id, misses[0].nearest) == (5, found[5][2])
    assert largest_misses(matches, 5)[0][1].nearest is None


def test_crowds_are_neither_found_nor_missed() -> None:
    objects = [annotation(5, CAT, (0, 0, 100, 100), iscrowd=1)]
    rows = [row(5, CAT, A, 0.9), row(5, DOG, A, 0.8)]
    matches = match_images(truth([5], objects), {5: rows})
    assert count_confusions(matches, 0) == {(BACKGROUND, DOG): 1}
    assert largest_misses(matches, 5) == ([], 0)


def test_better_detections_choose_first_and_the_nearest_object() -> None:
    near = (14, 10, 40, 40)
    objects = [annotation(5, CAT, A), annotation(5, CAT, near)]
    rows = [row(5, CAT, near, 0.9), row(5, CAT, near, 0.8), row(5, CAT, near, 0.7)]
    (matches,) = match_images(truth([5], objects), {5: rows})
    assert matches.partner.tolist() == [1, 0, -1]


def test_threshold_has_the_best_f1() -> None:
    objects = [annotation(5, CAT, A), annotation(5, CAT, B)]
    rows = [row(5, CAT, A, 0.9), row(5, CAT, B, 0.6), row(5, CAT, C, 0.6), row(5, DOG, C, 0.2)]
    matches = match_images(truth([5], objects), {5: rows})
    assert best_threshold(matches) == 0.6  # F1 4/5; 2/3 above
    assert best_threshold(match_images(truth([5], objects), {5: []})) == NO_THRESHOLD
