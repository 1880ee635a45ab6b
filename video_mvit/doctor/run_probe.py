"""Run a probe in a process that may crash or hang; never raise for what a library does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

# The package that this file belongs to answers, even where another one is installed.
ROOT = str(Path(__file__).resolve().parents[2])
CODE = f"import sys; sys.path.insert(0, {ROOT!r}); from video_mvit.doctor import probes; "
CODE += "sys.path.pop(0); probes.main()"
TIMEOUT_S = 120.0  # the first import of torch from a slow network disk takes a minute


def ask(name: str, *arguments: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Return the answer of a probe, or {"failure": why there is none}."""
    # -P: no file in the current folder can hide a library.
    command = [sys.executable, "-P", "-c", CODE, name, *arguments]
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"failure": f"no answer after {timeout_s:g} s"}
    except OSError as error:
        return {"failure": f"cannot start a process: {error}"}
    if result.returncode < 0:
        return {"failure": f"crashes: {signal.strsignal(-result.returncode)}"}
    # The answer is the last line; a library may print others before it.
    try:
        answer: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        errors = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
        return {"failure": f"exits: {errors[-1]}"}
    return answer
