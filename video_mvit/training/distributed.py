"""Collectives of the ranks of one run that do not wait for their devices."""

import inspect
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

ABORT_MARGIN = timedelta(seconds=60)


class ReplicatedStrategy(DDPStrategy):
    """Lightning's DDP strategy, with gradients in the buckets that are sent, not copied to them.

    Buffers are sent in each step only where a network keeps running statistics in them.
    """

    def __init__(self, *, timeout: timedelta) -> None:
        super().__init__(timeout=timeout, gradient_as_bucket_view=True)

    def _setup_model(self, model: nn.Module) -> DistributedDataParallel:
        options = inspect.signature(DistributedDataParallel).parameters
        is_renamed = "forward_sync_buffers" in options  # in PyTorch 2.13
        name = "forward_sync_buffers" if is_renamed else "broadcast_buffers"
        self._ddp_kwargs[name] = any(isinstance(each, _BatchNorm) for each in model.modules())
        return super()._setup_model(model)


def watch_parameters(trainer: pl.Trainer) -> None:
    """Let DDP, if there is any, wait for the gradients of those parameters that are trained now.

    It looks at them once, when it is made: it is made anew. Call this between two steps.
    """
    strategy: Any = trainer.strategy
    if not isinstance(strategy, DDPStrategy):
        return
    module = trainer.lightning_module
    module.zero_grad()  # gradients lie in its buckets
    strategy.model = None
    strategy.model = strategy._setup_model(module)


class HostAllReduce:
    """All-reduce (max) of one integer over all ranks, through gloo.

    Uses the network of the hosts, so that no rank waits for a kernel. Raises `RuntimeError` where a
    rank does not answer within `timeout`.
    """

    _asked: tuple[Tensor, dist.Work] | None = None  # the last question of `max_late`

    def __init__(self, timeout: timedelta | None = None) -> None:
        is_alone = not dist.is_available() or not dist.is_initialized()
        self._group = None if is_alone else dist.new_group(backend="gloo", timeout=timeout)

    def max(self, answer: int) -> int:
        """Return the largest value of all ranks."""
        if self._group is None:
            return answer
        values = torch.tensor([answer], dtype=torch.int32)
        dist.all_reduce(values, dist.ReduceOp.MAX, group=self._group)
        return int(values.item())

    def max_late(self, answer: int) -> int:
        """Return the largest value of all ranks in the call before, and ask them anew.

        The ranks answer while the next step runs, so that none waits. 0 in the first call; a rank
        that is alone gets its own value at once.
        """
        if self._group is None:
            return answer
        before = self.finish()
        if not before:
            values = torch.tensor([answer], dtype=torch.int32)
            work = dist.all_reduce(values, dist.ReduceOp.MAX, group=self._group, async_op=True)
            assert work is not None
            self._asked = values, work
        return before

    def finish(self) -> int:
        """Return the answer that `max_late` still waits for; 0 where there is none."""
        if self._asked is None:
            return 0
        (values, work), self._asked = self._asked, None
        work.wait()
        return int(values.item())


def group_timeout(timeout_s: float, accelerator: str) -> timedelta:
    """Return the timeout of the process group of a run whose ranks wait for `timeout_s`.

    NCCL aborts the process when it is over, which must not be before the hosts can say why.
    """
    return timedelta(seconds=timeout_s) + (timedelta() if accelerator == "cpu" else ABORT_MARGIN)


def rank_timeout(trainer: pl.Trainer) -> timedelta | None:
    """Return how long the ranks of a trainer wait for each other; None if there is only one."""
    timeout: timedelta | None = getattr(trainer.strategy, "_timeout", None)
    if timeout is None or trainer.strategy.root_device.type == "cpu":
        return timeout
    return timeout - ABORT_MARGIN


def gather_over_ranks(value: Any) -> Sequence[Any]:
    """Return the values of all ranks in order; for small plain values."""
    if not dist.is_available() or not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def merge_over_ranks(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
    """Merge the mappings of all ranks into one; for small plain values."""
    return {key: value for each in gather_over_ranks(dict(mapping)) for key, value in each.items()}
