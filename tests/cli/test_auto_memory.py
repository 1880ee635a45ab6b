"""memory=auto: what a step needs, how it is divided, and that training stays the same."""

import ctypes
import math
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from support.commands import composed
from support.processes import run_ranks

from video_mvit.cli import auto_memory as memory_plan
from video_mvit.cli.auto_memory import fit_to_memory
from video_mvit.cli.build import build_all
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.training.classifier import Batch
from video_mvit.training.memory_fit import RESERVE, BatchSpec, MemoryModel, cgroup_room, fit_step

PLAIN, RECOMPUTING = MemoryModel(100.0, 50.0), MemoryModel(120.0, 10.0)


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (100 + 50 * 16, (16, 1, "none")),
        (100 + 50 * 16 - 1, (8, 2, "none")),
        (100 + 50 * 4, (4, 4, "none")),
        (100 + 50 * 4 - 1, (16, 1, "full")),  # a pass of two would leave the device idle
        (120 + 10 * 8, (8, 2, "full")),
        (120 + 10, (1, 16, "full")),
        (120 + 10 - 1, None),
    ],
)
def test_whole_batches_then_passes_then_recomputing(
    free: float, expected: tuple[int, int, str] | None
) -> None:
    batch = BatchSpec(num_videos=16, num_samples=1)
    plan = fit_step({"none": PLAIN, "full": RECOMPUTING}, batch, free)
    if expected is None:
        assert plan is None
    else:
        assert plan is not None
        assert (plan.num_videos, plan.num_passes, plan.activation_checkpointing) == expected
        assert plan.needed <= free


def test_passes_are_equal_and_have_enough_clips_to_mix() -> None:
    assert BatchSpec(num_videos=12, num_samples=1).passes() == [12, 6, 4, 3, 2, 1]
    assert BatchSpec(num_videos=12, num_samples=1, min_clips=2).passes() == [12, 6, 4, 3, 2]
    assert BatchSpec(num_videos=3, num_samples=2, min_clips=2).passes() == [3, 1]
    assert BatchSpec(num_videos=1, num_samples=1, min_clips=2).passes() == []


def test_samples_of_a_video_stay_together_and_other_models_only_accumulate() -> None:
    batch = BatchSpec(num_videos=4, num_samples=2)
    plan = fit_step({"none": PLAIN}, batch, 100 + 50 * 2)
    assert plan is not None
    assert (plan.num_videos, plan.num_passes) == (1, 4)
    assert fit_step({"none": PLAIN}, batch, 100 + 50) is None


def composed_for_memory(run_dir: Path, *overrides: str) -> DictConfig:
    options = [
        "data.root=/data",
        "experiment=demo",
        "data.num_classes=16",
        "memory=auto",
        f"run_dir={run_dir}",
        "data.train_batch_size=16",
    ]
    options += ["clip.crop_size=64", "+model.depths=[1,2,2,1]", *overrides]
    return composed("config", *options)


def need(run_dir: Path, num_clips: tuple[int, int], mode: str) -> MemoryModel:
    ctypes.CDLL(None).mallopt(-3, 100_000)  # less luck: blocks of 0.1 MB go back at once
    cfg = composed_for_memory(run_dir, "++model.depths=[3,6,4,1]")  # many blocks to recompute
    return memory_plan.measure_step(cfg, torch.device("cpu"), num_clips, mode)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="blocks go back at once in Linux only")
def test_measured_need_is_that_of_a_larger_step(tmp_path: Path) -> None:
    """Each in a process of its own, as before a training; one that did much else keeps memory."""
    steps = (((8, 16), "none"), ((16, 24), "none"), ((8, 16), "full"))
    plain, larger, recomputing = (run_ranks(need, 1, tmp_path, *step)[0] for step in steps)
    assert plain.of(24) == pytest.approx(larger.of(24), rel=0.25)
    assert recomputing.per_clip < 0.7 * plain.per_clip


def gradients(cfg: DictConfig, clip: torch.Tensor) -> list[torch.Tensor]:
    """Of a whole step, in the passes that the configuration says; the loss comes last."""
    torch.manual_seed(0)
    classifier, _ = build_all(cfg)
    classifier.log = lambda *_, **__: None
    num_passes = cfg.trainer.get("accumulate_grad_batches", 1)
    total = torch.zeros(())
    size = cfg.data.train_batch_size
    assert size * num_passes == len(clip)
    for start in range(0, len(clip), size):
        label = torch.arange(start, start + size) % 8
        loss = classifier.training_step(Batch(clip[start : start + size], label, label), 0)
        (loss / num_passes).backward()
        total += loss.detach() / num_passes
    return [*(p.grad for p in classifier.model.parameters()), total]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("is_for", "expected"),
    [
        (lambda plain, _: plain.of(16), (1, "none")),
        (lambda plain, _: plain.of(8), (2, "none")),
        (lambda plain, recomputing: max(recomputing.of(4), plain.of(3)), (None, "full")),
    ],
)
def test_divided_step_is_the_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_for, expected
) -> None:
    needs = {
        "none": MemoryModel(1e8, 5e7),
        "light": MemoryModel(1e8, 4.95e7),
        "selective": MemoryModel(1e8, 4.9e7),
        "full": MemoryModel(1e8, 2e7),
    }
    monkeypatch.setattr(memory_plan, "measure_step", lambda *args: needs[args[-1]])
    whole = composed_for_memory(tmp_path)
    cfg = whole.copy()
    fit_to_memory(cfg, free=1.001 * is_for(needs["none"], needs["full"]) / (1 - RESERVE))
    recomputes = cfg.model.get("activation_checkpointing", "none")
    num_passes = cfg.trainer.accumulate_grad_batches
    assert (num_passes if expected[0] else None, recomputes) == expected
    assert cfg.data.train_batch_size * num_passes == 16
    clip = torch.randint(0, 256, (16, 8, 3, 64, 64), dtype=torch.uint8)
    for a, b in zip(gradients(whole, clip), gradients(cfg, clip), strict=True):
        assert (a - b).norm() <= 3e-5 * max(float(a.norm()), 1e-3)

    resumed = composed_for_memory(tmp_path, "resume_from=last")
    monkeypatch.setattr(memory_plan, "measure_step", None)
    fit_to_memory(resumed)
    assert resumed.trainer == cfg.trainer
    assert resumed.data.train_batch_size == cfg.data.train_batch_size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "free", "message"),
    [
        ("memory=max", 1e12, "memory is 'max', expected 'auto' or null"),
        pytest.param(
            "",
            1e6,
            "even 1 clip at a time with activation checkpointing needs",
            marks=pytest.mark.slow,
        ),
        ("trainer.accumulate_grad_batches=2", 1e12, "decides trainer.accumulate_grad_batches"),
        ("+model.activation_checkpointing=full", 1e12, "decides model.activation_checkpointing"),
        ("resume_from=last", 1e12, "was not started with memory=auto"),
        ("trainer.devices=2", 1e12, "memory=auto measures on one device"),
        ("augment=published data.train_batch_size=1", 1e12, "needs at least two clips"),
        ("trainer.accelerator=gpu", 1e12, "trainer=auto takes the CPU then"),
        ("trainer.accelerator=mps", 1e12, "memory=auto measures on"),
        ("optim.lr=fast", 1e12, "optim.lr is 'fast', expected float"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    tmp_path: Path, options: str, free: float, message: str
) -> None:
    with pytest.raises(SystemExit) as error, exit_on_user_error():
        fit_to_memory(composed_for_memory(tmp_path, *options.split()), free)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def write_group(folder: Path, limit: str, used: int, inactive: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")


def test_the_tightest_control_group_is_the_limit(tmp_path: Path) -> None:
    write_group(tmp_path / "a", "1000", 700, 100)
    write_group(tmp_path / "a" / "b", "max", 600, 0)
    assert cgroup_room(tmp_path, "0::/a/b\n") == 400
    write_group(tmp_path / "a" / "b", "800", 600, 0)
    assert cgroup_room(tmp_path, "0::/a/b\n") == 200
    assert cgroup_room(tmp_path, "0::/\n") == math.inf
    first = tmp_path / "memory" / "x"
    first.mkdir(parents=True)
    (first / "memory.limit_in_bytes").write_text("900")
    (first / "memory.usage_in_bytes").write_text("500")
    (first / "memory.stat").write_text("total_inactive_file 50\n")
    assert cgroup_room(tmp_path, "4:memory:/x\n2:cpu:/x\n") == 450
