"""RandAugment of a whole batch at once: the pixels of clip after clip, in few operators."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from video_mvit.data.transforms.augment import _erase_together
from video_mvit.data.transforms.grouped_augment import augment_together, family_of, plan_steps
from video_mvit.data.transforms.mixup import Box
from video_mvit.data.transforms.operations import GREY, OPERATIONS, Draw
from video_mvit.data.transforms.rand_augment import (
    augment_in_turn,
    draw_operations,
    parse_policy,
)

PUBLISHED = "rand-m7-n4-mstd0.5-inc1"
FILL = (1, 128, 250)
VIEWS = {
    "view",
    "slice",
    "expand",
    "unsqueeze",
    "transpose",
    "unbind",
    "split_with_sizes",
    "lift_fresh",
}


def clips(num_clips: int, size: tuple[int, int] = (24, 33)) -> Tensor:
    """Noise of a narrow range, so that stretching and equalizing change it; one frame is flat."""
    values = np.random.default_rng(num_clips).integers(20, 230, (num_clips, 2, 3, *size))
    values[0, 0] = 77
    return torch.from_numpy(values.astype(np.uint8))


def drawn(num_clips: int, policy: str = PUBLISHED) -> list[list[Draw]]:
    generator = np.random.default_rng(num_clips)
    return [draw_operations(parse_policy(policy), generator) for _ in range(num_clips)]


@pytest.mark.parametrize(
    ("num_clips", "policy"),
    [(1, PUBLISHED), (2, PUBLISHED), (40, PUBLISHED), (9, "rand-m10-n6-mstd2-inc1")],
)
def test_pixels_are_those_of_one_clip_after_the_other(num_clips: int, policy: str) -> None:
    batch, draws = clips(num_clips), drawn(num_clips, policy)
    before = batch.clone()
    found = augment_together(batch, draws, FILL)
    assert torch.equal(found, augment_in_turn(batch, draws, FILL))
    assert torch.equal(batch, before)


@pytest.mark.parametrize("magnitude", [0.0, 5.3, 10.0])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_the_same_alone(name: str, magnitude: float) -> None:
    batch = clips(2, (17, 20))
    draws = [[Draw(name, magnitude, sign)] for sign in (1, -1)]
    found = augment_together(batch, draws, GREY)
    assert torch.equal(found, augment_in_turn(batch, draws, GREY))


def test_steps_keep_the_order_within_each_clip() -> None:
    draws = drawn(50)
    steps = plan_steps(draws)
    applied: dict[int, list[Draw]] = {clip: [] for clip in range(len(draws))}
    for step in steps:
        assert {family_of(draw) for draw in step.draws} == {step.family}
        for clip, draw in zip(step.clips, step.draws, strict=True):
            applied[clip].append(draw)
    assert list(applied.values()) == draws
    assert len(steps) <= 12  # three families, four operations


class CountOperators(TorchDispatchMode):
    """Count what does work, not what only looks at a tensor in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = str(function).split(".")[1]
        self.counts[name] += name not in VIEWS
        return function(*args, **(kwargs or {}))


def count(num_clips: int) -> int:
    batch, draws = clips(num_clips, (6, 7)), drawn(num_clips)
    with CountOperators() as operators:
        augment_together(batch, draws, GREY)
    return operators.counts.total()


def test_number_of_operators_does_not_grow_with_the_batch() -> None:
    assert count(32) < 300
    assert count(64) < 300
    assert count(800) < 340  # 12 steps, each with all operations of its family


def test_no_operator_waits_for_the_device() -> None:
    batch, draws = clips(40, (6, 7)), drawn(40)
    with CountOperators() as operators:
        augment_together(batch, draws, GREY)
    waiting = {"_local_scalar_dense", "nonzero", "item", "masked_select", "unique", "bincount"}
    assert not waiting & set(operators.counts)


def test_boxes_are_erased_together() -> None:
    batch = torch.zeros(3, 3, 2, 20, 30)
    boxes = [Box(2, 9, 4, 25), None, Box(0, 20, 0, 1)]
    erased = _erase_together(batch, boxes, torch.Generator().manual_seed(0))
    expected = torch.zeros(3, 20, 30, dtype=torch.bool)
    expected[0, 2:9, 4:25] = True
    expected[2, :, :1] = True
    assert torch.equal(erased != 0, expected[:, None, None].expand_as(erased))
    inside = erased[0, :, :, 2:9, 4:25]
    assert abs(inside.mean()) < 0.15
    assert abs(inside.std() - 1) < 0.1
    assert not torch.equal(inside[:, 0], inside[:, 1])
