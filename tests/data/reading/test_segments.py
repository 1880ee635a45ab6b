"""Parts of videos from one time to another, as the items of a list and as videos of their own."""

from pathlib import Path

import numpy as np
import pytest
from support.videos import read_numbers, write_numbered_video

from video_mvit.data.dataset import ClipPipeline, read_views
from video_mvit.data.lists.division import source_of
from video_mvit.data.lists.path_lists import PathListSource
from video_mvit.data.preparation.scan import examine
from video_mvit.data.reading.open import (
    DecodeLimits,
    VideoDecodeError,
    examine_video,
    open_video,
)
from video_mvit.data.reading.segments import seconds_of, segment_at, segment_suffix
from video_mvit.data.sampling import ClipSpec, UniformClips
from video_mvit.data.transforms.cropping import UniformCrops
from video_mvit.errors import UserError
from video_mvit.evaluation.error_list import link_to

FPS = 30


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "a.mp4"
    write_numbered_video(path, 120)
    return path


def test_frames_are_those_that_are_shown_between_the_times(video: Path) -> None:
    with open_video(video) as whole:
        fps = whole.clock.fps
    with open_video(f"{video}#t={20 / fps:.6f},{50 / fps:.6f}") as part:
        assert part.num_frames == 30
        assert part.clock.duration_s == pytest.approx(30 / fps)
        assert read_numbers(part.read(range(30))) == list(range(20, 50))
    with open_video(f"{video}#t={100 / fps:.6f},1000") as part:
        assert read_numbers(part.read(range(part.num_frames))) == list(range(100, 120))
    facts = examine_video(f"{video}#t=0,{40 / fps:.6f}")
    assert (facts.num_frames, facts.fps) == (40, fps)


def test_no_clip_reaches_beyond_a_part(video: Path) -> None:
    clips = UniformClips(clip=ClipSpec(num_frames=8, frame_stride=4), num_clips=3)
    pipeline = ClipPipeline(sampler=clips, crop=UniformCrops(size=32, short_side=32))
    with open_video(video) as whole:
        fps = whole.clock.fps
    path = f"{video}#t={40 / fps:.6f},{60 / fps:.6f}"  # shorter than a clip
    with open_video(path) as part:
        for indices in clips(part.clock, np.random.default_rng(0)):
            numbers = read_numbers(part.read(indices))
            assert min(numbers) >= 40
            assert max(numbers) <= 59
    assert len(read_views(path, pipeline, np.random.default_rng(0))) == 3


def test_a_part_after_the_end_is_unreadable_and_closes_the_video(video: Path) -> None:
    with pytest.raises(VideoDecodeError, match="begins after the end of the video"):
        open_video(f"{video}#t=900,901")


def test_a_file_of_that_name_is_itself(tmp_path: Path) -> None:
    write_numbered_video(tmp_path / "b.mp4", 5).rename(tmp_path / "b.mp4#t=0,1")
    assert segment_at(str(tmp_path / "b.mp4#t=0,1")) is None
    with open_video(tmp_path / "b.mp4#t=0,1") as whole:
        assert whole.num_frames == 5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3", 3), ("3.25", 3.25), ("1:02", 62), ("1:02:03.5", 3723.5), ("-1", None), ("x", None)],
)
def test_times_are_seconds_or_clock_times(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == seconds


def test_a_list_of_parts_names_each_once_and_keeps_a_video_together(video: Path) -> None:
    root = video.parent
    (root / "parts.csv").write_text(
        "file,from,to,action\na.mp4,0,1.5,walk\na.mp4,0:02,3.25,run\na.mp4,0,1.5,walk\n"
    )
    columns = {"path": "file", "label": "action", "start": "from", "end": "to"}
    found = PathListSource(manifest=str(root / "parts.csv"), columns=columns).read()
    assert list(found.names) == ["a.mp4#t=0,1.5", "a.mp4#t=2,3.25"]
    assert [found.class_names[label] for label in found.labels] == ["walk", "run"]
    assert {source_of(name) for name in found.names} == {"a"}
    assert link_to("/v w", "a#.mp4#t=2,3.25") == "file:///v%20w/a%23.mp4#t=2,3.25"
    assert segment_suffix("0:00:01.250", "90") == "#t=1.25,90"


def test_parts_are_scanned_as_videos_of_their_own(video: Path) -> None:
    limits = DecodeLimits()
    scanned = examine(("a.mp4#t=1,2", f"{video}#t=1,2"), decode_limits=limits)
    assert (scanned.error, scanned.num_frames) == (None, 30)
    assert scanned.size == video.stat().st_size
    after = examine(("x", f"{video}#t=90,91"), decode_limits=limits)
    assert "begins after" in (after.error or "")
    assert examine(("x", f"{video}x#t=0,1"), decode_limits=limits).error == "no such file"


@pytest.mark.parametrize("row", ["a.mp4,3,2,walk", "a.mp4,x,2,walk", "a.mp4,,2,walk"])
def test_times_that_are_none_are_refused(video: Path, row: str) -> None:
    path = video.parent / "bad.csv"
    path.write_text(f"{row}\n{row}\n")
    with pytest.raises(UserError, match=r"line 1: .* has no start and a later end"):
        PathListSource(manifest=str(path), columns="path,start,end,label").read()
    with pytest.raises(UserError, match="a part of a video has a start and an end"):
        PathListSource(manifest=str(path), columns="path,start,_,label").read()
