"""What an evaluation says about itself."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from video_mvit.data.sampling import ClipSpec, SegmentFrames, UniformClips
from video_mvit.data.transforms.cropping import UniformCrops
from video_mvit.evaluation.predictions import MISSING, VideoResult
from video_mvit.evaluation.results import (
    Origin,
    describe_normalization,
    describe_protocol,
    read_result,
    summarize,
)

CLIP = ClipSpec(num_frames=16, frame_stride=4)
ORIGIN = Origin(
    protocol="5x1@16x4 offset short256 crop224",
    normalization="mean 0.45 0.45 0.45 std 0.225 0.225 0.225",
    motion=("frozen",),
    precision="32-true",
    list_sha1="da39a3ee5e6b4b0d3255bfef95601890afd80709",
    weights_sha1="0f",
    checkpoint="runs/x/last.ckpt",
    weights="training checkpoint, EMA weights",
    list_root="videos",
    class_names=("archery", "zumba"),
    versions={"torch": "2"},
)
ROWS = [
    VideoResult(
        video=f"{i}.mp4",
        label=1,
        classes=(label, 1 - label),
        scores=(0.75, 0.25),
        motion={"frozen": 0},
    )
    for i, label in enumerate((1, 1, 0, 1))
]
LEFT_OUT = [
    VideoResult(video="cut.mp4", label=0, problem="no frames"),
    VideoResult(video="gone.mp4", label=None, problem=MISSING),
]


def test_protocol_is_read_off_the_views() -> None:
    crop = UniformCrops(size=224, short_side=256)
    assert describe_protocol(UniformClips(clip=CLIP, num_clips=5), crop) == ORIGIN.protocol
    three = UniformCrops(size=224, short_side=224, num_crops=3)
    segments = SegmentFrames(clip=CLIP, at="middle")
    assert describe_protocol(segments, three) == "1x3@16 segments short224 crop224"
    picture = UniformClips(clip=ClipSpec(num_frames=1, frame_stride=1))
    bicubic = UniformCrops(size=224, short_side=256, interpolation="bicubic")
    assert describe_protocol(picture, bicubic) == "1x1@1x1 offset short256 crop224 bicubic"


def test_normalization_tells_any_two_apart() -> None:
    assert describe_normalization([0.45] * 3, (0.225,) * 3) == ORIGIN.normalization
    assert describe_normalization([1 / 3] * 3, [1] * 3) != describe_normalization(
        [0.333333333] * 3, [1] * 3
    )


def test_file_holds_the_numbers_and_is_read_back(tmp_path: Path) -> None:
    result = summarize(ROWS + LEFT_OUT, ORIGIN, time_s=2, num_clips=20, num_resumed=1)
    path = tmp_path / "results.json"
    result.write(path)
    content = json.loads(path.read_text())
    assert list(content)[:3] == ["protocol", "top1", "top5"]
    assert content["top1"] == 0.75
    assert content["bounds"]["top1"] == [0.5, 5 / 6]
    assert content["missing"] == ["gone.mp4"]
    assert content["unreadable"] == {"cut.mp4": "no frames"}
    assert content["motion"] == {"frozen": 0.0}
    assert content["clips_per_s"] == 10
    assert read_result(path) == result
    assert set(content["intervals"]) == {
        "top1",
        "top5",
        "mean_class_accuracy",
        "calibration_error",
    }
    for name, (low, high) in content["intervals"].items():
        assert 0 <= low <= content[name] <= high <= 1
    del content["intervals"]  # as older versions wrote it
    path.write_text(json.dumps(content))
    assert read_result(path) == replace(result, intervals={})
    path.write_text('{"top1": 1}')
    with pytest.raises(ValueError, match="evaluate again"):
        read_result(path)


def test_missing_videos_of_one_name_count_each() -> None:
    gone = [LEFT_OUT[1], LEFT_OUT[1]]  # two classes, for example
    result = summarize(ROWS + gone, ORIGIN, time_s=2, num_clips=20, num_resumed=0)
    assert (result.num_videos, result.num_listed) == (4, 6)
    assert result.missing == ("gone.mp4", "gone.mp4")
    assert result.bounds["top1"] == (3 / 6, 5 / 6)


def test_lines_name_what_is_left_out() -> None:
    whole = summarize(ROWS, ORIGIN, time_s=2, num_clips=20, num_resumed=0).lines()
    assert whole["top-1"] == "75.0 %"
    assert whole["videos"] == "4"
    assert whole["top-1 frozen"] == "0.0 %  (middle frame repeated: static clip)"
    assert whole["time"] == "2 s, 10.0 clips/s"
    assert whole["checkpoint"] == "runs/x/last.ckpt  (EMA weights)"
    assert "top-1 of all listed" not in whole
    lines = summarize(ROWS + LEFT_OUT, ORIGIN, time_s=2, num_clips=20, num_resumed=3).lines()
    assert lines["videos"] == "4 of 6: 1 missing, 1 unreadable"
    assert lines["top-1 of all listed"] == "50.0 % to 83.3 %"
    assert lines["time"].endswith("(3 videos resumed from an earlier run)")
    raw = replace(ORIGIN, weights="training checkpoint")
    assert (
        "averaged"
        not in summarize(ROWS, raw, time_s=2, num_clips=20, num_resumed=0).lines()["checkpoint"]
    )


def test_seven_videos_with_two_unreadable_and_their_bounds() -> None:
    rows = [replace(ROWS[0], video=f"{i}.mp4") for i in range(4)]
    rows += [replace(ROWS[0], video="4.mp4", label=0)]
    rows += [VideoResult(video=f"{i}.mp4", label=1, problem="no frames") for i in (5, 6)]
    result = summarize(rows, ORIGIN, time_s=2, num_clips=20, num_resumed=0)
    assert (result.num_videos, result.num_listed) == (5, 7)
    assert result.unreadable == {"5.mp4": "no frames", "6.mp4": "no frames"}
    assert result.accuracies.top1 == 4 / 5
    assert result.bounds["top1"] == pytest.approx((4 / 7, 6 / 7))
    assert result.bounds["top5"] == pytest.approx((5 / 7, 7 / 7))
