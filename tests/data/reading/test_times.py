"""Frames at the times of the file: constant rates keep the published indices, others their times.

Joined recordings follow each other as FFmpeg shows them.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from support.broken import write_textured_video
from support.videos import Encoding, numbered_frame, read_numbers, write_numbered_video

from video_mvit.data.reading import pyav_reader
from video_mvit.data.reading.open import VideoDecodeError, examine_video, open_video
from video_mvit.data.reading.pyav_reader import PyAVReader
from video_mvit.data.sampling import ClipSpec, UniformClips

GENERATOR = np.random.default_rng(0)
RATES = {
    "12": Fraction(12),
    "24": Fraction(24),
    "25": Fraction(25),
    "29.97": Fraction(30_000, 1001),
    "30": Fraction(30),
    "50": Fraction(50),
    "59.94": Fraction(60_000, 1001),
}
CODECS = {"mp4": "libx264", "mkv": "libx264", "webm": "libvpx", "avi": "mpeg4", "ts": "libx264"}
REALTIME = {"cpu-used": "8", "deadline": "realtime"}
FAST = {"libx264": {"bf": "2", "g": "12", "crf": "10"}, "libvpx": REALTIME, "mpeg4": {}}
X264 = {"bf": "2", "g": "12", "crf": "10", "sc_threshold": "0"}
NUM_FRAMES, SIDE = 40, 32


def write_video(path: Path, fps: Fraction, tick: Fraction, start: int = 0) -> Path:
    """Write frames at multiples of 1 / fps after `start` ticks, rounded to ticks."""
    codec = CODECS[path.suffix[1:]]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=FAST[codec])
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = tick
        for i in range(NUM_FRAMES):
            frame = av.VideoFrame.from_ndarray(numbered_frame(i, (SIDE, SIDE)), format="rgb24")
            frame.pts, frame.time_base = start + round(i / fps / tick), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(params=["in memory", "long"])
def _length(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "long":
        monkeypatch.setattr(pyav_reader, "IN_MEMORY_SIZE", 0)


def published_indices(num_frames: int, fps: float, clip: ClipSpec, num_clips: int) -> list:
    """SlowFast `datasets/decoder.py`: clips at multiples of an integer step, ends truncated."""
    span = max(1.0, clip.num_frames * clip.frame_stride * fps / 30)
    step = int(max(num_frames - span, 0) // (num_clips - 1))
    places = np.round(np.linspace(0, span - 1, clip.num_frames), 9)
    return [
        np.clip(i * step + places, 0, num_frames - 1).astype(int).tolist() for i in range(num_clips)
    ]


@pytest.mark.usefixtures("_length")
@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("start", [0, 7, 157])
def test_constant_rates_keep_the_published_indices(
    tmp_path: Path, suffix: str, rate: str, start: int
) -> None:
    fps = RATES[rate]
    tick = 1 / fps if start <= 7 or suffix == "avi" else Fraction(1, 90_000)
    path = write_video(tmp_path / f"video.{suffix}", fps, tick, start)
    with av.open(str(path)) as container:
        header = float(container.streams.video[0].average_rate)
    assert header == pytest.approx(float(fps), rel=2e-3)
    sampler = UniformClips(clip=ClipSpec(num_frames=5, frame_stride=3), num_clips=4)
    with open_video(path) as video:
        assert video.clock.times_s is None
        assert (video.num_frames, video.fps) == (NUM_FRAMES, header)
        clips = [clip.tolist() for clip in sampler(video.clock, GENERATOR)]
        assert clips == published_indices(NUM_FRAMES, header, sampler.clip, sampler.num_clips)
        assert read_numbers(video.read(clips[1])) == clips[1]


GAPS = {
    "thinned": [33 * i for i in range(60)] + [33 * 60 + 167 * i for i in range(40)],
    "freeze": [33 * i + 10_000 * (i >= 30) for i in range(100)],
    "one frame less": [33 * i + 33 * (i >= 50) for i in range(100)],
    "pauses of all lengths": [33 * i + i * i for i in range(100)],
}


@pytest.mark.usefixtures("_length")
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "ts"])
@pytest.mark.parametrize("gaps", GAPS)
def test_clips_of_variable_rates_show_what_a_player_shows(
    tmp_path: Path, suffix: str, gaps: str
) -> None:
    if suffix == "ts" and gaps == "freeze":
        pytest.skip("such a jump is a cut in a broadcast")
    codec = CODECS[suffix]
    encoding = Encoding(codec=codec, options=FAST[codec], times=[700 + t for t in GAPS[gaps]])
    path = write_numbered_video(
        tmp_path / f"video.{suffix}", 100, 30, size=(SIDE, SIDE), encoding=encoding
    )
    times_s = np.array(GAPS[gaps]) / 1000
    sampler = UniformClips(clip=ClipSpec(num_frames=16, frame_stride=4), num_clips=3)
    with open_video(path) as video:
        clock = video.clock
        assert clock.is_variable
        assert clock.times_s[:-1] == pytest.approx(times_s, abs=2e-3)
        assert 0 < clock.duration_s - times_s[-1] < 0.3
        clips = sampler(clock, GENERATOR)
        for clip, start_s in zip(clips, np.linspace(0, clock.duration_s - 64 / 30, 3), strict=True):
            instants_s = start_s + np.arange(16) * 4 / 30
            expected = [int((clock.times_s[:-1] <= t + 1e-6).sum()) - 1 for t in instants_s]
            assert clip.tolist() == expected
            assert read_numbers(video.read(clip)) == expected
    facts = examine_video(path)
    assert facts.is_variable
    assert facts.duration_s == pytest.approx(clock.duration_s)


def test_avi_that_leaves_out_frames_is_variable(tmp_path: Path) -> None:
    frames = [i for i in range(60) if i < 30 or i % 5 == 0]
    encoding = Encoding(codec="mpeg4", options={}, times=[100 * i for i in frames])
    path = write_numbered_video(tmp_path / "video.avi", len(frames), 10, encoding=encoding)
    with open_video(path) as video:
        assert video.clock.times_s[:-1] == pytest.approx(np.array(frames) / 10)


RECORDING = {"mp4": "empty_moov+frag_keyframe+default_base_moof"}


def write_recording(path: Path, numbers: range, start: int, options: dict[str, str]) -> bytes:
    """Write one of several recordings: frames that show their numbers, from `start` ms on."""
    codec = {"webm": "libvpx", "mpg": "mpeg2video"}.get(path.suffix[1:], "libx264")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        tick = Fraction(1, 30 if codec == "mpeg2video" else 30_000)
        stream.codec_context.time_base = tick
        for i, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number, (SIDE, SIDE)), format="rgb24")
            frame.pts, frame.time_base = (
                round((Fraction(start, 1000) + Fraction(i, 30)) / tick),
                tick,
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


STARTS = {
    "again": (0, 0),
    "interleaved": (0, 517),
    "backwards": (100_000, 0),
    "far ahead": (0, 1_000_000),
}


@pytest.mark.usefixtures("_length")
@pytest.mark.parametrize("suffix", ["flv", "ts", "webm", "mpg"])
@pytest.mark.parametrize("starts", STARTS)
def test_joined_recordings_follow_each_other(tmp_path: Path, suffix: str, starts: str) -> None:
    if starts == "far ahead" and suffix != "ts":
        pytest.skip("no jump, or frames with times of the other recording")
    options = {"webm": {**REALTIME, "b": "2M"}, "mpg": {"g": "12", "bf": "2", "b": "2M"}}
    first, second = (
        write_recording(
            tmp_path / f"{place}.{suffix}",
            numbers,
            start,
            options.get(suffix, {**X264, "coder": coder}),
        )
        for place, (numbers, start, coder) in enumerate(
            zip((range(60), range(60, 90)), STARTS[starts], ("ac", "vlc"), strict=True)
        )
    )
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(first + second[13 if suffix == "flv" else 0 :])
    with open_video(path) as video:
        assert isinstance(video, PyAVReader)
        assert (video.num_frames, video.fps, video.clock.times_s) == (90, 30.0, None)
        for wanted in (range(90), [89, 3, 61], [70], [2]):
            assert read_numbers(video.read(wanted)) == list(wanted)
        in_order = np.stack([frame for _, frame in video.read_in_order(np.arange(90))])
        assert read_numbers(in_order) == list(range(90))
        times = [float(frame.time) for frame in video.frames()]
        assert np.diff(times) == pytest.approx(1 / 30, abs=2e-3)


def test_joined_recordings_of_two_sizes_are_refused_as_such(tmp_path: Path) -> None:
    first = write_recording(tmp_path / "1.ts", range(20), 0, X264)
    larger = write_numbered_video(tmp_path / "2.ts", 20, size=(96, 96)).read_bytes()
    (tmp_path / "joined.ts").write_bytes(first + larger)
    with (
        open_video(tmp_path / "joined.ts") as video,
        pytest.raises(VideoDecodeError, match="the frame size changes in the middle"),
    ):
        video.read(range(40))


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_recording_that_lost_its_end_is_damaged_there(tmp_path: Path, codec: str) -> None:
    options = {"bf": "0", "g": "12", "b": "8M"}
    first = write_textured_video(tmp_path / "1.ts", codec=codec, size=(192, 256), options=options)
    content = first.read_bytes()
    (tmp_path / "joined.ts").write_bytes(content[:-188] + content)
    with open_video(tmp_path / "joined.ts") as video:
        num_frames = video.num_frames // 2
        video.read(range(num_frames - 3))
        with pytest.raises(VideoDecodeError, match="damaged"):
            video.read(range(num_frames))


@pytest.mark.usefixtures("_length")
def test_segments_of_one_recording_are_whole(tmp_path: Path) -> None:
    """As players download them: the clock goes on, the counters of the packets start again."""
    parts = [
        write_recording(tmp_path / f"{i}.ts", range(12 * i, 12 * i + 12), 400 * i, X264)
        for i in range(4)
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(parts))
    with open_video(path) as video:
        assert (video.num_frames, video.fps, video.clock.times_s) == (48, 30.0, None)
        for wanted in (range(48), [47, 13, 25], [11]):
            assert read_numbers(video.read(wanted)) == list(wanted)


@pytest.mark.parametrize("lost", [2, 5, 9])
def test_packet_lost_before_a_joint_is_damage(tmp_path: Path, lost: int) -> None:
    options = {"x265-params": "log-level=none", "b": "8M"}
    path = write_textured_video(
        tmp_path / "1.ts", codec="libx265", num_frames=20, size=(192, 256), options=options
    )
    content = path.read_bytes()
    stop = len(content) - 188 * lost
    (tmp_path / "joined.ts").write_bytes(content[: stop - 188] + content[stop:] + content)
    with (
        open_video(tmp_path / "joined.ts") as video,
        pytest.raises(VideoDecodeError, match="damaged: a packet is not whole"),
    ):
        video.read(range(video.num_frames))
