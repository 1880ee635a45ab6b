"""RandAugment of a whole batch at once: the pixels of clip after clip, in few operators."""

import numpy as np
import pytest
import torch
from benchmarks.augment import augment_as_on_gpu, most_operators, worst_draws
from benchmarks.operators import count_operators
from benchmarks.step_count import WAITING
from torch import Tensor

from video_mvit.data.transforms.augment import erase_together
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


def test_families_in_turn_where_the_most_needed_ones_take_longer() -> None:
    """Five clips for whose order the next need of most is a bad guide."""
    letters = {"L": "invert", "B": "color", "M": "rotate"}
    words = ("MLLM", "MMLL", "LLLB", "BMML", "BBML")
    draws = [[Draw(letters[letter], 7.0, 1) for letter in word] for word in words]
    assert len(plan_steps(draws)) <= 12


def test_number_of_operators_has_a_bound_for_all_batches() -> None:
    assert most_operators() <= 300


@pytest.mark.parametrize("num_ops", [1, 4])
def test_worst_batch_has_the_pixels_of_one_clip_after_the_other(num_ops: int) -> None:
    draws = worst_draws(num_ops)
    batch = clips(len(draws), (6, 7))
    steps = plan_steps(draws)
    assert len(steps) == 3 * num_ops
    assert {len({draw.name for draw in step.draws}) for step in steps} == {3}
    found = augment_together(batch, draws, FILL)
    assert torch.equal(found, augment_in_turn(batch, draws, FILL))


def test_no_operator_waits_for_the_device() -> None:
    draws, generator = worst_draws(4), np.random.default_rng(0)
    batch = clips(len(draws), (6, 7))
    counts = count_operators(lambda: augment_as_on_gpu(batch, draws, generator))
    waiting = {"aten::unique", "aten::bincount", *WAITING}
    assert not waiting & set(counts)


def test_boxes_are_erased_together() -> None:
    batch = torch.zeros(3, 3, 2, 20, 30)
    boxes = [Box(2, 9, 4, 25), None, Box(0, 20, 0, 1)]
    erased = erase_together(batch, boxes, torch.Generator().manual_seed(0))
    expected = torch.zeros(3, 20, 30, dtype=torch.bool)
    expected[0, 2:9, 4:25] = True
    expected[2, :, :1] = True
    assert torch.equal(erased != 0, expected[:, None, None].expand_as(erased))
    inside = erased[0, :, :, 2:9, 4:25]
    assert abs(inside.mean()) < 0.15
    assert abs(inside.std() - 1) < 0.1
    assert not torch.equal(inside[:, 0], inside[:, 1])
