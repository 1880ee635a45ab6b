"""Parts that are frozen in the first epochs: what is trained when, resumed, and on two ranks."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from support.processes import run_ranks
from support.training import Clips, Data, trainer
from torch import Tensor, nn

from video_mvit.errors import UserError
from video_mvit.training.checkpoints import Checkpoint
from video_mvit.training.classifier import Batch, VideoClassifier
from video_mvit.training.ema import EmaWeights
from video_mvit.training.freezing import FreezingSchedule, freeze_parts
from video_mvit.training.optim import OptimConfig

OPTIM: dict[str, Any] = {
    "name": "adamw",
    "lr": 1e-2,
    "start_lr": 1e-2,
    "end_lr": 1e-3,
    "num_epochs": 4,
    "warmup_epochs": 0,
    "weight_decay": 0.05,
}
SCHEDULE = {"low": 2, "middle.0": 1}


class Layers(nn.Module):
    """Three parts, two of them with running statistics: (B, 3, T, H, W) -> (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4))
        self.middle = nn.Sequential(nn.Conv3d(4, 4, 1), nn.BatchNorm3d(4))
        self.head = nn.Linear(4, 4)

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.middle(self.low(clip)).mean((2, 3, 4)))  # type: ignore[no-any-return]


class SameClips(Clips):
    """The same batch again and again: loaders here begin anew where a run is resumed."""

    def __getitem__(self, index: int) -> Batch:
        return super().__getitem__(0)


class Seen(pl.Callback):
    """The weights, what is in training mode, and rates at the end of each epoch; each loss."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.modes: list[tuple[bool, bool]] = []
        self.rates: list[set[float]] = []
        self.losses: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *_: Any
    ) -> None:
        self.losses.append(float(outputs["loss"]))
        self.modes.append((pl_module.model.low.training, pl_module.model.middle[0].training))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        state = pl_module.model.state_dict()
        self.weights.append({name: tensor.clone() for name, tensor in state.items()})
        self.rates.append({group["lr"] for group in trainer.optimizers[0].param_groups})


def module(**options: Any) -> VideoClassifier:
    torch.manual_seed(0)
    optim = OptimConfig(**{**OPTIM, "freeze_epochs": SCHEDULE, **options})
    return VideoClassifier(Layers(), num_classes=4, preprocess=nn.Identity(), optim=optim)


def fitted(
    *callbacks: pl.Callback, path: Path | None = None, clips: Clips | None = None, **options: Any
) -> tuple[VideoClassifier, Seen, pl.Trainer]:
    """Three epochs of two steps each."""
    trained, seen = module(), Seen()
    fit = trainer(seen, *callbacks, **{"max_epochs": 3, **options})
    fit.fit(
        trained, Data(clips or SameClips(2), Clips(1, views=1)), ckpt_path=path, weights_only=True
    )
    return trained, seen, fit


def changed(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    """Names of the parts with other weights or statistics."""
    names = {name for name, tensor in one.items() if not torch.equal(tensor, other[name])}
    return {name.rpartition(".")[0] for name in names}


def test_parts_are_trained_from_their_epoch_on_and_join_the_schedule() -> None:
    before = module().model.state_dict()
    trained, seen, fit = fitted()
    rest = {"middle.1", "head"}  # middle.0 alone is frozen in the first epoch
    assert changed(before, seen.weights[0]) == rest
    assert changed(seen.weights[0], seen.weights[1]) == rest | {"middle.0"}
    assert changed(seen.weights[1], seen.weights[2]) == rest | {"middle.0", "low.0", "low.1"}
    assert seen.modes == [(False, False)] * 2 + [(False, True)] * 2 + [(True, True)] * 2
    assert all(len(rates) == 1 for rates in seen.rates)
    # Each parameter has a state of as many steps as it was trained.
    names = {id(each): name for name, each in trained.model.named_parameters()}
    steps = {names[id(each)]: int(state["step"]) for each, state in fit.optimizers[0].state.items()}
    assert (steps["head.weight"], steps["middle.0.weight"], steps["low.0.weight"]) == (6, 4, 2)


@pytest.mark.parametrize("num_steps", [2, 3, 4, 5])
def test_run_is_resumed_exactly_before_and_after_a_thaw(num_steps: int, tmp_path: Path) -> None:
    whole, seen, _ = fitted(EmaWeights())
    saving = Checkpoint(dirpath=str(tmp_path), filename="stopped", every_n_train_steps=1)
    fitted(EmaWeights(), saving, enable_checkpointing=True, max_steps=num_steps)
    again, later, _ = fitted(EmaWeights(), path=tmp_path / "stopped.ckpt")
    assert later.losses == seen.losses[num_steps:]
    assert later.modes == seen.modes[num_steps:]
    assert changed(whole.model.state_dict(), again.model.state_dict()) == set()


def states_of_ranks() -> tuple[dict[str, Tensor], list[float]]:
    trained, seen, _ = fitted(clips=Clips(4), devices=2, strategy="ddp")
    return trained.model.state_dict(), seen.losses


@pytest.mark.slow
def test_ranks_share_the_gradients_of_thawed_parts() -> None:
    """Each rank has other clips, so that weights would differ where gradients are not shared."""
    (one, losses), (other, other_losses) = run_ranks(states_of_ranks, 2)
    assert losses != other_losses
    parameters = {name for name, _ in Layers().named_parameters()}
    assert all(
        torch.equal(tensor, other[name]) for name, tensor in one.items() if name in parameters
    )
    before = module().model.state_dict()
    assert changed(before, one) == {"low.0", "low.1", "middle.0", "middle.1", "head"}


def test_what_is_frozen_for_good_is_not_thawed() -> None:
    network = Layers()
    freeze_parts(network, ["low.0"])
    schedule = FreezingSchedule(network, {"low": 1, "low.1": 2})
    schedule.begin_epoch(1)
    assert schedule.frozen_modules() == [network.low[1]]
    schedule.begin_epoch(2)
    trained = {name for name, each in network.named_parameters() if each.requires_grad}
    assert not {name for name in trained if name.startswith("low.0")}
    assert {"low.1.weight", "low.1.bias"} <= trained


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            {"low": 0},
            r"freezes low in 0 epochs, expected a number from 1 to 3; optim.freeze=\[low\]",
        ),
        ({"low": 4}, "freezes low in 4 epochs"),
        ({"low": 1.5}, "freezes low in 1.5 epochs"),
        ({"lower": 1}, "optim.freeze_epochs names lower which the network does not have"),
        ({"low": 1, "middle": 1, "head": 1}, "leaves nothing to train at first"),
    ],
)
def test_schedule_that_cannot_be_is_refused(schedule: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        module(freeze_epochs=schedule)
