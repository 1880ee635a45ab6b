"""Image models made video models: what a still clip then gives, and what is refused."""

from typing import Any

import pytest
import torch
from support.inflation import inflated, model_of, shapes, source_of
from torch import Tensor

import video_mvit
from video_mvit.models.config import VARIANTS
from video_mvit.models.mvit import MViT
from video_mvit.weights.inflate import inflate_kernel, plan_inflation


def still(num_frames: int) -> Tensor:
    image = torch.randn(2, 3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    return image.expand(-1, -1, num_frames, -1, -1)


def test_centred_model_gives_the_image_logits_on_a_still_clip() -> None:
    image = model_of()
    video = inflated(image, model_of(num_frames=8), "center", "keep")
    with torch.inference_mode():
        expected = image(still(1))
        torch.testing.assert_close(video(still(8)), expected, rtol=0, atol=1e-4)
        for ours, theirs in zip(
            video.forward_stages(still(8)), image.forward_stages(still(1)), strict=True
        ):
            torch.testing.assert_close(ours, theirs.expand_as(ours), rtol=0, atol=1e-4)
    assert expected.std() > 0.1


def test_average_keeps_the_stem_inside_the_clip_and_not_at_its_border() -> None:
    image = model_of()
    video = inflated(image, model_of(num_frames=8), "average", "keep")
    with torch.inference_mode():
        bias = image.patch_embed.proj.bias
        expected = (image.patch_embed(still(1)) - bias).reshape(2, 1, 64, 16)
        stem = (video.patch_embed(still(8)) - bias).reshape(2, 4, 64, 16)
    torch.testing.assert_close(stem[:, 1:], expected.expand(-1, 3, -1, -1), rtol=0, atol=1e-4)
    torch.testing.assert_close(stem[:, :1], expected * 2 / 3, rtol=0, atol=1e-4)


def test_rules_spread_a_kernel_as_they_say() -> None:
    kernel = torch.tensor([6.0]).view(1, 1, 1, 1, 1)
    assert inflate_kernel(kernel, 3, "center").flatten().tolist() == [0, 6, 0]
    assert inflate_kernel(kernel, 3, "average").flatten().tolist() == [2, 2, 2]


def test_rows_say_what_became_of_each_tensor() -> None:
    image, video = model_of(), model_of(num_frames=4, cls_token=True, head="cls", num_classes=3)
    plan = plan_inflation(source_of(image.state_dict(), image.config), shapes(video))
    notes = {row.name: (row.action, row.note) for row in plan.rows}
    assert notes["patch_embed.proj.weight"] == ("inflated", "middle tap of 3")
    assert notes["blocks.3.attn.rel_pos_t"] == ("new", "zeros")
    assert notes["cls_token"] == notes["head.projection.bias"] == ("new", "initialised")
    assert set(notes) == set(shapes(video))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image", "video", "overrides", "resized"),
    [
        ("mvitv2_image_s", "mvitv2_s", {}, 2),
        ("mvitv2_image_b", "mvitv2_b", {}, 2),
        ("mvitv2_image_b_21k", "mvitv2_b", {}, 2),
        ("mvitv2_image_l_21k", "mvitv2_l", {}, 96),
        ("mvitv2_image_l", "mvitv2_l", {"expand_dim_in": "mlp"}, 96),
    ],
)
def test_published_image_models_fit_their_video_models(
    image: str, video: str, overrides: dict[str, Any], resized: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MViT, "init_weights", lambda _: None)
    with torch.device("meta"):
        theirs, ours = video_mvit.create_model(image), video_mvit.create_model(video, **overrides)
        plan = plan_inflation(source_of(theirs.state_dict(), theirs.config), shapes(ours))
    blocks = sum(VARIANTS[video].depths)
    counts = plan.counts()
    assert counts["inflated"] == 1 + 3 * blocks
    assert counts["resized"] == resized
    assert counts["new"] == blocks + 2 + ("cls_token" not in theirs.state_dict())


@pytest.mark.parametrize(
    ("image", "video", "message"),
    [
        ({"expand_dim_in": "mlp"}, {}, "the video model with expand_dim_in=mlp matches"),
        ({"depths": (1, 1, 2, 1)}, {}, "has 5 blocks that start with 16 channels, the model has 4"),
        ({"num_frames": 4}, {}, "is already a video model; use init=weights"),
        ({}, {"num_frames": 1}, "the model to inflate into has one frame"),
    ],
)
def test_what_cannot_fit_is_refused_with_the_reason(
    image: dict[str, Any], video: dict[str, Any], message: str
) -> None:
    theirs, ours = model_of(**image), model_of(**{"num_frames": 4, **video})
    with pytest.raises(ValueError, match=message):
        plan_inflation(source_of(theirs.state_dict(), theirs.config), shapes(ours))


def test_other_classes_and_unknown_rules_are_refused() -> None:
    image, video = model_of(), model_of(num_frames=4, num_classes=3)
    source = source_of(image.state_dict(), image.config)
    with pytest.raises(ValueError, match=r"head\.projection\.weight \(5x128 in the file, 3x128"):
        plan_inflation(source, shapes(video), "center", "keep")
    with pytest.raises(ValueError, match="rule is 'repeat', expected one of center, average"):
        plan_inflation(source, shapes(video), "repeat")  # type: ignore[arg-type]
