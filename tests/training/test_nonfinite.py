"""A NaN or Inf loss never reaches the weights: the run stops, or the step is skipped."""

from pathlib import Path

import pytest
import torch
from support.training import Clips, Data, Weights, classifier, trainer

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
