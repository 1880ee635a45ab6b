"""Checks of cores, memory, shared memory, open files and the disk, from plain facts."""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from video_mvit.doctor.finding import Finding, grade

SHARED_MEMORY = Path("/dev/shm")
CLIP_BYTES = 16 * 3 * 224 * 224  # 16x4 at 224 pixels, uint8
PREFETCH_FACTOR = 2  # batches that each worker of torch's DataLoader keeps ready
TENSORS_PER_BATCH = 3  # clips, labels, indices; each is an open file while it waits
OTHER_FILES = 200  # libraries, logs, videos
STEP_BYTES = int(1.7 * 2**30)  # measured peak of a training step of MViTv2-S, one clip on a CPU
WORKER_BYTES = int(0.4 * 2**30)  # measured
CHECKPOINT_BYTES = 3 * 4 * 34_537_744  # MViTv2-S with two moments of AdamW, float32
NUM_CHECKPOINTS = 3  # last, best, and one being written


def check_machine(run_folder: Path) -> Iterator[Finding]:
    """Check everything that needs no package."""
    from video_mvit import host

    num_workers, batch_size = host.default_num_workers(), read_batch_size()
    yield check_cores(host.num_usable_cores(), os.cpu_count() or 1)
    limits = available_memory(), host.cgroup_memory(host.CGROUPS, host.own_cgroup())
    if any(limits):
        yield check_memory(min(filter(None, limits)))
    if SHARED_MEMORY.is_dir():
        free = shutil.disk_usage(SHARED_MEMORY).free
        yield check_shared_memory(free, num_workers, batch_size)
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        soft, hard = (sys.maxsize if n == resource.RLIM_INFINITY else n for n in (soft, hard))
        yield check_open_files(soft, hard, num_workers)
    yield check_run_folder(run_folder, writable_bytes(run_folder))


def read_batch_size() -> int:
    """Read the default batch size of training, without a YAML library."""
    from importlib.resources import files

    text = files("video_mvit.conf").joinpath("data", "videos.yaml").read_text(encoding="utf-8")
    numbers = dict(re.findall(r"^(\w+): *(\d+)\b", text, re.MULTILINE))
    return int(numbers["train_batch_size"])


def check_cores(num_usable: int, num_cores: int) -> Finding:
    text = f"{num_usable} of {num_cores} usable" + ", for loading and training" * (num_usable < 2)
    fix = "ask for more cores (srun --cpus-per-task 8, docker run --cpus 8)"
    return grade("cores", text, fix, warning=num_usable < 2)


def check_memory(usable: int) -> Finding:
    """Compare the bytes that the machine, a job or a container allows with the least need."""
    need = STEP_BYTES + WORKER_BYTES
    text = f"{format_bytes(usable)} usable, training MViTv2-S takes at least {format_bytes(need)}"
    fix = "use data.num_workers=1 data.train_batch_size=1"
    if usable < need:
        fix = "ask for more memory (srun --mem 16G, docker run --memory 16g)"
    return grade("memory", text, fix, problem=usable < need, warning=usable < 2 * need)


def check_shared_memory(free: int, num_workers: int, batch_size: int) -> Finding:
    """Compare the bytes free in /dev/shm with the batches that loader processes keep there."""
    need = num_workers * PREFETCH_FACTOR * batch_size * CLIP_BYTES
    text = f"{format_bytes(free)} free in {SHARED_MEMORY}, {num_workers} loader processes with "
    text += f"batches of {batch_size} clips need {format_bytes(need)}"
    size = math.ceil(2 * need / 2**30)
    fix = f"mount -o remount,size={size}G /dev/shm (as root; docker run --shm-size {size}g)"
    return grade("shared memory", text, fix, problem=free < need)


def check_open_files(soft: int, hard: int, num_workers: int) -> Finding:
    """Compare the limit of open files, `soft`, which can be raised to `hard`, with the need."""
    need = num_workers * PREFETCH_FACTOR * TENSORS_PER_BATCH + OTHER_FILES
    text = f"{soft} allowed, {num_workers} loader processes need about {need}"
    fix = f"ulimit -n {min(hard, 4096)}"
    return grade("open files", text, fix, problem=soft < need, warning=soft < 2 * need)


def check_run_folder(folder: Path, free: int | None) -> Finding:
    """Compare the bytes free for checkpoints with their size; None: the folder is not writable."""
    fix = "put runs on another disk: run_dir=/another/disk/run"
    if free is None:
        return Finding("problem", "run folder", f"{folder} is not writable", fix)
    need = NUM_CHECKPOINTS * CHECKPOINT_BYTES
    text = f"{format_bytes(free)} free in {folder}, checkpoints of MViTv2-S take "
    text += format_bytes(need)
    return grade("run folder", text, fix, problem=free < need, warning=free < 5 * need)


def writable_bytes(folder: Path) -> int | None:
    """Return the bytes free for a folder that need not exist yet, None if it is not writable."""
    there = next(each for each in (folder, *folder.parents) if each.is_dir())
    return shutil.disk_usage(there).free if os.access(there, os.W_OK | os.X_OK) else None


def available_memory() -> int | None:
    """Return the bytes available without swapping, None where the system does not tell."""
    path = Path("/proc/meminfo")
    match = re.search(r"MemAvailable:\s*(\d+)", path.read_text()) if path.is_file() else None
    return int(match[1]) * 1024 if match else None


def format_bytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.3g} GiB"
