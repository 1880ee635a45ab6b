"""What the proof of an inflation finds: equality where it is due, and an inflation gone wrong."""

import pytest
import torch
from support.inflation import IMAGE, inflated, model_of

from video_mvit.models.mvit import MViT
from video_mvit.weights.inflation_check import compare_static_clip, reasons

PICTURE = torch.randn(1, 3, 1, 32, 32, generator=torch.Generator().manual_seed(2))
PLACES = ["stem, inside the clip", "stem, at its first frames"]
PLACES += [f"stage {i}" for i in (1, 2, 3, 4)] + ["logits"]


def with_rule(rule: str) -> tuple[MViT, MViT]:
    image = model_of()
    return image, inflated(image, model_of(num_frames=8), rule, "keep")


def test_centre_is_equal_everywhere() -> None:
    differences = compare_static_clip(*with_rule("center"), PICTURE, "center")
    assert [difference.place for difference in differences] == PLACES
    assert all(difference.is_equal and not difference.why_not for difference in differences)
    assert min(difference.scale for difference in differences) > 0.1


def test_average_is_equal_inside_the_stem_only_and_says_why() -> None:
    differences = compare_static_clip(*with_rule("average"), PICTURE, "average")
    assert [difference.is_equal for difference in differences] == [True] + 6 * [False]
    assert [bool(difference.why_not) for difference in differences] == [False] + 6 * [True]
    assert not any(difference.fails for difference in differences)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("patch_embed.proj.weight", 0),
        ("blocks.1.attn.pool_k.weight", 3),
        ("head.projection.bias", 6),
    ],
)
def test_a_wrong_tensor_shows_from_its_place_on(name: str, first: int) -> None:
    image, video = with_rule("center")
    with torch.no_grad():
        tensor = video.get_parameter(name)
        tensor += 0.05 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(3))
    failed = [d.place for d in compare_static_clip(image, video, PICTURE, "center") if d.fails]
    assert failed == PLACES[first:]


def test_centre_taken_for_average_fails() -> None:
    image, video = with_rule("average")
    assert any(d.fails for d in compare_static_clip(image, video, PICTURE, "center"))


def test_reasons_are_those_that_hold() -> None:
    image = {**IMAGE, "stride_kv": (1, 4, 4)}
    assert reasons(image, image, "center") == ()
    video = {**image, "cls_token": True, "stride_kv": (1, 8, 8)}
    assert [text.split()[0] for text in reasons(image, video, "center")] == ["only", "K"]
    assert reasons(image, video, "center")[1] == "K and V are pooled by 1x8x8, there by 1x4x4"
    both = {**image, "cls_token": True}
    assert "one key among more" in reasons(both, both, "center")[0]
    assert "every average" in reasons(image, image, "average")[0]
