"""A small Kinetics-style data set of real H.264 files whose eight classes are motions.

One random shape on a random background drifts in exactly one of its coordinates: place (left,
right, up, down), size (zoom in, zoom out) or angle (clockwise, anticlockwise). Place wraps around
the frame, size and angle wrap around their ranges, so that in every class every coordinate is
uniform at every instant: no single frame tells the class, only change does.

Layout, as Kinetics-400 is published: `<split>/<label>/<youtube_id>_<start>_<end>.mp4` beside
`<split>.csv`.
"""

import csv
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

SIDE, NUM_FRAMES, FPS = 64, 44, 30
RADIUS_MIN, RADIUS_MAX = 8.0, 20.0  # pixels
NUM_HARMONICS = 3
# x264's macroblock tree reads memory that differs from run to run on frames this small.
ENCODING = {"preset": "veryfast", "crf": "23", "x264-params": "mbtree=0"}
CHUNK = 50  # videos written by one task of a worker process

# What changes per frame in each class: (x and y in pixels, natural logarithm of the radius, angle
# in radians; y points down).
MOTIONS: dict[str, tuple[float, float, float, float]] = {
    "moving left": (-2.0, 0, 0, 0),
    "moving right": (2.0, 0, 0, 0),
    "moving up": (0, -2.0, 0, 0),
    "moving down": (0, 2.0, 0, 0),
    "zooming in": (0, 0, 0.045, 0),
    "zooming out": (0, 0, -0.045, 0),
    "turning clockwise": (0, 0, 0, 0.12),
    "turning anticlockwise": (0, 0, 0, -0.12),
}


@dataclass(frozen=True, kw_only=True)
class DemoVideo:
    """One video to write: its class, its file and the seed of everything random in it."""

    label: str
    path: Path
    seed: tuple[int, ...]


def write_demo_dataset(
    root: Path, num_videos: Mapping[str, int], seed: int, on_progress: Callable[[int], None]
) -> None:
    """Write so many videos for each split, and its csv, below `root`; same arguments, same files.

    The csv files come last, so that a folder with them is complete. `on_progress` is told how many
    more videos are done.
    """
    videos = {
        split: _plan_split(root, split, n, (seed, i))
        for i, (split, n) in enumerate(num_videos.items())
    }
    everything = [video for planned in videos.values() for video in planned]
    for video in everything:
        video.path.parent.mkdir(parents=True, exist_ok=True)
    chunks = [everything[i : i + CHUNK] for i in range(0, len(everything), CHUNK)]
    with ProcessPoolExecutor() as pool:
        for num_written in pool.map(_write_videos, chunks):
            on_progress(num_written)
    for split, planned in videos.items():
        _write_manifest(root / f"{split}.csv", split, planned)


def render_demo_video(label: str, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Frames of one video of a class: -> (T, H, W, 3) uint8 RGB."""
    x, y, log_radius, angle = _trajectory(MOTIONS[label], generator)
    pixel = np.arange(SIDE, dtype=np.float32) + 0.5
    # The frame is a torus: the shape leaves on one side and enters on the other.
    dx = (pixel[None, None, :] - x + SIDE / 2) % SIDE - SIDE / 2  # (T, 1, W)
    dy = (pixel[None, :, None] - y + SIDE / 2) % SIDE - SIDE / 2  # (T, H, 1)
    offset = (dx + 1j * dy).astype(np.complex64) * np.exp(-1j * angle).astype(np.complex64)
    distance = np.abs(offset) + np.float32(1e-6)
    direction, harmonic = offset / distance, np.ones((), np.complex64)
    outline = np.ones_like(distance)  # of a blob with a few random lobes, none of them symmetric
    for _ in range(NUM_HARMONICS):
        harmonic = harmonic * direction
        phase = np.exp(1j * generator.uniform(0, 2 * math.pi)).astype(np.complex64)
        outline += np.float32(generator.uniform(0.15, 0.3)) * (harmonic * phase).real
    edge = np.exp(log_radius) * outline / 1.3 - distance  # positive inside
    cover = np.clip(edge + 0.5, 0, 1)[..., None]  # soft over one pixel
    shape, ground = _two_colours(generator)
    frames: NDArray[np.uint8] = (ground + cover * (shape - ground) + 0.5).astype(np.uint8)
    return frames


def _trajectory(
    motion: tuple[float, ...], generator: np.random.Generator
) -> list[NDArray[np.float32]]:
    """Place, log radius and angle over time, each (T, 1, 1), uniform at every instant."""
    low = (0.0, 0.0, math.log(RADIUS_MIN), 0.0)
    high = (SIDE, SIDE, math.log(RADIUS_MAX), 2 * math.pi)
    time = np.arange(NUM_FRAMES) * generator.uniform(0.8, 1.25)  # speed
    coordinates = []
    for rate, a, b in zip(motion, low, high, strict=True):
        path = a + (generator.uniform(0, b - a) + rate * time) % (b - a)
        coordinates.append(path[:, None, None].astype(np.float32))
    return coordinates


def _two_colours(generator: np.random.Generator) -> NDArray[np.float32]:
    """RGB of the shape and of the ground: any hue, the shape always brighter: -> (2, 3)."""
    brightness = np.array([[generator.uniform(200, 220)], [generator.uniform(105, 125)]])
    hue = generator.uniform(-1, 1, (2, 3))
    hue -= hue.mean(axis=1, keepdims=True)
    colours = brightness + 35 * hue / np.abs(hue).max(axis=1, keepdims=True)
    return np.asarray(colours, np.float32)


def _plan_split(root: Path, split: str, num_videos: int, seed: tuple[int, ...]) -> list[DemoVideo]:
    labels = list(MOTIONS)
    return [
        DemoVideo(
            label=(label := labels[i % len(labels)]),
            path=root / split / label / f"{split}{i:06d}_000000_000001.mp4",
            seed=(*seed, i),
        )
        for i in range(num_videos)
    ]


def _write_videos(videos: list[DemoVideo]) -> int:
    for video in videos:
        frames = render_demo_video(video.label, np.random.default_rng(video.seed))
        with av.open(str(video.path), "w") as container:
            stream = container.add_stream("libx264", rate=FPS, options=ENCODING)
            stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
            stream.thread_count = 1
            for index, frame in enumerate(frames):
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                picture.pts = index
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
    return len(videos)


def _write_manifest(path: Path, split: str, videos: list[DemoVideo]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "youtube_id", "time_start", "time_end", "split"])
        for video in videos:
            youtube_id, start, end = video.path.stem.rsplit("_", 2)
            writer.writerow([video.label, youtube_id, int(start), int(end), split])
