"""Predictions of generated videos: exact, in order, and of unreadable ones the reason."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.evaluations import TOLERANCE
from support.videos import Encoding, write_numbered_video

import video_mvit
from video_mvit.data.dataset import ClipPipeline, read_views
from video_mvit.data.reading.open import VideoDecodeError
from video_mvit.models.mvit import MViT
from video_mvit.prediction import prefetch as groups
from video_mvit.prediction.clips import VideoClips, decode_limits_for, read_clips
from video_mvit.prediction.input_spec import input_spec_of
from video_mvit.prediction.predictor import Options, Prediction, predict_videos
from video_mvit.prediction.scorer import Scorer
from video_mvit.weights.model_card import ModelCard

PUBLISHED = ((0.45,) * 3, (0.225,) * 3)
NAMES = ("down", "left", "right")


@pytest.fixture(scope="module")
def model() -> MViT:
    torch.manual_seed(0)
    model = video_mvit.create_model("mvitv2_demo", num_classes=3).eval()
    with torch.no_grad():
        model.head.projection.weight.mul_(50)  # so that scores differ
    model.card = ModelCard(
        model=asdict(model.config), frame_stride=4, short_side=40, class_names=NAMES
    )
    return model


def scorer(model: MViT, **overrides: Any) -> Scorer:
    return Scorer(model, input_spec_of(model, PUBLISHED, overrides))


def test_scores_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    damaged = video_mvit.create_model("mvitv2_demo", num_classes=3)
    with torch.no_grad():
        damaged.head.projection.weight.mul_(float("nan"))
    video = str(write_numbered_video(tmp_path / "a.mp4", 40))
    with pytest.raises(ValueError, match="NaN or Inf scores; its weights are damaged"):
        list(predict_videos(scorer(damaged), [video], Options()))


@pytest.mark.slow
def test_scores_of_any_number_of_videos_are_those_of_each_alone(
    model: MViT, tmp_path: Path
) -> None:
    videos = [str(write_numbered_video(tmp_path / f"{n}.mp4", n)) for n in (5, 90, 40, 33, 64)]
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    videos.insert(2, str(tmp_path / "bad.mp4"))
    for clips_per_pass in (1, 7, 1000):
        many = scorer(model)
        many.passes.clips_per_pass = clips_per_pass
        found = list(predict_videos(many, videos, Options()))
        assert [each.video for each in found] == videos
        assert [bool(each.problem) for each in found] == [
            video.endswith("bad.mp4") for video in videos
        ]
        for each in found:
            if not each.problem:
                alone = video_mvit.predict(model, each.video)
                torch.testing.assert_close(each.scores, alone.scores, rtol=0, atol=TOLERANCE)
    with pytest.raises(VideoDecodeError, match=r"bad.mp4"):
        video_mvit.predict(model, tmp_path / "bad.mp4")


@pytest.mark.parametrize("sampling", ["strided", "segments"])
def test_pixels_are_those_of_an_evaluation(model: MViT, tmp_path: Path, sampling: str) -> None:
    turned = Encoding(rotation=90)
    video = str(write_numbered_video(tmp_path / "v.mp4", 70, size=(48, 80), encoding=turned))
    num_clips = 3 if sampling == "strided" else 1
    pipeline = input_spec_of(model, PUBLISHED, {"sampling": sampling}).pipeline(num_clips, 3)
    footage = read_clips(video, pipeline)
    expected = torch.stack(read_views(video, pipeline, np.random.default_rng(0)))
    assert footage.clips.shape == (num_clips * 3, 8, 3, 32, 32)
    assert torch.equal(footage.clips, expected)
    assert (footage.num_frames, footage.duration_s) == (70, pytest.approx(70 / 30))


def test_pictures_and_folders_of_pictures_are_videos(model: MViT, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for i in range(12):
        Image.new("RGB", (50, 40), (20 * i, 0, 0)).save(tmp_path / "frames" / f"{i:04}.png")
    assert video_mvit.predict(model, tmp_path / "frames").num_frames == 12
    assert video_mvit.predict(model, tmp_path / "frames" / "0003.png").num_frames == 1


def test_model_is_left_as_it_was(tmp_path: Path) -> None:
    video = write_numbered_video(tmp_path / "v.mp4", 40)
    model = video_mvit.create_model("mvitv2_demo", num_classes=3, head_dropout=0.5).eval()
    expected = video_mvit.predict(model, video).scores
    model.train()
    assert torch.equal(video_mvit.predict(model, video).scores, expected)
    assert model.training


def test_first_results_come_before_the_last_videos_are_read(
    model: MViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(video: str, pipeline: ClipPipeline) -> VideoClips:
        read.append(video)
        return read_clips(video, pipeline)

    monkeypatch.setattr(groups, "read_clips", counted)
    videos = [str(write_numbered_video(tmp_path / "v.mp4", 40))] * 60
    many = scorer(model)
    many.passes.clips_per_pass = 10
    next(predict_videos(many, videos, Options()))
    assert 2 <= len(read) <= 2 + 3 * groups.MAX_THREADS


def test_best_classes_come_first_and_of_equal_ones_the_first() -> None:
    scores = torch.tensor([0.25, 0.5, 0.25])
    prediction = Prediction(video="v", class_names=NAMES, scores=scores)
    assert prediction.top(2) == [("left", 0.5), ("down", 0.25)]
    assert len(prediction.top()) == 3


def test_decode_limits_grows_with_the_length_that_the_size_bears_out(tmp_path: Path) -> None:
    few = {"options": {"crf": "51", "g": "10000"}}
    slow = write_numbered_video(tmp_path / "v.mp4", 3, fps=1, encoding=Encoding(**few))
    short = decode_limits_for(str(slow))
    size = slow.stat().st_size
    assert 60 + 4 * 2 < short.time_s <= 60 + 4 * 3.1
    lies = write_numbered_video(tmp_path / "l.mkv", 2, encoding=Encoding(times=(0, 10**9)))
    size = lies.stat().st_size
    assert decode_limits_for(str(lies)).time_s == 60 + 4 * size / 500  # not 4 million seconds
    assert decode_limits_for(str(tmp_path / "none.mp4")).time_s == 60


@pytest.mark.parametrize("value", [0, "five", True])
def test_impossible_number_of_views_is_one_sentence(value: Any) -> None:
    with pytest.raises(ValueError, match=r"num_clips is .*, expected a positive int or null"):
        Options(num_clips=value)
