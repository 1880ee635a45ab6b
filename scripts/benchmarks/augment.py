"""What augmentation of a clip costs here, beside Pillow and beside a training step."""

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.data_peers import CROP_SIZE, pillow_rand_augment
from benchmarks.pairs import one_thread
from benchmarks.workloads import MEAN, RAND_AUGMENT, STD
from video_mvit import create_model
from video_mvit.data.preparation.synthetic import generated_video, place_clip
from video_mvit.data.reading.open import open_video
from video_mvit.data.transforms.augment import Augment, Augmented, Normalize
from video_mvit.data.transforms.cropping import RandomResizedCrop
from video_mvit.data.transforms.mixup import Mixing
from video_mvit.data.transforms.rand_augment import parse_policy, rand_augment
from video_mvit.errors import UserError

NUM_STEP_CLIPS = 2  # of the training step


@dataclass(frozen=True, kw_only=True)
class AugmentBenchmark:
    """`num_clips` generated clips, augmented with new draws in each of `num_pairs` passes.

    `pillow` is how many times our time Pillow is wanted to take, at least, and `step_share` which
    share of a training step of S all augmentation may take.
    """

    output: str
    seed: int = 0
    num_clips: int = 8
    num_pairs: int = 5
    pillow: float
    step_share: float

    def __post_init__(self) -> None:
        for name in ("num_clips", "num_pairs", "pillow", "step_share"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} {getattr(self, name)} must be positive")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One line: milliseconds of ours and of the other side, and what was wanted of their ratio."""

    question: str
    ours_ms: float
    other_ms: float
    ratio: float
    wanted: float

    @property
    def verdict(self) -> str:
        return "pass" if self.ratio >= self.wanted else "miss"


def run_augment_benchmark(settings: AugmentBenchmark, console: Console) -> list[Answer]:
    """Measure, show, and write `augment.json` into `settings.output`."""
    with console.status("reading clips"):
        clips = _clips(settings)
    with console.status("a training step"):  # first, so that memory is as in training
        answers = [_beside_step(settings, clips[:NUM_STEP_CLIPS])]
    with console.status("RandAugment"):
        answers += _beside_pillow(settings, clips)
    T, side = clips.shape[1], clips.shape[-1]
    title = f"a clip of {T}x{side}x{side}, {torch.get_num_threads()} threads"
    table = Table("", title=title, title_justify="left")
    for name in ("ours", "other", "ratio", "wanted"):
        table.add_column(name, justify="right")
    table.add_column("result")
    for each in answers:
        times = (f"{each.ours_ms:.1f} ms", f"{each.other_ms:.1f} ms")
        table.add_row(
            each.question, *times, f"{each.ratio:.2f}", f"{each.wanted:.3g}", each.verdict
        )
    console.print(table)
    content = {"settings": asdict(settings), "answers": [asdict(each) for each in answers]}
    Path(settings.output, "augment.json").write_text(json.dumps(content, indent=2) + "\n")
    return answers


def _clips(settings: AugmentBenchmark) -> Tensor:
    """Training crops (N, T, C, H, W), uint8."""
    crop, clips = RandomResizedCrop(size=CROP_SIZE), []
    for number in range(settings.num_clips):
        path = generated_video(Path(settings.output, "videos"), settings.seed, number)
        clip = place_clip(str(path), settings.seed, 0.5)
        with open_video(clip.path) as video:
            frames = torch.from_numpy(video.read(clip.frame_indices)).permute(0, 3, 1, 2)
        clips += crop(frames, np.random.default_rng(number))
    return torch.stack(clips)


def _beside_pillow(settings: AugmentBenchmark, clips: Tensor) -> list[Answer]:
    """The same policy by us and by Pillow: on one core each, and with all cores for both."""
    policy, by_pillow = parse_policy(RAND_AUGMENT), pillow_rand_augment()

    def ours_once(number: int) -> object:
        return rand_augment(clips, policy, np.random.default_rng(number))

    def pillow_once(number: int) -> object:
        return [by_pillow(clip, 1000 * number + i) for i, clip in enumerate(clips)]

    wall, cpu = [], []
    for number in range(settings.num_pairs + 1):  # the first warms up
        with one_thread():
            sides = (ours_once, pillow_once)
            cpu.append([_timed(side, number, time.process_time) for side in sides])
        wall.append(_timed(ours_once, number, time.perf_counter))
    num_cores = os.cpu_count() or 1
    one, other = (statistics.median(each[side] for each in cpu[1:]) / len(clips) for side in (0, 1))
    ours = statistics.median(wall[1:]) / len(clips)
    question = "RandAugment, Pillow frame by frame"
    cores = f"on one core, ours on {torch.get_num_threads()}"
    return [
        _answer(f"{question}: processor time", one, other, settings.pillow),
        _answer(
            f"{question} {cores}",
            ours,
            other,
            settings.pillow,
        ),
        _answer(f"the same, Pillow in {num_cores} processes", ours, other / num_cores, 1.0),
    ]


def _beside_step(settings: AugmentBenchmark, clips: Tensor) -> Answer:
    """All of the published augmentation beside forward and backward of S."""
    augment = Augment(policy=RAND_AUGMENT, erase_prob=0.25, mixing=Mixing())
    normalize = Normalize(mean=MEAN, std=STD)
    model, label = create_model("mvitv2_s").train(), torch.arange(len(clips))

    def prepare(number: int) -> Tensor:
        batch: Augmented = augment(
            clips,
            label,
            normalize=normalize,
            num_classes=400,
            generator=np.random.default_rng(number),
        )
        return batch.clip

    def only_normalize(_: int) -> Tensor:
        return normalize(clips)  # type: ignore[no-any-return]

    def step(_: int) -> None:
        model(prepared).logsumexp(dim=-1).sum().backward()

    prepared = prepare(0)
    plain = [_timed(only_normalize, i, time.perf_counter) for i in range(9)]
    augmenting = [_timed(prepare, i, time.perf_counter) for i in range(24)]
    steps = [_timed(step, i, time.perf_counter) for i in range(3)]
    ours = (statistics.mean(augmenting) - statistics.median(plain)) / len(clips)
    return _answer(
        "all augmentation, a training step of S",
        ours,
        statistics.median(steps) / len(clips),
        1 / settings.step_share,
    )


def _timed(function: Callable[[int], object], number: int, clock: Callable[[], float]) -> float:
    start = clock()
    function(number)
    return clock() - start


def _answer(question: str, ours_s: float, other_s: float, wanted: float) -> Answer:
    return Answer(
        question=question,
        ours_ms=1000 * ours_s,
        other_ms=1000 * other_s,
        ratio=other_s / ours_s,
        wanted=wanted,
    )
