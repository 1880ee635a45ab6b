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


def test_one_frame_stays_as_it_is() -> None:
    picture = VIEWS[:, :, :1]
    for change in MOTION_TESTS.values():
        assert torch.equal(change(picture), picture)
