"""What large-scale jitter (LSJ) of an image and its masks costs here and in torchvision's v2.

Both sides get the same decoded images with objects, ours as polygons, torchvision's as the bitmaps
that its transforms need, made beforehand; both give pixels and objects that a detector could take.
torchvision's chain is that of its detection reference, with `RandomCrop` in place of the fixed-size
crop that its v2 lacks.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.table import Table

from benchmarks.pairs import one_thread
from video_mvit.detection.data.transforms import AnnotatedImage, LargeScaleJitter, box_masks
from video_mvit.errors import UserError

HEIGHT, WIDTH = 480, 640
NUM_OBJECTS, NUM_POINTS = 7, 20  # of an image; COCO has 7.3 objects
SIDE = 1024


@dataclass(frozen=True, kw_only=True)
class JitterBenchmark:
    """`num_images` generated images, jittered with new draws in each of `num_pairs` passes.

    `torchvision` is how many times our time it is wanted to take, at least.
    """

    output: str
    torchvision: float
    seed: int = 0
    num_images: int = 20
    num_pairs: int = 5

    def __post_init__(self) -> None:
        for name in ("torchvision", "num_images", "num_pairs"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} {getattr(self, name)} must be positive")


@dataclass(frozen=True, kw_only=True)
class JitterTimes:
    """CPU milliseconds of one thread per image, median over the passes, and their ratios."""

    ours_ms: float
    torchvision_ms: float
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Return the median of the ratios."""
        return statistics.median(self.ratios)


def run_jitter_benchmark(settings: JitterBenchmark, console: Console) -> JitterTimes:
    """Measure, show, and write `jitter.json` into `settings.output`."""
    samples = [
        _sample(np.random.default_rng([settings.seed, i])) for i in range(settings.num_images)
    ]
    ours, other = our_jitter(), torchvision_jitter(samples)
    times_s: list[tuple[float, float]] = []
    with one_thread(), console.status("jittering"):
        for number in range(settings.num_pairs + 1):  # the first warms up
            passes = [0.0, 0.0]
            for index, sample in enumerate(samples):
                for side, task in enumerate((ours, other)):
                    start_s = time.process_time()
                    task(index, sample, 1000 * number + index)
                    passes[side] += time.process_time() - start_s
            times_s.append((passes[0] / len(samples), passes[1] / len(samples)))
    ours_s, other_s = zip(*times_s[1:], strict=True)
    times = JitterTimes(
        ours_ms=1000 * statistics.median(ours_s),
        torchvision_ms=1000 * statistics.median(other_s),
        ratios=tuple(b / a for a, b in times_s[1:]),
    )
    title = (
        f"LSJ to {SIDE}x{SIDE} of {WIDTH}x{HEIGHT} images with {NUM_OBJECTS} objects, one thread"
    )
    table = Table("ours", "torchvision", "ratio", "wanted", "result", title=title)
    table.add_row(
        f"{times.ours_ms:.1f} ms",
        f"{times.torchvision_ms:.1f} ms",
        f"{times.ratio:.2f}",
        f"{settings.torchvision:g}",
        "pass" if times.ratio >= settings.torchvision else "miss",
    )
    console.print(table)
    content = {"settings": asdict(settings), "measured": asdict(times)}
    Path(settings.output).mkdir(parents=True, exist_ok=True)
    Path(settings.output, "jitter.json").write_text(json.dumps(content, indent=2) + "\n")
    return times


Jitter = Callable[[int, AnnotatedImage, int], object]  # index and image, seed


def our_jitter() -> Jitter:
    """LSJ on polygons."""
    transform = LargeScaleJitter(side=SIDE)

    def jitter(_: int, sample: AnnotatedImage, seed: int) -> object:
        result = transform(sample, np.random.default_rng(seed))
        return result.pixels(), result.instances()

    return jitter


def torchvision_jitter(samples: list[AnnotatedImage]) -> Jitter:
    """LSJ on bitmaps, which are those of the samples."""
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    chain = v2.Compose(
        [
            v2.ToImage(),
            v2.ScaleJitter(target_size=(SIDE, SIDE), antialias=True),
            v2.RandomCrop(
                (SIDE, SIDE), pad_if_needed=True, fill={tv_tensors.Image: 128, "others": 0}
            ),
            v2.RandomHorizontalFlip(),
            v2.SanitizeBoundingBoxes(),
        ]
    )
    targets: list[dict[str, Any]] = [
        {
            "boxes": tv_tensors.BoundingBoxes(sample.boxes, format="XYXY", canvas_size=sample.size),
            "masks": tv_tensors.Mask(torch.from_numpy(_bitmaps(sample))),
            "labels": torch.from_numpy(sample.labels),
        }
        for sample in samples
    ]

    def jitter(index: int, sample: AnnotatedImage, seed: int) -> object:
        torch.manual_seed(seed)
        return chain(sample.image, targets[index])

    return jitter


def _sample(generator: np.random.Generator) -> AnnotatedImage:
    """An image of noise with some stars."""
    angles = np.linspace(0, 2 * np.pi, NUM_POINTS, endpoint=False)
    masks = []
    for _ in range(NUM_OBJECTS):
        radii = generator.uniform(20, 90, NUM_POINTS)
        x = radii * np.cos(angles) + generator.uniform(0, WIDTH)
        y = radii * np.sin(angles) + generator.uniform(0, HEIGHT)
        masks.append([np.stack([x.clip(0, WIDTH), y.clip(0, HEIGHT)], axis=1).ravel()])
    pixels = generator.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return box_masks(
        AnnotatedImage(
            image=Image.fromarray(pixels),
            boxes=np.zeros((NUM_OBJECTS, 4)),
            labels=np.arange(NUM_OBJECTS),
            masks=masks,
        )
    )


def _bitmaps(sample: AnnotatedImage) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Rasterize the polygons: (N, H, W) uint8."""
    lists = [[polygon.tolist() for polygon in mask] for mask in sample.masks]
    return np.stack(
        [
            coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(each, HEIGHT, WIDTH)))
            for each in lists
        ]
    )
