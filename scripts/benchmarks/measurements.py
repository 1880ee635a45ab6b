"""Time and peak memory of a network, each measured by `measure_step.py` in a process of its own."""

import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.peer_errors import BaselineError
from benchmarks.workloads import Setting
from video_mvit.models.checkpointing import MODES
from video_mvit.models.config import MViTConfig

COMMAND = Path(__file__).with_name("measure_step.py")
OURS = "ours"
# Ours with activation checkpointing -> its mode.
CHECKPOINTED = {f"ours, {mode}": mode for mode in MODES if mode != "none"}
# Large blocks go back to the system at once; a fragmented heap would vary by more than 100 MB.
EXACT_HEAP = {"MALLOC_MMAP_THRESHOLD_": "1000000"}


@dataclass(frozen=True, kw_only=True)
class MeasureRequest:
    """What a process measures: a step, or its gradients alone, `num_runs` times after a first one.

    Attributes:
        network: `OURS`, one of `CHECKPOINTED` or the name of a baseline.
    """

    network: str
    work: Literal["step", "gradients"]
    setting: Setting
    num_runs: int

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Bytes at the peak, of which libraries had `libraries` before; seconds of each run."""

    peak: int
    libraries: int
    times_s: tuple[float, ...]

    @property
    def above_libraries(self) -> int:
        return self.peak - self.libraries

    @property
    def time_ms(self) -> float:
        return 1000 * statistics.median(self.times_s)


def request_from_json(text: str) -> MeasureRequest:
    content: dict[str, Any] = json.loads(text)
    setting = content.pop("setting")
    config = MViTConfig(**setting.pop("config"))
    return MeasureRequest(setting=Setting(config=config, **setting), **content)


def measure(
    request: MeasureRequest, timeout_s: float, environment: Mapping[str, str] | None = None
) -> Measurement:
    """Let a process of its own do what is requested.

    Raises `BaselineError` with the reason where that is impossible: the network is not there, does
    not fit into memory, or takes longer than `timeout_s`.
    """
    command = [sys.executable, "-P", str(COMMAND), request.to_json()]
    scripts = str(Path(__file__).parents[1])
    variables = {**os.environ, "PYTHONPATH": scripts, **(environment or {})}
    try:
        done = subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise BaselineError(f"took longer than {timeout_s:g} s") from None
    if done.returncode == -signal.SIGKILL:
        raise BaselineError("the system ended it, as it does where memory runs out")
    if done.returncode:
        raise RuntimeError(
            f"{COMMAND.name} ended with {done.returncode}: {done.stderr.strip()[-2000:]}"
        )
    answer = json.loads(done.stdout.splitlines()[-1])
    if "reason" in answer:
        raise BaselineError(answer["reason"])
    return Measurement(
        peak=answer["peak"], libraries=answer["libraries"], times_s=tuple(answer["times_s"])
    )


def measure_time_and_peak(
    request: MeasureRequest, timeout_s: float, num_processes: int
) -> Measurement:
    """Times of a process whose heap is left as it is, smallest peak of so many others.

    Raises `BaselineError` as `measure` does.
    """
    timed = measure(request, timeout_s)
    once = dataclasses.replace(request, num_runs=1)
    peaks = [measure(once, timeout_s, EXACT_HEAP) for _ in range(num_processes)]
    least = min(peaks, key=lambda each: each.peak)
    return dataclasses.replace(least, times_s=timed.times_s)
