"""See whether a step waits for its device, without having one: on PyTorch's meta device.

Its tensors have shapes and no values, so nothing can be read from them unnoticed. What a GPU would
have to wait for is noted, and answered with 0.0, or true.
"""

import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")
READS = ("_local_scalar_dense", "is_nonzero", "equal")
SIZED_BY_VALUES = ("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive")
BUILDERS = (torch.tensor, torch.as_tensor, torch.asarray)


class Waits(TorchDispatchMode):
    """Counts what the host waits for: kind -> number, while `is_on`; `places` says where."""

    def __init__(self) -> None:
        super().__init__()
        self.is_on, self.places = False, Counter[str]()
        self._functions = _Functions(self)

    def __enter__(self) -> "Waits":
        self._functions.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._functions.__exit__(*exception)

    @property
    def kinds(self) -> Counter[str]:
        found = Counter[str]()
        for place, number in self.places.items():
            found[place.partition(" at ")[0]] += number
        return found

    def note(self, kind: str) -> None:
        if self.is_on:
            ours = [f for f in traceback.extract_stack() if "/torch/" not in f.filename]
            where = [f"{f.filename.rpartition('/')[2]}:{f.lineno}" for f in ours[-7:-1]]
            self.places[f"{kind} at {' '.join(where)}"] += 1

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        values = list(_tensors((args, kwargs)))
        devices = {each.device.type for each in values}
        if "meta" not in devices and torch.device(kwargs.get("device") or "cpu") != META:
            return function(*args, **kwargs)
        if name in READS:
            self.note("read")
            return 0.0 if args[0].is_floating_point() else 1  # finite, and true
        if name == "_to_copy" and devices == {"meta"} and kwargs.get("device", META) != META:
            if not kwargs.get("non_blocking"):
                self.note("copy from the device")
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype", args[0].dtype))
        if name in ("_to_copy", "copy_"):
            is_sent = values[-1].device.type == "cpu"
            if is_sent and not (kwargs.get("non_blocking") or args[2:] == (True,)):
                self.note("copy to the device")
        elif name in SIZED_BY_VALUES or (name.startswith("index") and _has_mask(args)):
            self.note("sized by values")
            raise NotImplementedError(f"{name}: {self.places}")
        elif any(each.device.type == "cpu" and each.ndim for each in values):
            self.note("copy to the device")
        return function(*args, **kwargs)


class _Functions(TorchFunctionMode):
    """Sees tensors that are built from numbers of the host, which dispatch nothing on meta."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        is_built = function in BUILDERS and not isinstance(args[0], Tensor)
        if is_built and torch.device(kwargs.get("device") or "cpu") == META:
            self._waits.note("built from host data")
        return function(*args, **kwargs)


def _tensors(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from (each for value in tree.values() for each in _tensors(value))
    elif isinstance(tree, list | tuple):
        yield from (each for value in tree for each in _tensors(value))


def _has_mask(args: Any) -> bool:
    return any(each.dtype in (torch.bool, torch.uint8) for each in _tensors(list(args[1:2])))


class MetaAccelerator(CPUAccelerator):
    """Lets Lightning train on the meta device."""

    def setup_device(self, device: torch.device) -> None:
        pass


def meta_strategy() -> SingleDeviceStrategy:
    return SingleDeviceStrategy(device=META, accelerator=MetaAccelerator())


class Watched(pl.Callback):
    """Notes the waits from the start of one batch to the start of a later one."""

    def __init__(self, waits: Waits, first: int, end: int) -> None:
        self._waits, self._first, self._end = waits, first, end

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._waits.is_on = self._first <= batch_idx < self._end
