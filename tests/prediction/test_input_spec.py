"""What a model is shown: of its card, of the command line, or as published."""

from dataclasses import asdict
from typing import Any

import pytest
from torch import nn

import video_mvit
from video_mvit.data.sampling import SegmentFrames, UniformClips
from video_mvit.prediction.input_spec import InputSpec, input_spec_of
from video_mvit.weights.model_card import ModelCard

PUBLISHED = ((0.45,) * 3, (0.225,) * 3)


def spec(card: dict[str, Any] | None = None, overrides: Any = None, **options: Any) -> InputSpec:
    model = video_mvit.create_model("mvitv2_demo", **{"num_classes": 3, **options})
    if card is not None:
        model.card = ModelCard(model=asdict(model.config), **card)
    return input_spec_of(model, PUBLISHED, overrides or {})


def test_without_a_card_all_is_published_and_stated_as_assumed() -> None:
    found = spec(num_frames=32, crop_size=224, stride_kv=(1, 8, 8))
    assert (found.frame_stride, found.short_side, found.sampling) == (3, 256, "strided")
    assert found.class_names == ("class 0", "class 1", "class 2")
    assert found.describe_assumed() == (
        "frame_stride=3 short_side=256 sampling=strided interpolation=bilinear "
        "mean=[0.45,0.45,0.45] std=[0.225,0.225,0.225] class_names=numbers"
    )
    assert spec(num_frames=16).frame_stride == 4


def test_card_comes_before_published_and_overrides_before_card() -> None:
    card = {"frame_stride": 7, "short_side": 40, "class_names": ("a", "b", "c")}
    found = spec(card, {"frame_stride": 2, "mean": [0.1, 0.2, 0.3], "std": None})
    assert (found.frame_stride, found.short_side, found.mean) == (2, 40, (0.1, 0.2, 0.3))
    assert found.class_names == ("a", "b", "c")
    assert found.assumed == ("sampling", "interpolation", "std")


def test_views_are_those_of_the_published_evaluations() -> None:
    strided, segments = spec().pipeline(), spec({"sampling": "segments"}).pipeline()
    assert isinstance(strided.sampler, UniformClips)
    assert (strided.sampler.num_clips, strided.crop.num_crops) == (5, 1)
    assert isinstance(segments.sampler, SegmentFrames)
    assert segments.crop.num_crops == 3
    with pytest.raises(ValueError, match="covers a whole video with one clip"):
        spec({"sampling": "segments"}).pipeline(num_clips=5)


def test_image_model_is_shown_single_bicubic_frames() -> None:
    found = spec(num_frames=1, stride_kv=(1, 4, 4))
    assert (found.num_frames, found.interpolation) == (1, "bicubic")
    assert "frame_stride" not in found.assumed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"frame_stride": 0}, "frame_stride is 0, expected a positive int"),
        ({"sampling": "dense"}, "sampling 'dense' is none of"),
        ({"class_names": ["a"]}, "1 class names for 3 classes"),
        ({"stride": 4}, "unknown option 'stride'; known: frame_stride"),
    ],
)
def test_impossible_value_is_one_sentence(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec(overrides=overrides)


def test_network_that_says_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a Linear does not say its num_frames, crop_size"):
        input_spec_of(nn.Linear(1, 1), PUBLISHED, {})


def test_short_side_of_a_card_is_not_that_of_another_crop(tmp_path: Any) -> None:
    model = video_mvit.create_model("mvitv2_demo", num_classes=3)
    card = ModelCard(model=asdict(model.config), short_side=32, sampling="segments")
    from video_mvit.weights.checkpoint_files import write_safetensors

    write_safetensors(tmp_path / "m.safetensors", model.state_dict(), card)
    larger = video_mvit.load_model(str(tmp_path / "m.safetensors"), crop_size=64)
    found = input_spec_of(larger, PUBLISHED, {})
    assert (found.short_side, found.sampling) == (round(64 * 256 / 224), "segments")
