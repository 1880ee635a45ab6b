"""Synthetic clips for benchmarks: positions in videos, and videos that resemble real footage.

Every video is a function of a seed and a number, encoded once with x264's defaults.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from video_mvit.data.frame_clock import FrameClock
from video_mvit.data.reading.open import open_video
from video_mvit.data.sampling import ClipSpec, FrameIndices, clip_frames, latest_start
from video_mvit.files import replace_atomically

CLIP = ClipSpec(num_frames=16, frame_stride=4)
CLIP_S = CLIP.span_s

HEIGHT, WIDTH, FPS, NUM_FRAMES = 256, 340, 30, 300  # as most copies of Kinetics are stored
DEFAULT_GOP = 250  # x264's largest distance of key frames
SIDE = HEIGHT // 2  # of a layer in front
NUM_LAYERS = 3
Plane = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """A position in a video: 0 its start, 1 its end; `seed` draws the crop."""

    path: str
    seed: int
    position: float
    frame_indices: FrameIndices
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class SyntheticClip:
    """Sampler of one clip at a relative position: 0 is the first, 1 the last that fits."""

    position: float

    def __call__(self, clock: FrameClock, generator: np.random.Generator) -> list[FrameIndices]:
        return [clip_frames(clock, CLIP, self.position * latest_start(clock, CLIP))]


def place_clip(path: str, seed: int, position: float) -> Clip:
    """Return a clip at a relative position of a video."""
    with open_video(path) as video:
        clock = video.clock
    start = position * latest_start(clock, CLIP)
    start_s = start if clock.is_variable else start / clock.fps
    return Clip(
        path=path,
        seed=seed,
        position=position,
        frame_indices=clip_frames(clock, CLIP, start),
        start_s=start_s,
        end_s=start_s + CLIP_S,
    )


def random_clip(path: str, seed: int) -> Clip:
    """Return the clip that a library draws which uses `random` with this seed."""
    return place_clip(path, seed, random.Random(seed).random())


def spread_seeds(num_seeds: int, generator: random.Random) -> list[int]:
    """Choose seeds of random clips, one in each of equal parts of a video, in random order.

    The cost of a clip grows with its position, so that a few free draws would dominate a mean.
    """
    seeds = []
    for part in range(num_seeds):
        seed = generator.getrandbits(32)
        while int(random.Random(seed).random() * num_seeds) != part:
            seed = generator.getrandbits(32)
        seeds.append(seed)
    generator.shuffle(seeds)
    return seeds


def generated_video(folder: Path, seed: int, number: int, gop: int = DEFAULT_GOP) -> Path:
    """Write video `number` of a seed with a key frame every `gop` frames, unless it exists."""
    path = folder / f"seed{seed}_{number:03d}_gop{gop}.mp4"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with (
        replace_atomically(path) as temporary,
        av.open(str(temporary), "w", format="mp4") as container,
    ):
        stream = container.add_stream("libx264", rate=FPS, options={"g": str(gop)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.thread_count = 1  # more threads would write other files
        for time, planes in enumerate(render_video(np.random.default_rng((seed, number)))):
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def render_video(
    generator: np.random.Generator, num_frames: int = NUM_FRAMES
) -> Iterator[NDArray[np.uint8]]:
    """Render moving textured layers with film grain: YUV 4:2:0 frames (H * 3/2, W).

    Speed, roughness and grain are drawn such that bit rate (about 0.5 to 1.5 Mb/s) and fraction of
    B-frames (a third to three quarters) match web footage; every second video has a cut.
    """
    grain = generator.uniform(3, 5.5) * _texture(generator, 2 * HEIGHT, 2 * WIDTH, roughness=0)
    speed = math.exp(generator.uniform(math.log(2), math.log(6)))
    scenes = [Scene(generator, speed) for _ in range(int(generator.integers(1, 3)))]
    cut = int(generator.integers(num_frames // 4, 3 * num_frames // 4 + 1))
    for time in range(num_frames):
        scene = scenes[-1] if time >= cut else scenes[0]
        planes = scene.render(time)
        top, left = generator.integers(0, (HEIGHT, WIDTH))
        planes[0] += grain[top : top + HEIGHT, left : left + WIDTH]
        flat = np.concatenate([plane.ravel() for plane in planes])
        yield np.clip(flat, 16, 235).astype(np.uint8).reshape(HEIGHT * 3 // 2, WIDTH)


class Scene:
    """A panning ground and layers in front, each swinging by up to `speed` / 45 rad per frame."""

    def __init__(self, generator: np.random.Generator, speed: float) -> None:
        roughness = generator.uniform(1.0, 1.3)
        self._ground = 110 + 38 * _texture(generator, 2 * HEIGHT, 2 * WIDTH, roughness)
        self._colours = [
            128 + 14 * _texture(generator, HEIGHT, WIDTH, roughness=1.6) for _ in range(2)
        ]
        distance = np.hypot(*np.meshgrid(*[np.linspace(-1, 1, SIDE, dtype=np.float32)] * 2))
        self._layers = [
            (
                110 + 30 * generator.standard_normal() + 40 * texture,
                np.clip((generator.uniform(0.5, 0.9) - distance) * 12, 0, 1),
            )
            for texture in (_texture(generator, SIDE, SIDE, roughness) for _ in range(NUM_LAYERS))
        ]
        self._phases = generator.uniform(0, 2 * math.pi, (NUM_LAYERS + 1, 2))
        self._rates = generator.uniform(0.5, 1, (NUM_LAYERS + 1, 2)) * speed / 45

    def render(self, time: int) -> list[Plane]:
        """Render luma (H, W) and the two chroma planes (H / 2, W / 2) of a frame."""
        places = (1 + np.sin(self._phases + self._rates * time)) / 2  # (layers, 2) in [0, 1]
        top, left = places[0] * (HEIGHT - 2, WIDTH - 2)
        brightness = _window(self._ground, top, left, HEIGHT, WIDTH)
        for (texture, cover), place in zip(self._layers, places[1:], strict=True):
            y, x = (place * (HEIGHT - SIDE, WIDTH - SIDE)).astype(int)
            behind = brightness[y : y + SIDE, x : x + SIDE]
            behind += cover * (texture - behind)
        colours = (
            _window(plane, top / 2, left / 2, HEIGHT // 2, WIDTH // 2) for plane in self._colours
        )
        return [brightness, *colours]


def _texture(generator: np.random.Generator, height: int, width: int, roughness: float) -> Plane:
    """Draw noise of mean 0 and std 1 whose amplitude falls with frequency ** -roughness."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf if roughness else 1.0
    waves = np.fft.rfft2(generator.standard_normal((height, width))) / frequency**roughness
    texture = np.fft.irfft2(waves, (height, width))
    return np.asarray(texture / texture.std(), np.float32)


def _window(plane: Plane, top: float, left: float, height: int, width: int) -> Plane:
    """Cut a window at a fractional position, bilinear: -> (height, width)."""
    y, x = int(top), int(left)
    below, right = np.float32(top - y), np.float32(left - x)
    rows = plane[y : y + height + 1, x : x + width + 1]
    rows = rows[:-1] * (1 - below) + rows[1:] * below
    return rows[:, :-1] * (1 - right) + rows[:, 1:] * right
