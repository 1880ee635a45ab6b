"""Animated pictures are videos of their frames, shown as long as the file says."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.broken import cut
from support.videos import numbered_frame, read_numbers

from video_mvit.data.preparation.transcode import TranscodeSpec, transcode
from video_mvit.data.reading.images import PictureReader
from video_mvit.data.reading.open import (
    DecodeLimits,
    VideoDecodeError,
    examine_video,
    iterate_frames,
    open_video,
)

DURATIONS_MS = [40, 40, 200, 40, 500, 80]
KINDS = {"WEBP": {"lossless": True}, "PNG": {}, "GIF": {}}


def write_animation(path: Path, kind: str) -> Path:
    frames = [Image.fromarray(numbered_frame(i)) for i in range(len(DURATIONS_MS))]
    options = {"save_all": True, "append_images": frames[1:], "duration": DURATIONS_MS}
    frames[0].save(path, kind, **options, **KINDS[kind])
    return path


@pytest.mark.parametrize("suffix", [".webp", ".apng", ".png", ".gif", ".jpg", ".mp4"])
@pytest.mark.parametrize("kind", KINDS)
def test_animation_is_a_video_whatever_its_name(tmp_path: Path, kind: str, suffix: str) -> None:
    path = write_animation(tmp_path / f"a{suffix}", kind)
    with open_video(path) as video:
        assert video.num_frames == 6
        assert read_numbers(video.read(range(6))) == list(range(6))
        assert read_numbers(video.read([5, 0, 3, 3])) == [5, 0, 3, 3]
        assert video.size == (64, 64)
    assert examine_video(path).num_frames == 6
    times = [frame.time for frame in iterate_frames(path)]
    assert times == pytest.approx(np.cumsum([0, *DURATIONS_MS[:-1]]) / 1000)


def test_times_of_an_animated_webp_count_its_last_frame(tmp_path: Path) -> None:
    with open_video(write_animation(tmp_path / "a.webp", "WEBP")) as video:
        assert video.clock.is_variable
        assert video.clock.duration_s == pytest.approx(sum(DURATIONS_MS) / 1000)
        last_s = video.clock.duration_s - DURATIONS_MS[-1] / 1000
        assert video.clock.time_s(5) == pytest.approx(last_s)
        assert video.clock.frames_at(np.array([0.0, last_s - 0.001, last_s])).tolist() == [0, 4, 5]


def test_frames_of_no_duration_are_shown_as_browsers_do(tmp_path: Path) -> None:
    frames = [Image.fromarray(numbered_frame(i)) for i in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=0)
    assert [frame.time for frame in iterate_frames(tmp_path / "a.webp")] == [0, 0.1, 0.2]


def test_animated_webp_is_transcoded_with_its_times(tmp_path: Path) -> None:
    source = write_animation(tmp_path / "a.webp", "WEBP")
    spec = TranscodeSpec(short_side=64, gop=8, crf=10, preset="veryfast")
    assert transcode(str(source), tmp_path / "a.mp4", spec, DecodeLimits()) == 6
    copied = [frame.time for frame in iterate_frames(tmp_path / "a.mp4")]
    assert copied == pytest.approx([frame.time for frame in iterate_frames(source)], abs=2e-3)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_animated_webp_that_was_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    path = cut(write_animation(tmp_path / "a.webp", "WEBP"), tmp_path / "b.webp", share)
    with pytest.raises(VideoDecodeError, match="truncated"):
        open_video(path)


def test_limits_hold_for_an_animated_webp(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "a.webp", "WEBP")
    with pytest.raises(VideoDecodeError, match="larger than 100 pixels"):
        open_video(path, decode_limits=DecodeLimits(frame_pixels=100))
    with pytest.raises(VideoDecodeError, match="more than 3 packets"):
        open_video(path, decode_limits=DecodeLimits(num_packets=3))
    with (
        open_video(path, decode_limits=DecodeLimits(num_pixels=3 * 64 * 64)) as video,
        pytest.raises(VideoDecodeError, match="pixels to decode"),
    ):
        video.read(range(6))


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_animation_is_not_taken_for_one_picture(tmp_path: Path, kind: str) -> None:
    path = write_animation(tmp_path / "a.png", kind)
    with pytest.raises(VideoDecodeError, match="6 frames, not one picture"):
        PictureReader(str(path), DecodeLimits())
