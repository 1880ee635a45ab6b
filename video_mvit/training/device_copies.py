"""Copy batches to a GPU beside its work: on a stream of their own.

The host is ahead of the device in a step that waits for nothing, so a batch that is copied on the
stream of the network would queue behind the step before. Beside it, it is there when that step
ends.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Protocol

import torch
from lightning_fabric.utilities import move_data_to_device
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor


class Stream(Protocol):
    """What is needed of `torch.cuda.Stream`."""

    def wait_stream(self, stream: Any) -> None:
        """Let later work on this stream wait for what the other one has been given so far."""
        ...


class BatchCopier:
    """Copies batches on a stream `side`, on which nothing else runs.

    Args:
        side: the stream of the copies.
        current: returns the stream of the network.
        on: makes a stream the current one.
    """

    def __init__(
        self,
        side: Any,
        *,
        current: Callable[[], Any],
        on: Callable[[Any], AbstractContextManager[Any]],
    ) -> None:
        self._side, self._current, self._on = side, current, on

    def copy(self, batch: Any, device: torch.device) -> Any:
        """Copy the tensors of a batch; work that is queued later finds them complete."""
        current: Stream = self._current()
        with self._on(self._side):
            copied = move_data_to_device(batch, device)
        current.wait_stream(self._side)

        def keep(tensor: Tensor) -> None:
            """Let no later copy have the memory before the network has used it."""
            tensor.record_stream(current)  # type: ignore[arg-type]

        apply_to_collection(copied, Tensor, keep)
        return copied


def copy_to_device(batch: Any, device: torch.device) -> Any:
    """Copy the tensors of a batch to a device, beside the work of a GPU."""
    if device.type != "cuda":
        return move_data_to_device(batch, device)
    return _cuda_copier(device).copy(batch, device)


@cache
def _cuda_copier(device: torch.device) -> BatchCopier:
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return BatchCopier(
        side, current=lambda: torch.cuda.current_stream(device), on=torch.cuda.stream
    )
