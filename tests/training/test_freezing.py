"""Frozen parts: no gradient, no optimizer state, evaluation mode, and names that are checked."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.processes import run_ranks
from support.training import Clips, Data, classifier, trainer
from torch import nn

import video_mvit
from video_mvit.errors import UserError
from video_mvit.training.checkpoints import Checkpoint
from video_mvit.training.classifier import VideoClassifier
from video_mvit.training.freezing import describe_freezing, freeze_parts
from video_mvit.training.optim import OptimConfig, build_optimizer, parameter_groups

OPTIM: dict[str, Any] = {
    "name": "adamw",
    "lr": 1e-2,
    "start_lr": 1e-2,
    "end_lr": 1e-2,
    "num_epochs": 3,
    "warmup_epochs": 0,
    "weight_decay": 0.05,
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return video_mvit.create_model(
        "mvitv2_s",
        depths=[1, 1, 1, 1],
        embed_dim=16,
        crop_size=32,
        num_frames=4,
        num_classes=4,
        drop_path_rate=0.5,
    )


def test_parts_are_named_as_the_network_names_them() -> None:
    model = network()
    frozen = freeze_parts(model, ["patch_embed", "blocks.0-1", "blocks.2-3.attn.rel_pos_t"])
    assert frozen == [model.patch_embed, model.blocks[0], model.blocks[1]]
    expected = ("patch_embed.", "blocks.0.", "blocks.1.", "blocks.2.attn.rel_pos_t")
    for name, parameter in model.named_parameters():
        is_frozen = name.startswith((*expected, "blocks.3.attn.rel_pos_t"))
        assert parameter.requires_grad is not is_frozen, name
    total = sum(each.numel() for each in model.parameters())
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    told = describe_freezing(model)
    assert told.startswith(f"frozen: {total - trained:,} of {total:,} parameters")
    assert "cls_token below them is trained" in told
    freeze_parts(model, ["cls_token"])
    assert "cls_token" not in describe_freezing(model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("block", "names block which the network does not have; it has cls_token, patch_embed, "),
        ("blocks.4", "names blocks.4 which the network does not have; blocks has 0 to 3"),
        ("blocks.2-4", "names blocks.4, of blocks.2-4, which the network does not have"),
        ("blocks.0.attention", r"blocks\.0 has norm1, attn"),
        ("blocks.2-1", "2-1 is no range from a number to a larger one"),
        ("blocks.0-99999999999", "is no range"),
        ("", "it has cls_token"),
    ],
)
def test_part_that_is_not_there_is_refused_with_those_that_are(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        freeze_parts(network(), [name])


def test_something_must_be_left_to_train() -> None:
    with pytest.raises(UserError, match="leaves nothing to train"):
        freeze_parts(nn.Sequential(nn.Linear(2, 2)), ["0"])


def test_optimizer_holds_no_frozen_parameter_and_layers_keep_their_rates() -> None:
    free, model = network(), network()
    rates = {
        name: group["lr_scale"]
        for group in parameter_groups(free, 0.05, 0.5)
        for name, parameter in free.named_parameters()
        if any(parameter is each for each in group["params"])
    }
    freeze_parts(model, ["patch_embed", "blocks.3"])
    config = OptimConfig(**OPTIM, layer_decay=0.5, freeze=["patch_embed", "blocks.3"])
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        named[id(each)]: group["lr_scale"]
        for group in build_optimizer(model, config).param_groups
        for each in group["params"]
    }
    expected = {
        name: rate
        for name, rate in rates.items()
        if not name.startswith(("patch_embed.", "blocks.3."))
    }
    assert found == expected


class WithNorm(nn.Module):
    """Something with running statistics and a head: (B, 3, T, H, W) -> (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4))
        self.head = nn.Linear(4, 4)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(clip).mean((2, 3, 4)))


def module(freeze: list[str]) -> VideoClassifier:
    torch.manual_seed(0)
    return VideoClassifier(
        WithNorm(),
        num_classes=4,
        preprocess=nn.Identity(),
        optim=OptimConfig(**OPTIM, freeze=freeze),
    )


def trained(freeze: list[str], num_ranks: int = 1) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Weights after three epochs with validation, and what the optimizer holds a state of."""
    classified = module(freeze)
    fitted = trainer(max_epochs=3, devices=num_ranks, strategy="ddp" if num_ranks > 1 else "auto")
    fitted.fit(classified, Data(Clips(4), Clips(2, views=1)))
    assert not freeze or not classified.model.stem.training
    state = fitted.optimizers[0].state
    return classified.model.state_dict(), [each.numel() for each in state]


@pytest.mark.parametrize("num_ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_frozen_parts_stay_to_the_last_bit_and_the_rest_is_trained(num_ranks: int) -> None:
    """Also the running statistics, which a part in training mode would change without gradients."""
    before = module([]).model.state_dict()
    ranks = run_ranks(trained, 2, ["stem"], 2) if num_ranks > 1 else [trained(["stem"])]
    for weights, states in ranks:
        for name, tensor in before.items():
            assert torch.equal(weights[name], tensor) is name.startswith("stem."), name
        assert sorted(states) == [4, 16]


def test_frozen_parts_stay_in_evaluation_mode_whoever_asks_for_training() -> None:
    frozen = module(["stem.1"]).train()
    assert frozen.model.training
    assert frozen.model.stem[0].training
    assert not frozen.model.stem[1].training


def test_run_is_resumed_with_the_parts_that_it_had(tmp_path: Path) -> None:
    saving = Checkpoint(dirpath=str(tmp_path), filename="last", save_on_train_epoch_end=True)
    trainer(saving, enable_checkpointing=True).fit(module(["stem"]), Data(Clips(2)))
    options = {"ckpt_path": tmp_path / "last.ckpt", "weights_only": True}
    trainer(max_epochs=2).fit(module(["stem"]), Data(Clips(2)), **options)
    with pytest.raises(UserError, match=r"optim.freeze is \[\], but the run to resume had other"):
        trainer(max_epochs=2).fit(module([]), Data(Clips(2)), **options)


def test_nothing_is_frozen_by_default() -> None:
    assert all(each.requires_grad for each in classifier().parameters())
    assert classifier().freeze_names == []
