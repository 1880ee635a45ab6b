"""Copies with a label on them: readable, upright, in time, with sound, and whole or not there."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from support.videos import Encoding, write_numbered_video

from video_mvit.data.reading.open import VideoDecodeError, open_video
from video_mvit.prediction.annotate import annotate, labels_of, write_on
from video_mvit.prediction.predictor import Prediction
from video_mvit.prediction.timeline import Segment, Timeline


def prediction(video: Path, num_frames: int, duration_s: float, **more: Timeline) -> Prediction:
    scores = torch.tensor([0.25, 0.75])
    return Prediction(
        video=str(video),
        class_names=("left", "right"),
        scores=scores,
        num_frames=num_frames,
        duration_s=duration_s,
        **more,
    )


def write_grey_video(path: Path, num_frames: int) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        grey = np.full((64, 64, 3), 120, np.uint8)
        for _ in range(num_frames):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        file.mux(stream.encode(None))
    return path


def add_sound(source: Path, target: Path, seconds: int) -> Path:
    """The video with a tone, as AAC."""
    with av.open(str(source)) as silent, av.open(str(target), "w") as output:
        video = output.add_stream_from_template(silent.streams.video[0])
        sound = output.add_stream("aac", rate=8000, layout="mono")
        for packet in silent.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                output.mux(packet)
        tone = np.sin(np.arange(8000 * seconds) / 3).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
        output.mux(sound.encode(frame))
        output.mux(sound.encode(None))
    return target


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_label_is_readable_on_any_background(grey: int) -> None:
    frame = np.full((240, 320, 3), grey, np.uint8)
    written = write_on(frame, "moving left  98 %")
    changed = (written != frame).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    box = written[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, 0].astype(int)
    assert box.max() > 230
    assert np.median(box) < 90
    assert not changed[:180].any()
    assert (frame == grey).all()


def test_long_label_fits_into_the_frame() -> None:
    frame = np.zeros((240, 240, 3), np.uint8)
    written = write_on(frame, "putting something similar to other things " * 5)
    assert written.shape == frame.shape
    assert not written[:, -4:].any()


def test_copy_is_upright_even_and_keeps_times_and_sound(tmp_path: Path) -> None:
    times = [40 * i + (i % 3) * 9 for i in range(50)]
    turned = Encoding(rotation=90, times=times)
    silent = write_numbered_video(tmp_path / "s.mp4", 50, size=(242, 318), encoding=turned)
    video = add_sound(silent, tmp_path / "v.mp4", 2)
    target = tmp_path / "out.mp4"
    annotate(prediction(video, 50, 2.0), target)
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width) == (318, 242)
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert [s.codec_context.name for s in container.streams.audio] == ["aac"]
        frames = list(container.decode(stream))
    assert [frame.time for frame in frames] == pytest.approx([t / 1000 for t in times], abs=2e-3)
    assert all(frame.rotation == 0 for frame in frames)
    with open_video(str(video)) as reader:
        (expected,) = reader.read([37])
    shown = frames[37].to_ndarray(format="rgb24").astype(int)
    assert np.abs(shown - expected)[:250].mean() < 5  # above the label
    with av.open(str(target)) as container:
        seconds = sum(f.samples for f in container.decode(audio=0)) / 8000
    assert seconds == pytest.approx(2, abs=0.3)
    assert {path.name for path in tmp_path.iterdir()} == {"s.mp4", "v.mp4", "out.mp4"}


def test_label_is_that_of_the_segment(tmp_path: Path) -> None:
    video = write_grey_video(tmp_path / "v.mp4", 60)
    scores = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 4)
    timeline = Timeline(bounds_s=tuple(i / 4 for i in range(9)), scores=scores)
    followed = prediction(video, 60, 2.0, timeline=timeline)
    assert [label.text for label in labels_of(followed)] == ["left  100 %", "right  100 %"]
    assert [label.end_s for label in labels_of(followed)] == [1.0, 2.0]
    (whole,) = labels_of(prediction(video, 60, 2.0))
    assert whole.text == "right  75 %"
    annotate(followed, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames = [f.to_ndarray(format="gray").astype(int) for f in container.decode(video=0)]
    assert frames[0].shape == (240, 240)  # enlarged
    changes = [np.abs(after - before).mean() for before, after in pairwise(frames)]
    assert np.argmax(changes) == 29  # from frame 29, at 0.97 s, to frame 30
    assert changes[29] > 4 * max(changes[:29] + changes[30:])


def test_damaged_video_leaves_no_copy(tmp_path: Path) -> None:
    video = write_numbered_video(tmp_path / "v.mp4", 200)
    content = bytearray(video.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 300] = bytes(300)
    video.write_bytes(content)
    with pytest.raises(VideoDecodeError, match="damaged"):
        annotate(prediction(video, 200, 6.7), tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == [video]


def test_labels_of_a_variable_rate_change_at_the_times_of_the_file(tmp_path: Path) -> None:
    """Frames of 30 fps for a second, then one in every second: the label changes after 4 s."""
    times = [33 * i for i in range(30)] + [1000 * i for i in range(1, 9)]
    source = tmp_path / "v.mp4"
    with av.open(str(source), "w") as file:
        stream = file.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 240, 240, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time in times:
            grey = np.full((240, 240, 3), 120, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with open_video(source) as video:
        clock = video.clock
    timeline = Timeline(
        bounds_s=(0.0, 4.0, clock.duration_s), scores=torch.tensor([[0.9, 0.1], [0.9, 0.1]])
    )
    segments = (
        Segment(start_s=0.0, end_s=4.0, label=0, score=0.9),
        Segment(start_s=4.0, end_s=clock.duration_s, label=1, score=0.9),
    )

    class Told(Prediction):
        @property
        def segments(self) -> tuple[Segment, ...]:
            return segments

    told = Told(
        video=str(source),
        class_names=("left", "right"),
        scores=torch.tensor([0.5, 0.5]),
        num_frames=38,
        duration_s=clock.duration_s,
        timeline=timeline,
    )
    annotate(told, tmp_path / "labelled.mp4")
    with open_video(tmp_path / "labelled.mp4") as video:
        assert video.clock.times_s is not None
        assert video.clock.times_s[:-1] == pytest.approx(np.array(times) / 1000, abs=2e-3)
        corner = video.read(range(38))[:, -40:].astype(int)
    changes = np.abs(np.diff(corner, axis=0)).mean(axis=(1, 2, 3))
    assert changes.argmax() + 1 == 33
    assert changes.max() > 5 * np.sort(changes)[-2]
