"""Freeze parts of a network: their weights stay as they are, and so do the statistics of norms.

A frozen part has no gradients and no state in the optimizer, and it runs in evaluation mode while
the rest is trained: without dropout and drop path, and with the running statistics that it has.
"""

import re
from collections.abc import Iterator, Sequence

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
