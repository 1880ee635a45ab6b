"""What the processes of one run have to agree on, without waiting for their devices."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist


class HostAllReduce:
    """Asks all processes of a run at the same point; the largest answer holds for all.

    Goes over the network of the hosts (gloo), not over the devices: nobody waits for a kernel.
    """

    def __init__(self) -> None:
        is_alone = not dist.is_available() or not dist.is_initialized()
        self._group = None if is_alone else dist.new_group(backend="gloo")

    def max(self, answer: int) -> int:
        """The largest number that a process says."""
        if self._group is None:
            return answer
        values = torch.tensor([answer], dtype=torch.int32)
        dist.all_reduce(values, dist.ReduceOp.MAX, group=self._group)
        return int(values.item())


def gather_over_ranks(value: Any) -> Sequence[Any]:
    """The value of every process, in the order of their ranks; for small plain values."""
    if not dist.is_available() or not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def merge_over_ranks(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
    """The entries of all processes in one mapping; for small plain values."""
    return {key: value for each in gather_over_ranks(dict(mapping)) for key, value in each.items()}
