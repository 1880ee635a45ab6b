"""A run that gets a signal finishes its step, saves itself, and says how it ended."""

import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from support.training import Batch, Clips, Data, Weights, classifier, trainer

from video_mvit.training.checkpoints import Checkpoint, MissedValidation, StepCheckpoint
from video_mvit.training.ema import EmaWeights
from video_mvit.training.preemption import (
    EXIT_INTERRUPTED,
    EXIT_PREEMPTED,
    GracefulShutdown,
    end_loader_processes,
    requeue,
)


class Send(pl.Callback):
    """Sends a signal to this process at the start of a batch of training or validation."""

    def __init__(self, number: int, step: int, stage: str = "train") -> None:
        self.number, self.step, self.stage, self.seen = number, step, stage, []

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        self.seen.append(trainer.global_step)
        if self.stage == "train" and len(self.seen) == self.step:
            os.kill(os.getpid(), self.number)

    def on_validation_batch_start(self, *_: object) -> None:
        if self.stage == "val":
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("accumulated", [1, 3])
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, EXIT_PREEMPTED),
        (signal.SIGUSR1, EXIT_PREEMPTED),
        (signal.SIGINT, EXIT_INTERRUPTED),
    ],
)
def test_run_is_saved_after_the_step_and_goes_on_from_there(
    tmp_path: Path, number: int, code: int, accumulated: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before, options = signal.getsignal(number), {"accumulate_grad_batches": accumulated}
    whole = Weights()
    trainer(EmaWeights(), whole, **options).fit(classifier(), datamodule=Data(Clips(9)))
    send, stop = Send(number, step=5), GracefulShutdown(str(tmp_path))
    with pytest.raises(SystemExit) as end:
        trainer(EmaWeights(), send, stop, **options).fit(classifier(), datamodule=Data(Clips(9)))
    assert end.value.code == code
    assert signal.getsignal(number) == before
    last_batch = 5 if accumulated == 1 else 6  # of the step in which the signal came
    assert len(send.seen) == last_batch
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    num_steps = last_batch // accumulated
    assert content["global_step"] == num_steps
    assert torch.equal(content["state_dict"]["model.linear.weight"], whole.seen[last_batch - 1])
    updates = [s["num_updates"] for s in content["callbacks"].values() if "num_updates" in s]
    assert updates == [num_steps]
    assert f"interrupted ({signal.Signals(number).name}): checkpoint saved at step {num_steps}" in (
        caplog.text
    )


class Validated(pl.Callback):
    """Epochs whose validation came to its end."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def on_validation_end(self, trainer: pl.Trainer, *_: object) -> None:
        self.epochs.append(trainer.current_epoch)


def saving(folder: Path) -> list[pl.Callback]:
    best = Checkpoint(
        dirpath=folder,
        filename="best",
        monitor="val/top1",
        mode="max",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    recent = StepCheckpoint(dirpath=folder, filename="last", enable_version_counter=False)
    return [MissedValidation(), GracefulShutdown(str(folder)), best, recent]


@pytest.mark.parametrize("max_epochs", [1, 2])
def test_signal_in_validation_ends_at_once_and_loses_nothing(
    tmp_path: Path, max_epochs: int
) -> None:
    """Resuming validates first, also after the last epoch, and knows the best of it."""
    send, data = Send(signal.SIGTERM, 0, "val"), Data(Clips(4), Clips(3, views=1))
    options = {"enable_checkpointing": True, "max_epochs": max_epochs}
    with pytest.raises(SystemExit) as end:
        trainer(send, *saving(tmp_path), **options).fit(classifier(), datamodule=data)
    assert end.value.code == EXIT_PREEMPTED
    last, best = tmp_path / "last.ckpt", tmp_path / "best.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 4
    assert not best.exists()
    validated, steps = Validated(), Send(signal.SIGTERM, 0)
    run = trainer(validated, steps, *saving(tmp_path), **options)
    run.fit(classifier(), datamodule=data, ckpt_path=last, weights_only=True)
    assert len(validated.epochs) == max_epochs
    assert steps.seen == [4, 5, 6, 7][: 4 * (max_epochs - 1)]
    assert best.exists()


def test_signal_in_validation_within_an_epoch_is_saved_too(tmp_path: Path) -> None:
    send, data = Send(signal.SIGTERM, 0, "val"), Data(Clips(4), Clips(3, views=1))
    options = {"enable_checkpointing": True, "val_check_interval": 2}
    with pytest.raises(SystemExit):
        trainer(send, *saving(tmp_path), **options).fit(classifier(), datamodule=data)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.parametrize(("max_steps", "expected"), [(6, [0, 1]), (8, [0, 1]), (3, [0])])
def test_training_that_ends_by_steps_validates_its_last_weights(
    tmp_path: Path, max_steps: int, expected: list[int]
) -> None:
    """Within an epoch of four, too; what is saved knows the result."""
    validated, data = Validated(), Data(Clips(4), Clips(3, views=1))
    options = {"enable_checkpointing": True, "max_steps": max_steps, "max_epochs": -1}
    run = trainer(validated, *saving(tmp_path), **options)
    run.fit(classifier(), datamodule=data)
    assert validated.epochs == expected
    assert run.global_step == max_steps
    assert (tmp_path / "best.ckpt").exists()
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert (last["global_step"], last["validation_is_due"]) == (max_steps, True)


def test_whoever_waits_for_a_signal_is_told_once_all_is_saved(tmp_path: Path) -> None:
    """submitit queues a job again when it is sent SIGUSR2."""
    told = []

    def requeued(number: int, _: object) -> None:
        told.append((number, (tmp_path / "last.ckpt").exists()))

    before = signal.signal(signal.SIGUSR2, requeued)
    try:
        with pytest.raises(SystemExit) as end:
            trainer(Send(signal.SIGUSR2, 2), GracefulShutdown(str(tmp_path))).fit(
                classifier(), datamodule=Data(Clips(4))
            )
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert end.value.code == EXIT_PREEMPTED
    assert told == [(signal.SIGUSR2, True)]


def test_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    class Twice(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
            for _ in range(2 * trainer.global_step):  # in the second step
                os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as end:
        trainer(Twice(), GracefulShutdown(str(tmp_path))).fit(
            classifier(), datamodule=Data(Clips(4))
        )
    signal.signal(signal.SIGINT, handler)  # the trainer has switched it off
    assert end.value.code == 1
    assert not (tmp_path / "last.ckpt").exists()


def scontrol(folder: Path, exit_code: int) -> str:
    path = folder / "scontrol"
    path.write_text(f'#!/bin/sh\necho "$@" > {folder}/asked\nexit {exit_code}\n')
    path.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        ({"SLURM_JOB_ID": "12"}, "12"),
        ({"SLURM_JOB_ID": "14", "SLURM_ARRAY_JOB_ID": "13", "SLURM_ARRAY_TASK_ID": "1"}, "13_1"),
    ],
)
def test_job_of_slurm_is_put_into_the_queue_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], job: str
) -> None:
    monkeypatch.setenv("PATH", scontrol(tmp_path, 0))
    assert requeue(environment) == f"; job {job} is requeued"
    assert (tmp_path / "asked").read_text().split() == ["requeue", job]


def test_refusal_of_slurm_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", scontrol(tmp_path, 1))
    assert requeue({"SLURM_JOB_ID": "12"}) == ""
    assert "job 12 could not be requeued" in caplog.text
    assert requeue({}) == ""


@pytest.mark.parametrize(("number", "is_asked"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_only_a_job_whose_time_is_up_asks_for_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, is_asked: bool
) -> None:
    monkeypatch.setenv("PATH", scontrol(tmp_path, 0))
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with pytest.raises(SystemExit):
        trainer(Send(number, 1), GracefulShutdown(str(tmp_path))).fit(
            classifier(), datamodule=Data(Clips(3))
        )
    assert (tmp_path / "asked").exists() == is_asked


class Begun(pl.Callback):
    """Counts the validation batches that begin, and sends a signal in one of them."""

    def __init__(self, number: int, nth: int) -> None:
        self.number, self.nth, self.num_begun = number, nth, 0

    def on_validation_batch_start(self, *_: object) -> None:
        self.num_begun += 1
        if self.num_begun == self.nth:
            os.kill(os.getpid(), self.number)


def test_signal_in_validation_begins_no_new_batch(tmp_path: Path) -> None:
    begun, data = Begun(signal.SIGTERM, 2), Data(Clips(2), Clips(4, views=1))
    run = trainer(begun, *saving(tmp_path), enable_checkpointing=True)
    with pytest.raises(SystemExit) as end:
        run.fit(classifier(), datamodule=data)
    assert (end.value.code, begun.num_begun) == (EXIT_PREEMPTED, 2)


def test_signal_in_validation_saves_what_is_not_saved(tmp_path: Path) -> None:
    """Without `StepCheckpoint`; the validation is run again."""
    begun, data = Begun(signal.SIGTERM, 2), Data(Clips(2), Clips(4, views=1))
    stop = [MissedValidation(), GracefulShutdown(str(tmp_path))]
    with pytest.raises(SystemExit) as end:
        trainer(begun, *stop).fit(classifier(), datamodule=data)
    assert (end.value.code, begun.num_begun) == (EXIT_PREEMPTED, 2)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert (saved["global_step"], saved["validation_is_due"]) == (2, True)
    again, stop = Begun(signal.SIGTERM, 9), [MissedValidation(), GracefulShutdown(str(tmp_path))]
    run = trainer(again, *stop)
    run.fit(classifier(), datamodule=data, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert (again.num_begun, run.global_step, run.current_epoch) == (4, 2, 1)


def test_signal_in_accumulated_batches_validates_on_to_the_step(tmp_path: Path) -> None:
    begun, data = Begun(signal.SIGTERM, 7), Data(Clips(4), Clips(3, views=1))
    options = {"accumulate_grad_batches": 2, "val_check_interval": 1}
    run = trainer(begun, MissedValidation(), GracefulShutdown(str(tmp_path)), **options)
    with pytest.raises(SystemExit):
        run.fit(classifier(), datamodule=data)
    assert begun.num_begun == 9  # of the validation after the third batch
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.parametrize("in_training", [False, True])
def test_signal_before_the_first_step_ends_at_once(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    in_training: bool,  # noqa: FBT001
) -> None:
    """In the sanity check, or in the first batch that is read."""
    caplog.set_level(logging.INFO)

    class Asking(Clips):
        def __getitem__(self, index: int) -> Batch:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().__getitem__(index)

    train, val = (Asking, Clips) if in_training else (Clips, Asking)
    data = Data(train(2), val(2, views=1))
    stop = GracefulShutdown(str(tmp_path))
    with pytest.raises(SystemExit) as end:
        trainer(stop, num_sanity_val_steps=0 if in_training else 2).fit(
            classifier(), datamodule=data
        )
    assert end.value.code == EXIT_PREEMPTED
    assert "before the first step, there is nothing to save" in caplog.text
    assert list(tmp_path.iterdir()) == []


def ignore_and_sleep(is_ready: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    is_ready.set()
    time.sleep(60)


def test_busy_loader_process_does_not_delay_the_end() -> None:
    context = multiprocessing.get_context("fork")
    is_ready = context.Event()
    process = context.Process(target=ignore_and_sleep, args=(is_ready,), daemon=True)
    process.start()
    assert is_ready.wait(60)
    end_loader_processes()
    assert process.exitcode == -signal.SIGKILL
