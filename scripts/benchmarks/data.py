"""What a training clip and a test item cost here and elsewhere, in CPU time."""

import dataclasses
import hashlib
import json
import os
import platform
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.data_peers import (
    CROP_SIZE,
    SHORT_SIDE,
    Task,
    decord_frames,
    pytorchvideo_sample,
    slowfast_samples,
    torchcodec_frames,
)
from benchmarks.machine_facts import package_version, processor_name
from benchmarks.pairs import ClipSet, Comparison, Row, compare, median_ms, one_thread, row_cells
from video_mvit.data.dataset import ClipPipeline, read_views
from video_mvit.data.frame_clock import FrameClock
from video_mvit.data.preparation.synthetic import (
    CLIP,
    CLIP_S,
    DEFAULT_GOP,
    Clip,
    SyntheticClip,
    generated_video,
    place_clip,
    random_clip,
    spread_seeds,
)
from video_mvit.data.preparation.transcode import TranscodeSpec, transcode
from video_mvit.data.reading.open import DecodeLimits, examine_video, open_video
from video_mvit.data.sampling import ClipSampler, FrameIndices, UniformClips
from video_mvit.data.transforms.cropping import RandomResizedCrop, UniformCrops
from video_mvit.errors import MissingFileError, UserError

NUM_TEST_CLIPS = 5
NUM_CLIPS_PER_GIVEN_VIDEO = 6
NUM_SLOW_CLIPS = 12  # of each set, for what takes several times as long as a clip

NONE: Mapping[str, int] = MappingProxyType({})
GOPS = (12, 30, 60, DEFAULT_GOP)
POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
NUMS_OF_VIEWS = (1, 2, 5, 10)
NUM_GROWTH_VIDEOS = 2
REMARKS = (
    "CPU time of one thread per clip (per item of so many views), median over the pairs. A sample "
    "of ours is uint8: normalization, and colours where a recipe changes them, come after the "
    "loader; both other chains hand over normalized floats, and SlowFast's has done its "
    "RandAugment."
)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How many times the CPU time of ours the other side is wanted to take, at least."""

    decord: float
    torchcodec: float
    pytorchvideo: float
    slowfast: float
    slowfast_two_samples: float
    one_opening_per_view: float
    before_transcoding: float
    before_scan: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise UserError(f"bound {name} {value} must be positive")


@dataclass(frozen=True, kw_only=True)
class DataBenchmark:
    """What is measured: `num_videos` generated videos, kept in `output`, and any given `videos`."""

    output: str
    bounds: Bounds
    transcoding: TranscodeSpec
    videos: Sequence[str] = ()
    num_videos: int = 30
    num_pairs: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_videos", "num_pairs"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} must be at least 1")
        if self.seed < 0:
            raise UserError(f"seed {self.seed} must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How our own time grows with one thing; `ms` per clip, or per item of so many views."""

    what: str
    clip_set: str
    value: str
    ms: float


def run_data_benchmark(settings: DataBenchmark, console: Console) -> list[Row]:
    """Measure everything, show it, and write `data.json` into `settings.output`.

    Raises `FileNotFoundError` or `VideoDecodeError` where a given video cannot be read.
    """
    for path in settings.videos:
        if not Path(path).is_file():
            raise MissingFileError(f"video {path!r} does not exist; videos=[...] lists files")
    folder = Path(settings.output, "videos")
    with console.status("writing videos"):
        generated = [generated_video(folder, settings.seed, i) for i in range(settings.num_videos)]
    clip_set = _clip_sets(settings, generated)
    with console.status("writing videos again, as transcode does"):
        copies = _transcoded(settings, clip_set)
    rows: list[Row] = []
    with one_thread():
        questions = groupby(comparisons(settings.bounds, copies), lambda each: each.question)
        for question, group in questions:
            with console.status(question):
                answers = [
                    compare(one, clips, settings.num_pairs) for one in group for clips in clip_set
                ]
            _show_rows(question, answers, console)
            rows += answers
        with console.status("how cost grows"):
            growth = measure_growth(settings, folder, generated)
    _show_growth(growth, console)
    console.print(REMARKS)
    report = Path(settings.output, "data.json")
    report.write_text(json.dumps(_report(settings, rows, growth), indent=2) + "\n")
    console.print(f"written to {report}")
    return rows


def comparisons(bounds: Bounds, copies: Mapping[str, str]) -> list[Comparison]:
    """The questions, in the order in which they are answered; `copies` are transcoded videos."""
    decoding, sample = "decoding a clip", "a training sample: decode, crop, resize"
    num_frames = CLIP.num_frames
    return [
        Comparison(
            question=decoding,
            baseline="decord",
            ours=our_frames,
            load_baseline=decord_frames,
            target_ratio=bounds.decord,
            pixels="same",
        ),
        Comparison(
            question=decoding,
            baseline="torchcodec, exact mode",
            ours=our_frames,
            load_baseline=torchcodec_frames,
            target_ratio=bounds.torchcodec,
            pixels="same",
        ),
        Comparison(
            question=sample,
            baseline="pytorchvideo, PyAV decoder",
            ours=our_samples(1),
            load_baseline=lambda: pytorchvideo_sample(CLIP_S, num_frames),
            target_ratio=bounds.pytorchvideo,
        ),
        Comparison(
            question=sample,
            baseline="SlowFast chain with RandAugment",
            ours=our_samples(1),
            load_baseline=lambda: slowfast_samples(num_frames, 1),
            target_ratio=bounds.slowfast,
        ),
        Comparison(
            question=sample,
            baseline="the same, two samples per clip",
            ours=our_samples(2),
            load_baseline=lambda: slowfast_samples(num_frames, 2),
            target_ratio=bounds.slowfast_two_samples,
            max_clips=NUM_SLOW_CLIPS,
        ),
        Comparison(
            question=f"a test item of {NUM_TEST_CLIPS} views",
            baseline="ours, one opening per view",
            ours=our_views(NUM_TEST_CLIPS),
            load_baseline=lambda: our_views_one_by_one(NUM_TEST_CLIPS),
            target_ratio=bounds.one_opening_per_view,
            pixels="same",
            max_clips=NUM_SLOW_CLIPS,
        ),
        Comparison(
            question="a training sample after transcode",
            baseline="ours, from the original",
            ours=our_samples_of(copies),
            load_baseline=lambda: our_samples(1),
            target_ratio=bounds.before_transcoding,
            max_clips=NUM_SLOW_CLIPS,
        ),
        Comparison(
            question="a training sample after transcode and scan",
            baseline="ours, from the copy without a scan",
            ours=our_samples_of(copies, fingerprints_of(copies)),
            load_baseline=lambda: our_samples_of(copies),
            target_ratio=bounds.before_scan,
            pixels="same",
            max_clips=NUM_SLOW_CLIPS,
        ),
    ]


# What is measured of ours.


@dataclass(frozen=True, kw_only=True)
class PickedClip:
    """A sampler of one of the clips of another sampler."""

    sampler: ClipSampler
    index: int

    def __call__(self, clock: FrameClock, generator: np.random.Generator) -> list[FrameIndices]:
        return [self.sampler(clock, generator)[self.index]]


def our_frames(clip: Clip) -> Tensor:
    """Open, look at what a sampler needs, read: clip -> (T, H, W, 3) uint8."""
    with open_video(clip.path) as video:
        assert video.clock.num_frames > 0
        return torch.from_numpy(video.read(clip.frame_indices))


def our_samples(num_samples: int, fingerprints: Mapping[str, int] = NONE) -> Task:
    """A training item with repeated samples of one clip: clip -> (V, T, C, H, W) uint8."""
    crop = RandomResizedCrop(size=CROP_SIZE)

    def samples(clip: Clip) -> Tensor:
        pipeline = ClipPipeline(
            sampler=SyntheticClip(position=clip.position), crop=crop, num_samples=num_samples
        )
        return _read(clip, pipeline, fingerprints.get(clip.path, 0))

    return samples


def our_samples_of(copies: Mapping[str, str], fingerprints: Mapping[str, int] = NONE) -> Task:
    """The same from another file: the copy of the clip's video, opened as after a scan."""
    sample = our_samples(1, fingerprints)
    return lambda clip: sample(dataclasses.replace(clip, path=copies[clip.path]))


def fingerprints_of(copies: Mapping[str, str]) -> dict[str, int]:
    """What a scan records of each copy."""
    return {path: examine_video(path).fingerprint for path in copies.values()}


def our_views(num_clips: int) -> Task:
    """A whole test item: the video of a clip -> (V, T, C, H, W) uint8."""
    crop = UniformCrops(size=CROP_SIZE, short_side=SHORT_SIDE)
    pipeline = ClipPipeline(sampler=UniformClips(clip=CLIP, num_clips=num_clips), crop=crop)
    return lambda clip: _read(clip, pipeline)


def our_views_one_by_one(num_clips: int) -> Task:
    """The same item, with the video opened again for every view."""
    crop = UniformCrops(size=CROP_SIZE, short_side=SHORT_SIDE)
    sampler = UniformClips(clip=CLIP, num_clips=num_clips)
    pipelines = [
        ClipPipeline(sampler=PickedClip(sampler=sampler, index=index), crop=crop)
        for index in range(num_clips)
    ]
    return lambda clip: torch.cat([_read(clip, each) for each in pipelines])


def _read(clip: Clip, pipeline: ClipPipeline, fingerprint: int = 0) -> Tensor:
    generator = np.random.default_rng(clip.seed)
    return torch.stack(read_views(clip.path, pipeline, generator, fingerprint))


def measure_growth(
    settings: DataBenchmark, folder: Path, generated: Sequence[Path]
) -> list[Growth]:
    """Our time by place in the video, by distance of key frames and by number of views."""
    generator = random.Random(settings.seed)
    sets = _video_sets(settings, generated[:NUM_GROWTH_VIDEOS])
    seeds = [generator.getrandbits(32) for _ in POSITIONS]

    def grown(what: str, clip_set: str, value: str, task: Task, clips: Iterable[Clip]) -> Growth:
        ms = median_ms(task, list(clips), settings.num_pairs)
        return Growth(what=what, clip_set=clip_set, value=value, ms=ms)

    growth = []
    for name, paths in sets.items():
        for position in POSITIONS:
            clips = (place_clip(path, 0, position) for path in paths)
            value = f"{100 * position:.0f} %"
            growth.append(grown("clip position", name, value, our_frames, clips))
    for gop in GOPS:
        indices = range(min(NUM_GROWTH_VIDEOS, settings.num_videos))
        videos = [generated_video(folder, settings.seed, index, gop) for index in indices]
        clips = (random_clip(str(path), seed) for path in videos for seed in seeds)
        growth.append(grown("frames per key frame", "generated", str(gop), our_frames, clips))
    for name, paths in sets.items():
        for num_views in NUMS_OF_VIEWS:
            clips = (place_clip(path, 0, 0.0) for path in paths)
            growth.append(grown("views", name, str(num_views), our_views(num_views), clips))
    return growth


def _clip_sets(settings: DataBenchmark, generated: Sequence[Path]) -> list[ClipSet]:
    """One clip of each generated video, several of each given one."""
    generator = random.Random(settings.seed)
    clip_set = []
    for name, paths in _video_sets(settings, generated).items():
        places = paths if name == "generated" else paths * NUM_CLIPS_PER_GIVEN_VIDEO
        seeds = spread_seeds(len(places), generator)
        clips = tuple(map(random_clip, places, seeds))
        clip_set.append(ClipSet(name=name, clips=clips))
    return clip_set


def _transcoded(settings: DataBenchmark, clip_set: Sequence[ClipSet]) -> dict[str, str]:
    """Copies of the videos whose clips are measured after transcoding, as far as not yet there."""
    measured = (clip.path for clips in clip_set for clip in clips.clips[:NUM_SLOW_CLIPS])
    copies = {}
    for path in dict.fromkeys(measured):
        facts = os.stat(path)
        origin = (
            f"{Path(path).resolve()} {facts.st_size} {facts.st_mtime_ns} {settings.transcoding}"
        )
        name = hashlib.sha1(origin.encode(), usedforsecurity=False).hexdigest()[:16]
        copy = Path(settings.output, "videos", f"transcoded_{name}.mp4")
        if not copy.exists():
            transcode(path, copy, settings.transcoding, DecodeLimits())
        copies[path] = str(copy)
    return copies


def _video_sets(settings: DataBenchmark, generated: Sequence[Path]) -> dict[str, list[str]]:
    """All generated videos are one set, every given one is its own."""
    return {"generated": list(map(str, generated)), **{path: [path] for path in settings.videos}}


# Showing.


def _show_rows(question: str, rows: Sequence[Row], console: Console) -> None:
    table = Table("against", "videos", title=question, title_justify="left")
    for name in ("ours", "other", "ratio", "of pairs", "wanted"):
        table.add_column(name, justify="right")
    table.add_column("result")
    for row in rows:
        table.add_row(*row_cells(row))
    console.print(table)


def _show_growth(growth: Sequence[Growth], console: Console) -> None:
    for what, group in groupby(growth, lambda line: line.what):
        lines = list(group)
        values = list(dict.fromkeys(line.value for line in lines))
        table = Table("videos", *values, title=f"ours by {what}", title_justify="left")
        for clip_set, cells in groupby(lines, lambda line: line.clip_set):
            table.add_row(Path(clip_set).name, *(f"{line.ms:.0f} ms" for line in cells))
        console.print(table)


def _report(
    settings: DataBenchmark, rows: Sequence[Row], growth: Sequence[Growth]
) -> dict[str, Any]:
    """Everything measured, and on what."""
    packages = ("av", "torch", "numpy", "decord", "torchcodec", "pytorchvideo", "timm")
    return {
        "settings": dataclasses.asdict(settings),
        "machine": {"cpu": processor_name(), "python": platform.python_version()},
        "packages": {name: package_version(name) for name in packages},
        "comparisons": [{**dataclasses.asdict(row), "verdict": row.verdict} for row in rows],
        "growth": [dataclasses.asdict(line) for line in growth],
    }
