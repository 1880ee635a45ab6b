"""What the machine gives to this process: cores and memory."""

import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def num_usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has in a job or a container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cgroup_cores(CGROUPS, own_cgroup())
    return max(1, min(cores or 1, math.ceil(quota))) if quota else cores or 1


def own_cgroup() -> str:
    """Path of this process's control group below `CGROUPS`, "" where there is none of version 2."""
    lines = OWN_CGROUP.read_text().splitlines() if OWN_CGROUP.is_file() else []
    return next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")


def cgroup_cores(root: Path, group: str) -> float | None:
    """Processor time a second that a control group and those around it allow; None: no limit."""
    quotas = []
    for folder in _groups(root, group):
        quota, period = [*_words(folder / "cpu.max"), "max", "1"][:2]
        quotas += [int(quota) / int(period)] if quota != "max" else []
    old_quota, old_period = (
        _words(root / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period")
    )
    if old_quota and old_period and int(old_quota[0]) > 0:
        quotas.append(int(old_quota[0]) / int(old_period[0]))
    return min(quotas, default=None)


def cgroup_memory(root: Path, group: str) -> int | None:
    """Bytes that a control group and those around it allow; None: no limit."""
    files = [folder / "memory.max" for folder in _groups(root, group)]
    words = [_words(path) for path in (*files, root / "memory" / "memory.limit_in_bytes")]
    # Version 1 writes "no limit" as a number near 2**63.
    limits = [int(each[0]) for each in words if each and each[0] != "max"]
    return min((limit for limit in limits if limit < 2**60), default=None)


def _groups(root: Path, group: str) -> Iterator[Path]:
    folder = root / group
    yield from (folder, *(each for each in folder.parents if each.is_relative_to(root)))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def peak_resident_memory() -> int | None:
    """Bytes that this process had resident at its peak; None where the system does not tell."""
    if sys.platform == "linux":  # getrusage there begins with the peak of the parent process
        return resident_memory("VmHWM")
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


def resident_memory(name: str) -> int:
    """Bytes of an entry of /proc/self/status: VmRSS (resident now), VmHWM (at its peak)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return int(status[name].split()[0]) * 1024


MAX_WORKERS = 16  # loader processes of a device: more rarely help, and each holds memory


def default_num_workers(num_devices: int = 1) -> int:
    """Return the loader processes of each device of this node: usable cores - 1, shared."""
    return max(1, min(MAX_WORKERS, (num_usable_cores() - 1) // num_devices))


def cpu_expectation() -> str:
    """Say in one line what a machine without a GPU means for a training, and for the doctor."""
    num_cores = num_usable_cores()
    return (
        f"no GPU was found: training runs on the CPU, {num_cores} core{'s' * (num_cores > 1)}: "
        "minutes for the demo, hours for MViTv2-S on a hundred short videos, days for Kinetics"
    )


def slurm_job(environment: Mapping[str, str]) -> str:
    """Return the number of the SLURM job of this process, "12" or "12_3" of an array; "" for none.

    A job that is queued again keeps it.
    """
    array, task = (environment.get(f"SLURM_ARRAY_{part}_ID") for part in ("JOB", "TASK"))
    job = f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID", "")
    return job if re.fullmatch(r"[0-9_]+", job) else ""
