"""Measure the memory of a training step, and split a batch so that it fits.

Measures on the device at hand; model and data are passed in.
"""

import ctypes
import gc
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from video_mvit.errors import UserError
from video_mvit.host import resident_memory

RESERVE = 0.1  # fraction of free memory: fragmentation, loaders, unmeasured allocations
FEW_CLIPS = 4  # smaller passes leave a device idle, which costs more than recomputation
UNIT = 1e9


@dataclass(frozen=True)
class MemoryModel:
    """Bytes of a training step: fixed (weights, gradients, optimizer state) plus per clip."""

    fixed: float
    per_clip: float

    def of(self, num_clips: int) -> float:
        return self.fixed + self.per_clip * num_clips


@dataclass(frozen=True, kw_only=True)
class BatchSpec:
    """Videos per step and device, clips per video, and the fewest clips of a forward pass."""

    num_videos: int
    num_samples: int
    min_clips: int = 1

    def passes(self) -> list[int]:
        """List the pass sizes, in videos, that split a step evenly, largest first."""
        return [
            num_videos
            for num_videos in range(self.num_videos, 0, -1)
            if self.num_videos % num_videos == 0 and num_videos * self.num_samples >= self.min_clips
        ]


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """How a step is done: videos of a pass, passes, which activations are computed again."""

    num_videos: int
    num_passes: int
    activation_checkpointing: str
    needed: float


def fit_step(needs: Mapping[Any, MemoryModel], batch: BatchSpec, free: float) -> StepPlan | None:
    """Return the fastest way to do a step in `free` bytes; None where nothing fits.

    Whole batches if they fit, then several passes; activations are computed again only where a
    pass would otherwise have fewer than `FEW_CLIPS` clips.

    Args:
        needs: mode of activation checkpointing -> memory of a step, the fastest mode first.
    """
    plans = []
    for mode, need in needs.items():
        for num_videos in batch.passes():
            needed = need.of(num_videos * batch.num_samples)
            if needed <= free:
                plans.append(
                    StepPlan(
                        num_videos=num_videos,
                        num_passes=batch.num_videos // num_videos,
                        activation_checkpointing=mode,
                        needed=needed,
                    )
                )
                break
    enough = min(FEW_CLIPS, batch.num_videos * batch.num_samples)
    for plan in plans:
        if plan.num_videos * batch.num_samples >= enough:
            return plan
    return max(plans, key=lambda plan: plan.num_videos, default=None)  # the first of the largest


@dataclass(frozen=True, kw_only=True)
class TrialStep:
    """A training step to measure: the optimizer, and the loss of a number of clips."""

    optimizer: torch.optim.Optimizer
    loss: Callable[[int], Tensor]


def measure_memory(
    build: Callable[[], TrialStep], device: torch.device, sizes: tuple[int, int]
) -> MemoryModel:
    """Run one step for each of two numbers of clips, and fit a line through their peaks.

    Gradients of an earlier pass exist, as with accumulation. Where a GPU runs out of memory, the
    result overestimates the need.
    """
    # Baseline, then one step so that gradients and optimizer state exist.
    _give_back(device)
    start = _used(device)
    peaks: list[float] = []
    try:
        trial = build()
        trial.loss(sizes[0]).backward()  # type: ignore[no-untyped-call]
        trial.optimizer.step()
        for num_clips in sizes:
            _give_back(device)
            _reset_peak(device)
            trial.loss(num_clips).backward()  # type: ignore[no-untyped-call]
            trial.optimizer.step()
            peaks.append(_peak(device) - start)
    except torch.OutOfMemoryError:
        if not peaks:
            return MemoryModel(math.inf, 0.0)
        return MemoryModel(0.0, peaks[0] / sizes[0])
    # Slope and intercept of the two peaks.
    del trial
    _give_back(device)
    per_clip = max(0.0, (peaks[1] - peaks[0]) / (sizes[1] - sizes[0]))
    return MemoryModel(max(0.0, peaks[0] - per_clip * sizes[0]), per_clip)


def check_measurable(device: torch.device) -> None:
    """Raise `UserError` where the peak memory of a step cannot be measured."""
    if device.type != "cuda" and (sys.platform != "linux" or device.type != "cpu"):
        raise UserError(
            f"memory=auto cannot measure on {device.type!r} on {sys.platform}, only on NVIDIA and "
            "AMD GPUs, and on CPUs with Linux; set trainer.accumulate_grad_batches instead"
        )


def free_memory(device: torch.device) -> float:
    """Return the bytes that training may use of a device, before the reserve."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)
    membership = Path("/proc/self/cgroup").read_text()
    return float(min(available, cgroup_room(Path("/sys/fs/cgroup"), membership)))


def cgroup_room(root: Path, membership: str) -> float:
    """Return the bytes left below the tightest cgroup limit of a process; inf without one.

    Args:
        root: mount point of the cgroups, version 2, or version 1 with a folder `memory`.
        membership: content of /proc/self/cgroup.
    """
    rooms = [math.inf]
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        names = ("memory.max", "memory.current", "inactive_file")
        if controllers:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        folder = root / controllers / path.strip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(root):
                break
            limit = group / names[0]
            if limit.is_file() and (text := limit.read_text().strip()) != "max":
                used = int((group / names[1]).read_text()) - _entry(group / "memory.stat", names[2])
                rooms.append(int(text) - used)
    return min(rooms)


def _entry(path: Path, name: str) -> int:
    """Read an entry of memory.stat: page cache that is reclaimed on demand."""
    rows = dict(line.split() for line in path.read_text().splitlines())
    return int(rows.get(name, 0))


def _used(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return resident_memory("VmRSS")


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resident_memory("VmHWM")


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to VmRSS, see proc(5)


def _give_back(device: torch.device) -> None:
    """Free cached memory, so that it does not count as needed."""
    gc.collect()  # modules are in reference cycles
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # of the GNU C library
        trim(0)
