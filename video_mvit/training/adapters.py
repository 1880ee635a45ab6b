"""Low-rank adapters (LoRA): train a small product beside some linear layers, and freeze the rest.

Hu et al. 2021 (arXiv 2106.09685), by the package peft, which replaces a layer W by W and
alpha / rank x B A: A (rank, in) starts at random, B (out, rank) at zero. How they are kept in files
and merged into plain weights is in `weights/adapter_files.py`.
"""

import importlib.util
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
from torch import nn

from video_mvit.errors import UserError, install_command
from video_mvit.training.freezing import find_parts

PEFT = "peft"  # the package, and the extra `lora` has it
HEAD = "head"  # trained whole
STAGES = (1, 2, 3, 4)
BLOCK = re.compile(r"blocks\.(\d+)\.")


@dataclass(frozen=True, kw_only=True)
class LoraAdapters:
    """Which layers get an adapter, of which rank; parts in `whole`, and the head, are trained.

    Blocks of other stages than `stages` get none. Nothing is kept for the backward pass below the
    lowest part that is trained; the first two stages have most of the tokens.
    """

    rank: int = 8
    alpha: int = 16
    targets: Sequence[str] = ("attn.qkv", "attn.proj")
    stages: Sequence[int] = (3, 4)
    whole: Sequence[str] = (HEAD,)

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"adapter.rank {self.rank} must be positive")
        if not 0 < self.alpha <= 1_000_000:
            raise UserError(f"adapter.alpha {self.alpha} must be from 1 to a million")
        if not self.targets:
            raise UserError("adapter.targets is empty; name linear layers, such as [attn.qkv]")
        if not self.stages or not set(self.stages) <= set(STAGES):
            raise UserError(
                f"adapter.stages is {list(self.stages)}; name some of {list(STAGES)}, such as [3,4]"
            )

    def whole_parts(self, network: nn.Module) -> set[str]:
        """Return the names of the parameters that are trained as they are.

        Raises `UserError` for a name that the network does not have.
        """
        found = [find_parts(network, name, "adapter.whole") for name in (HEAD, *self.whole)]
        trained = {
            id(parameter)
            for part in itertools.chain(*found)
            for parameter in (part.parameters() if isinstance(part, nn.Module) else [part])
        }
        return {name for name, each in network.named_parameters() if id(each) in trained}

    def blocks(self, depths: Sequence[int]) -> set[int]:
        """Return the numbers of the blocks that get adapters, of stages of these depths."""
        ends = list(itertools.accumulate(depths))
        return {
            block
            for stage in self.stages
            for block in range(ends[stage - 1] - depths[stage - 1], ends[stage - 1])
        }


def add_adapters(network: nn.Module, adapters: LoraAdapters, depths: Sequence[int]) -> None:
    """Give a network adapters, in place, and freeze all but these and its whole parts.

    `depths` are the blocks of each of its stages. The random numbers are of torch's global
    generator. Outputs are as before. Raises `UserError` where the package is missing, or for a
    target that the network does not have.
    """
    check_installed()
    import peft  # which needs seconds

    whole = adapters.whole_parts(network)
    layers = _target_layers(network, adapters.targets, whole, adapters.blocks(depths))
    pattern = "|".join(map(re.escape, layers))
    config = peft.LoraConfig(
        r=adapters.rank, lora_alpha=adapters.alpha, target_modules=f"({pattern})", lora_dropout=0.0
    )
    trained = {id(each) for name, each in network.named_parameters() if name in whole}
    peft.inject_adapter_in_model(config, network)  # which renames the parameters of adapted layers
    for name, parameter in network.named_parameters():
        parameter.requires_grad = ".lora_" in name or id(parameter) in trained


def check_installed() -> None:
    """Raise `UserError` where peft is missing."""
    if importlib.util.find_spec(PEFT) is None:
        raise UserError(f"adapter=lora needs {PEFT}; {install_command('lora')}")


def _target_layers(
    network: nn.Module, targets: Sequence[str], whole: set[str], blocks: set[int]
) -> list[str]:
    """Return the linear layers of blocks that targets name, without those in whole parts."""
    linear = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
        and f"{name}.weight" not in whole
        and (block := BLOCK.match(name))
        and int(block[1]) in blocks
    ]
    found: list[str] = []
    for target in targets:
        layers = [name for name in linear if f".{name}".endswith(f".{target}")]
        if not layers:
            ends = dict.fromkeys(re.sub(r"^blocks\.\d+\.", "", name) for name in linear)
            raise UserError(
                f"adapter.targets names {target}, which is no linear layer to adapt; there are "
                f"{', '.join(ends) or 'none'}"
            )
        found += layers
    return list(dict.fromkeys(found))


class KeepAdapterRecord(pl.Callback):
    """Keeps in each checkpoint what its adapters need to be merged, in plain values.

    A resumed run goes on with the record of its checkpoint: the base weights are not read again.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.record = dict(record)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["adapter"] = self.record

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.record = dict(checkpoint.get("adapter") or self.record)
