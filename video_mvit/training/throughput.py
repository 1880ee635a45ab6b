"""How fast a device trains: FLOPs of a model, the device's matmul rate, peak memory.

Measures; what is said of it is decided in `progress.py`.
"""

import copy
import logging
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from video_mvit.host import peak_resident_memory

logger = logging.getLogger(__name__)

FLOPS_OF_STEP = 3  # of a forward pass: the backward pass multiplies by both factors of each product
MATMUL_TIME_S = 0.25
MATMUL_SIDES = (256, 8192)  # smallest and largest; the largest takes a GPU a millisecond or more
MATMUL_SHORT_S = 0.01  # of one product; below, launching it counts, and a larger one is tried
DTYPES = {"16": torch.float16, "bf16": torch.bfloat16, "64": torch.float64}


def on_meta(module: nn.Module) -> nn.Module:
    """A copy that has shapes and no values; nothing is copied meanwhile."""
    memo: dict[int, Tensor] = {}
    for tensor in _tensors(module):
        shape = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(shape) if isinstance(tensor, nn.Parameter) else shape
    return copy.deepcopy(module, memo)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def count_flops(model: nn.Module, clip: Tensor) -> int | None:
    """FLOPs of a training step per clip, or None where the model does not run without values.

    Those of the network, whatever a step computes again: three times the matrix products,
    convolutions and attention of a forward pass, 2 for each multiply-add. What other operations and
    operators of one's own do is not counted.

    Args:
        model: its parameters are on the meta device (`on_meta`).
        clip: one clip (1, ...) as the model takes it; only its shape and type are used.
    """
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(torch.empty_like(clip, device="meta"))
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        logger.debug("the FLOPs of the model are not known: %s", error)
        return None
    return FLOPS_OF_STEP * int(counter.get_total_flops())


def matmul_rate(device: torch.device, precision: str) -> float:
    """Best FLOP/s of square matrix products in a training precision, e.g. "bf16-mixed".

    Takes about a quarter of a second. On a CPU: with as many threads as torch has now.
    """
    dtype = DTYPES.get(precision.partition("-")[0], torch.float32)
    generator = torch.Generator(device).manual_seed(0)  # not the one that training draws from

    def square(side: int) -> Tensor:
        """Of random numbers: equal ones cost a GPU less power, and are multiplied faster."""
        return torch.randn(side, side, generator=generator, dtype=dtype, device=device)

    a = square(MATMUL_SIDES[0])
    _timed_product(a)  # loads the library
    start, best = time.perf_counter(), 0.0
    while time.perf_counter() - start < MATMUL_TIME_S:
        time_s = min(_timed_product(a), _timed_product(a))  # the first of a size chooses a kernel
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
    """Most memory that training needed so far: of a GPU in this epoch, of the process on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def reset(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def read(self) -> int | None:
        """Bytes, or None where the system does not tell."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return peak_resident_memory()
