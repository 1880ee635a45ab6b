"""Long videos, followed from start to end: the right frames, few of them at a time."""

import threading
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from support.evaluations import TOLERANCE
from support.processes import TIMEOUT_S
from support.videos import Encoding, numbered_frame, read_numbers, write_numbered_video
from torch import nn

import video_mvit
from video_mvit.data.reading.open import VideoDecodeError, open_video
from video_mvit.data.reading.reader import Frames
from video_mvit.data.transforms.augment import Normalize
from video_mvit.data.transforms.cropping import UniformCrops
from video_mvit.models.mvit import MViT
from video_mvit.prediction import sliding_window as following
from video_mvit.prediction.background import RunAhead
from video_mvit.prediction.clips import cut_frame
from video_mvit.prediction.input_spec import InputSpec, input_spec_of
from video_mvit.prediction.predictor import Options, predict_videos
from video_mvit.prediction.scorer import Scorer
from video_mvit.prediction.sliding_window import SlidingWindows, plan_windows, slide

PUBLISHED = ((0.45,) * 3, (0.225,) * 3)


@pytest.fixture(scope="module")
def model() -> MViT:
    torch.manual_seed(0)
    return video_mvit.create_model("mvitv2_demo", num_classes=3).eval()


@pytest.fixture
def spec(model: MViT) -> InputSpec:
    return input_spec_of(model, PUBLISHED, {"short_side": 32})


@pytest.mark.parametrize("step_s", [None, 0.2, 3.0])
@pytest.mark.parametrize("times", ["even", "uneven"])
def test_windows_are_cut_of_the_frames_that_a_plain_read_gives(
    spec: InputSpec, tmp_path: Path, step_s: float | None, times: str
) -> None:
    uneven = Encoding(times=[40 * i + (i % 3) * 9 for i in range(200)])
    encoding = uneven if times == "uneven" else None
    path = str(write_numbered_video(tmp_path / "v.mp4", 200, fps=25, encoding=encoding))
    stream = SlidingWindows(path, spec, step_s)
    clips = list(stream)
    with open_video(path) as video:
        plan = plan_windows(video.clock, spec, step_s or spec.step_s)
        assert len(clips) == len(plan.windows) == len(stream.bounds_s) - 1
        for clip, window in zip(clips, plan.windows, strict=True):
            frames = torch.from_numpy(video.read(window)).permute(0, 3, 1, 2)
            (expected,) = spec.crop()(frames, np.random.default_rng(0))
            assert torch.equal(clip, expected)


def test_few_frames_are_held_at_a_time(
    spec: InputSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_numbered_video(tmp_path / "v.mp4", 600))
    alive, most = 0, 0

    def forget() -> None:
        nonlocal alive
        alive -= 1

    def watched(frame: Frames, crop: UniformCrops) -> list[torch.Tensor]:
        nonlocal alive, most
        pixels = cut_frame(frame, crop)[0].clone()
        weakref.finalize(pixels, forget)
        alive, most = alive + 1, max(most, alive + 1)
        return [pixels]

    monkeypatch.setattr(following, "cut_frame", watched)
    assert sum(1 for _ in SlidingWindows(path, spec, None)) == 37
    assert spec.num_frames <= most <= 2 * spec.num_frames + 1


def test_scores_are_those_of_the_windows(spec: InputSpec, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = video_mvit.create_model("mvitv2_demo", num_classes=3).eval()
    with torch.no_grad():
        model.head.projection.weight.mul_(50)  # so that scores differ
    path = str(write_numbered_video(tmp_path / "v.mp4", 150))
    scorer = Scorer(model, spec)
    scorer.passes.clips_per_pass = 3
    found = slide(scorer, path, None, lambda _done, _all: None)
    clips = torch.stack(list(SlidingWindows(path, spec, None)))
    normalize = Normalize(mean=(0.45,) * 3, std=(0.225,) * 3)
    with torch.no_grad():
        expected = model(normalize(clips)).softmax(dim=-1)
    torch.testing.assert_close(found.scores, expected, rtol=0, atol=1e-5)


class Brightness(nn.Module):
    """Says dark, or bright, of the mean of a clip."""

    def __init__(self, config: object) -> None:
        super().__init__()
        self.config, self.weight = config, nn.Parameter(torch.ones(1))

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        mean = clip.mean(dim=(1, 2, 3, 4))
        return torch.stack([-4 * mean, 4 * mean, torch.full_like(mean, -9)], dim=1)


def test_segments_say_when_something_changes(model: MViT, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "v.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=30)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for i in range(600):
            pixels = np.full((64, 64, 3), 220 if 210 <= i < 420 else 20, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode(None))
    light = Brightness(model.config)
    scorer = Scorer(
        light, input_spec_of(light, PUBLISHED, {"class_names": ["dark", "bright", "x"]})
    )
    told: list[tuple[int, int]] = []
    videos = [str(tmp_path / "v.mp4")]
    (found,) = predict_videos(scorer, videos, Options(), lambda *done: told.append(done))
    assert [found.class_names[s.label] for s in found.segments] == ["dark", "bright", "dark"]
    assert [s.start_s for s in found.segments] == pytest.approx([0, 7, 14], abs=0.3)
    assert found.segments[-1].end_s == pytest.approx(20)
    assert all(segment.score > 0.9 for segment in found.segments)
    assert told[-1] == (37, 37)
    (plain,) = predict_videos(scorer, videos, Options(timeline=False))
    assert plain.timeline is None
    assert torch.equal(plain.scores, found.scores)


def test_short_videos_and_models_of_segments_have_no_timeline(spec: InputSpec, model: MViT) -> None:
    assert not Options().wants_timeline(spec, 10 * spec.clip_s)
    assert Options().wants_timeline(spec, 10 * spec.clip_s + 0.1)
    segments = input_spec_of(model, PUBLISHED, {"sampling": "segments"})
    assert not Options().wants_timeline(segments, 1000)
    with pytest.raises(ValueError, match="with one clip; use timeline=false"):
        Options(timeline=True).check(segments)


def test_damaged_video_is_followed_up_to_the_damage(
    spec: InputSpec, model: MViT, tmp_path: Path
) -> None:
    path = write_numbered_video(tmp_path / "v.mp4", 400)
    whole = slide(Scorer(model, spec), str(path), None, lambda _done, _all: None)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 300] = bytes(300)
    path.write_bytes(content)
    found = slide(Scorer(model, spec), str(path), None, lambda _done, _all: None)
    assert "damaged" in found.problem
    assert 0 < len(found.scores) < len(whole.scores)
    assert len(found.bounds_s) == len(found.scores) + 1
    torch.testing.assert_close(
        found.scores, whole.scores[: len(found.scores)], rtol=0, atol=TOLERANCE
    )


def test_thread_ends_when_nobody_iterates_any_more() -> None:
    ended = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.set()

    for item in RunAhead(endless(), num_ahead=2):
        assert item == 1
        break
    assert ended.wait(TIMEOUT_S)


def test_what_the_thread_raises_is_raised_after_its_items() -> None:
    def two_and_a_mistake() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("three")

    found: list[int] = []
    with pytest.raises(KeyError, match="three"):
        found.extend(RunAhead(two_and_a_mistake(), num_ahead=5))
    assert found == [1, 2]


def test_windows_of_a_thinned_video_are_those_of_the_whole_one(
    spec: InputSpec, tmp_path: Path
) -> None:
    """As phones in the dark, browsers and screen recorders leave them: frames out, times kept."""
    frames = [i for i in range(240) if i < 120 or i % 5 == 0]
    plans, clips = [], []
    for name, numbers in (("whole.mp4", range(240)), ("thinned.mp4", frames)):
        path = tmp_path / name
        with av.open(str(path), "w") as file:
            stream = file.add_stream("libx264", rate=30, options={"crf": "10"})
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            for number in numbers:
                pixels = numbered_frame(number if number < 120 else number // 5 * 5)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 30)
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        with open_video(path) as video:
            plan = plan_windows(video.clock, spec, spec.step_s)
            clips.append([read_numbers(video.read(window)) for window in plan.windows])
        assert len(list(SlidingWindows(str(path), spec, None))) == len(plan.windows)
        plans.append(plan)
    assert plans[1].bounds_s == pytest.approx(plans[0].bounds_s, abs=0.2)  # the last frame's length
    assert len(clips[0]) == len(clips[1])
    # A clip of a constant rate spreads over its last stride, too.
    assert np.abs(np.array(clips[0]) - clips[1]).max() <= 5


def test_video_of_absurd_length_is_refused(spec: InputSpec, tmp_path: Path) -> None:
    encoding = Encoding(times=[0, 40, 80, 300_000])
    path = write_numbered_video(tmp_path / "v.mkv", 4, encoding=encoding)
    with pytest.raises(VideoDecodeError, match=r"300 s, too long for steps of 0\.0001 s"):
        next(iter(SlidingWindows(str(path), spec, 1e-4)))
