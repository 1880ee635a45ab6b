"""A NaN or Inf loss never reaches the weights: the run stops, or the step is skipped."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from support.training import OPTIM, Clips, Data, Weights, classifier, trainer
from torch import Tensor

from video_mvit.training.classifier import VideoClassifier
from video_mvit.training.nonfinite import NonFiniteLossGuard


def test_infinite_loss_stops_before_its_step(tmp_path: Path) -> None:
    module, weights = classifier(), Weights()
    with pytest.raises(ValueError, match="the loss is nan in epoch 1, batch 3, at a") as error:
        trainer(NonFiniteLossGuard(str(tmp_path)), weights).fit(
            module, datamodule=Data(Clips(5, bad=(2,)))
        )
    assert "/videos/4.mp4, /videos/5.mp4" in str(error.value)
    assert torch.equal(module.model.linear.weight, weights.seen[1])  # of the step before
    saved = torch.load(tmp_path / "bad_batch_rank0.pt", weights_only=True)
    assert saved["files"] == ["/videos/4.mp4", "/videos/5.mp4"]
    assert (saved["clip"] == torch.inf).all()
    assert saved["batch_idx"] == 2


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_single_bad_steps_are_left_out_and_counted(
    tmp_path: Path, name: str, accumulated: int, caplog: pytest.LogCaptureFixture
) -> None:
    """As if the batches of the step had never been; two more are too many."""
    guard, weights = NonFiniteLossGuard(str(tmp_path), max_skipped=1), Weights()
    options = {"accumulate_grad_batches": accumulated, "gradient_clip_val": 1.0}
    module = classifier()
    object.__setattr__(module.optim, "name", name)
    trainer(guard, weights, **options).fit(module, datamodule=Data(Clips(6, bad=(3,))))
    first = 3 - 3 % accumulated  # of the step that is skipped
    assert torch.equal(weights.seen[first - 1], weights.seen[first + accumulated - 1])
    assert not torch.equal(weights.seen[first - 1], weights.seen[-1])
    assert torch.isfinite(weights.seen[-1]).all()
    assert guard.state_dict() == {"num_skipped": 1}
    assert "step skipped (1 of at most 1)" in caplog.text

    resumed = NonFiniteLossGuard(str(tmp_path), max_skipped=1)
    resumed.load_state_dict(guard.state_dict())
    with pytest.raises(ValueError, match=r"batch 1, .*; 1 such steps were skipped; no checkpoint"):
        trainer(resumed, **options).fit(classifier(), datamodule=Data(Clips(2, bad=(0,))))


class Save(pl.Callback):
    """Saves a checkpoint after each batch, in the very step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        trainer.save_checkpoint(self.path)


def adamw(**overrides: Any) -> VideoClassifier:
    return classifier(optim=replace(OPTIM, name="adamw"), **overrides)


def test_checkpoint_of_the_very_step_is_not_written(tmp_path: Path) -> None:
    """The host has not read yet that the device left it out."""
    path = tmp_path / "last.ckpt"
    with pytest.raises(ValueError, match="the loss is nan in epoch 1, batch 3, at a"):
        trainer(NonFiniteLossGuard(str(tmp_path)), Save(path)).fit(
            adamw(), datamodule=Data(Clips(5, bad=(2,)))
        )
    content = torch.load(path, weights_only=True)
    assert content["global_step"] == 2
    assert all(each.isfinite().all() for each in content["state_dict"].values())


def test_skipped_step_is_counted_in_its_own_checkpoint(tmp_path: Path) -> None:
    guard, path = NonFiniteLossGuard(str(tmp_path), max_skipped=1), tmp_path / "last.ckpt"
    trainer(guard, Save(path)).fit(adamw(), datamodule=Data(Clips(3, bad=(2,))))
    content = torch.load(path, weights_only=True)
    assert {"num_skipped": 1} in content["callbacks"].values()


def test_bad_last_step_stops_too(tmp_path: Path) -> None:
    module, weights = adamw(), Weights()
    with pytest.raises(ValueError, match="the loss is nan in epoch 1, batch 3"):
        trainer(NonFiniteLossGuard(str(tmp_path)), weights).fit(
            module, datamodule=Data(Clips(3, bad=(2,)))
        )
    assert torch.equal(module.model.linear.weight, weights.seen[1])


def test_device_leaves_out_weights_and_state_of_the_optimizer(tmp_path: Path) -> None:
    """As if the batches had never been."""
    states = []
    for bad in ((2, 3), ()):
        module, clips = adamw(), Clips(5, bad=bad)
        if not bad:
            clips.clips = clips.clips[[0, 1, 4]]  # whose labels repeat after two batches
        run = trainer(NonFiniteLossGuard(str(tmp_path), max_skipped=2))
        run.fit(module, datamodule=Data(clips))
        states.append([*module.parameters(), *_state_of(run.optimizers[0])])
    for found, expected in zip(*states, strict=True):
        torch.testing.assert_close(found, expected)


def _state_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [value for state in optimizer.state.values() for value in state.values()]


def test_scaler_of_half_precision_lets_a_bad_step_pass(tmp_path: Path) -> None:
    """The gradients that the scaler has looked at are gone when it is to make its step."""
    from pytorch_lightning.plugins import MixedPrecision

    scaler = torch.amp.GradScaler("cpu")
    plugins = [MixedPrecision("16-mixed", "cpu", scaler)]
    weights = Weights()
    fp16 = trainer(NonFiniteLossGuard(str(tmp_path), max_skipped=1), weights, plugins=plugins)
    fp16.fit(classifier(), datamodule=Data(Clips(4, bad=(1,))))
    assert torch.equal(weights.seen[0], weights.seen[1])
    assert not torch.equal(weights.seen[1], weights.seen[2])


def test_weights_that_are_no_numbers_are_not_written(tmp_path: Path) -> None:
    module, guard = classifier(), NonFiniteLossGuard(str(tmp_path))
    run = trainer(guard)
    run.fit(module, datamodule=Data(Clips(1)))
    run.save_checkpoint(tmp_path / "last.ckpt")
    with torch.no_grad():
        module.model.linear.bias[2] = torch.nan
    with pytest.raises(ValueError, match=r"model\.linear\.bias has NaN or Inf values"):
        run.save_checkpoint(tmp_path / "last.ckpt")
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.isfinite(state["model.linear.bias"]).all()


def test_a_batch_that_cannot_be_saved_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    with pytest.raises(ValueError, match=r"the batch cannot be saved as .*gone.*; files: "):
        trainer(NonFiniteLossGuard(str(folder))).fit(
            classifier(), datamodule=Data(Clips(1, bad=(0,)))
        )
