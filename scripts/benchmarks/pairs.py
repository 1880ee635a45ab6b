"""Two tasks on the same clips, side by side: `benchmark.py` measures in pairs.

The tasks take turns, clip by clip, on one thread; a pair is one pass over all clips, and its ratio
is the other side's CPU time over ours. Where both must give the same pixels, that is checked on
every clip that is measured.
"""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from benchmarks.data_peers import Task
from benchmarks.peer_errors import BaselineError
from video_mvit.data.preparation.synthetic import Clip


@dataclass(frozen=True, kw_only=True)
class ClipSet:
    """A named set of clips."""

    name: str
    clips: tuple[Clip, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One question: our task and another one on the same clips.

    `load_baseline` may raise `BaselineError`, and so may its task: the row then says why there is
    no number. `max_clips` limits what takes many times as long as a clip.
    """

    question: str
    baseline: str
    ours: Task
    load_baseline: Callable[[], Task]
    target_ratio: float
    pixels: Literal["same", "free"] = "free"
    max_clips: int | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came out of a comparison on one set of clips; times are per clip."""

    question: str
    baseline: str
    clip_set: str
    target_ratio: float
    skipped: str | None = None
    ours_ms: float = 0.0
    baseline_ms: float = 0.0
    ratios: tuple[float, ...] = ()
    num_clips: int = 0
    num_differing_clips: int | None = None

    @property
    def verdict(self) -> str:
        if self.skipped is not None:
            return f"skipped: {self.skipped}"
        if self.num_differing_clips:
            return f"failed: pixels differ in {self.num_differing_clips} of {self.num_clips} clips"
        pixels = "" if self.num_differing_clips is None else ", pixels identical"
        return ("pass" if statistics.median(self.ratios) >= self.target_ratio else "miss") + pixels


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread, as the worker of a loader does."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def compare(comparison: Comparison, clip_set: ClipSet, num_pairs: int) -> Row:
    """Measure both sides of a question on a set of clips."""
    clips = clip_set.clips[: comparison.max_clips]
    row = Row(
        question=comparison.question,
        baseline=comparison.baseline,
        clip_set=clip_set.name,
        target_ratio=comparison.target_ratio,
    )
    try:
        tasks = (comparison.ours, comparison.load_baseline())
        for task in tasks:  # what a library does only once is not measured
            task(clips[0])
        passes = [_measure_pass(tasks, clips, comparison.pixels) for _ in range(num_pairs)]
    except BaselineError as error:
        return dataclasses.replace(row, skipped=str(error))
    times_s, num_differing = zip(*passes, strict=True)
    ours_s, baseline_s = zip(*times_s, strict=True)
    return dataclasses.replace(
        row,
        ours_ms=1000 * statistics.median(ours_s) / len(clips),
        baseline_ms=1000 * statistics.median(baseline_s) / len(clips),
        ratios=tuple(b / a for a, b in times_s),
        num_clips=len(clips),
        num_differing_clips=max(num_differing) if comparison.pixels == "same" else None,
    )


def _measure_pass(
    tasks: tuple[Task, Task], clips: Sequence[Clip], pixels: Literal["same", "free"]
) -> tuple[tuple[float, float], int]:
    """CPU seconds of both tasks over all clips, and on how many clips their results differ."""
    times_s, num_differing = [0.0, 0.0], 0
    for number, clip in enumerate(clips):
        results: dict[int, Tensor] = {}
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            start = time.process_time()
            results[side] = tasks[side](clip)
            times_s[side] += time.process_time() - start
        num_differing += pixels == "same" and not torch.equal(results[0], results[1])
    return (times_s[0], times_s[1]), num_differing


def median_ms(task: Task, clips: Sequence[Clip], num_passes: int) -> float:
    times_s = []
    for _ in range(num_passes):
        start = time.process_time()
        for clip in clips:
            task(clip)
        times_s.append(time.process_time() - start)
    return 1000 * statistics.median(times_s) / len(clips)


def row_cells(row: Row) -> list[str]:
    clip_set = Path(row.clip_set).name
    if row.skipped is not None:
        return [row.baseline, clip_set, "", "", "", "", f"{row.target_ratio:g}", row.verdict]
    return [
        row.baseline,
        clip_set,
        f"{row.ours_ms:.1f} ms",
        f"{row.baseline_ms:.1f} ms",
        f"{statistics.median(row.ratios):.2f}",
        f"{min(row.ratios):.2f} to {max(row.ratios):.2f}",
        f"{row.target_ratio:g}",
        row.verdict,
    ]
