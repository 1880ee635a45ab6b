"""Measure training speed: FLOPs of a model, matmul rate of a device, peak memory."""

import copy
import logging
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from video_mvit.host import peak_resident_memory

logger = logging.getLogger(__name__)

FLOPS_OF_STEP = 3  # times a forward pass: the backward pass does two matmuls for each
MATMUL_TIME_S = 0.25
MATMUL_SIDES = (256, 8192)  # smallest and largest; the largest takes a millisecond or more on a GPU
MATMUL_SHORT_S = 0.01  # per product; shorter ones are dominated by launch overhead
DTYPES = {"16": torch.float16, "bf16": torch.bfloat16, "64": torch.float64}


def on_meta(module: nn.Module) -> nn.Module:
    """Copy a module to the meta device, without copying its values."""
    memo: dict[int, Tensor] = {}
    for tensor in _tensors(module):
        shape = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(shape) if isinstance(tensor, nn.Parameter) else shape
    return copy.deepcopy(module, memo)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def count_flops(model: nn.Module, clip: Tensor) -> int | None:
    """Count the FLOPs of a training step per clip; None if the model cannot run on meta.

    Three times the matmuls, convolutions and attention of a forward pass, at 2 FLOPs per
    multiply-add. Recomputation, other operations and custom operators do not count.

    Args:
        model: on the meta device (`on_meta`).
        clip: one clip (1, ...) as the model takes it; only shape and type are used.
    """
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(torch.empty_like(clip, device="meta"))
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        logger.debug("cannot count the FLOPs of the model: %s", error)
        return None
    return FLOPS_OF_STEP * int(counter.get_total_flops())


def matmul_rate(device: torch.device, precision: str) -> float:
    """Measure the best FLOP/s of square matmuls in a training precision, e.g. "bf16-mixed".

    Takes about a quarter of a second. On a CPU: with torch's current number of threads.
    """
    dtype = DTYPES.get(precision.partition("-")[0], torch.float32)
    generator = torch.Generator(device).manual_seed(0)  # leaves the global generator alone

    def square(side: int) -> Tensor:
        """Draw a random matrix; constant ones need less power and run faster on a GPU."""
        return torch.randn(side, side, generator=generator, dtype=dtype, device=device)

    a = square(MATMUL_SIDES[0])
    _timed_product(a)  # warm-up: loads the library
    start, best = time.perf_counter(), 0.0
    while time.perf_counter() - start < MATMUL_TIME_S:
        time_s = min(
            _timed_product(a), _timed_product(a)
        )  # the first run of a size selects a kernel
        best = max(best, 2 * len(a) ** 3 / time_s)
        if time_s < MATMUL_SHORT_S and len(a) < MATMUL_SIDES[1]:
            a = square(2 * len(a))
    return best


def _timed_product(a: Tensor) -> float:
    start = time.perf_counter()
    a @ a
    if a.device.type != "cpu":
        torch.accelerator.synchronize(a.device)
    return time.perf_counter() - start


class PeakMemory:
    """Peak memory of training: of a GPU in this epoch, of the process on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def reset(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def read(self) -> int | None:
        """Return the peak in bytes; None where the system does not report it."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return peak_resident_memory()
