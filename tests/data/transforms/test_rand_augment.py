"""RandAugment: every operation against Pillow, the policy string, and what is drawn."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from video_mvit.data.transforms import image_ops
from video_mvit.data.transforms.operations import GREY, OPERATIONS, Draw, apply
from video_mvit.data.transforms.rand_augment import (
    Policy,
    draw_operations,
    parse_policy,
    rand_augment,
)

PUBLISHED = "rand-m7-n4-mstd0.5-inc1"
Picture = Callable[[Image.Image], Image.Image]
BICUBIC = {"resample": Image.Resampling.BICUBIC, "fillcolor": (128, 128, 128)}


def pictures() -> Tensor:
    """Four frames (4, 3, 40, 56): a gradient, flat areas with edges, noise, and one colour."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:40, :56]
    gradient = np.stack([rows * 5, columns * 4, (rows + columns) * 2], axis=-1) + 10
    flat = np.full((40, 56, 3), (30, 140, 220))
    flat[8:30, 11:40] = (200, 90, 25)
    noise = generator.normal(128, 45, (40, 56, 3)).clip(3, 250)
    frames = np.stack([gradient, flat, noise, np.full((40, 56, 3), 77)]).astype(np.uint8)
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()


def affine(*matrix: float) -> Picture:
    return lambda picture: picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, **BICUBIC
    )


def pillow(name: str, share: float, sign: int) -> Picture:
    """The operation as the reference applies it to a picture; magnitude from 0 to 1."""
    factor, move = 1 + sign * 0.9 * share, sign * 0.45 * share
    threshold, addition = 256 - int(256 * share), int(110 * share)
    brighter = [i + addition if i < 128 else i for i in range(256)] * 3
    return {
        "auto_contrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
        "invert": ImageOps.invert,
        "rotate": lambda picture: picture.rotate(sign * 30 * share, **BICUBIC),
        "posterize": lambda picture: ImageOps.posterize(picture, 4 - int(4 * share)),
        "solarize": lambda picture: ImageOps.solarize(picture, threshold),
        "solarize_add": lambda picture: picture.point(brighter),
        "color": lambda picture: ImageEnhance.Color(picture).enhance(factor),
        "contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(factor),
        "brightness": lambda picture: ImageEnhance.Brightness(picture).enhance(factor),
        "sharpness": lambda picture: ImageEnhance.Sharpness(picture).enhance(factor),
        "shear_x": affine(1, sign * 0.3 * share, 0, 0, 1, 0),
        "shear_y": affine(1, 0, 0, sign * 0.3 * share, 1, 0),
        "translate_x": affine(1, 0, move * 56, 0, 1, 0),
        "translate_y": affine(1, 0, 0, 0, 1, move * 40),
    }[name]


def by_pillow(clip: Tensor, change: Picture) -> Tensor:
    frames = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in clip]
    changed = np.stack([np.asarray(change(frame)) for frame in frames])
    return torch.from_numpy(changed).permute(0, 3, 1, 2)


@pytest.mark.parametrize("magnitude", [0.0, 1.0, 4.9, 7.0, 9.9])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_is_that_of_pillow(name: str, magnitude: float) -> None:
    clip = pictures()
    before = clip.clone()
    for sign in (1, -1):
        found = apply(clip, Draw(name, magnitude, sign))
        expected = by_pillow(clip, pillow(name, magnitude / 10, sign))
        apart = (found.int() - expected.int()).abs()
        # Pillow computes in float64 and cuts fractions off: a value beside a whole one may fall
        # on its other side in float32.
        assert apart.max() <= 1
        assert (apart > 0).float().mean() < 0.01
        assert found.dtype == torch.uint8
    assert torch.equal(clip, before)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_changes_pictures(name: str) -> None:
    assert not torch.equal(apply(pictures(), Draw(name, 7.0, 1)), pictures())


def test_full_magnitude_posterizes_to_black() -> None:
    assert not apply(pictures(), Draw("posterize", 10.0, 1)).any()


def test_frames_move_alike() -> None:
    clip = pictures()[:1].expand(3, -1, -1, -1)
    for name in OPERATIONS:
        first, *others = apply(clip, Draw(name, 6.0, -1))
        assert all(torch.equal(first, other) for other in others)


def test_picture_turns_counter_clockwise_and_leaves_grey() -> None:
    clip = torch.zeros(1, 3, 21, 21, dtype=torch.uint8)
    clip[..., 9:12, 14:20] = 255  # to the right of the centre
    turned = image_ops.move(clip, image_ops.rotate(90.0, (21, 21)), GREY)
    assert turned[0, 0, 4, 10] == 255  # above it
    assert image_ops.move(clip, image_ops.rotate(45.0, (21, 21)), GREY)[0, 0, 0, 0] == 128


def test_moved_pictures_leave_the_given_colour() -> None:
    clip, fill = torch.full((2, 3, 20, 20), 255, dtype=torch.uint8), (124, 116, 104)
    moves = [name for name, operation in OPERATIONS.items() if operation.is_move]
    assert len(moves) == 5
    for name in moves:
        moved = apply(clip, Draw(name, 10.0, 1), fill)
        empty = moved[:, 0] != 255
        assert empty.any()
        assert all((moved[:, c][empty] == value).all() for c, value in enumerate(fill))
    draws = parse_policy("rand-m10-n6-inc1")
    black = torch.zeros(8, 1, 3, 20, 20, dtype=torch.uint8)
    seen = rand_augment(black, draws, np.random.default_rng(0), fill)
    assert not torch.equal(seen, rand_augment(black, draws, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        (PUBLISHED, Policy(magnitude=7, num_ops=4, magnitude_std=0.5)),
        ("rand-m9-n6-mstd0.5-inc1", Policy(magnitude=9, num_ops=6, magnitude_std=0.5)),
        ("rand-m7-mstd0.5-inc1", Policy(magnitude=7, num_ops=2, magnitude_std=0.5)),
        ("rand-inc1-m2.5", Policy(magnitude=2.5)),
    ],
)
def test_published_strings_are_read(text: str, policy: Policy) -> None:
    assert parse_policy(text) == policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rand-m7-n4", "inc1 are required"),
        ("rand-m7-inc0", "inc1 are required"),
        ("augmix-m7-inc1", "inc1 are required"),
        ("rand-m7-inc1-w0", "unknown: w"),
        ("rand-m7-inc1-fast", "'fast' is not a setting"),
        ("rand-m7-n2.5-inc1", "n must be an integer"),
        ("rand-m7-n0-inc1", "number of operations 0"),
        ("rand-m12-inc1", "magnitude 12"),
        ("rand-m7-mstd1.-n-inc1", "'n' is not a setting"),
    ],
)
def test_other_strings_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_policy(text)


@pytest.mark.slow
def test_draws_have_the_published_distribution() -> None:
    policy, generator = parse_policy(PUBLISHED), np.random.default_rng(0)
    drawn = [draw_operations(policy, generator) for _ in range(6000)]
    draws = [draw for operations in drawn for draw in operations]
    assert np.mean([len(operations) for operations in drawn]) == pytest.approx(2, abs=0.05)
    assert Counter(map(len, drawn))[4] / 6000 == pytest.approx(1 / 16, abs=0.01)
    counts = Counter(draw.name for draw in draws)
    assert set(counts) == set(OPERATIONS)
    assert max(abs(count / len(draws) - 1 / 15) for count in counts.values()) < 0.01
    assert any(len({d.name for d in operations}) < len(operations) for operations in drawn)
    magnitudes = np.array([draw.magnitude for draw in draws])
    assert magnitudes.mean() == pytest.approx(7, abs=0.02)
    assert magnitudes.std() == pytest.approx(0.5, abs=0.02)
    assert np.mean([draw.sign for draw in draws]) == pytest.approx(0, abs=0.04)
    strong = Policy(magnitude=10, num_ops=1, magnitude_std=1)
    extremes = [d.magnitude for _ in range(400) for d in draw_operations(strong, generator)]
    assert max(extremes) == 10


def test_clips_of_a_batch_have_draws_of_their_own_that_can_be_repeated() -> None:
    clips, policy = pictures().expand(6, -1, -1, -1, -1), parse_policy(PUBLISHED)
    once, again = (rand_augment(clips, policy, np.random.default_rng(1)) for _ in range(2))
    assert torch.equal(once, again)
    assert once.shape == clips.shape
    assert len({clip.numpy().tobytes() for clip in once}) > 3
