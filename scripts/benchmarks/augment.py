"""What augmentation of a clip costs here, beside Pillow and beside a training step."""

import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.data_peers import CROP_SIZE, pillow_rand_augment
from benchmarks.operators import count_operators
from benchmarks.pairs import one_thread
from benchmarks.workloads import ERASE_PROB, MEAN, RAND_AUGMENT, STD
from video_mvit import create_model
from video_mvit.data.preparation.synthetic import generated_video, place_clip
from video_mvit.data.reading.open import open_video
from video_mvit.data.transforms.augment import (
    Augment,
    Augmented,
    Normalize,
    draw_erased,
    erase_together,
)
from video_mvit.data.transforms.cropping import RandomResizedCrop
from video_mvit.data.transforms.grouped_augment import augment_together
from video_mvit.data.transforms.mixup import Mixing, draw_mix, mix, one_hot_labels
from video_mvit.data.transforms.operations import GREY, Draw
from video_mvit.data.transforms.rand_augment import draw_operations, parse_policy, rand_augment
from video_mvit.errors import UserError

NUM_STEP_CLIPS = 2  # of the training step
NUM_TINY, TINY_FRAME = 32, (6, 7)  # clips whose pixels take no time
NUM_BATCHES = 25
# Of each family, by whose kinds a step takes most operators.
FAMILIES = (
    ("equalize", "auto_contrast", "invert"),
    ("color", "contrast", "sharpness"),
    ("rotate", "shear_x", "translate_y"),
)


@dataclass(frozen=True, kw_only=True)
class AugmentBenchmark:
    """`num_clips` generated clips, augmented with new draws in each of `num_pairs` passes.

    `pillow` is how many times our time Pillow is wanted to take, at least, and `step_share` which
    share of a training step of S all augmentation may take; `operators` and `host_ms` are what it
    may take at most in its form for GPUs, in the worst batch and for `NUM_TINY` clips.
    """

    output: str
    seed: int = 0
    num_clips: int = 8
    num_pairs: int = 5
    pillow: float
    step_share: float
    operators: int
    host_ms: float

    def __post_init__(self) -> None:
        for name in ("num_clips", "num_pairs", "pillow", "step_share", "operators", "host_ms"):
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


@dataclass(frozen=True, kw_only=True)
class LaunchCost:
    """What all augmentation costs the host in its form for GPUs."""

    operators: int
    host_ms: float


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
    cost = launch_cost()
    for what, value, limit in (
        ("operators of the worst batch", cost.operators, settings.operators),
        (f"milliseconds of the host for {NUM_TINY} tiny clips", cost.host_ms, settings.host_ms),
    ):
        verdict = "pass" if value <= limit else "miss"
        console.print(
            f"all in the form for GPUs, here: {value:.4g} {what}, {limit:g} at most: {verdict}"
        )
    content = {
        "settings": asdict(settings),
        "answers": [asdict(each) for each in answers],
        "for_gpus": asdict(cost),
    }
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
    augment = Augment(policy=RAND_AUGMENT, erase_prob=ERASE_PROB, mixing=Mixing())
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


def launch_cost() -> LaunchCost:
    """Measure all augmentation in its form for GPUs, on a CPU and on clips of next to no pixels."""
    policy, times_s = parse_policy(RAND_AUGMENT), []
    for number in range(NUM_BATCHES):
        generator = np.random.default_rng(number)
        start = time.perf_counter()
        draws = [draw_operations(policy, generator) for _ in range(NUM_TINY)]
        augment_as_on_gpu(_tiny_clips(NUM_TINY), draws, generator)
        times_s.append(time.perf_counter() - start)
    return LaunchCost(operators=most_operators(), host_ms=1000 * statistics.median(times_s))


def most_operators() -> int:
    """Count the operators of a batch in which each step has operations of all kinds."""
    draws, runs = worst_draws(parse_policy(RAND_AUGMENT).num_ops), []
    for number in range(NUM_BATCHES):  # with MixUp and with CutMix
        run = partial(
            augment_as_on_gpu, _tiny_clips(len(draws)), draws, np.random.default_rng(number)
        )
        runs.append(count_operators(run).total())
    return max(runs)


def worst_draws(num_ops: int) -> list[list[Draw]]:
    """Return draws of clips with all families of operations in all orders."""
    return [
        [Draw(FAMILIES[family][(kind + i) % 3], 7.0, 1) for i, family in enumerate(families)]
        for families in itertools.product(range(3), repeat=num_ops)
        for kind in range(3)
    ]


def augment_as_on_gpu(
    clips: Tensor, draws: Sequence[Sequence[Draw]], generator: np.random.Generator
) -> Augmented:
    """Do to clips (B, T, C, H, W) what `Augment` does on a GPU, on any device."""
    H, W = clips.shape[-2:]
    label = torch.zeros(len(clips), dtype=torch.int64, device=clips.device)
    clips = Normalize(mean=MEAN, std=STD)(augment_together(clips, draws, GREY))
    boxes = [draw_erased((H, W), ERASE_PROB, generator) for _ in clips]
    noise = torch.Generator(clips.device).manual_seed(int(generator.integers(2**63)))
    clips = erase_together(clips, boxes, noise)
    return Augmented(*mix(clips, one_hot_labels(label, 400), draw_mix(Mixing(), H, W, generator)))


def _tiny_clips(num_clips: int) -> Tensor:
    return torch.zeros(num_clips, 2, 3, *TINY_FRAME, dtype=torch.uint8)


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
