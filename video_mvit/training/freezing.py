"""Freeze parts of a network: their weights stay as they are, and so do the statistics of norms.

A frozen part has no gradients and no state in the optimizer, and it runs in evaluation mode while
the rest is trained: without dropout and drop path, and with the running statistics that it has.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from video_mvit.errors import UserError

RANGE = re.compile(r"(\d+)-(\d+)")
MAX_NAMED = 12  # parts in a message


def freeze_parts(network: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Freeze parts of a network, in place, and return those that are modules.

    Args:
        names: dotted names of modules or parameters, with ranges that include both ends:
            "patch_embed", "blocks.0-7", "blocks.0-7.attn.rel_pos_t".

    Raises `UserError` for a name that the network does not have, and if nothing is left to train.
    """
    modules: list[nn.Module] = []
    for name in names:
        for part in find_parts(network, name, "optim.freeze"):
            if isinstance(part, nn.Module):
                modules.append(part.requires_grad_(requires_grad=False).eval())
            else:
                part.requires_grad = False
    if names and not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError("optim.freeze leaves nothing to train; name fewer parts")
    return modules


class FreezingSchedule:
    """Parts of a network that are frozen in its first epochs, and trained from then on.

    A parameter that nothing else trains stays frozen. Where several names stand for one, the last
    of their epochs counts.

    Args:
        num_epochs: names, as for `freeze_parts`, and in how many epochs each part is frozen.
    """

    def __init__(self, network: nn.Module, num_epochs: Mapping[str, int]) -> None:
        self._parameters: dict[int, tuple[nn.Parameter, int]] = {}
        self._modules: list[tuple[nn.Module, int]] = []
        self._epoch = 0
        for name, first in num_epochs.items():
            for part in find_parts(network, name, "optim.freeze_epochs"):
                if isinstance(part, nn.Module):
                    self._modules.append((part, first))
                for each in part.parameters() if isinstance(part, nn.Module) else [part]:
                    _, before = self._parameters.get(id(each), (each, 0))
                    if each.requires_grad:
                        self._parameters[id(each)] = each, max(first, before)
        self.begin_epoch(0)
        if num_epochs and not any(each.requires_grad for each in network.parameters()):
            raise UserError(
                "optim.freeze_epochs leaves nothing to train at first; name fewer parts"
            )

    def begin_epoch(self, epoch: int) -> bool:
        """Freeze and thaw as an epoch, counted from 0, has it; return whether that was a change."""
        self._epoch, has_changed = epoch, False
        for parameter, first in self._parameters.values():
            has_changed |= parameter.requires_grad is not (epoch >= first)
            parameter.requires_grad = epoch >= first
        for module in self.frozen_modules():
            module.eval()
        return has_changed

    def frozen_modules(self) -> list[nn.Module]:
        """Return the modules that are frozen in this epoch."""
        return [module for module, first in self._modules if self._epoch < first]

    @contextlib.contextmanager
    def thawed(self) -> Iterator[None]:
        """Thaw all parts in the block: an optimizer holds them from the start, without a state."""
        epoch = self._epoch
        self.begin_epoch(max((first for _, first in self._parameters.values()), default=0))
        try:
            yield
        finally:
            self.begin_epoch(epoch)


def find_parts(network: nn.Module, name: str, option: str) -> list[nn.Module | nn.Parameter]:
    """Return the parts that a name stands for; `option` is where a person gave it.

    Raises `UserError` for a name that the network does not have.
    """
    parameters = dict(network.named_parameters())
    return [
        parameters[each] if each in parameters else _module(network, each, name, option)
        for each in _written_out(name, option)
    ]


def describe_freezing(network: nn.Module) -> str:
    """Return in one line how many of a network's parameters are frozen."""
    parameters = list(network.named_parameters())
    total = sum(parameter.numel() for _, parameter in parameters)
    trained = {name: each.numel() for name, each in parameters if each.requires_grad}
    line = f"frozen: {total - sum(trained.values()):,} of {total:,} parameters"
    # Gradients of the class token go through all blocks, whether they are trained or not.
    frozen = {name.partition(".")[0] for name, _ in parameters} - {
        name.partition(".")[0] for name in trained
    }
    has_frozen_block = any(
        name.startswith("blocks.0.") and name not in trained for name, _ in parameters
    )
    if has_frozen_block and "patch_embed" in frozen and "cls_token" in trained:
        line += "; cls_token below them is trained: freezing it too saves time"
    return line


def _written_out(name: str, option: str) -> Iterator[str]:
    """Yield the names that a name with ranges stands for: "blocks.0-1" -> blocks.0, blocks.1."""
    prefixes = [""]
    for part in name.split("."):
        numbers = [part]
        if match := RANGE.fullmatch(part):
            first, last = int(match[1]), int(match[2])
            if first > last or last - first > 10_000:
                raise UserError(
                    f"{option} names {name}, but {part} is no range from a number to a larger one"
                )
            numbers = [str(number) for number in range(first, last + 1)]
        prefixes = [f"{prefix}{number}." for prefix in prefixes for number in numbers]
    yield from (prefix.removesuffix(".") for prefix in prefixes)


def _module(network: nn.Module, name: str, given: str, option: str) -> nn.Module:
    """Return a part by its dotted name; raises `UserError` with the parts that there are."""
    module, found = network, ""
    for part in name.split("."):
        children = dict(module.named_children())
        if part not in children:
            own = [each for each, _ in module.named_parameters(recurse=False)]
            said = f"{name}, of {given}," if name != given else name
            raise UserError(
                f"{option} names {said} which the network does not have; "
                f"{found or 'it'} has {_listed([*own, *children])}"
            )
        module, found = children[part], f"{found}.{part}".removeprefix(".")
    return module


def _listed(names: Sequence[str]) -> str:
    if names and all(name.isdecimal() for name in names):
        return f"{names[0]} to {names[-1]}"
    more = len(names) - MAX_NAMED
    text = ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
    return text or "no parts"
