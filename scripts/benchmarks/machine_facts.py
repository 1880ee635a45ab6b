"""What a measurement was made on, to be kept beside its numbers."""

import platform
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from video_mvit.host import num_usable_cores

PACKAGES = ("torch", "torchvision", "timm", "pytorchvideo")


def machine_facts(device: str) -> dict[str, Any]:
    """Processor, cores, threads of torch, GPU if it is used, versions, date."""
    return {
        "processor": processor_name(),
        "cores": num_usable_cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "python": platform.python_version(),
        "packages": {name: package_version(name) for name in PACKAGES},
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def describe_machine(facts: dict[str, Any]) -> str:
    """One line for a table's title."""
    where = facts["gpu"] or f"{facts['processor']}, {facts['threads']} threads"
    return f"{where}, torch {facts['packages']['torch']}"


def processor_name() -> str:
    """As the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def package_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
