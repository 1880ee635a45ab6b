"""What an evaluation says about itself."""

import json
from dataclasses import replace
from pathlib import Path

from video_mvit.data.cropping import UniformCrops
from video_mvit.data.sampling import ClipSpec, SegmentFrames, UniformClips
from video_mvit.evaluation.report import Result, describe_protocol

CLIP = ClipSpec(num_frames=16, frame_stride=4)
RESULT = Result(
    protocol="5x1@16x4 offset short256 crop224",
    top1=0.8104,
    top5=0.9461,
    frozen_top1=None,
    num_videos=19881,
    num_listed=19881,
    missing=(),
    unreadable={},
    list_sha1="da39a3ee5e6b4b0d3255bfef95601890afd80709",
    class_names=("archery", "zumba"),
    time_s=61.2,
    checkpoint="runs/x/last.ckpt",
    weights="training checkpoint",
)


def test_protocol_is_read_off_the_views() -> None:
    crop = UniformCrops(size=224, short_side=256)
    assert describe_protocol(UniformClips(clip=CLIP, num_clips=5), crop) == RESULT.protocol
    three = UniformCrops(size=224, short_side=224, num_crops=3)
    segments = SegmentFrames(clip=CLIP, at="middle")
    assert describe_protocol(segments, three) == "1x3@16 segments short224 crop224"
    picture = UniformClips(clip=ClipSpec(num_frames=1, frame_stride=1))
    bicubic = UniformCrops(size=224, short_side=256, interpolation="bicubic")
    assert describe_protocol(picture, bicubic) == "1x1@1x1 offset short256 crop224 bicubic"


def test_lines_and_file_hold_the_same_numbers(tmp_path: Path) -> None:
    lines = RESULT.lines()
    assert (lines["top-1"], lines["top-5"]) == ("81.0 %", "94.6 %")
    assert lines["videos"] == "19881"
    assert "top-1 of all listed" not in lines
    assert "top-1 on frozen clips" not in lines
    assert lines["checkpoint"] == "runs/x/last.ckpt"
    averaged = replace(RESULT, weights="training checkpoint, averaged weights").lines()
    assert averaged["checkpoint"] == "runs/x/last.ckpt  (averaged weights)"
    RESULT.write(tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text())["top1"] == 0.8104


def test_left_out_videos_are_counted_and_bound_the_accuracy() -> None:
    result = replace(
        RESULT,
        top1=0.75,
        num_videos=80,
        num_listed=100,
        missing=tuple(map(str, range(15))),
        unreadable={f"{i}.mp4": "no frames" for i in range(5)},
    )
    assert result.bounds(0.75) == (0.6, 0.8)
    lines = result.lines()
    assert lines["videos"] == "80 of 100: 15 missing, 5 unreadable"
    assert lines["top-1 of all listed"] == "60.0 % to 80.0 %"
