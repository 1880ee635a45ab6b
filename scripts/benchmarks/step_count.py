"""What a training step asks of its device: operators, launches, and how often the host waits."""

import warnings
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.operators import count_operators

# Operators after which the host knows a value of the device.
WAITING = tuple(
    f"aten::{name}"
    for name in (
        "_local_scalar_dense",
        "nonzero",
        "equal",
        "is_nonzero",
        "masked_select",
        "_unique2",
    )
)
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
GRAPH_LAUNCH = "cudaGraphLaunch"
SYNC_WARNING = "called a synchronizing CUDA operation"


class StepCount(NamedTuple):
    """Counts of one step.

    Attributes:
        operators: see `operators.py`; None where a network is compiled, as counting them would
            switch compiled code off.
        launches: of kernels and graphs on a GPU; None on a CPU.
        waits: how often the host waited for a GPU; on a CPU, how often it read a value, which is
            no wait where a GPU has copied the value before.
    """

    operators: int | None
    launches: int | None
    waits: int | None


def count_step(run: Callable[[], object], device: torch.device, *, is_compiled: bool) -> StepCount:
    """Run a step once and count what it does."""
    if device.type == "cuda":
        return _count_on_gpu(run, is_compiled=is_compiled)
    if is_compiled:
        run()
        return StepCount(None, None, None)
    counts = count_operators(run)
    return StepCount(counts.total(), None, sum(counts[name] for name in WAITING))


def num_launches(calls: Counter[str]) -> int:
    """Return the launches among calls of CUDA by name."""
    return sum(calls[name] for name in (*LAUNCHES, GRAPH_LAUNCH))


def _count_on_gpu(run: Callable[[], object], *, is_compiled: bool) -> StepCount:
    counts: Counter[str] = Counter()
    before = torch.cuda.get_sync_debug_mode()
    with (
        warnings.catch_warnings(record=True) as caught,
        profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler,
    ):
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            if is_compiled:
                run()
            else:
                counts = count_operators(run)
        finally:
            torch.cuda.set_sync_debug_mode(before)
    calls = Counter({each.key: each.count for each in profiler.key_averages()})
    waits = sum(SYNC_WARNING in str(each.message) for each in caught)
    return StepCount(None if is_compiled else counts.total(), num_launches(calls), waits)
