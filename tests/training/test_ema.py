"""The EMA of the weights: its arithmetic, its place in validation and in checkpoints."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from support.training import Clips, Data, Weights, classifier, trainer
from torch import nn

from video_mvit.evaluation.view_scores import ClipPasses, score_videos
from video_mvit.training.ema import Average, EmaWeights, ema_decay_at
from video_mvit.weights.checkpoint_files import read_weight_file


def test_first_updates_decay_faster() -> None:
    assert [ema_decay_at(0.5, n) for n in (0, 1, 8, 100)] == [0.1, 2 / 11, 0.5, 0.5]


def test_average_moves_towards_the_model_and_copies_counters() -> None:
    ema, model = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    with torch.no_grad():
        ema.weight.fill_(1), ema.running_var.fill_(4)
        model.weight.fill_(2), model.running_var.fill_(8), model.num_batches_tracked.fill_(7)
    Average(ema, model).update(0.75)
    assert ema.weight.tolist() == [1.25, 1.25]
    assert ema.running_var.tolist() == [5.0, 5.0]
    assert ema.num_batches_tracked == 7
    assert model.weight.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("accumulated", [1, 3])
def test_every_step_counts_once_and_both_are_validated(tmp_path: Path, accumulated: int) -> None:
    module, ema, weights = classifier(), EmaWeights(decay=0.5), Weights()
    expected = module.model.linear.weight.detach().clone()
    val = Clips(5, views=2)
    run = trainer(ema, weights, accumulate_grad_batches=accumulated)
    run.fit(module, datamodule=Data(Clips(6), val))
    for number, seen in enumerate(weights.seen[accumulated - 1 :: accumulated]):
        expected.lerp_(seen, 1 - ema_decay_at(0.5, number))
    assert ema.num_updates == 6 // accumulated
    path = tmp_path / "last.ckpt"
    run.save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    torch.testing.assert_close(content["ema"]["linear.weight"], expected)
    assert torch.equal(content["state_dict"]["model.linear.weight"], weights.seen[-1])
    assert not any("ema" in name for name in content["state_dict"])

    clips, labels = val.clips.flatten(0, 1), torch.arange(10) % 4
    for name, state in (("top1", module.model.state_dict()), ("ema_top1", content["ema"])):
        model = classifier().model
        model.load_state_dict(state)
        accuracy = (
            (score_videos(model, clips, nn.Identity(), ClipPasses(8)).argmax(1) == labels)
            .float()
            .mean()
        )
        assert float(run.callback_metrics[f"val/{name}"]) == pytest.approx(float(accuracy))


def test_nothing_is_said_of_an_average_before_its_first_update(tmp_path: Path) -> None:
    run = trainer(EmaWeights(), max_epochs=0)
    module = classifier()
    run.fit(module, datamodule=Data(Clips(1)))
    run.save_checkpoint(tmp_path / "last.ckpt")
    assert "ema" not in torch.load(tmp_path / "last.ckpt", weights_only=True)
    run = trainer(EmaWeights(), num_sanity_val_steps=1)
    seen = []

    class Sanity(pl.Callback):
        def on_sanity_check_end(self, trainer: pl.Trainer, *_: object) -> None:
            seen.extend(trainer.callback_metrics)

    run.callbacks.append(Sanity())
    run.fit(classifier(), datamodule=Data(Clips(1), Clips(1, views=1)))
    assert "val/top1" in seen
    assert "val/ema_top1" not in seen
    assert "val/ema_top1" in run.callback_metrics


def test_resuming_goes_on_with_the_average(tmp_path: Path) -> None:
    whole, path = EmaWeights(decay=0.5), tmp_path / "last.ckpt"
    trainer(whole, max_epochs=2).fit(classifier(), datamodule=Data(Clips(4)))
    first = trainer(EmaWeights(decay=0.5))
    first.fit(classifier(), datamodule=Data(Clips(4)))
    first.save_checkpoint(path)
    resumed, run = EmaWeights(decay=0.5), trainer(max_epochs=2)
    run.callbacks.append(resumed)
    run.fit(classifier(), datamodule=Data(Clips(4)), ckpt_path=path, weights_only=True)
    assert resumed.num_updates == whole.num_updates == 8
    for a, b in zip(whole._ema_model.parameters(), resumed._ema_model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_average_begins_with_the_weights_of_a_checkpoint_without_one(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    first = trainer()
    module = classifier()
    first.fit(module, datamodule=Data(Clips(4)))
    first.save_checkpoint(path)
    ema = EmaWeights(decay=0.5)
    run = trainer(ema, max_epochs=1)  # nothing is left to train
    run.fit(classifier(), datamodule=Data(Clips(4)), ckpt_path=path, weights_only=True)
    weights = Weights()
    ema = EmaWeights(decay=0.5)
    run = trainer(ema, weights, max_epochs=2)
    run.fit(classifier(), datamodule=Data(Clips(1)), ckpt_path=path, weights_only=True)
    before, after = module.model.linear.weight, weights.seen[0]
    expected = before.detach().lerp(after, 0.9)
    torch.testing.assert_close(ema._ema_model.linear.weight, expected)


def test_files_are_read_with_the_average_or_without(tmp_path: Path) -> None:
    path, raw, ema_weights = tmp_path / "a.ckpt", torch.zeros(2), torch.ones(2)
    about = {"class_names": ["a"], "card": {}}
    torch.save({"state_dict": {"model.w": raw}, "ema": {"w": ema_weights}, **about}, path)
    assert torch.equal(read_weight_file(path).state["w"], ema_weights)
    assert "EMA" in read_weight_file(path).container
    assert torch.equal(read_weight_file(path, "raw").state["w"], raw)


def test_decay_outside_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"decay 1 is outside \(0, 1\)"):
        EmaWeights(decay=1)
