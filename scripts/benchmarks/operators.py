"""Count the operators that a piece of work starts, also those of a GPU that is not here.

An operator is what PyTorch starts below autograd and autocast: one kernel on a GPU, seldom more.
Views and allocations start nothing and do not count; a custom operator counts once, a Triton kernel
that is started outside of one counts as `triton::NAME`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from video_mvit import kernels
from video_mvit.models.config import MViTConfig
from video_mvit.models.mvit import MViT

Launch = Callable[[str], bool]  # takes the name of a Triton kernel, says whether it runs
NOTHING_STARTED = frozenset(
    {
        "aten::_unsafe_view",
        "aten::empty",
        "aten::empty_like",
        "aten::empty_strided",
        "aten::new_empty",
        "aten::new_empty_strided",
        "aten::promote_types",
    }
)


def count_operators(run: Callable[[], object]) -> Counter[str]:
    """Return how often `run` starts each operator, forward and backward: name -> number."""
    counting = _Counting()
    with _launches(counting.launch), counting:
        run()
    return counting.counts


def gpu_operators(config: MViTConfig) -> Counter[str]:
    """Count the operators of a forward and backward pass on a GPU that need not be here.

    In bfloat16 by autocast, dropout and drop path included, without a loss. Tensors are fake, so
    nothing is computed. They are those of a CPU, since autograd asks for the card of any other;
    kernels are chosen as for a GPU, and attention is one operator each way, as it is there.
    """
    with mock.patch("torch.nn.init.trunc_normal_"):  # the weights are never read
        network = MViT(replace(config, activation_checkpointing="none")).train()
    side = config.crop_size
    with gpu_imitation(network), torch.autocast("cpu", torch.bfloat16):
        clips = torch.empty(2, 3, config.num_frames, side, side)

        def run() -> None:
            logits = network(clips)
            logits.backward(torch.empty_like(logits))

        return count_operators(run)


@contextmanager
def gpu_imitation(network: nn.Module) -> Iterator[None]:
    """Run with fake tensors, the kernels of a GPU, and Triton kernels that do nothing."""
    fake = FakeTensorMode()
    network._apply(fake.from_tensor)  # type: ignore[no-untyped-call]
    with fake, kernels.use("gpu"), _launches(lambda _: False):
        yield


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()
        self.is_inside = False  # of an operator, whose own launches do not count again

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        name = func.name().partition(".")[0]
        if not (func.is_view or func.namespace == "prim" or name in NOTHING_STARTED):
            self.counts[name] += 1
        before, self.is_inside = self.is_inside, True
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.is_inside = before

    def launch(self, name: str) -> bool:
        if not self.is_inside:
            self.counts[f"triton::{name}"] += 1
        return True


@contextmanager
def _launches(launch: Launch) -> Iterator[None]:
    """Ask `launch` about every Triton kernel that is started, from the inside out."""
    try:
        from triton.runtime.jit import KernelInterface
    except ImportError:  # no Triton, no kernels
        patch: Any = nullcontext()
    else:
        get_launcher = KernelInterface.__getitem__

        def launcher_of(kernel: Any, grid: Any) -> Callable[..., object]:
            launcher = get_launcher(kernel, grid)
            return launcher if launch(kernel.fn.__name__) else lambda *_, **__: None

        patch = mock.patch.object(KernelInterface, "__getitem__", launcher_of)
    with patch:
        yield
