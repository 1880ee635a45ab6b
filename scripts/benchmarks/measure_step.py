"""Measure one network in this process: measure_step.py REQUEST.

REQUEST is a `MeasureRequest` of measurements.py as JSON. The answer is the last line printed, JSON:
bytes at the peak, bytes of libraries, seconds; or the reason why there are none.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmarks.measurements import CHECKPOINTED, OURS, MeasureRequest, request_from_json
from benchmarks.model_peers import build_baseline
from benchmarks.peer_errors import BaselineError
from benchmarks.workloads import compile_network, draw_clips, gradient_task, step_task, timed_s
from video_mvit.host import peak_resident_memory, resident_memory
from video_mvit.models.mvit import MViT
from video_mvit.training.memory_fit import RESERVE, check_measurable, free_memory

ALLOCATION_WORDS = ("can't allocate memory", "out of memory", "not enough memory")


def main(text: str) -> None:
    request = request_from_json(text)
    try:
        answer = _measured(request)
    except BaselineError as error:
        answer = {"reason": str(error)}
    except (RuntimeError, MemoryError) as error:
        if not _is_about_memory(error):
            raise
        answer = {"reason": "does not fit into memory"}
    print(json.dumps(answer))  # noqa: T201


def _measured(request: MeasureRequest) -> dict[str, Any]:
    device = torch.device(request.setting.device)
    check_measurable(device)
    if device.type == "cpu":
        _limit_memory(free_memory(device) * (1 - RESERVE))
    _load_libraries()
    network = _built(request)
    libraries = _libraries(network, device)
    network.to(device)
    if request.setting.compile:
        compile_network(network, request.setting)
    make = step_task if request.work == "step" else gradient_task
    task = make(network, draw_clips(request.setting), request.setting)
    times_s = [timed_s(task, device.type) for _ in range(1 + request.num_runs)]
    gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if gpu else peak_resident_memory()
    return {"peak": peak, "libraries": libraries, "times_s": times_s[1:]}


def _built(request: MeasureRequest) -> nn.Module:
    config = request.setting.config
    if request.network == OURS:
        return MViT(config)
    if request.network in CHECKPOINTED:
        mode: Any = CHECKPOINTED[request.network]
        return MViT(replace(config, activation_checkpointing=mode))
    return build_baseline(request.network, config)


def _load_libraries() -> None:
    """Do one step of next to nothing: torch loads parts of itself, 200 MB, when they are used."""
    layer = nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    checkpoint(layer, torch.ones(1, 8), use_reentrant=False).sum().backward()
    optimizer.step()


def _libraries(network: nn.Module, device: torch.device) -> int:
    """Bytes that are resident without the weights; on a GPU, where libraries are not seen, none."""
    if device.type == "cuda":
        return 0
    tensors = [*network.parameters(), *network.buffers()]
    return resident_memory("VmRSS") - sum(t.numel() * t.element_size() for t in tensors)


def _limit_memory(room: float) -> None:
    """Let allocations beyond `room` bytes fail, before the system ends whole processes."""
    import resource  # not everywhere

    status = Path("/proc/self/status").read_text().splitlines()
    now = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
    _, hardest = resource.getrlimit(resource.RLIMIT_DATA)
    limit = now + int(room)
    if hardest != resource.RLIM_INFINITY:
        limit = min(limit, hardest)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hardest))


def _is_about_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(word in str(error).lower() for word in ALLOCATION_WORDS)


if __name__ == "__main__":
    main(sys.argv[1])
