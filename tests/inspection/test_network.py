"""What a network costs: by hand, as published, and as a real step keeps it."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

import video_mvit
from video_mvit.inspection.network import (
    OTHER,
    NetworkCost,
    Part,
    children_of,
    examine,
    layers_of,
    step_bytes,
)

FLOAT = 4  # bytes


class Small(nn.Module):
    """Two linear layers, one of them in a block, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 16), nn.ReLU())])
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.blocks[0](x)
        return self.head(hidden.view(-1, 16))  # type: ignore[no-any-return]


class Curious(nn.Module):
    """A network that looks at values, which tensors without values do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * x.sum().item()  # type: ignore[no-any-return]


def run_rows(model: nn.Module, num_items: int) -> Tensor:
    device = next(model.parameters()).device
    return model(torch.empty(num_items, 8, device=device))  # type: ignore[no-any-return]


def run_clips(model: nn.Module, num_items: int, config: video_mvit.MViTConfig) -> Tensor:
    side, device = config.crop_size, next(model.parameters()).device
    return model(  # type: ignore[no-any-return]
        torch.zeros(num_items, 3, config.num_frames, side, side, device=device)
    )


def test_cost_of_two_layers_is_that_by_hand() -> None:
    network = Small()
    cost = examine(network, children_of(network), run_rows)
    found = {
        part.name: (part.output, part.num_parameters, part.macs, part.kept) for part in cost.parts
    }
    # The input is kept by the first layer, the output of ReLU once for itself and the second layer.
    assert found == {
        "blocks.0": ((16,), 9 * 16, 8 * 16, {"float32": 24 * FLOAT, "bf16": 24 * 2}),
        "head": ((4,), 17 * 4, 16 * 4, {"float32": 0, "bf16": 0}),
        OTHER: (None, 3, 0, {"float32": 0, "bf16": 0}),
    }
    assert (cost.num_parameters, cost.macs, cost.kept("float32")) == (215, 192, 96)
    assert step_bytes(cost, 10, "float32", states_per_weight=3) == 215 * 16 + 960
    assert all(parameter.grad is None for parameter in network.parameters())


def test_inner_part_is_not_counted_with_the_outer_one() -> None:
    parts = [Part("all", ("blocks.0", "head")), Part("inner", ("blocks.0.0",))]
    cost = examine(Small(), parts, run_rows)
    found = {part.name: (part.num_parameters, part.macs) for part in cost.parts}
    assert found == {"all": (68, 64), "inner": (144, 128), OTHER: (3, 0)}


def test_layers_are_the_innermost_modules_with_parameters() -> None:
    assert [part.name for part in layers_of(Small())] == ["blocks.0.0", "head"]


def test_network_that_looks_at_values_is_counted_in_part() -> None:
    cost = examine(Curious(), [Part("layer", ("layer",))], run_rows)
    assert (cost.num_parameters, cost.macs, cost.kept("float32")) == (36, None, None)
    assert step_bytes(cost, 1, "bf16", 3) is None
    assert [reason.partition(":")[0] for reason in cost.uncounted] == [
        "outputs and products are not counted",
        "memory is not estimated",
    ]


def kept_by(model: nn.Module, config: video_mvit.MViTConfig, num_items: int) -> int:
    """Bytes that a real forward pass keeps, besides weights."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run_clips(model, num_items, config)
    return sum(storage.nbytes() for storage in kept.values())


def test_estimated_memory_is_what_a_real_step_keeps() -> None:
    model = video_mvit.create_model("mvitv2_demo", num_classes=8)
    cost = examine(model, children_of(model), partial(run_clips, config=model.config))
    real = kept_by(model.train(), model.config, 2) - kept_by(model, model.config, 1)
    assert cost.kept("float32") == pytest.approx(real, rel=0.02)


@pytest.mark.slow
def test_cost_of_the_published_small_network() -> None:
    with torch.device("meta"):
        model = video_mvit.create_model("mvitv2_s")
    cost: NetworkCost = examine(model, children_of(model), partial(run_clips, config=model.config))
    # Li et al., arXiv 2112.01526, table 4: 34.5 M parameters, 64.5 GFLOPs, which are multiply-adds.
    assert cost.num_parameters == pytest.approx(34.5e6, rel=0.005)
    assert (cost.macs or 0) / 1e9 == pytest.approx(64.5, rel=0.01)
