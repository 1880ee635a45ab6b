"""Masks cut out of boxes and pasted back, against plain loops."""

import numpy as np
import pytest
import torch
from support.detectors import rectangle
from torch import Tensor

from video_mvit.detection.masks import mask_targets, paste


def pasted_by_loop(probability: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    """Sample one mask at the center of every pixel, zero outside of it."""
    x0, y0, x1, y1 = box.double().tolist()
    side = len(probability)
    values = torch.zeros(size)
    for y in range(size[0]):
        for x in range(size[1]):
            u = (x + 0.5 - x0) / (x1 - x0) * side - 0.5
            v = (y + 0.5 - y0) / (y1 - y0) * side - 0.5
            for j in (int(np.floor(v)), int(np.floor(v)) + 1):
                for i in (int(np.floor(u)), int(np.floor(u)) + 1):
                    if 0 <= i < side and 0 <= j < side:
                        share = (1 - abs(u - i)) * (1 - abs(v - j))
                        values[y, x] += share * float(probability[j, i])
    return values


@pytest.mark.parametrize(
    "box",
    [(3.2, 4.7, 20.9, 17.1), (-6.0, -3.5, 9.0, 30.0), (5.0, 5.0, 5.7, 5.9), (0.0, 0.0, 24.0, 20.0)],
)
def test_pasted_masks_are_bilinear_samples_at_pixel_centers(box: tuple[float, ...]) -> None:
    probability = torch.rand(7, 7, generator=torch.Generator().manual_seed(0))
    size, boxes = (20, 24), torch.tensor([box])
    values = pasted_by_loop(probability, boxes[0], size)
    mask = paste(probability[None], boxes, size)[0]
    clear = (values - 0.5).abs() > 1e-4
    assert torch.equal(mask[clear], (values >= 0.5)[clear])


def test_a_full_mask_covers_the_pixels_whose_centers_are_in_the_box() -> None:
    mask = paste(torch.ones(1, 28, 28), torch.tensor([[2.5, 1.0, 6.4, 4.0]]), (8, 8))[0]
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[1:4, 2:6] = True  # the centers 2.5 and 5.5 lie on and in the box, 6.5 outside
    assert torch.equal(mask, expected)


def test_no_mask_pastes_nothing() -> None:
    assert paste(torch.zeros(0, 28, 28), torch.zeros(0, 4), (5, 6)).shape == (0, 5, 6)


def test_autocast_does_not_move_pasted_masks() -> None:
    masks = torch.rand(3, 28, 28, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[3.0, 5, 80, 90], [10, 20, 30, 40], [0, 0, 100, 100]])
    expected = paste(masks, boxes, (100, 100))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(paste(masks, boxes, (100, 100)), expected)


def test_a_polygon_fills_its_part_of_the_box() -> None:
    # The left half of an object of 40 x 20 pixels, of which the box shows the right three quarters.
    masks = [rectangle(10, 10, 30, 30)]
    boxes = torch.tensor([[20.0, 10.0, 50.0, 30.0]])
    [target] = mask_targets(masks, boxes, torch.tensor([0]), 12)
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[:, :4] = True
    assert torch.equal(target, expected)


def test_targets_of_polygons_and_bitmaps_agree_and_keep_their_order() -> None:
    bitmap = np.zeros((64, 64), dtype=np.bool_)
    bitmap[16:48, 8:40] = True
    masks = [rectangle(8, 16, 40, 48), bitmap, [*rectangle(0, 0, 8, 8), *rectangle(56, 56, 64, 64)]]
    boxes = torch.tensor([[0.0, 0, 64, 64], [0, 0, 64, 64], [8, 16, 40, 48], [0, 0, 64, 64]])
    targets = mask_targets(masks, boxes, torch.tensor([2, 0, 1, 1]), 16)
    assert torch.equal(targets[1], targets[3])
    assert targets[2].all()
    corners = torch.zeros(16, 16, dtype=torch.bool)
    corners[:2, :2] = corners[-2:, -2:] = True
    assert torch.equal(targets[0], corners)


def test_a_bitmap_is_cut_out_pixel_by_pixel_where_the_grid_is_its_own() -> None:
    bitmap = np.random.default_rng(0).random((30, 40)) > 0.5
    box = torch.tensor([[7.0, 11.0, 19.0, 23.0]])
    [target] = mask_targets([bitmap], box, torch.tensor([0]), 12)
    assert torch.equal(target, torch.from_numpy(bitmap[11:23, 7:19]))


def test_targets_of_boxes_thinner_than_a_tenth_of_a_pixel_are_finite() -> None:
    thin = torch.tensor([[10.0, 10.0, 10.01, 30.0]])
    assert mask_targets([rectangle(0, 0, 64, 64)], thin, torch.tensor([0]), 28).all()


def test_no_box_has_no_target() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert mask_targets([], torch.zeros(0, 4), none, 28).shape == (0, 28, 28)
