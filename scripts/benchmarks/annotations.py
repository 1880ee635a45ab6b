"""What it takes to load a large annotation file: seconds, peak memory, and what workers share.

The file is generated: polygons of 20 points in COCO's form. It is loaded in a process of its own,
which then forks workers that look at every object, and reads memory from /proc as PSS: a page that
n processes share counts 1/n in each.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from video_mvit.detection.data.annotations import Annotations
from video_mvit.detection.data.coco_json import CocoSource
from video_mvit.errors import UserError
from video_mvit.files import replace_atomically

NUM_CLASSES, NUM_POINTS, NUM_POLYGONS = 80, 20, 4096  # polygons that come again and again
HEIGHT, WIDTH = 480, 640
MB = 1e6


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that is wanted: seconds on one core, MB above what imports take."""

    seconds: float
    peak_mb: float
    shared_mb: float


@dataclass(frozen=True, kw_only=True)
class AnnotationsBenchmark:
    """A file of `num_images` and `num_objects`, kept in `output`, and workers that share it."""

    output: str
    limits: Limits
    num_images: int = 118_000
    num_objects: int = 860_000
    num_workers: int = 4

    def __post_init__(self) -> None:
        for name in ("num_images", "num_objects", "num_workers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Loading:
    """What loading took; memory in MB above that of the process after its imports."""

    file_mb: float
    array_mb: float
    seconds: float
    peak_mb: float
    shared_mb: float  # sum of the PSS of the process and its workers

    def verdicts(self, limits: Limits) -> Iterator[tuple[str, float, float]]:
        """Yield name, number and limit of what has one."""
        yield "seconds of one core", self.seconds, limits.seconds
        yield "peak, MB above imports", self.peak_mb, limits.peak_mb
        yield "process and workers, MB of PSS above imports", self.shared_mb, limits.shared_mb


def run_annotations_benchmark(settings: AnnotationsBenchmark, console: Console) -> Loading:
    """Measure, show, and write `annotations.json` into `settings.output`."""
    folder = Path(settings.output, "annotations")
    with console.status("writing an annotation file"):
        path = write_annotations(folder, settings.num_images, settings.num_objects)
    with console.status("loading it"):
        measured = subprocess.run(
            [sys.executable, "-m", "benchmarks.annotations", path, str(settings.num_workers)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=True,
            capture_output=True,
            text=True,
        )
    loading = Loading(**json.loads(measured.stdout))
    title = (
        f"{settings.num_images:,} images, {settings.num_objects:,} objects, "
        f"{loading.file_mb:.0f} MB of JSON, {loading.array_mb:.0f} MB of arrays"
    )
    table = Table("", "measured", "at most", "result", title=title, title_justify="left")
    for name, number, limit in loading.verdicts(settings.limits):
        table.add_row(name, f"{number:.1f}", f"{limit:g}", "pass" if number <= limit else "miss")
    console.print(table)
    content = {"settings": asdict(settings), "measured": asdict(loading)}
    Path(settings.output, "annotations.json").write_text(json.dumps(content, indent=2) + "\n")
    return loading


def write_annotations(folder: Path, num_images: int, num_objects: int) -> str:
    """Write an annotation file and empty files in place of its images, unless they are there."""
    path = folder / f"{num_images}_{num_objects}.json"
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return str(path)
    for index in range(num_images):
        (images / f"{index:012}.jpg").touch()
    with replace_atomically(path) as temporary, temporary.open("w") as file:
        file.write('{"info": {"description": "generated"}, "images": [')
        for index in range(num_images):
            image = {
                "license": 3,
                "file_name": f"{index:012}.jpg",
                "coco_url": f"http://images.example.org/train2017/{index:012}.jpg",
                "height": HEIGHT,
                "width": WIDTH,
                "date_captured": "2013-11-14 11:18:45",
                "id": 5 * index + 9,
            }
            file.write((", " if index else "") + json.dumps(image))
        file.write('], "annotations": [')
        objects = _objects(num_images, num_objects)
        file.writelines((", " if number else "") + text for number, text in enumerate(objects))
        categories = [{"id": i, "name": f"class {i}"} for i in range(1, NUM_CLASSES + 1)]
        file.write(f'], "categories": {json.dumps(categories)}}}')
    return str(path)


def _objects(num_images: int, num_objects: int) -> Iterator[str]:
    """Yield the text of one annotation after the other."""
    generator = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, NUM_POINTS, endpoint=False)
    shapes = []
    for _ in range(NUM_POLYGONS):
        radii = generator.uniform(10, 100, NUM_POINTS)
        x = WIDTH / 2 + radii * np.cos(angles) + generator.uniform(-200, 200)
        y = HEIGHT / 2 + radii * np.sin(angles) + generator.uniform(-120, 120)
        polygon = np.stack([x, y], axis=1).round(2)
        (left, top), (right, bottom) = polygon.min(axis=0), polygon.max(axis=0)
        box = [round(float(n), 2) for n in (left, top, right - left, bottom - top)]
        shapes.append(
            f'"segmentation": [{json.dumps(polygon.ravel().tolist())}], "area": '
            f'{box[2] * box[3] * 0.7:.4f}, "iscrowd": 0, "bbox": {json.dumps(box)}'
        )
    owners = generator.integers(0, num_images, num_objects).tolist()
    for number, owner in enumerate(owners):
        yield (
            f'{{{shapes[number % NUM_POLYGONS]}, "image_id": {5 * owner + 9}, '
            f'"category_id": {number % NUM_CLASSES + 1}, "id": {number + 1}}}'
        )


def measure_loading(path: str, num_workers: int) -> Loading:
    """Load in this process, which has done nothing else yet."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, resident_before = _memory_mb("smaps_rollup", "Pss"), _memory_mb("status", "VmRSS")
    start_s = time.process_time()
    source = CocoSource(json=path, images=str(Path(path).parent / "images"))
    annotations = source.read()
    seconds = time.process_time() - start_s
    peak = _memory_mb("status", "VmHWM") - resident_before
    workers = [_fork(annotations) for _ in range(num_workers)]
    for _, done in workers:
        assert os.read(done, 1)
    processes = ["self", *(str(worker) for worker, _ in workers)]
    pss = [_memory_mb("smaps_rollup", "Pss", process) for process in processes]
    for worker, _ in workers:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
    arrays = [value for value in vars(annotations).values() if isinstance(value, np.ndarray)]
    return Loading(
        file_mb=Path(path).stat().st_size / MB,
        array_mb=sum(each.nbytes for each in arrays) / MB,
        seconds=seconds,
        peak_mb=peak,
        shared_mb=sum(pss) - before,
    )


def _fork(annotations: Annotations) -> tuple[int, int]:
    """Start a worker that looks at all objects and waits: -> its id, the pipe where it says so."""
    done, say = os.pipe()
    if worker := os.fork():
        os.close(say)
        return worker, done
    for index in range(len(annotations)):
        for number in annotations.targets_of(index):
            annotations.mask(int(number), annotations.size(index))
    os.write(say, b".")
    while True:
        signal.pause()


def _memory_mb(file: str, field: str, process: str = "self") -> float:
    """Read a number of kB from /proc."""
    for line in Path("/proc", process, file).read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / MB
    raise UserError(f"this system does not say {field} of a process")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(measure_loading(sys.argv[1], int(sys.argv[2])))))
