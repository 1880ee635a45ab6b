"""Transforms of the user's own: what they get and return, their random numbers, and the check."""

import contextlib
import random
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from video_mvit.data.transforms.augment import Augment, Normalize
from video_mvit.data.transforms.clip_transforms import ClipTransforms, own_random_numbers, seed_all
from video_mvit.errors import UserError

CPU = torch.device("cpu")
NORMALIZE = Normalize(mean=[0.45] * 3, std=[0.225] * 3)


def clips(batch_size: int = 3) -> Tensor:
    values = np.random.default_rng(0).integers(0, 256, (batch_size, 4, 3, 8, 8), dtype=np.uint8)
    return torch.from_numpy(values)


def as_float(clip: Tensor) -> Tensor:
    return clip / 255


def invert(clip: Tensor) -> Tensor:
    return 1 - clip if clip.is_floating_point() else 255 - clip


def shift(clip: Tensor) -> Tensor:
    """Add a number of each of the three generators that a transform may use."""
    number = random.randrange(9) + np.random.randint(9) + int(torch.randint(9, ()))
    return clip + number


def nothing(clip: Tensor) -> None:
    clip.add_(1)


def failing(clip: Tensor) -> Tensor:
    raise KeyError(clip)


def add_axis(clip: Tensor, dim: int) -> Tensor:
    return clip.unsqueeze(dim)


def in_place(clip: Tensor) -> Tensor:
    return clip.fill_(0)


def applied(*transforms: Callable[[Tensor], Tensor], seed: int = 0) -> Tensor:
    return ClipTransforms(transforms)(clips(), np.random.default_rng(seed))


def test_transforms_are_applied_in_turn_and_floats_become_bytes_again() -> None:
    assert torch.equal(applied(invert), 255 - clips())
    assert torch.equal(applied(as_float, invert), 255 - clips())
    beyond = applied(as_float, lambda clip: clip + 0.4)
    assert torch.equal(beyond, (clips().int() + 102).clamp(max=255).to(torch.uint8))
    assert beyond.dtype == torch.uint8


def test_each_clip_has_random_numbers_of_its_own_that_can_be_repeated() -> None:
    drawn = applied(shift) - clips()
    assert torch.equal(drawn, applied(shift) - clips())
    assert not torch.equal(drawn, applied(shift, seed=1) - clips())
    assert len({int(clip.flatten()[0]) for clip in drawn}) > 1
    assert all((clip == clip.flatten()[0]).all() for clip in drawn)


def test_random_numbers_of_others_go_on_as_if_nothing_had_been_drawn() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.random(), float(torch.rand(()))

    seed_all(3, CPU)
    expected = [draw(), draw()]
    seed_all(3, CPU)
    found = [draw()]
    applied(shift)
    ClipTransforms([shift]).check(2, 8)
    with contextlib.suppress(KeyError), own_random_numbers(CPU):
        draw()
        raise KeyError  # an error in a transform
    assert [*found, draw()] == expected


def test_clips_of_the_loader_are_not_changed() -> None:
    batch = clips()
    result = ClipTransforms([in_place])(batch, np.random.default_rng(0))
    assert torch.equal(batch, clips())
    assert not result.any()


@pytest.mark.parametrize(
    ("transform", "returned"),
    [
        (nothing, "returned None for uint8"),
        (lambda clip: (clip, 1), "returned a tuple for"),
        (lambda clip: clip[:, :, :4], r"returned uint8 \(4, 3, 4, 8\) for uint8 \(4, 3, 8, 8\)"),
        (lambda clip: clip.transpose(0, 1), r"uint8 \(3, 4, 8, 8\)"),
        (lambda clip: clip.long(), r"returned int64 \(4, 3, 8, 8\)"),
        (lambda clip: clip.float(), "returned floats of 0 to 255"),
        (lambda clip: NORMALIZE(clip).transpose(0, 1), "to 2.44 .the normalization comes later"),
        (lambda clip: clip / 0, "floats of nan to nan"),
        (partial(add_axis, dim=0), r"test_clip_transforms\.add_axis, returned uint8 \(1, 4, 3,"),
    ],
)
def test_what_is_no_such_clip_is_refused_at_the_start(
    transform: Callable[[Tensor], Tensor], returned: str
) -> None:
    transforms = ClipTransforms([invert, transform])
    with pytest.raises(UserError, match=rf"^augment\.transforms\[1\], .*{returned}") as refused:
        transforms.check(4, 8)
    assert "expected a clip of the same shape (T, C, H, W)" in str(refused.value)


def test_a_transform_that_goes_wrong_at_times_is_refused_then() -> None:
    def rarely(clip: Tensor) -> Tensor:
        return clip[1:] if clip.float().mean() < 100 else clip

    transforms = ClipTransforms([rarely])
    transforms.check(4, 8)
    dark = torch.zeros(1, 4, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(UserError, match=r"rarely, returned uint8 \(3, 3, 8, 8\)"):
        transforms(dark, np.random.default_rng(0))


def test_an_error_inside_of_a_transform_stays_what_it_is() -> None:
    with pytest.raises(KeyError):
        ClipTransforms([failing]).check(4, 8)


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(UserError, match=r"augment.transforms\[1\] is 3, expected something call"):
        ClipTransforms([invert, 3])  # type: ignore[list-item]


def test_augmentation_begins_with_them() -> None:
    label = torch.tensor([0, 1, 2])
    known = {"normalize": NORMALIZE, "num_classes": 3}
    augment = Augment(policy=None, transforms=[invert])
    clip, _ = augment(clips(), label, generator=np.random.default_rng(0), **known)
    torch.testing.assert_close(clip, NORMALIZE(255 - clips()))


def test_modules_among_them_move_with_the_network_and_are_not_trained() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(0.5))

        def forward(self, clip: Tensor) -> Tensor:
            return clip / 255 * self.factor

    augment = Augment(policy=None, transforms=[Scaled()])
    assert [each.requires_grad for each in augment.parameters()] == [False]
    augment.to(torch.float64)
    assert augment.transforms.transforms[0].factor.dtype == torch.float64


def test_transforms_of_torchvision_move_all_frames_of_a_clip_alike() -> None:
    v2 = pytest.importorskip("torchvision.transforms.v2")
    still = clips()[:, :1].expand(-1, 4, -1, -1, -1)
    transforms = ClipTransforms(
        [
            v2.RandomHorizontalFlip(0.5),
            v2.ColorJitter(brightness=0.5),
            v2.ToDtype(torch.float32, scale=True),
            v2.GaussianNoise(sigma=0.01) if hasattr(v2, "GaussianNoise") else invert,
        ]
    )
    transforms.check(4, 8)
    result = ClipTransforms(transforms.transforms[:2])(still, np.random.default_rng(0))
    assert torch.equal(result, result[:, :1].expand_as(result))
    assert not torch.equal(result, still)
