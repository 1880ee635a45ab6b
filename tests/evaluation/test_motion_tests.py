"""Frames of a clip repeated, backwards, and out of order."""

import torch

from video_mvit.evaluation.motion_tests import MEANING, MOTION_TESTS

VIEWS = torch.arange(16.0).view(1, 1, 16, 1, 1, 1).expand(2, 5, 16, 3, 4, 4)


def order(name: str) -> list[int]:
    """Numbers of the frames that a test shows, which must be those of every view."""
    changed = MOTION_TESTS[name](VIEWS)
    assert changed.shape == VIEWS.shape
    frames = changed[0, 0, :, 0, 0, 0]
    assert torch.equal(changed, frames.view(1, 1, 16, 1, 1, 1).expand_as(VIEWS))
    return [int(frame) for frame in frames]


def test_frames_are_repeated_reversed_and_shuffled() -> None:
    assert order("frozen") == [8] * 16
    assert order("reversed") == list(range(15, -1, -1))
    shuffled = order("shuffled")
    assert sorted(shuffled) == list(range(16))
    assert shuffled not in (list(range(16)), order("reversed"))
    assert order("shuffled") == shuffled
    assert MEANING.keys() == MOTION_TESTS.keys()


def test_each_clip_is_shuffled_in_an_order_of_its_own_whatever_its_batch() -> None:
    """One order for all would measure that order, not what the model makes of motion."""
    generator = torch.Generator().manual_seed(0)
    views = torch.randint(256, (6, 5, 8, 3, 4, 4), dtype=torch.uint8, generator=generator)
    views[:, :, :, 0, 0, 0] = torch.arange(8, dtype=torch.uint8)  # numbers of the frames
    shuffle = MOTION_TESTS["shuffled"]
    shuffled = shuffle(views)
    orders = shuffled[:, :, :, 0, 0, 0].flatten(0, 1)  # (30, 8)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(8).expand(30, 8))
    assert len({tuple(order.tolist()) for order in orders}) == 30
    assert torch.equal(shuffled[3:4, 2:], shuffle(views[3:4, 2:]))


def test_one_frame_stays_as_it_is() -> None:
    picture = VIEWS[:, :, :1]
    for change in MOTION_TESTS.values():
        assert torch.equal(change(picture), picture)
