"""FLOPs, matmul rate, peak memory, and the line at the end of an epoch."""

import csv
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import CSVLogger
from support.manual_clock import ManualClock, use_manual_clock
from support.training import OPTIM, Clips, Data, MeanColour, classifier, trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from video_mvit import create_model
from video_mvit.data.transforms.augment import Normalize
from video_mvit.host import peak_resident_memory
from video_mvit.training import progress
from video_mvit.training import throughput as speed
from video_mvit.training.classifier import Batch, VideoClassifier
from video_mvit.training.progress import EpochSummary, ProgressBar
from video_mvit.training.throughput import count_flops, matmul_rate, on_meta

# Multiply-adds of a clip's forward pass: convolutions, linear layers, attention, relative
# positions; computed from the published architecture.
SMALL_GMAC = 64.22
STEP_S = 0.06


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"activation_checkpointing": "full"}])
def test_training_step_of_small_has_three_times_the_published_products(
    options: dict[str, Any],
) -> None:
    model = create_model("mvitv2_s", **options)
    flops = count_flops(on_meta(model), torch.empty(1, 3, 16, 224, 224, device="meta"))
    assert flops == pytest.approx(3 * 2 * SMALL_GMAC * 1e9, rel=1e-3)


def test_any_model_is_counted_with_its_normalization_and_stays_as_it_is() -> None:
    model = nn.Sequential(Normalize(mean=[0.0] * 3, std=[1.0] * 3), MeanColour(6))
    before = [parameter.clone() for parameter in model.parameters()]
    clip = torch.zeros(1, 2, 3, 4, 4, dtype=torch.uint8)
    assert count_flops(on_meta(model), clip) == 3 * 2 * 3 * 6
    assert all(map(torch.equal, before, model.parameters()))
    assert model.training


def test_model_that_needs_values_is_not_counted() -> None:
    class LooksAtItsInput(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ x if x.sum() > 0 else x

    assert count_flops(on_meta(LooksAtItsInput()), torch.ones(2, 2)) is None


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_matmul_rate_is_measured_in_every_precision(precision: str) -> None:
    assert matmul_rate(torch.device("cpu"), precision) > 0


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)],
)
def test_matmul_rate_is_the_best_of_products_large_enough_to_time(
    monkeypatch: pytest.MonkeyPatch, precision: str, dtype: torch.dtype
) -> None:
    clock = use_manual_clock(monkeypatch, "video_mvit.training.throughput")
    seen, rates = [], iter([1e9] * 4 + [2e9, 3e9, 1e9] + [1e9] * 999)

    def product(a: Tensor) -> float:
        assert a.dtype == dtype
        seen.append(len(a))
        clock.sleep(0.01)
        return 2 * len(a) ** 3 / next(rates)

    monkeypatch.setattr(speed, "_timed_product", product)
    assert matmul_rate(torch.device("cpu"), precision) == pytest.approx(3e9)
    assert set(seen) == {256}  # which takes more than 10 ms at such rates
    assert clock.now_s < 1
    monkeypatch.setattr(speed, "MATMUL_SHORT_S", 0.1)
    rates = iter([1e10] * 999)
    matmul_rate(torch.device("cpu"), precision)
    assert set(seen) == {256, 512, 1024}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_grows_with_an_allocation_and_stays() -> None:
    code = (
        "import torch; from video_mvit.host import peak_resident_memory as peak;"
        "a = peak(); x = torch.ones(50_000_000); b = peak(); del x; print(b - a, peak() - b)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    grown, later = map(int, result.stdout.split())
    assert grown == pytest.approx(200e6, rel=0.1)
    assert later > -1e6  # the kernel counts in batches
    assert peak_resident_memory() > 50e6


class Sleepy(Dataset[Batch]):
    """Batches of two samples of one video, each of which takes a while to load."""

    def __init__(self, clock: ManualClock, num_batches: int, time_s: float = 0.0) -> None:
        self.clock, self.num_batches, self.time_s = clock, num_batches, time_s

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, index: int) -> Batch:
        self.clock.sleep(self.time_s)
        return Batch(torch.zeros(2, 3, 2, 4, 4), torch.tensor([1, 1]), torch.tensor([0, 0]))


class SleepyClassifier(VideoClassifier):
    clock: ManualClock

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.clock.sleep(STEP_S)
        return super().training_step(batch, batch_idx)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    return use_manual_clock(
        monkeypatch, "video_mvit.training.progress", "video_mvit.training.data_wait"
    )


def fit(
    tmp_path: Path, clock: ManualClock, loaders: list[DataLoader[Batch]], **options: Any
) -> None:
    callbacks = [*options.pop("callbacks", []), EpochSummary()]
    trainer = pl.Trainer(
        accelerator="cpu",
        callbacks=callbacks,
        logger=CSVLogger(tmp_path, name="metrics", version=0),
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    parts = {"preprocess": nn.Identity(), "optim": OPTIM, "num_classes": 6}
    classifier = SleepyClassifier(MeanColour(6), **parts)
    classifier.clock = clock
    trainer.fit(classifier, *loaders)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="video_mvit.training.progress")
    return caplog


def logged(tmp_path: Path, name: str) -> list[float]:
    with (tmp_path / "metrics" / "version_0" / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


@pytest.mark.parametrize(("load_s", "expected"), [(0.09, 0.6), (0.0, 0.0)])
def test_epoch_says_the_share_of_waiting_for_data(
    said: pytest.LogCaptureFixture,
    tmp_path: Path,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    load_s: float,
    expected: float,
) -> None:
    monkeypatch.setattr(progress, "matmul_rate", lambda *_: 1e6)
    monkeypatch.setattr(progress, "num_usable_cores", lambda: 1)
    fit(tmp_path, clock, [DataLoader(Sleepy(clock, 8, load_s), batch_size=None)], max_epochs=2)
    assert logged(tmp_path, "speed/data_wait_fraction") == pytest.approx([expected] * 2)
    rate = logged(tmp_path, "speed/clips_per_s")
    assert rate == pytest.approx([2 / (STEP_S + load_s)] * 2)
    assert len(logged(tmp_path, "speed/peak_memory_gb")) == 2
    flops = 3 * 2 * 3 * 6 * rate[1]  # of one linear layer
    assert logged(tmp_path, "speed/mfu")[1] == pytest.approx(flops / 1e6)

    lines = [text for name, _, text in said.record_tuples if name == "video_mvit.training.progress"]
    first = lines[0]
    assert first.startswith("epoch 1/2  loss ")
    assert f"  {rate[0]:.0f} clips/s  " in first
    assert re.search(r"MFU \d+ %$", first)
    advice = [line for line in lines if line.startswith("data wait: data.num_workers=0")]
    assert len(advice) == (expected > 0)  # once, though both epochs waited
    assert len(lines) == 2 + len(advice)


@pytest.mark.parametrize(
    ("options", "expected"), [({"max_steps": 3, "max_epochs": -1}, "epoch 1 "), ({}, "epoch 1/1 ")]
)
def test_progress_bar_counts_epochs_only_to_an_end_that_is_known(
    options: dict[str, int], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = ProgressBar()
    bar.enable()
    run = trainer(bar, enable_progress_bar=True, **options)
    run.fit(classifier(), datamodule=Data(Clips(4)))
    printed = capsys.readouterr().out
    assert expected in printed
    assert "/-" not in printed


def test_epoch_says_only_validation_results_of_its_own(
    said: pytest.LogCaptureFixture, tmp_path: Path, clock: ManualClock
) -> None:
    """The third epoch ends early, by steps, without a validation."""
    loaders = [
        DataLoader(Sleepy(clock, 4, 0.0), batch_size=None),
        DataLoader(Clips(2, views=1), batch_size=None),
    ]
    fit(tmp_path, clock, loaders, max_epochs=-1, max_steps=10)
    lines = [line for line in said.messages if line.startswith("epoch ")]
    assert [line.split("  ")[0] for line in lines] == [
        "epoch 1, step 4/10",
        "epoch 2, step 8/10",
        "epoch 3, step 10/10",
    ]
    assert ["val/top1" in line for line in lines] == [True, True, False]


@pytest.mark.slow
def test_validation_and_checkpoints_within_an_epoch_are_no_waiting(
    tmp_path: Path, clock: ManualClock
) -> None:
    class Slow(Checkpoint):  # such callbacks come last
        def on_validation_epoch_start(self, *_: object) -> None:
            clock.sleep(0.5)

        def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
            trainer.save_checkpoint(tmp_path / "x.ckpt")
            clock.sleep(0.03)

    views = Batch(torch.zeros(2, 1, 3, 2, 4, 4), torch.tensor([1, 1]), torch.tensor([0, 0]))
    train = DataLoader(Sleepy(clock, 8), batch_size=None)
    loaders = [train, DataLoader([views], batch_size=None)]
    fit(tmp_path, clock, loaders, max_epochs=1, val_check_interval=2, callbacks=[Slow()])
    assert logged(tmp_path, "speed/data_wait_fraction") == [0.0]
    training_s = 8 * STEP_S + 7 * 0.03  # with what is written between batches
    assert logged(tmp_path, "speed/clips_per_s") == pytest.approx([16 / training_s])


def test_network_that_needs_values_is_left_out_of_the_line(
    said: pytest.LogCaptureFixture,
    tmp_path: Path,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forward(self: MeanColour, clip: Tensor) -> Tensor:
        return self.linear(clip.mean((2, 3, 4))) * float(clip.mean())

    monkeypatch.setattr(MeanColour, "forward", forward)
    fit(tmp_path, clock, [DataLoader(Sleepy(clock, 2), batch_size=None)], max_epochs=1)
    line = next(text for text in said.messages if text.startswith("epoch 1/1"))
    assert line.endswith(" GB")
