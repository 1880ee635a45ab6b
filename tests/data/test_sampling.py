"""Frame indices against the official integer tables."""

import numpy as np
import pytest
import torch

from video_mvit.data.frame_clock import FrameClock
from video_mvit.data.sampling import (
    ClipSpec,
    RandomClip,
    SegmentFrames,
    UniformClips,
    clip_frame_indices,
    join_clips,
    segment_bounds,
    uniform_starts,
)

GENERATOR = np.random.default_rng(0)


def constant(num_frames: int, fps: float) -> FrameClock:
    return FrameClock(num_frames=num_frames, fps=fps)


@pytest.mark.parametrize(
    ("num_frames", "frame_stride", "fps", "expected"),
    [
        (16, 4, 30, [0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 42, 46, 50, 54, 58, 63]),
        (16, 4, 25, [0, 3, 6, 10, 13, 17, 20, 24, 27, 31, 34, 38, 41, 45, 48, 52]),
        (16, 4, 24, [0, 3, 6, 10, 13, 16, 20, 23, 26, 30, 33, 36, 40, 43, 46, 50]),
        (16, 4, 29.97, [0, 4, 8, 12, 16, 20, 25, 29, 33, 37, 41, 46, 50, 54, 58, 62]),
        (16, 4, 60, [0, 8, 16, 25, 33, 42, 50, 59, 67, 76, 84, 93, 101, 110, 118, 127]),
        (32, 3, 30, [*range(0, 48, 3), *range(49, 92, 3), 95]),
        (40, 3, 30, [*range(0, 58, 3), *range(61, 116, 3), 119]),
    ],
)
def test_clip_indices_match_official_tables(
    num_frames: int, frame_stride: int, fps: float, expected: list[int]
) -> None:
    span = ClipSpec(num_frames=num_frames, frame_stride=frame_stride).span(fps)
    indices = clip_frame_indices(0, span, num_frames, 10_000).tolist()
    assert indices == expected


@pytest.mark.parametrize("fps", [24, 25, 29.97, 30, 60])
def test_clip_covers_the_same_seconds_at_every_rate(fps: float) -> None:
    clip = ClipSpec(num_frames=16, frame_stride=4)
    indices = clip_frame_indices(0, clip.span(fps), 16, 10_000)
    assert indices[-1] == int(clip.span(fps) - 1 + 1e-6)
    assert clip.span(fps) / fps == pytest.approx(64 / 30)


@pytest.mark.parametrize("num_frames", [8, 16, 32])
@pytest.mark.parametrize("fps", [12, 24, 25, 29.97, 30, 60])
def test_every_place_of_a_clip_is_the_official_one(fps: float, num_frames: int) -> None:
    """SlowFast `datasets/decoder.py`: torch.linspace over the clip, clamped, truncated."""
    span = ClipSpec(num_frames=num_frames, frame_stride=4).span(fps)
    for num_video_frames in (1, 7, 64, 300):
        steps = torch.linspace(0, span - 1, num_frames, dtype=torch.float64)
        expected = steps.round(decimals=9).clamp(0, num_video_frames - 1).long()
        indices = clip_frame_indices(0, span, num_frames, num_video_frames)
        assert indices.tolist() == expected.tolist()


@pytest.mark.parametrize("num_video_frames", [1, 2, 10, 63, 64, 65])
def test_short_videos_repeat_their_last_frame(num_video_frames: int) -> None:
    clip = ClipSpec(num_frames=16, frame_stride=4)
    for sampler in (RandomClip(clip=clip), UniformClips(clip=clip, num_clips=5)):
        for indices in sampler(constant(num_video_frames, 30), GENERATOR):
            assert len(indices) == 16
            assert indices.min() >= 0
            assert indices.max() == min(63, num_video_frames - 1) + (
                indices[0] if num_video_frames > 64 else 0
            )
            assert (np.diff(indices) >= 0).all()


def test_uniform_clips_reach_from_the_first_to_the_last_frame() -> None:
    assert uniform_starts(236, 5) == [0, 59, 118, 177, 236]
    clips = UniformClips(clip=ClipSpec(num_frames=16, frame_stride=4), num_clips=5)(
        constant(300, 30), GENERATOR
    )
    assert [int(clip[0]) for clip in clips] == [0, 59, 118, 177, 236]
    assert int(clips[-1][-1]) == 299


def test_single_clip_is_centred_and_deterministic() -> None:
    sampler = UniformClips(clip=ClipSpec(num_frames=16, frame_stride=4))
    first, second = (sampler(constant(300, 30), np.random.default_rng(seed))[0] for seed in (1, 2))
    assert int(first[0]) == 118
    assert np.array_equal(first, second)


def test_random_clips_start_anywhere_they_fit() -> None:
    sampler, generator = (
        RandomClip(clip=ClipSpec(num_frames=8, frame_stride=2)),
        np.random.default_rng(0),
    )
    starts = [int(sampler(constant(40, 30), generator)[0][0]) for _ in range(2000)]
    assert (min(starts), max(starts)) == (0, 23)
    assert np.bincount(starts).min() > 40


@pytest.mark.parametrize(
    ("num_video_frames", "expected"),
    [
        (40, [1, 3, 6, 8, 11, 13, 16, 18, 21, 23, 25, 28, 30, 33, 35, 38]),
        (10, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 6, 7, 7, 8, 8]),
    ],
)
def test_segment_frames_match_official_tables(num_video_frames: int, expected: list[int]) -> None:
    sampler = SegmentFrames(clip=ClipSpec(num_frames=16, frame_stride=1), at="middle")
    assert sampler(constant(num_video_frames, 12), GENERATOR)[0].tolist() == expected


def test_random_segment_frames_stay_in_their_segments() -> None:
    sampler = SegmentFrames(clip=ClipSpec(num_frames=16, frame_stride=1), at="random")
    first, last = segment_bounds(40, 16)
    drawn = np.stack([sampler(constant(40, 12), GENERATOR)[0] for _ in range(300)])
    assert (drawn.min(axis=0) == first).all()
    assert (drawn.max(axis=0) == last).all()


def test_join_clips_reads_each_frame_once() -> None:
    wanted, places = join_clips([np.array([0, 4, 4]), np.array([9, 4])])
    assert wanted.tolist() == [0, 4, 9]
    assert [wanted[place].tolist() for place in places] == [[0, 4, 4], [9, 4]]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ClipSpec(num_frames=0, frame_stride=4), "num_frames 0"),
        (
            lambda: UniformClips(clip=ClipSpec(num_frames=1, frame_stride=1), num_clips=0),
            "num_clips 0",
        ),
        (
            lambda: SegmentFrames(clip=ClipSpec(num_frames=1, frame_stride=1), at="start"),
            "at 'start'",
        ),
    ],
)
def test_impossible_sampling_is_refused_by_name(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def thinned(num_frames: int = 120) -> FrameClock:
    """30 fps for 2 s, then every fifth frame."""
    times_s = np.concatenate([np.arange(60) / 30, 2 + np.arange(num_frames - 60 + 1) / 6])
    return FrameClock(num_frames=num_frames, fps=30, times_s=times_s)


def test_clips_of_a_variable_rate_are_those_of_the_same_video_at_30_fps() -> None:
    clock = thinned()
    even = constant(round(clock.duration_s * 30), 30)
    clip = ClipSpec(num_frames=16, frame_stride=4)
    for num_clips in (1, 3, 5):
        sampler = UniformClips(clip=clip, num_clips=num_clips)
        latest_s = clock.duration_s - clip.span_s
        starts_s = [latest_s / 2] if num_clips == 1 else np.linspace(0, latest_s, num_clips)
        for start_s, indices in zip(starts_s, sampler(clock, GENERATOR), strict=True):
            shown = np.array([clock.time_s(int(i)) for i in indices])
            ages_s = start_s + np.arange(16) * 4 / 30 - shown
            assert (ages_s > -1e-6).all()
            assert (ages_s < 1 / 6).all()
        assert len(sampler(even, GENERATOR)) == num_clips


def test_random_clips_of_a_variable_rate_are_as_likely_in_every_second() -> None:
    clock, generator = thinned(), np.random.default_rng(0)
    sampler = RandomClip(clip=ClipSpec(num_frames=4, frame_stride=2))
    first_s = [clock.time_s(int(sampler(clock, generator)[0][0])) for _ in range(2000)]
    assert np.mean(np.array(first_s) < 2) == pytest.approx(
        2 / (clock.duration_s - 8 / 30), abs=0.03
    )


def test_segments_of_a_variable_rate_divide_the_time() -> None:
    clock = thinned()
    clip = ClipSpec(num_frames=12, frame_stride=1)
    edges_s = np.linspace(0, clock.duration_s, 13)
    (middle,) = SegmentFrames(clip=clip, at="middle")(clock, GENERATOR)
    assert middle.tolist() == clock.frames_at((edges_s[:-1] + edges_s[1:]) / 2).tolist()
    first, last = clock.frames_at(edges_s[:-1]), clock.frames_at(edges_s[1:])
    drawn = np.stack(
        [SegmentFrames(clip=clip, at="random")(clock, GENERATOR)[0] for _ in range(300)]
    )
    assert (drawn.min(axis=0) == first).all()
    assert (drawn.max(axis=0) <= last).all()


def test_short_variable_video_repeats_its_last_frame() -> None:
    clock = FrameClock(num_frames=3, fps=30, times_s=np.array([0, 0.1, 0.5, 0.6]))
    (indices,) = RandomClip(clip=ClipSpec(num_frames=8, frame_stride=4))(clock, GENERATOR)
    assert indices.tolist() == [0, 1, 1, 1, 2, 2, 2, 2]
