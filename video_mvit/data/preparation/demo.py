"""A small Kinetics-style data set of real H.264 files whose classes are motions.

One random shape on a random background moves along exactly one of its coordinates: position (left,
right, up, down), size (zoom in, zoom out) or angle (clockwise, anticlockwise). Position wraps
around the frame, size and angle wrap around their ranges, so that in every class every coordinate
is uniform at every instant: no single frame determines the class, only motion does.

Scenes are harder: the shape is red or blue, and a smaller one of either colour trembles in its
place and may cover it. The class says the colour of the large shape and its motion. A single frame
shows the colour, and no more.

Layout as published for Kinetics-400: `<split>/<label>/<youtube_id>_<start>_<end>.mp4` beside
`<split>.csv`.

Pictures of the same shapes form another data set, in the layout of ImageNet. Their classes are what
motions change: position, size, and the direction of the shape's farthest point.
"""

import csv
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, NUM_FRAMES, FPS = 64, 44, 30
RADIUS_MIN, RADIUS_MAX = 8.0, 20.0  # pixels
BRIGHT, GROUND = (200, 220), (105, 125)  # ranges of brightness
VIVID = (175, 190)  # of red and blue shapes, whose channels go further from it
NUM_HARMONICS = 3
SPEEDS = (0.8, 1.25)  # range of the factor of a video
OUTLINE_SCALE = 1.3  # normalizes outlines, whose lobes reach about that far
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

# The classes of scenes: the colour of the large shape, and its motion.
HUES = {"red": (1.0, -0.5, -0.5), "blue": (-0.5, -0.5, 1.0)}  # RGB, relative to the brightness
SCENES: dict[str, tuple[str, str]] = {
    f"{colour} {motion}": (colour, motion) for colour in HUES for motion in MOTIONS
}
SMALL_RADIUS = 5.0, 8.0  # of the shape that only trembles, pixels
TREMBLE = (0.5, 0.5, 0.0, 0.03)  # standard deviation of their steps, per frame, units as above

# What a single picture shows, each half or quarter of the range of a coordinate from its low end
# on. A direction is that from the shape's centroid, its place, to its farthest point (y: down).
COLUMNS, ROWS, SIZES = ("left", "right"), ("top", "bottom"), ("small", "large")
DIRECTIONS = ("right", "down", "left", "up")
APPEARANCES: dict[str, tuple[int, int, int, int]] = {
    f"{ROWS[row]} {COLUMNS[column]}, {SIZES[size]}, points {DIRECTIONS[direction]}": (
        column,
        row,
        size,
        direction,
    )
    for row, column, size, direction in itertools.product(range(2), range(2), range(2), range(4))
}


class Lobe(NamedTuple):
    """One harmonic of an outline: phase (radians) and amplitude (relative to the radius)."""

    phase: float
    height: float


@dataclass(frozen=True, kw_only=True)
class DemoVideo:
    """A video (or picture) to write: class, file and seed."""

    label: str
    path: Path
    seed: tuple[int, ...]


def write_demo_dataset(
    root: Path,
    num_videos: Mapping[str, int],
    seed: int,
    on_progress: Callable[[int], None],
    labels: Iterable[str] = tuple(MOTIONS),
) -> None:
    """Write the videos of each split, and its csv, below `root`, deterministically.

    `labels` are those of `MOTIONS` or `SCENES`, taken in turn. The csv files are written last, so
    that a folder with them is complete. `on_progress` receives the number of newly written videos.
    """
    labels = tuple(labels)
    videos = {
        split: [
            DemoVideo(
                label=label,
                path=root / split / label / f"{split}{j:06d}_000000_000001.mp4",
                seed=(seed, i, j),
            )
            for j, label in zip(range(n), itertools.cycle(labels), strict=False)
        ]
        for i, (split, n) in enumerate(num_videos.items())
    }
    _write_all([video for planned in videos.values() for video in planned], on_progress)
    for split, planned in videos.items():
        _write_manifest(root / f"{split}.csv", split, planned)


def write_demo_pictures(
    root: Path, num_pictures: Mapping[str, int], seed: int, on_progress: Callable[[int], None]
) -> None:
    """Write pictures of each split as `<root>/<split>/<class>/<split><number>.png`.

    Deterministic. `on_progress` receives the number of newly written pictures.
    """
    pictures = [
        DemoVideo(
            label=label,
            path=root / split / label / f"{split}{j:06d}.png",
            seed=(seed, i, j),
        )
        for i, (split, n) in enumerate(num_pictures.items())
        for j, label in zip(range(n), itertools.cycle(APPEARANCES), strict=False)
    ]
    _write_all(pictures, on_progress)


def render_demo_video(label: str, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Render the frames of one video of a motion or scene: -> (T, H, W, 3) uint8 RGB."""
    if label in SCENES:
        return _render_scene(*SCENES[label], generator)
    place = _trajectory(MOTIONS[label], generator)
    return _render(place, _draw_lobes(generator), _draw_colours((BRIGHT, GROUND), generator))


def demo_velocity(label: str, generator: np.random.Generator) -> tuple[float, float]:
    """Return how far the large shape of `render_demo_video` moves right and down, in pixels/s."""
    _, motion = SCENES.get(label, ("", label))
    right, down, *_ = MOTIONS[motion]
    speed = generator.uniform(*SPEEDS)
    return right * speed * FPS, down * speed * FPS


def demo_boxes(label: str, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Return the bounding box of the shape of `render_demo_video`: -> (T, H, W) bool.

    The box wraps around the frame as the shape does. In a scene it is that of the large shape,
    which the small one may hide.
    """
    _, motion = SCENES.get(label, ("", label))
    place = _trajectory(MOTIONS[motion], generator)
    if label in SCENES:
        _tremble(generator)  # is drawn in between
    is_inside: NDArray[np.bool_] = np.greater(_cover(place, _draw_lobes(generator)), 0.5)
    rows, columns = np.any(is_inside, axis=2), np.any(is_inside, axis=1)
    return np.asarray(rows[:, :, None] & columns[:, None, :], np.bool_)


def render_demo_picture(label: str, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Render one picture of a class: -> (H, W, 3) uint8 RGB."""
    column, row, size, direction = APPEARANCES[label]
    share = generator.uniform(size=4)
    lobes = _draw_lobes(generator)
    low, high = math.log(RADIUS_MIN), math.log(RADIUS_MAX)
    centroid, farthest = _centroid_and_farthest(lobes)
    log_radius = low + (size + share[2]) / 2 * (high - low)
    angle = (direction + share[3] - 0.5) / 4 * 2 * math.pi - np.angle(farthest - centroid)
    shift = centroid * np.exp(1j * angle) * math.exp(log_radius)
    x, y = (column + share[0]) / 2 * SIDE - shift.real, (row + share[1]) / 2 * SIDE - shift.imag
    coordinates = (x, y, log_radius, angle)
    place = [np.full((1, 1, 1), value, np.float32) for value in coordinates]
    frame: NDArray[np.uint8] = _render(place, lobes, _draw_colours((BRIGHT, GROUND), generator))[0]
    return frame


def _render_scene(colour: str, motion: str, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Render a shape of a colour that moves, and a small one of either: -> (T, H, W, 3) uint8."""
    trajectories = (_trajectory(MOTIONS[motion], generator), _tremble(generator))
    covers = [_cover(place, _draw_lobes(generator)) for place in trajectories]
    hues = np.array([HUES[name] for name in (colour, generator.choice(tuple(HUES)))])
    hues += generator.uniform(-0.3, 0.3, (2, 3))
    ground = _draw_colours((GROUND,), generator)[0]
    colours = _colours(generator.uniform(*VIVID, (2, 1)), hues, 60)
    frames: NDArray[np.float32] = np.broadcast_to(ground, (*covers[0].shape, 3))
    for layer in generator.permutation(2):  # either may hide the other
        frames = frames + covers[layer][..., None] * (colours[layer] - frames)
    return np.asarray((frames + 0.5).astype(np.uint8), np.uint8)


def _render(
    place: Sequence[NDArray[np.float32]], lobes: Sequence[Lobe], colours: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Render a shape at positions, log radii and angles, each (T, 1, 1): -> (T, H, W, 3)."""
    cover = _cover(place, lobes)[..., None]
    shape, ground = colours
    frames: NDArray[np.uint8] = (ground + cover * (shape - ground) + 0.5).astype(np.uint8)
    return frames


def _cover(place: Sequence[NDArray[np.float32]], lobes: Sequence[Lobe]) -> NDArray[np.float32]:
    """Compute the fraction of each pixel that the shape covers: -> (T, H, W)."""
    x, y, log_radius, angle = place
    pixel = np.arange(SIDE, dtype=np.float32) + 0.5
    # The frame is a torus: the shape leaves on one side and enters on the other.
    dx = (pixel[None, None, :] - x + SIDE / 2) % SIDE - SIDE / 2  # (T, 1, W)
    dy = (pixel[None, :, None] - y + SIDE / 2) % SIDE - SIDE / 2  # (T, H, 1)
    offset = (dx + 1j * dy).astype(np.complex64) * np.exp(-1j * angle).astype(np.complex64)
    distance = np.abs(offset) + np.float32(1e-6)
    direction, harmonic = offset / distance, np.ones((), np.complex64)
    outline = np.ones_like(distance)  # a blob with a few random lobes, never symmetric
    for lobe in lobes:
        harmonic = harmonic * direction
        phase = np.exp(1j * lobe.phase).astype(np.complex64)
        outline += np.float32(lobe.height) * (harmonic * phase).real
    edge = np.exp(log_radius) * outline / OUTLINE_SCALE - distance  # positive inside
    cover: NDArray[np.float32] = np.clip(edge + 0.5, 0, 1)  # soft over one pixel
    return cover


def _draw_lobes(generator: np.random.Generator) -> list[Lobe]:
    """Draw the lobes of a random outline."""
    ranges = ((0.0, 2 * math.pi), (0.15, 0.3))
    return [Lobe(*(generator.uniform(*r) for r in ranges)) for _ in range(NUM_HARMONICS)]


def _centroid_and_farthest(lobes: Sequence[Lobe]) -> tuple[complex, complex]:
    """Compute centroid and farthest point of an unrotated shape of radius 1."""
    directions = np.linspace(0, 2 * math.pi, 360, endpoint=False)
    reach = np.ones_like(directions)
    for order, lobe in enumerate(lobes, start=1):
        reach += lobe.height * np.cos(order * directions + lobe.phase)
    outline = reach / OUTLINE_SCALE * np.exp(1j * directions)
    # Sectors from the origin: area r**2 / 2, centroid at two thirds of the radius.
    centroid = complex((outline * 2 / 3 * reach**2).sum() / (reach**2).sum())
    return centroid, complex(outline[np.abs(outline - centroid).argmax()])


def _trajectory(
    motion: tuple[float, ...], generator: np.random.Generator
) -> list[NDArray[np.float32]]:
    """Draw position, log radius and angle over time, each (T, 1, 1), uniform at every instant."""
    low = (0.0, 0.0, math.log(RADIUS_MIN), 0.0)
    high = (SIDE, SIDE, math.log(RADIUS_MAX), 2 * math.pi)
    time = np.arange(NUM_FRAMES) * generator.uniform(*SPEEDS)
    coordinates = []
    for rate, a, b in zip(motion, low, high, strict=True):
        path = a + (generator.uniform(0, b - a) + rate * time) % (b - a)
        coordinates.append(path[:, None, None].astype(np.float32))
    return coordinates


def _tremble(generator: np.random.Generator) -> list[NDArray[np.float32]]:
    """Draw the coordinates of a small shape that stays about where it is, each (T, 1, 1)."""
    start = generator.uniform(0, (SIDE, SIDE, 0, 2 * math.pi))
    start[2] = math.log(generator.uniform(*SMALL_RADIUS))
    walk = generator.normal(0, TREMBLE, (NUM_FRAMES, len(TREMBLE))).cumsum(axis=0)
    return [path.astype(np.float32)[:, None, None] for path in (start + walk).T]


def _draw_colours(
    levels: Sequence[tuple[float, float]], generator: np.random.Generator
) -> NDArray[np.float32]:
    """Draw an RGB colour of each range of brightness, of any hue: -> (n, 3)."""
    brightness = np.array([[generator.uniform(*level)] for level in levels])
    return _colours(brightness, generator.uniform(-1, 1, (len(levels), 3)), 35)


def _colours(
    brightness: NDArray[np.float64], hue: NDArray[np.float64], distance: float
) -> NDArray[np.float32]:
    """Return RGB colours of a hue (n, 3), a channel at a distance from a brightness: -> (n, 3)."""
    hue = hue - hue.mean(axis=1, keepdims=True)
    colours = brightness + distance * hue / np.abs(hue).max(axis=1, keepdims=True)
    return np.asarray(colours, np.float32)


def _write_all(videos: Sequence[DemoVideo], on_progress: Callable[[int], None]) -> None:
    for folder in {video.path.parent for video in videos}:
        folder.mkdir(parents=True, exist_ok=True)
    chunks = [videos[i : i + CHUNK] for i in range(0, len(videos), CHUNK)]
    with ProcessPoolExecutor() as pool:
        for num_written in pool.map(_write_some, chunks):
            on_progress(num_written)


def _write_some(videos: Sequence[DemoVideo]) -> int:
    for video in videos:
        generator = np.random.default_rng(video.seed)
        if video.label in APPEARANCES:
            Image.fromarray(render_demo_picture(video.label, generator)).save(video.path)
            continue
        frames = render_demo_video(video.label, generator)
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
