"""Write a copy of a video with label and score on it, upright, with audio if MP4 supports it."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import OutputContainer
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from video_mvit.data.reading.animations import AnimatedWebpReader
from video_mvit.data.reading.containers import open_container
from video_mvit.data.reading.open import open_video
from video_mvit.data.reading.orientation import orientation_of, turn_upright
from video_mvit.data.reading.pyav_reader import PyAVReader
from video_mvit.data.reading.reader import DecodeLimits, Frames, VideoDecodeError
from video_mvit.files import replace_atomically
from video_mvit.prediction.background import RunAhead
from video_mvit.prediction.clips import decode_limits_for
from video_mvit.prediction.predictor import Prediction
from video_mvit.text import printable

MIN_SIDE = 240  # smaller videos are enlarged to keep the label readable
TEXT_SHARE, MIN_TEXT = 1 / 16, 9  # line height relative to the short side; in pixels
DARKENED = 0.7  # opacity of the box behind the text
MAX_TOGETHER = 5  # classes on a frame, of a model of several labels
NUM_AHEAD = 4  # decoded frames in the queue
TICKS_PER_S = 90_000
X264 = {"preset": "veryfast", "crf": "20"}
SOUND_IN_MP4 = {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}


class Label(NamedTuple):
    """Text on all frames before `end_s`."""

    end_s: float
    text: str


def labels_of(prediction: Prediction) -> tuple[Label, ...]:
    """Return the segments of a timeline as labels, else the top class for the whole video."""
    segments = prediction.segments
    if prediction.has_several:
        return labels_together(prediction)
    if prediction.task == "regression":
        return labels_of_values(prediction)
    if segments:
        found = [(s.end_s, s.name(prediction.class_names), s.score) for s in segments]
    else:
        found = [(math.inf, *prediction.top(1)[0])]
    return tuple(
        Label(end_s, f"{printable(name)}  {100 * score:.0f} %") for end_s, name, score in found
    )


def labels_together(prediction: Prediction) -> tuple[Label, ...]:
    """Return what a video with several classes says at each time: all that are seen then."""
    timeline = prediction.timeline
    if timeline is None:
        seen = prediction.top(1) if prediction.heads else prediction.seen()
        return (Label(math.inf, _joined(seen)),)
    segments = prediction.segments
    found = []
    for start_s, end_s in pairwise(timeline.bounds_s):
        seen = [
            (each.name(prediction.class_names), each.score)
            for each in segments
            if each.start_s <= start_s and end_s <= each.end_s
        ]
        found.append(Label(end_s, _joined(seen)))
    return tuple(found) or (Label(math.inf, ""),)


def labels_of_values(prediction: Prediction) -> tuple[Label, ...]:
    """Return the numbers of a video, or of each window of its timeline."""
    timeline = prediction.timeline
    rows = [(math.inf, prediction.scores)]
    if timeline is not None and len(timeline.scores):
        rows = list(zip(timeline.bounds_s[1:], timeline.scores, strict=False))
    names = [printable(name) for name in prediction.class_names[:MAX_TOGETHER]]
    return tuple(
        Label(
            end_s, ", ".join(f"{n} {v:.4g}" for n, v in zip(names, values.tolist(), strict=False))
        )
        for end_s, values in rows
    )


def _joined(seen: Sequence[tuple[str, float]]) -> str:
    best = sorted(seen, key=lambda each: -each[1])[:MAX_TOGETHER]
    return ", ".join(f"{printable(name)} {100 * score:.0f} %" for name, score in best)


def annotate(prediction: Prediction, target: Path) -> None:
    """Write the video with its labels as H.264, replacing an old file only on success.

    Raises `VideoDecodeError` if the video cannot be read to its end.
    """
    labels = labels_of(prediction)
    with open_video(prediction.video, decode_limits=decode_limits_for(prediction.video)) as video:
        fps = video.fps
    frames = RunAhead(timed_frames(prediction.video), num_ahead=NUM_AHEAD)
    place = 0
    with annotated_copy(prediction.video, target, fps) as copy:
        for time_s, picture in frames:
            while place + 1 < len(labels) and time_s >= labels[place].end_s:
                place += 1
            copy.write(time_s, write_on(copy.shown(picture), labels[place].text))


@contextlib.contextmanager
def annotated_copy(path: str, target: Path, fps: float) -> Iterator["AnnotatedCopy"]:
    """Yield a copy of a video to write frames to; it replaces an old file only on success."""
    with (
        replace_atomically(target) as temporary,
        av.open(str(temporary), "w", format="mp4") as output,
    ):
        copy = AnnotatedCopy(path, output, fps)
        yield copy
        copy.finish()


class AnnotatedCopy:
    """An H.264 video of changed frames, with the sound of the original."""

    def __init__(self, path: str, output: OutputContainer, fps: float) -> None:
        self._path, self._output, self._fps = path, output, fps
        self._stream: Any = None
        self._sound: Iterator[tuple[float, Any]] = iter(())
        self._waiting: tuple[float, Any] | None = None

    def shown(self, picture: av.VideoFrame) -> Frames:
        """Return a frame upright, in the size in which it is written: -> (H, W, 3)."""
        if self._stream is None:
            self._stream = _add_video(self._output, _shown_size(picture), self._fps)
            start_s = (picture.time or 0.0) if picture.pts is not None else 0.0
            self._sound = _copied_sound(self._path, self._output, start_s)
            self._waiting = next(self._sound, None)
        return upright(picture, (self._stream.height, self._stream.width))

    def write(self, time_s: float, frame: Frames) -> None:
        """Write a frame (H, W, 3) that was `shown` before, and the sound up to it.

        `time_s` is counted from the first frame.
        """
        while self._waiting is not None and self._waiting[0] <= time_s:
            self._write_sound()
        written = av.VideoFrame.from_ndarray(frame, format="rgb24")
        written.pts, written.time_base = round(time_s * TICKS_PER_S), Fraction(1, TICKS_PER_S)
        self._output.mux(self._stream.encode(written))

    def finish(self) -> None:
        """Write the rest of the sound, and the frames that the encoder holds back."""
        while self._waiting is not None:
            self._write_sound()
        if self._stream is not None:
            self._output.mux(self._stream.encode(None))

    def _write_sound(self) -> None:
        assert self._waiting is not None
        self._output.mux(self._waiting[1])
        self._waiting = next(self._sound, None)


def write_on(frame: Frames, text: str) -> Frames:
    """Draw white text on a dark box in the lower left corner: (H, W, 3) -> the same."""
    height, width = frame.shape[:2]
    box = _text_box(text, height, width)  # (h, w) in 0..1: 0 is the box, 1 the text
    h, w = box.shape
    margin = min(height, width) // 40
    rows = slice(height - margin - h, height - margin)
    columns = slice(margin, margin + w)
    behind = frame[rows, columns] * (1 - DARKENED)
    mask = box[:, :, None]
    written = frame.copy()
    written[rows, columns] = (behind * (1 - mask) + 255 * mask).round().astype(np.uint8)
    return written


@lru_cache(maxsize=64)
def _text_box(text: str, height: int, width: int) -> NDArray[np.float64]:
    """Render the coverage of the text in its box, which fits into the frame: (h, w) in 0..1."""
    size = max(MIN_TEXT, round(min(height, width) * TEXT_SHARE))
    room = width - 2 * (min(height, width) // 40)
    while True:
        font = ImageFont.load_default(size)
        padding = size // 2
        left, _, right, _ = font.getbbox(text)
        box = (math.ceil(right - left) + 2 * padding, size + 2 * padding)
        if box[0] <= room or size <= MIN_TEXT:
            break
        size -= 1
    picture = Image.new("L", (min(box[0], room), box[1]))
    ImageDraw.Draw(picture).text((padding - left, box[1] / 2), text, 255, font, anchor="lm")
    return np.asarray(picture) / 255


def timed_frames(path: str) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield frames with increasing times in seconds from the first one."""
    with open_video(path, decode_limits=decode_limits_for(path)) as video:
        if not isinstance(video, PyAVReader | AnimatedWebpReader):
            raise VideoDecodeError(path, "pictures, not a video file")
        last_s = -math.inf
        for index, picture in enumerate(video.frames()):
            # Two frames at one time are an instant apart.
            last_s = max(video.clock.time_s(index), last_s + 1 / TICKS_PER_S)
            yield last_s, picture


def _shown_size(picture: av.VideoFrame) -> tuple[int, int]:
    """Return upright height and width, even, and large enough for readable text."""
    sides = (picture.height, picture.width)
    if orientation_of(picture).is_sideways:
        sides = sides[::-1]
    scale = max(1.0, MIN_SIDE / min(sides))
    return round(sides[0] * scale) // 2 * 2, round(sides[1] * scale) // 2 * 2


def upright(picture: av.VideoFrame, size: tuple[int, int] | None = None) -> Frames:
    """Return a frame as RGB, upright, in a size (height, width) or its own: -> (H, W, 3)."""
    orientation = orientation_of(picture)
    if size is None:
        return turn_upright(picture.to_ndarray(format="rgb24"), orientation)
    height, width = size[::-1] if orientation.is_sideways else size
    stored = picture.to_ndarray(format="rgb24", width=width, height=height)
    return turn_upright(stored, orientation)


def _add_video(output: OutputContainer, size: tuple[int, int], fps: float) -> Any:
    rate = Fraction(fps).limit_denominator(1001)
    stream = output.add_stream("libx264", rate=rate, options=X264)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, TICKS_PER_S)
    return stream


def _copied_sound(
    path: str, output: OutputContainer, start_s: float
) -> Iterator[tuple[float, Any]]:
    """Yield (seconds after the first frame, packet) of the first audio stream MP4 supports."""
    try:
        source = open_container(path, None, DecodeLimits())
    except VideoDecodeError:
        return iter(())
    stream = next(iter(source.streams.audio), None)
    if stream is None or stream.codec_context.name not in SOUND_IN_MP4:
        source.close()
        return iter(())
    return _sound_packets(source, stream, output.add_stream_from_template(stream), start_s)


def _sound_packets(
    source: Any, stream: Any, copy: Any, start_s: float
) -> Iterator[tuple[float, Any]]:
    shift = round(start_s / stream.time_base)
    with source:
        try:
            for packet in source.demux(stream):
                if packet.dts is None or packet.pts is None or packet.pts < shift:
                    continue
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = copy
                yield float(packet.pts * stream.time_base), packet
        except (av.FFmpegError, OSError):
            return  # drop the rest of damaged audio
