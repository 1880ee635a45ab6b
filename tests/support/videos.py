"""Small videos whose frame `i` shows `i`."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIDE = 64
NUM_BITS = 8
X264 = {"bf": "2", "g": "12", "sc_threshold": "0", "crf": "10"}  # B-frames, a key frame every 12


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How a test video is written: B-frames and a key frame every 12 unless said otherwise.

    `times` of the frames are in 1/1000 s, `rotation` is in degrees.
    """

    codec: str = "libx264"
    options: Mapping[str, str] = field(default_factory=lambda: X264)
    container: Mapping[str, str] = field(default_factory=dict)
    pix_fmt: str = "yuv420p"
    rotation: float = 0.0
    times: Sequence[int] = ()


def write_numbered_video(
    path: Path,
    num_frames: int,
    fps: int = 30,
    size: tuple[int, int] = (SIDE, SIDE),
    encoding: Encoding | None = None,
) -> Path:
    """Frame `i` is `i` in binary, one bright or dark bar for each of eight bits."""
    encoding = encoding or Encoding()
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        ordinary_scheduling(),
        av.open(str(path), "w", container_options=dict(encoding.container)) as container,
    ):
        stream = container.add_stream(encoding.codec, rate=fps, options=dict(encoding.options))
        stream.height, stream.width = size
        stream.pix_fmt = encoding.pix_fmt
        tick = Fraction(1, 1000) if encoding.times else Fraction(1, fps)
        stream.codec_context.time_base = tick
        if encoding.rotation:
            stream.set_display_rotation(encoding.rotation)
        for i in range(num_frames):
            picture = av.VideoFrame.from_ndarray(numbered_frame(i, size), format="rgb24")
            picture.pts, picture.time_base = encoding.times[i] if encoding.times else i, tick
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


@contextlib.contextmanager
def ordinary_scheduling() -> Iterator[None]:
    """Undo what SVT-AV1 does to a process of root: real-time priority, which starves all others."""
    try:
        yield
    finally:
        if hasattr(os, "sched_setscheduler"):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def numbered_frame(number: int, size: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """-> (H, W, 3) uint8 with one bar for each bit, the lowest one on the left."""
    height, width = size
    bits = [(number >> bit) & 1 for bit in range(NUM_BITS)]
    row = np.full(width, 16, np.uint8)
    row[: width // NUM_BITS * NUM_BITS] = np.repeat(
        np.array(bits, np.uint8) * 220 + 16, width // NUM_BITS
    )
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (height, width, 3)))


def read_numbers(frames: np.ndarray) -> list[int]:
    """Numbers that frames (T, H, W, 3) of a numbered video show."""
    width = frames.shape[2] // NUM_BITS * NUM_BITS
    bars = frames[:, :, :width].reshape(*frames.shape[:2], NUM_BITS, -1, 3)
    bright = bars.mean(axis=(1, 3, 4)) > 128
    return [int(sum(1 << bit for bit in range(NUM_BITS) if row[bit])) for row in bright]


def decode_all(path: Path) -> np.ndarray:
    """All frames by decoding plainly from the first one: -> (T, H, W, 3)."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(stream)])
