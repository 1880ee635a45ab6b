"""Transcode a video so that decoding a random clip is cheap.

Smaller frames, short key frame intervals, no B-frames and simple entropy coding: less work per
frame, and fewer unneeded frames. Every frame keeps its time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from math import ceil, inf
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import Colorspace, Interpolation

from video_mvit.data.frame_clock import FrameClock
from video_mvit.data.reading.open import DecodeLimits, VideoDecodeError, iterate_frames, open_video
from video_mvit.data.reading.orientation import (
    UPRIGHT,
    Orientation,
    orientation_of,
    turn_upright,
)
from video_mvit.errors import UserError
from video_mvit.files import replace_atomically

PIXELS = "yuv420p"
FINEST_TICK = Fraction(1, 90_000)  # seconds; the clock of MPEG


@dataclass(frozen=True, kw_only=True)
class TranscodeSpec:
    """Encoder settings: short side in pixels, key frame interval, x264's `crf` and preset.

    A lower `crf` gives higher quality and larger files. Raises `UserError` for impossible values.
    """

    short_side: int
    gop: int
    crf: int
    preset: str

    def __post_init__(self) -> None:
        if self.short_side < 2 or self.short_side % 2:
            raise UserError(f"short_side {self.short_side} must be even and positive")
        if self.gop < 1:
            raise UserError(f"gop {self.gop} must be positive")
        if not 0 <= self.crf <= 51:
            raise UserError(f"crf {self.crf} is outside 0 to 51")

    @property
    def options(self) -> dict[str, str]:
        """Return x264's options: no B-frames, no arithmetic coding, no deblocking."""
        gop = str(self.gop)
        return {
            "preset": self.preset,
            "tune": "fastdecode",
            "crf": str(self.crf),
            "bf": "0",
            "g": gop,
            "keyint_min": gop,
            "sc_threshold": "0",
        }


def output_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Return an even (H, W) with this short side and the same aspect; never larger than before."""
    scale = min(short_side / min(size), 1.0)
    height, width = (max(2, 2 * round(side * scale / 2)) for side in size)
    return height, width


def transcode(source: str, target: Path, spec: TranscodeSpec, decode_limits: DecodeLimits) -> int:
    """Transcode a video, all frames upright at their times; returns the number of frames.

    The target appears complete or not at all. The time limit does not apply, since encoding runs in
    the thread of decoding; the caller limits it. Raises `VideoDecodeError` for a bad source,
    `OSError` if the target cannot be written.
    """
    decode_limits = replace(decode_limits, time_s=inf)
    with open_video(source, decode_limits=decode_limits) as video:
        clock = video.clock
    target.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(target) as temporary:
        _encode(iterate_frames(source, decode_limits), temporary, spec, clock)
        num_written = _count_packets(temporary)
        if num_written != clock.num_frames:
            raise VideoDecodeError(
                source, f"{num_written} of {clock.num_frames} frames were written"
            )
    return num_written


def _encode(
    frames: Iterator[av.VideoFrame], path: Path, spec: TranscodeSpec, clock: FrameClock
) -> None:
    """Encode frames into a file, the first one at time 0."""
    first = next(frames)
    tick = _fine_tick(first.time_base or FINEST_TICK)
    with av.open(str(path), "w", format="mp4") as container:
        rate = Fraction(clock.fps).limit_denominator(1001)  # 30000/1001 and the like
        stream = container.add_stream("libx264", rate=rate, options=spec.options)
        for number, (picture, ticks) in enumerate(_timed(chain([first], frames), tick, clock)):
            image = shrink(picture, spec.short_side)
            if number == 0:
                context = stream.codec_context
                context.width, context.height, context.pix_fmt = image.width, image.height, PIXELS
                context.thread_count, context.time_base = 1, tick
                context.color_range, context.colorspace = image.color_range, image.colorspace
            elif (image.width, image.height) != (context.width, context.height):
                image = image.reformat(context.width, context.height)
            image.pts, image.time_base = ticks, tick
            image.pict_type = PictureType.NONE  # let the encoder choose the frame type
            container.mux(stream.encode(image))
        rest = stream.encode(None)
        if clock.is_variable and rest:
            last_s = clock.duration_s - clock.time_s(clock.num_frames - 1)
            rest[-1].duration = round(last_s / float(tick))
        container.mux(rest)


def _fine_tick(time_base: Fraction) -> Fraction:
    """Return a unit fraction of a time base, fine enough to shift a frame invisibly."""
    return time_base / ceil(time_base / FINEST_TICK)


def _timed(
    frames: Iterable[av.VideoFrame], tick: Fraction, clock: FrameClock
) -> Iterator[tuple[av.VideoFrame, int]]:
    """Yield frames with strictly increasing times in ticks from the first one.

    A frame without a time follows one frame after the previous one. The last frames of a decoder
    may lack a time base: it is that of the others.
    """
    ticks, start, base, step = 0, None, None, round(1 / (clock.fps * float(tick)))
    for number, picture in enumerate(frames):
        following = ticks + step if number else 0
        base = picture.time_base or base
        if clock.is_variable:
            ticks = max(round(clock.time_s(number) / float(tick)), ticks + 1 if number else 0)
        elif picture.pts is None or base is None:
            ticks = following
        else:
            shown = round(picture.pts * base / tick)
            start = shown - following if start is None else start
            ticks = max(shown - start, ticks + 1 if number else 0)
        yield picture, ticks


def shrink(picture: av.VideoFrame, short_side: int) -> av.VideoFrame:
    """Convert a frame to the output size and pixel format, upright, with its colours."""
    height, width = output_size((picture.height, picture.width), short_side)
    is_rgb = picture.format.is_rgb
    image = picture.reformat(
        width,
        height,
        PIXELS,
        dst_colorspace=Colorspace.ITU601 if is_rgb else None,
        interpolation=Interpolation.AREA,
        threads=1,
    )
    return _upright(image, orientation_of(picture))


def _upright(image: av.VideoFrame, orientation: Orientation) -> av.VideoFrame:
    """Turn the three planes of a frame, without conversion to RGB."""
    if orientation == UPRIGHT:
        return image
    height, width = image.height, image.width
    planes = np.split(image.to_ndarray(), [height, height + height // 4])
    shapes = [(height, width), (height // 2, width // 2), (height // 2, width // 2)]
    turned = [
        turn_upright(plane.reshape(shape), orientation)
        for plane, shape in zip(planes, shapes, strict=True)
    ]
    packed = np.concatenate([plane.reshape(-1, turned[0].shape[1]) for plane in turned])
    upright = av.VideoFrame.from_ndarray(np.ascontiguousarray(packed), format=PIXELS)
    upright.color_range, upright.colorspace = image.color_range, image.colorspace
    return upright


def _count_packets(path: Path) -> int:
    with av.open(f"file:{path}", format="mp4") as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))
