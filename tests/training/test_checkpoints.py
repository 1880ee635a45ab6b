"""A kill or a full disk at any moment of writing leaves the previous checkpoint usable."""

import errno
import io
import os
import resource
import signal
from pathlib import Path
from typing import BinaryIO

import pytest
import pytorch_lightning as pl
import torch
from support.processes import TIMEOUT_S, fresh_processes
from torch import Tensor, nn
from torch.utils.data import DataLoader

from video_mvit.training.checkpoints import (
    AtomicCheckpointIO,
    Checkpoint,
    StepCheckpoint,
    is_whole_step,
    save_atomically,
)


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_half_way(content: object, file: BinaryIO) -> None:
    buffer = io.BytesIO()
    SAVE(content, buffer)
    file.write(buffer.getvalue()[: buffer.tell() // 2])
    file.flush()
    die()


def write_and_die(path: Path, moment: str) -> None:
    setattr(*DEATHS[moment])
    save_atomically({"step": 2, "weights": torch.ones(1000)}, path)


SAVE = torch.save
DEATHS = {
    "writing": (torch, "save", die_half_way),
    "flushing": (os, "fsync", die),
    "renaming": (Path, "replace", die),
    "renamed": (os, "open", die),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "step"), [("writing", 1), ("flushing", 1), ("renaming", 1), ("renamed", 2)]
)
def test_kill_while_writing_leaves_a_whole_checkpoint(
    tmp_path: Path, moment: str, step: int
) -> None:
    path = tmp_path / "last.ckpt"
    save_atomically({"step": 1, "weights": torch.zeros(1000)}, path)
    process = fresh_processes().Process(target=write_and_die, args=(path, moment))
    process.start()
    process.join(TIMEOUT_S)
    assert process.exitcode == -signal.SIGKILL
    content = torch.load(path, weights_only=True)
    assert content["step"] == step
    assert (content["weights"] == step - 1).all()
    save_atomically({"step": 3}, path)  # what the killed one left is no obstacle
    assert torch.load(path, weights_only=True) == {"step": 3}
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]


def test_full_disk_keeps_the_previous_checkpoint_and_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writer, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    writer.save_checkpoint({"step": 1}, path)
    with monkeypatch.context() as full:

        def no_space(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        full.setattr(os, "fsync", no_space)
        writer.save_checkpoint({"step": 2}, path)
    assert "No space left on device; the previous checkpoint is kept" in caplog.text
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]
    with pytest.raises(ValueError, match="is kept; free some space and resume"):
        writer.raise_problem()
    path.unlink()
    with pytest.raises(ValueError, match="free some space and train again"):
        writer.raise_problem()
    writer.save_checkpoint({"step": 3}, path)
    writer.raise_problem()
    assert torch.load(path, weights_only=True) == {"step": 3}


class Scores(pl.LightningModule):
    """Logs a given accuracy in each epoch."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.layer, self.scores = nn.Linear(1, 1), scores

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.layer(batch).sum()

    def on_train_epoch_end(self) -> None:
        self.log("val/top1", self.scores[self.current_epoch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_what_was_not_written_is_not_the_best_and_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full in the second of three epochs, the best one."""

    class Full(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, *_: object) -> None:
            def fsync(_: int) -> None:
                if trainer.current_epoch == 1:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr(os, "fsync", fsync)

    options = {"dirpath": tmp_path, "mode": "max", "enable_version_counter": False}
    best = Checkpoint(filename="best", monitor="val/top1", save_on_train_epoch_end=True, **options)
    kept = Checkpoint(
        filename="e{epoch:03d}",
        auto_insert_metric_name=False,
        monitor="step",
        save_on_train_epoch_end=True,
        **options,
    )
    writer = AtomicCheckpointIO()
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[Full(), best, kept],
        plugins=[writer],
        logger=False,
        enable_progress_bar=False,
    )
    present = []
    monkeypatch.setattr(
        Scores, "on_train_epoch_start", lambda _: present.append(sorted(os.listdir(tmp_path)))
    )
    trainer.fit(Scores([0.5, 0.9, 0.7]), DataLoader(torch.zeros(2, 1), batch_size=1))
    assert present[1:] == [["best.ckpt", "e000.ckpt"]] * 2
    assert sorted(os.listdir(tmp_path)) == ["best.ckpt", "e002.ckpt"]
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] == 2
    assert float(best.best_model_score) == pytest.approx(0.7)
    with pytest.raises(ValueError, match=r"cannot write .*e001\.ckpt"):  # it was never written
        writer.raise_problem()


def test_what_the_disk_says_is_not_hidden_by_torch(tmp_path: Path) -> None:
    """A limit on the size of files, reached in the middle of a tensor."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_atomically({"weights": torch.zeros(1_000_000)}, tmp_path / "last.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


class Counter(pl.LightningModule):
    """The least that can be trained; notes at which batches a checkpoint was written."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.saved_at, self.batch_idx = nn.Linear(1, 1), [], -1

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.batch_idx = batch_idx
        return self.layer(batch).sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.batch_idx = 100

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        self.saved_at.append((self.current_epoch, self.batch_idx))


def test_checkpoints_are_of_whole_steps_and_before_validation(tmp_path: Path) -> None:
    """Asked for at every step: of eight batches, three a step, the last step has two."""
    module, loader = Counter(), DataLoader(torch.zeros(8, 1), batch_size=1)
    saves = StepCheckpoint(
        dirpath=tmp_path, filename="last", every_n_train_steps=1, enable_version_counter=False
    )
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        accumulate_grad_batches=3,
        callbacks=[saves],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, loader, loader)
    assert module.saved_at == [(epoch, batch) for epoch in (0, 1) for batch in (2, 5, 7)]
    assert [is_whole_step(trainer, i) for i in range(8)] == [i in (2, 5, 7) for i in range(8)]
