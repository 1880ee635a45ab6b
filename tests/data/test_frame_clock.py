"""When a rate is constant, and which frame a player shows at an instant: on arrays alone."""

import numpy as np
import pytest

from video_mvit.data.frame_clock import FrameClock, clock_of_stamps

RATES = [12, 24_000 / 1001, 24, 25, 30_000 / 1001, 30, 50, 60_000 / 1001, 60]
MS, CLOCK_90K = 1e-3, 1 / 90_000


def stamps(fps: float, tick_s: float, num_frames: int = 300, start_s: float = 0.0) -> np.ndarray:
    return np.round((start_s + np.arange(num_frames) / fps) / tick_s).astype(np.int64)


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("tick_s", [MS, CLOCK_90K, 1e-9])
@pytest.mark.parametrize("start_s", [0.0, 1.4, 12_345.678])
@pytest.mark.parametrize("rounding", [np.round, np.floor])
def test_rounded_stamps_are_constant_at_the_rate_of_the_header(
    fps: float, tick_s: float, start_s: float, rounding: np.ufunc
) -> None:
    times = rounding((start_s + np.arange(300) / fps) / tick_s).astype(np.int64)
    clock = clock_of_stamps(times, tick_s, fps)
    assert (clock.times_s, clock.fps, clock.num_frames) == (None, fps, 300)
    assert clock.duration_s == pytest.approx(300 / fps)


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("header_error", [-0.09, -0.01, 0.01, 0.09, None])
def test_standard_rate_is_found_where_the_header_is_wrong(
    fps: float, header_error: float | None
) -> None:
    header = 0.0 if header_error is None else fps * (1 + header_error)
    clock = clock_of_stamps(stamps(fps, MS), MS, header)
    assert (clock.times_s, clock.fps) == (None, fps)


def test_odd_rate_is_measured_where_the_header_is_wrong() -> None:
    clock = clock_of_stamps(stamps(17.3, CLOCK_90K), CLOCK_90K, 18.0)
    assert clock.times_s is None
    assert clock.fps == pytest.approx(17.3, rel=1e-5)


def test_header_that_counts_a_longer_last_frame_is_kept() -> None:
    header = 300 / (300 / 25 + 0.02)
    clock = clock_of_stamps(stamps(25, CLOCK_90K), CLOCK_90K, header)
    assert (clock.times_s, clock.fps) == (None, header)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fps", RATES)
def test_jitter_of_one_tick_is_constant_of_more_is_not(fps: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    even = np.arange(300) / fps / CLOCK_90K
    near = np.sort(np.round(even + generator.uniform(-0.5, 0.5, 300)).astype(np.int64))
    assert clock_of_stamps(near, CLOCK_90K, fps).times_s is None
    assert clock_of_stamps(near, CLOCK_90K, 0.0).times_s is None
    far = np.sort(np.round(even + generator.integers(-4, 5, 300)).astype(np.int64))
    assert clock_of_stamps(far, CLOCK_90K, fps).is_variable


def test_milliseconds_in_a_finer_time_base_are_constant() -> None:
    copied = stamps(30_000 / 1001, MS) * 16  # as remuxed from Matroska to MP4
    assert clock_of_stamps(copied, MS / 16, 30_000 / 1001).times_s is None


@pytest.mark.parametrize("tick_s", [MS, CLOCK_90K, 1 / 30])
@pytest.mark.parametrize("num_missing", [1, 2, 300])
@pytest.mark.parametrize("place", [1, 2, 150, 298])
def test_missing_frame_and_freeze_are_variable(tick_s: float, num_missing: int, place: int) -> None:
    frames = np.arange(300) + num_missing * (np.arange(300) >= place)
    times = np.round(frames / 30 / tick_s).astype(np.int64)
    for header in (30.0, 300 * 30 / (300 + num_missing), 0.0):
        clock = clock_of_stamps(times, tick_s, header)
        assert clock.is_variable
        assert clock.fps == pytest.approx(30, rel=0.02)
        assert clock.duration_s == pytest.approx((300 + num_missing) / 30, abs=2e-3)


def test_last_frame_lasts_as_long_as_stated() -> None:
    times = np.array([0, 33, 67, 500])
    assert clock_of_stamps(times, MS, 30, last_s=2.0).duration_s == pytest.approx(2.5)
    assert clock_of_stamps(times, MS, 30).duration_s == pytest.approx(0.534)


@pytest.mark.parametrize("times", [[5], [7, 7, 7]])
def test_rate_of_the_header_counts_without_different_stamps(times: list[int]) -> None:
    clock = clock_of_stamps(np.array(times), MS, 25.0)
    assert (clock.times_s, clock.fps, clock.num_frames) == (None, 25.0, len(times))


def test_player_shows_the_last_frame_that_has_appeared() -> None:
    clock = FrameClock(num_frames=4, fps=30, times_s=np.array([0, 0.1, 0.5, 0.5, 1.0]))
    instants = np.array([-1.0, 0, 0.0999, 0.1, 0.49, 0.5, 0.9, 1.0, 7.0])
    assert clock.frames_at(instants).tolist() == [0, 0, 0, 1, 1, 3, 3, 3, 3]
    assert [clock.time_s(i) for i in range(4)] == [0, 0.1, 0.5, 0.5]
    assert clock.rate_text == "30 fps variable"
    even = FrameClock(num_frames=4, fps=30)
    assert even.frames_at(np.arange(6) / 30).tolist() == [0, 1, 2, 3, 3, 3]
    assert even.time_s(3) == pytest.approx(0.1)
    assert even.rate_text == "30 fps"
