"""Time and memory of a step of each ablation at the published sizes, each in its own process.

PYTHONPATH=scripts python -m ablations cost costs.json        (minutes on two cores)
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ablations.network import create_detector, create_model
from ablations.tables import TABLES, Table

NUM_STEPS = 3  # after one to warm up
LONG_S = 60.0  # a first step that takes longer is measured itself
SIDES = {"classifier": 224, "detector": 1024}


def main(words: Sequence[str]) -> None:
    """Measure all variants, or with `--one` a single one in this process."""
    parser = argparse.ArgumentParser("ablations cost", description=__doc__)
    parser.add_argument("output", type=Path, nargs="?", help="JSON file to write")
    names = [table.name for table in TABLES if table.published]
    parser.add_argument("--tables", nargs="+", choices=names, default=names, help="all by default")
    parser.add_argument("--one", help="options of one network as JSON: print its cost")
    parser.add_argument("--side", type=int, help="side of images in pixels, for a quick look")
    arguments = parser.parse_args(words)
    if arguments.one:
        print(json.dumps(measure(json.loads(arguments.one), arguments.side)))  # noqa: T201
        return
    found: dict[str, dict[str, Any]] = {}
    for table in TABLES:
        if table.name in arguments.tables:
            found[table.name] = costs_of(table, arguments.side)
            text = json.dumps({"cpu_threads": torch.get_num_threads(), "costs": found}, indent=1)
            if arguments.output is not None:
                arguments.output.write_text(text + "\n")
    if arguments.output is None:
        print(text)  # noqa: T201


def costs_of(table: Table, side: int | None) -> dict[str, Any]:
    """Measure the variants of a table: size -> words -> seconds and peak megabytes."""
    found: dict[str, dict[str, Any]] = {size: {} for size in table.published}
    for size, (variant, name) in product(table.published, table.variants().items()):
        options = dict(table.published[size])
        options |= {key.partition(".")[2]: parsed(value) for key, value in variant}
        command = [sys.executable, "-m", "ablations", "cost", "--one", json.dumps(options)]
        if side:
            command += ["--side", str(side)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[size][name] = json.loads(done.stdout)
        print(f"{table.name}, {size}: {name}: {done.stdout.strip()}", file=sys.stderr)  # noqa: T201
    return found


def parsed(value: str) -> Any:
    """Return a value of the command line: true and false, else the text."""
    return {"true": True, "false": False}.get(value, value)


def measure(options: dict[str, Any], side: int | None = None) -> dict[str, float]:
    """Measure a training step of one item in float32: seconds, and peak memory of this process.

    Of a detector, backbone and pyramid alone: its heads are the same in all variants.
    """
    torch.manual_seed(0)
    if "mask_rcnn" in options["name"]:
        network: Any = create_detector(**options).backbone
        image = torch.randn(1, 3, *[side or SIDES["detector"]] * 2)
    else:
        crop_size = side or SIDES["classifier"]
        network = create_model(**options, crop_size=crop_size)
        image = torch.randn(1, 3, network.config.num_frames, crop_size, crop_size)
    times = [step(network, image)]
    if times[0] < LONG_S:
        times = [step(network, image) for _ in range(NUM_STEPS)]
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"step_s": round(statistics.median(times), 3), "peak_mb": round(peak_mb)}


def step(network: torch.nn.Module, image: Tensor) -> float:
    """Run forward and backward pass; -> seconds."""
    start = time.perf_counter()
    outputs = network(image)
    maps = outputs.values() if isinstance(outputs, dict) else [outputs]
    sum(x.square().mean() for x in maps).backward()
    network.zero_grad()
    return time.perf_counter() - start
