"""A number of the device that the host reads later."""

import torch
from torch import Tensor


class DeferredScalar:
    """A scalar copied from the device asynchronously; reading waits for it alone."""

    def __init__(self, value: Tensor) -> None:
        # From a device, into pinned memory.
        self._value = value.detach().to("cpu", non_blocking=value.device.type != "cpu")
        self._is_there: torch.cuda.Event | None = None
        if value.is_cuda:
            self._is_there = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._is_there.record()

    def read(self) -> float:
        if self._is_there:
            self._is_there.synchronize()
        return float(self._value)
