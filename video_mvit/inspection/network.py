"""What a network costs, part by part: parameters, products and memory, without computing them.

Outputs and products are counted on the meta device. The memory of a training step is estimated from
what its operations keep for the backward pass, on tensors without values that stand for those of a
processor: with the kernels that this machine uses, in float32 and in mixed precision. Temporary
results and what an allocator rounds up are not in it.
"""

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from video_mvit.training.throughput import on_meta

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}
OTHER = "other"  # what is in no part
UNCOUNTABLE = (NotImplementedError, RuntimeError, TypeError, ValueError)  # of foreign networks

# Runs a network on a number of items: clips or images.
Run = Callable[[Any, int], object]


class Part(NamedTuple):
    """Neighbouring modules that are shown as one, by their names; the last one gives the output.

    Only modules that are called count, so that a list of modules is no part. A part inside of
    another one is not counted with it.
    """

    name: str
    modules: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PartCost:
    """Cost of a part: multiply-adds of one item, and bytes kept of one item by precision.

    `output` is the shape without the batch. None where the network cannot be counted.
    """

    name: str
    output: tuple[int, ...] | None
    num_parameters: int
    macs: int | None
    kept: Mapping[str, int] | None


@dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """Costs of all parts, of what is in none, and what could not be counted for which reason."""

    parts: tuple[PartCost, ...]
    uncounted: tuple[str, ...] = ()

    @property
    def num_parameters(self) -> int:
        return sum(part.num_parameters for part in self.parts)

    @property
    def macs(self) -> int | None:
        known = [part.macs for part in self.parts if part.macs is not None]
        return sum(known) if known else None

    def kept(self, precision: str) -> int | None:
        """Return the bytes of one item that are kept for the backward pass."""
        known = [part.kept[precision] for part in self.parts if part.kept is not None]
        return sum(known) if known else None


def examine(model: nn.Module, parts: Sequence[Part], run: Run) -> NetworkCost:
    """Count what a network costs; its values are neither read nor changed.

    `run` gets copies of it, in evaluation for products and in training for memory, and a number of
    items; it makes its inputs on the device of the copy.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    macs, kept, uncounted = None, None, []
    try:
        shapes, macs = _count(model, parts, run)
    except UNCOUNTABLE as error:
        uncounted.append(f"outputs and products are not counted: {_first_line(error)}")
    try:
        kept = {name: _kept_of_an_item(model, parts, run, name) for name in PRECISIONS}
    except UNCOUNTABLE as error:
        uncounted.append(f"memory is not estimated: {_first_line(error)}")
    numbers = _num_parameters(model, parts)
    found = [
        PartCost(
            name=name,
            output=shapes.get(name),
            num_parameters=numbers[name],
            macs=None if macs is None else macs[name],
            kept=None if kept is None else {key: each[name] for key, each in kept.items()},
        )
        for name in (*(part.name for part in parts), OTHER)
    ]
    if not (numbers[OTHER] or found[-1].macs or any((found[-1].kept or {}).values())):
        found.pop()
    return NetworkCost(parts=tuple(found), uncounted=tuple(uncounted))


def step_bytes(
    cost: NetworkCost, num_items: int, precision: str, states_per_weight: int
) -> int | None:
    """Estimate the bytes of a training step of a number of items; None where nothing is known.

    Args:
        states_per_weight: float32 numbers that gradients, optimizer and averages keep for each
            weight, besides itself.
    """
    kept = cost.kept(precision)
    if kept is None:
        return None
    return 4 * cost.num_parameters * (1 + states_per_weight) + kept * num_items


def children_of(model: nn.Module) -> list[Part]:
    """Return the children of a network, with those of lists in place of the list."""
    parts = []
    for name, child in model.named_children():
        inner = list(child.named_children()) if isinstance(child, nn.ModuleList) else []
        names = [f"{name}.{each}" for each, _ in inner] or [name]
        parts += [Part(each, (each,)) for each in names]
    return parts


def layers_of(model: nn.Module) -> list[Part]:
    """Return the innermost modules that have parameters."""
    return [
        Part(name, (name,))
        for name, module in model.named_modules()
        if name and any(True for _ in module.parameters(recurse=False))
    ]


def _num_parameters(model: nn.Module, parts: Sequence[Part]) -> Counter[str]:
    numbers: Counter[str] = Counter()
    part_of = {module: part.name for part in parts for module in part.modules}
    for name, parameter in model.named_parameters():
        numbers[_innermost(name, part_of)] += parameter.numel()
    return numbers


def _innermost(name: str, part_of: Mapping[str, str]) -> str:
    """Return the part that a parameter or a module is in, but for the module itself."""
    while name:
        name = name.rpartition(".")[0]
        if name in part_of:
            return part_of[name]
    return OTHER


def _count(
    model: nn.Module, parts: Sequence[Part], run: Run
) -> tuple[dict[str, tuple[int, ...]], Counter[str]]:
    """Return the output of each part, and its multiply-adds, of one item in evaluation."""
    network, shapes = on_meta(model).eval(), {}

    def note(part: str, output: object) -> None:
        while isinstance(output, Mapping | Sequence) and output:
            output = next(iter(output.values() if isinstance(output, Mapping) else output))
        if isinstance(output, Tensor):
            shapes[part] = tuple(output.shape[1:])

    for part in parts:
        last = network.get_submodule(part.modules[-1])
        last.register_forward_hook(lambda _, __, output, name=part.name: note(name, output))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        _Whole(network, run)(1)
    counts, prefix = counter.get_flop_counts(), f"{_Whole.__name__}.network."
    part_of = {module: part.name for part in parts for module in part.modules}
    macs = Counter({OTHER: counter.get_total_flops() // 2})  # two operations each
    for name, owner in part_of.items():
        inside = sum(counts.get(prefix + name, {}).values()) // 2
        macs[owner] += inside
        macs[_innermost(name, part_of)] -= inside
    return shapes, macs


class _Whole(nn.Module):
    """A run of a network as one module: products are counted by names from there on."""

    def __init__(self, network: nn.Module, run: Run) -> None:
        super().__init__()
        self.network, self.run = network, run

    def forward(self, num_items: int) -> None:
        self.run(self.network, num_items)


def _kept_of_an_item(
    model: nn.Module, parts: Sequence[Part], run: Run, precision: str
) -> Counter[str]:
    """Return the bytes that each part keeps for one more item, in training; weights cancel out."""
    one, two = (_kept(model, parts, run, num, precision) for num in (1, 2))
    return Counter({name: two[name] - one[name] for name in two.keys() | one.keys()})


def _kept(
    model: nn.Module, parts: Sequence[Part], run: Run, num_items: int, precision: str
) -> Counter[str]:
    kept: dict[int, tuple[str, torch.UntypedStorage]] = {}  # one entry for all views of a tensor
    open_parts = [OTHER]
    with FakeTensorMode(allow_non_fake_inputs=True):
        network = _without_values(model).train()

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept.setdefault(storage._cdata, (open_parts[-1], storage))
            return tensor

        autocast: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if PRECISIONS[precision] != torch.float32:
            autocast = torch.autocast("cpu", PRECISIONS[precision])
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        _watch(network, parts, open_parts)
        with hooks, autocast, torch.enable_grad():
            run(network, num_items)
    found: Counter[str] = Counter()
    for name, storage in kept.values():
        found[name] += storage.nbytes()
    return found


def _watch(network: nn.Module, parts: Sequence[Part], open_parts: list[str]) -> None:
    """Have the part whose module is running at the end of `open_parts`."""

    def leave(*_: object) -> None:
        open_parts.pop()

    for part in parts:
        for module in map(network.get_submodule, part.modules):
            module.register_forward_pre_hook(lambda *_, name=part.name: open_parts.append(name))
            module.register_forward_hook(leave)


def _without_values(model: nn.Module) -> nn.Module:
    """Copy a network into a fake mode, its tensors on the processor."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = (
            nn.Parameter(empty, requires_grad=tensor.requires_grad) if is_parameter else empty
        )
    return copy.deepcopy(model, memo)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
