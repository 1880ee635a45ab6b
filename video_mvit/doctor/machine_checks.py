"""What `doctor.py` says of cores, memory, shared memory, open files and disks, from plain facts."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Mapping  # noqa: UP035

from video_mvit.doctor.finding import Finding

ROOT = Path(__file__).resolve().parents[2]
VIDEO_SETTINGS = ROOT / "conf" / "data" / "videos.yaml"
CLIP_BYTES = 16 * 3 * 224 * 224  # a clip of 16x4, uint8
PREFETCH = 2  # batches that a worker of torch's DataLoader has ready
BATCH_TENSORS = 3  # clips, labels, places in the list; each is an open file while it waits
OTHER_FILES = 200  # libraries, logs, videos
# Peak of a training step of S with one clip on a CPU is 1.7 GiB (README), a worker takes 0.4 GiB.
STEP_BYTES, WORKER_BYTES = int(1.7 * 2**30), int(0.4 * 2**30)
CHECKPOINT_BYTES = 3 * 4 * 34_537_744  # S with two moments of AdamW, float32
NUM_CHECKPOINTS = 3  # last, best, and one being written
ROOMY = 5  # times what is needed


@dataclass(frozen=True)
class LoaderNeed:
    """What the loader of a training run takes: its processes, clips of a batch."""

    num_workers: int
    batch_clips: int

    @property
    def shared_bytes(self) -> int:
        """Bytes of the batches that wait in shared memory."""
        return self.num_workers * PREFETCH * self.batch_clips * CLIP_BYTES

    @property
    def open_files(self) -> int:
        return self.num_workers * PREFETCH * BATCH_TENSORS + OTHER_FILES


def read_loader_need(settings: str) -> LoaderNeed:
    """The defaults of training, from the text of conf/data/videos.yaml; needs no YAML library."""

    def number(name: str) -> int:
        match = re.search(rf"^{name}:\s*(\d+)", settings, re.MULTILINE)
        if match is None:
            raise ValueError(f"{VIDEO_SETTINGS.name} has no number {name}")
        return int(match.group(1))

    return LoaderNeed(number("num_workers"), number("train_batch_size"))


def look_at_machine(run_folder: Path, data_folder: Path | None) -> List[Finding]:  # noqa: UP006
    """All checks of this machine, with the facts that they need."""
    machine = _machine_module()
    need = read_loader_need(VIDEO_SETTINGS.read_text())
    group = machine.own_cgroup()
    limit = machine.cgroup_memory(machine.CGROUPS, group)
    findings = [
        check_cores(machine.num_usable_cores(), os.cpu_count() or 1),
        check_memory(available_memory(), limit),
    ]
    shared = Path("/dev/shm")
    if shared.is_dir():
        findings.append(check_shared_memory(shutil.disk_usage(shared).free, need))
    if open_files := open_file_limits():
        findings.append(check_open_files(*open_files, need))
    findings.append(check_disk("run folder", run_folder))
    if data_folder is not None:
        findings.append(check_data_disk(data_folder))
    return findings


def check_cores(num_usable: int, num_cores: int) -> Finding:
    """Cores of this process against those of the machine."""
    text = f"{num_usable} usable"
    if num_usable < num_cores:
        text += f" of {num_cores}: a job, a container or taskset allows no more"
    if num_usable > 1:
        return Finding("ok", "cores", text)
    remedy = "ask for more cores (srun --cpus-per-task 8, docker run --cpus 8)"
    return Finding("warning", "cores", f"{text}; training and loading take turns", remedy)


def check_memory(available: int | None, limit: int | None) -> Finding:
    """Bytes that are free on the machine, and that a job or a container may have."""
    known = [each for each in (available, limit) if each is not None]
    if not known:
        return Finding("ok", "memory", "the system does not tell")
    least = min(known)
    text = f"{shown(least)} " + ("allowed by a job or container" if least == limit else "available")
    text += f"; a step of MViTv2-S with one clip takes {shown(STEP_BYTES)}, a loader process "
    text += shown(WORKER_BYTES)
    enough = STEP_BYTES + WORKER_BYTES
    if least < enough:
        remedy = "ask for more memory (srun --mem 16G, docker run --memory 16g)"
        return Finding("problem", "memory", text, remedy)
    if least < 2 * enough:
        return Finding("warning", "memory", text, "use data.num_workers=1 data.train_batch_size=1")
    return Finding("ok", "memory", text)


def check_shared_memory(free: int, need: LoaderNeed) -> Finding:
    """Bytes free in /dev/shm against the batches that loader processes keep there."""
    text = f"{shown(free)} free in /dev/shm, {need.num_workers} loader processes with batches of "
    text += f"{need.batch_clips} clips keep {shown(need.shared_bytes)} there"
    if free >= need.shared_bytes:
        return Finding("ok", "shared memory", text)
    size = math.ceil(2 * need.shared_bytes / 2**30)
    remedy = f"mount -o remount,size={size}G /dev/shm (as root; docker run --shm-size {size}g)"
    return Finding("problem", "shared memory", text, remedy)


def check_open_files(soft: int, hard: int, need: LoaderNeed) -> Finding:
    """The limit of open files against the tensors that wait, each of which is one.

    Args:
        soft: the limit; `hard`: what a person may raise it to.
    """
    text = f"{soft} allowed, {need.num_workers} loader processes need about {need.open_files}"
    if soft >= 2 * need.open_files:
        return Finding("ok", "open files", text)
    wanted = 4096
    remedy = f"ulimit -n {wanted}" if hard >= wanted else f"ulimit -n {hard} (the most allowed)"
    return Finding("problem" if soft < need.open_files else "warning", "open files", text, remedy)


def check_disk(subject: str, folder: Path) -> Finding:
    """Room for checkpoints, and whether one may write there; the folder need not exist yet."""
    there = existing(folder)
    remedy = "put runs elsewhere: run_dir=/another/disk/run"
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding("problem", subject, f"{there} cannot be written to", remedy)
    return judge_disk(subject, str(folder), shutil.disk_usage(there).free)


def judge_disk(subject: str, folder: str, free: int) -> Finding:
    needed = NUM_CHECKPOINTS * CHECKPOINT_BYTES
    text = f"{shown(free)} free in {folder}, the checkpoints of MViTv2-S take {shown(needed)}"
    if free >= ROOMY * needed:
        return Finding("ok", subject, text)
    remedy = "free some room, or put runs elsewhere: run_dir=/another/disk/run"
    return Finding("problem" if free < needed else "warning", subject, text, remedy)


def check_pace(facts: Mapping[str, Any], model: str, num_cores: int) -> Finding:
    """Loader processes against what the device takes, from `probes.pace`."""
    if "failure" in facts:
        text = f"could not be measured: {facts['failure']}"
        return Finding("problem", "pace", text, "leave this out (--quick), or try --model mvitv2_s")
    text = f"a loader process gives {facts['loader']:.3g} clips/s, training {model} takes "
    text += f"{facts['device']:.3g}"
    if facts["help"]:
        text += f"; cores do not suffice ({num_cores}): {facts['help']}"
        step = f"use data.num_workers={max(num_cores - 1, 1)}, and transcode the videos"
        return Finding("warning", "pace", text, step)
    return Finding("ok", "pace", f"{text}: data.num_workers={facts['num_workers']} is enough")


def usable_cores() -> int:
    return int(_machine_module().num_usable_cores())


def check_data_disk(folder: Path) -> Finding:
    """The disk of the videos: whether they are there, and room for transcoded copies."""
    if not folder.exists():
        step = f"give another one: --video /path/to/videos (looked in {Path.cwd()})"
        return Finding("problem", "data", f"{folder} does not exist", step)
    free = shutil.disk_usage(existing(folder)).free
    return Finding("ok", "data", f"{shown(free)} free on the disk of {folder}")


def existing(path: Path) -> Path:
    """The folder itself, or the nearest one around it that exists."""
    path = path.resolve()
    return next(each for each in (path, *path.parents) if each.is_dir())


def available_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not tell."""
    meminfo = Path("/proc/meminfo")
    match = (
        re.search(r"^MemAvailable:\s*(\d+)", meminfo.read_text(), re.M)
        if meminfo.is_file()
        else None
    )
    return int(match.group(1)) * 1024 if match else None


def open_file_limits() -> tuple[int, int] | None:
    """Soft and hard limit; None on Windows, which has none."""
    if importlib.util.find_spec("resource") is None:
        return None
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (2**31 if each == resource.RLIM_INFINITY else each for each in limits)
    return soft, hard


def shown(num_bytes: int) -> str:
    if num_bytes < 2**30:
        return f"{num_bytes / 2**20:.0f} MiB"
    return f"{num_bytes / 2**30:.3g} GiB"


def _machine_module() -> Any:
    """`video_mvit.host`, which needs no library; its package would import torch."""
    path = ROOT / "video_mvit" / "host.py"
    spec = importlib.util.spec_from_file_location("machine_alone", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
