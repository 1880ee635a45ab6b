"""Asking `probes.py` in a process that may crash or hang; never raises for what a library does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict  # noqa: UP035

PROBES = Path(__file__).parent / "probes.py"
TIMEOUT_S = 120.0  # the first import of torch from a slow network disk takes a minute


def ask(name: str, *arguments: str, timeout_s: float = TIMEOUT_S) -> Dict[str, Any]:  # noqa: UP006
    """The answer of a probe, or {"failure": why there is none}."""
    command = [sys.executable, str(PROBES), name, *arguments]
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"failure": f"no answer after {timeout_s:g} s"}
    except OSError as error:
        return {"failure": f"no process could be started: {error.strerror or error}"}
    return _answer(result)


def driver_of_gpus() -> str | None:
    """The first GPU and its driver as `nvidia-smi` tells them; None where there is none."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = result.stdout.strip().splitlines()
    if result.returncode or not lines:
        return None
    name, _, driver = lines[0].rpartition(",")
    return f"{name.strip()} (driver {driver.strip()})"


def _answer(result: subprocess.CompletedProcess[str]) -> Dict[str, Any]:  # noqa: UP006
    lines = result.stdout.strip().splitlines()
    if result.returncode < 0:
        return {"failure": f"crashes the process ({_signal_name(-result.returncode)})"}
    try:
        answer = json.loads(lines[-1])
    except (IndexError, ValueError):
        said = result.stderr.strip().splitlines()
        why = said[-1] if said else f"exit code {result.returncode}"
        return {"failure": f"ends the process: {why}"}
    assert isinstance(answer, dict)
    return answer


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
