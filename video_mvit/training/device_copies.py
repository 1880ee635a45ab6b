"""Copy batches to a GPU beside its work: on a stream of their own.

The host is ahead of the device in a step that waits for nothing, so a batch that is copied on the
stream of the network would queue behind the step before. Beside it, it is there when that step
ends.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Protocol

import torch
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

    def run(self, copy: Callable[[], Any], device: torch.device) -> Any:
        """Return what `copy` puts on a device; work that is queued later finds it complete."""
        current: Stream = self._current()
        with self._on(self._side):
            copied = copy()
        current.wait_stream(self._side)
        for tensor in _tensors(copied):
            if tensor.device.type == device.type:
                # No later copy has the memory before the network has used it.
                tensor.record_stream(current)  # type: ignore[arg-type]
        return copied


def beside_network(copy: Callable[[], Any], device: torch.device) -> Any:
    """Return what `copy` puts on a device, copied beside the other work of a GPU."""
    return copy() if device.type != "cuda" else _cuda_copier(device).run(copy, device)


@cache
def _cuda_copier(device: torch.device) -> BatchCopier:
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return BatchCopier(
        side, current=lambda: torch.cuda.current_stream(device), on=torch.cuda.stream
    )


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, list | tuple):
        for each in batch:
            yield from _tensors(each)
    elif isinstance(batch, dict):
        yield from _tensors(list(batch.values()))
    elif dataclasses.is_dataclass(batch):
        yield from _tensors([getattr(batch, field.name) for field in dataclasses.fields(batch)])
