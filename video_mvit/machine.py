"""What the machine gives to this process: cores and memory."""

import os
import sys
from pathlib import Path


def num_usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has inside a cluster job."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
