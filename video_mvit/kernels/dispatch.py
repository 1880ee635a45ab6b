"""Trying Triton kernels on a GPU before they are used there.

Compilers and drivers fail in many ways, and a wrong result is worse than a slow one: kernels that
fail or differ from the plain code are left out, with a warning.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

MAX_DIFFERENCE = 1e-4  # in float32, relative to the largest number
_tried: dict[tuple[str, int], bool] = {}


def kernels_work(
    name: str, device_index: int, worst_difference: Callable[[torch.device], float]
) -> bool:
    """Whether kernels give on a GPU what plain code gives; tried once in a process."""
    key = (name, device_index)
    if key not in _tried:
        _tried[key] = _try(name, torch.device("cuda", device_index), worst_difference)
    return _tried[key]


def _try(
    name: str, device: torch.device, worst_difference: Callable[[torch.device], float]
) -> bool:
    # A block that is being checkpointed must not count the tensors of the trial as its own.
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x)
    try:
        with hooks:
            difference = worst_difference(device)
    except Exception as error:  # none may end a training
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    else:
        if difference < MAX_DIFFERENCE:
            return True
        reason = f"they differ by {difference:.1g}"
    message = "Triton kernels for %s are left out on %s, which will be slower: %s"
    logger.warning(message, name, device, reason)
    return False


def on_device_of(x: Tensor) -> AbstractContextManager[object]:
    """Triton launches kernels on the current GPU, which need not be the one of a tensor."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def difference_from_plain(
    ours: Callable[..., Tensor],
    plain: Callable[..., Tensor],
    shapes: Sequence[Sequence[int]],
    device: torch.device,
) -> float:
    """Largest difference of outputs and gradients in float32 from those of plain code in float64.

    Relative to the largest number of each. Plain code runs on the CPU: on a GPU, PyTorch may round
    products to TF32. Both take random tensors of these shapes.
    """
    generator = torch.Generator().manual_seed(0)
    results = []
    with torch.inference_mode(mode=False), torch.enable_grad():
        tensors = [torch.randn(tuple(shape), generator=generator) for shape in shapes]
        for function, to in ((ours, (device, torch.float32)), (plain, ("cpu", torch.float64))):
            leaves = [tensor.to(*to).requires_grad_() for tensor in tensors]
            with torch.autocast(device.type, enabled=False):
                y = function(*leaves)
                slope = torch.linspace(0, 1, y.numel(), dtype=y.dtype, device=y.device)
                gradients = torch.autograd.grad(y, leaves, slope.view_as(y))
            results.append([x.detach().to("cpu", torch.float64) for x in (y, *gradients)])
    differences = [(a - b).abs().max() / b.abs().max() for a, b in zip(*results, strict=True)]
    return float(torch.stack(differences).max())  # not a number if any of them is
