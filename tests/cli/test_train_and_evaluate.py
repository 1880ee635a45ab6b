"""The commands as a person runs them: train, resume, evaluate, and a mistake of each kind."""

import contextlib
import csv
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from support.commands import run_command, running_command, running_ranks
from support.processes import TIMEOUT_S, wait_until
from support.videos import Encoding, write_numbered_video
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from video_mvit.data.preparation.demo import write_demo_dataset
from video_mvit.models.config import VARIANTS
from video_mvit.models.mvit import MViT

pytestmark = pytest.mark.slow
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    write_demo_dataset(root, {"train": 64, "val": 16, "test": 17}, 0, lambda _: None)
    return root


@pytest.fixture
def run(data_root: Path, tmp_path: Path) -> Run:
    def run_verb(verb: str, *options: str) -> subprocess.CompletedProcess[str]:
        shared = [
            "experiment=demo",
            f"data.root={data_root}",
            f"run_dir={tmp_path}/run",
            "optim.num_epochs=2",
        ]
        return run_command(verb, *shared, *options, cwd=tmp_path)

    return run_verb


def losses(run_dir: Path, version: int) -> list[tuple[str, str]]:
    with (run_dir / "metrics" / f"version_{version}" / "metrics.csv").open() as file:
        return [
            (row["step"], row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]
        ]


def test_training_writes_checkpoints_logs_and_configuration_and_evaluates(
    run: Run, tmp_path: Path
) -> None:
    result = run("train", "trainer.log_every_n_steps=1")
    assert result.returncode == 0, result.stderr
    assert "epoch 2/2" in result.stdout + result.stderr
    run_dir = tmp_path / "run"
    assert {path.name for path in (run_dir / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert (run_dir / "config" / "config.yaml").exists()
    assert list((run_dir / "tensorboard").glob("events*"))
    assert len(losses(run_dir, 0)) == 4
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert len(checkpoint["class_names"]) == 8

    again = run("train")
    assert again.returncode == 1
    assert "resume_from=last continues it" in again.stderr

    result = run("evaluate", "checkpoint=last", "motion=[frozen,reversed]")
    assert result.returncode == 0, result.stderr
    results = json.loads((run_dir / "evaluation" / "results.json").read_text())
    assert results["num_videos"] == 17
    assert results["protocol"] == "5x1@8x4 offset short32 crop32"
    assert results["top1"] * 17 == pytest.approx(round(results["top1"] * 17), abs=1e-4)
    assert results["motion"].keys() == {"frozen", "reversed"}
    assert "top-1 frozen" in result.stdout
    assert len(losses(run_dir, 0)) == 4  # evaluation leaves the logs of the training alone
    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    pictures = {"run/clips", "run/curves", "test/confusion"}
    assert set(events.Tags()["images"]) == pictures
    assert [each.step for each in events.Scalars("test/top1")] == [3]


def test_training_fits_itself_to_memory_says_how_fast_it_is_and_draws_its_curves(
    run: Run, tmp_path: Path
) -> None:
    result = run("train", "memory=auto", "data.num_workers=0")
    assert result.returncode == 0, result.stderr
    assert "memory=auto: a step of 32 clips needs " in result.stdout
    last = next(line for line in result.stdout.splitlines() if "epoch 2/2" in line)
    assert re.search(r" clips/s .* s  data wait \d+ %  peak .* GB  MFU \d+ %", last)
    run_dir = tmp_path / "run"
    assert (run_dir / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((run_dir / "memory_plan.json").read_text())["num_videos"] == 32

    changed = ["trainer.max_epochs=3", "allow_config_changes=true"]
    resumed = run("train", "memory=auto", "data.num_workers=0", "resume_from=last", *changed)
    assert resumed.returncode == 0, resumed.stderr
    assert "memory=auto, as at the start of this run: data.train_batch_size=32" in resumed.stdout


def weights(run_dir: Path, key: str) -> dict[str, torch.Tensor]:
    content = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    return content.get(key, {})


def everything_random(data_root: Path, *options: str) -> list[str]:
    """The command of three epochs with all that is random, saved after every second step."""
    every_two_steps = ["callbacks.recent.train_time_interval=null"]
    every_two_steps += ["+callbacks.recent.every_n_train_steps=2"]
    words = ["train", "experiment=demo", f"data.root={data_root}", "optim.num_epochs=3"]
    words += ["data.train_batch_size=4", "data.num_samples=2", "+model.drop_path_rate=0.2"]
    words += ["augment=published", "trainer.log_every_n_steps=1"]
    words += ["augment.transforms=[{_target_: support.clip_transforms.fainter, _partial_: true}]"]
    words += ["data.balanced=true"]
    return [*words, *every_two_steps, *options]


def wait_for_checkpoints(training: BaseProcess, last: Path, num_written: int) -> None:
    seen: set[int] = set()

    def are_written() -> bool:
        with contextlib.suppress(FileNotFoundError):
            seen.add(last.stat().st_mtime_ns)
        return len(seen) >= num_written

    wait_until(are_written, training)


def assert_same_end(whole: Path, broken: Path, told: str) -> None:
    """The second start of a broken run had the losses of the whole one, and its weights."""
    expected, found = losses(whole, 0), losses(broken, 1)
    assert len(found) > 1, told
    assert found == expected[-len(found) :], told
    for key in ("state_dict", "ema"):
        expected_weights, found_weights = weights(whole, key), weights(broken, key)
        assert expected_weights.keys() == found_weights.keys()
        for name, tensor in expected_weights.items():
            assert torch.equal(found_weights[name], tensor), f"{key} {name}, {told}"


@pytest.fixture(scope="module")
def whole(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a training that nothing interrupted."""
    run_dir = tmp_path_factory.mktemp("whole")
    result = run_command(*everything_random(data_root), f"run_dir={run_dir}", cwd=run_dir)
    assert result.returncode == 0, result.stderr
    return run_dir


def break_and_resume(command: Sequence[str], broken: Path, told: Path) -> str:
    """Kill a training at some step, wherever it is then, and resume it; say where that was."""
    last = broken / "checkpoints" / "last.ckpt"
    with running_command(*command, f"run_dir={broken}", cwd=told.parent, log=told) as training:
        wait_for_checkpoints(training, last, random.randint(1, 6))  # of nine or more
    step = torch.load(last, weights_only=True)["global_step"]
    resumed = run_command(*command, f"run_dir={broken}", "resume_from=last", cwd=told.parent)
    assert resumed.returncode == 0, f"killed after step {step}: {resumed.stderr}"
    return f"killed after step {step}"


def test_killed_and_resumed_training_is_the_uninterrupted_one(
    tmp_path: Path, data_root: Path, whole: Path
) -> None:
    """With everything random switched on."""
    broken = tmp_path / "broken"
    told = break_and_resume(everything_random(data_root), broken, tmp_path / "log")
    assert_same_end(whole, broken, told)


@pytest.mark.long  # the same stop within a process: tests/training/test_stops.py
def test_killed_training_that_accumulates_is_the_uninterrupted_one(
    tmp_path: Path, data_root: Path
) -> None:
    command = everything_random(
        data_root, "data.num_workers=0", "trainer.accumulate_grad_batches=3"
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run_command(*command, f"run_dir={whole}", cwd=tmp_path).returncode == 0
    assert_same_end(whole, broken, break_and_resume(command, broken, tmp_path / "log"))


@pytest.mark.long
def test_killed_training_of_two_ranks_is_the_uninterrupted_one(
    tmp_path: Path, data_root: Path
) -> None:
    """With an average of the weights; it is torchrun that goes on."""
    command = everything_random(data_root, "callbacks=ema")
    whole, broken, log = tmp_path / "whole", tmp_path / "broken", tmp_path / "log"
    with running_ranks(2, *command, f"run_dir={whole}", cwd=tmp_path, log=log) as ranks:
        for rank in ranks:
            rank.join(TIMEOUT_S)
            assert rank.exitcode == 0, log.read_text()
    last = broken / "checkpoints" / "last.ckpt"
    with running_ranks(2, *command, f"run_dir={broken}", cwd=tmp_path, log=log) as ranks:
        wait_for_checkpoints(ranks[0], last, random.randint(1, 6))
    step = torch.load(last, weights_only=True)["global_step"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", "2", "-m", "video_mvit", *command]
    resumed = subprocess.run(
        [*torchrun, f"run_dir={broken}", "resume_from=last"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},  # for our own transform
    )
    assert resumed.returncode == 0, f"killed after step {step}: {resumed.stderr}"
    assert_same_end(whole, broken, f"killed after step {step}")


def test_training_that_every_process_is_asked_to_stop_goes_on_from_there(
    tmp_path: Path, data_root: Path, whole: Path
) -> None:
    """The signal goes to the loader's process too, as schedulers do; resume_from=auto follows."""
    broken, log = tmp_path / "broken", tmp_path / "log"
    command = [*everything_random(data_root), "resume_from=auto", f"run_dir={broken}"]
    with running_command(*command, cwd=tmp_path, log=log) as training:
        wait_for_checkpoints(training, broken / "checkpoints" / "last.ckpt", 2)
        os.killpg(training.pid, signal.SIGTERM)
        training.join(TIMEOUT_S)
        assert training.exitcode == 75, log.read_text()
    told = log.read_text()
    assert "interrupted (SIGTERM): checkpoint saved at step" in told
    assert "Traceback" not in told
    resumed = run_command(*command, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_end(whole, broken, told)


def test_training_goes_on_where_checkpoints_do_not_fit(tmp_path: Path, data_root: Path) -> None:
    """Files may have 200 kB here: the logs fit, a checkpoint does not."""
    run_dir = tmp_path / "run"
    command = everything_random(data_root, "data.num_workers=0", f"run_dir={run_dir}")
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (200_000, 200_000))
    result = run_command(*command, "optim.num_epochs=1", cwd=tmp_path, before=limit)
    assert result.returncode == 1
    assert len(losses(run_dir, 0)) == 16  # all of its steps
    last = f"{run_dir}/checkpoints/last.ckpt"
    assert f"cannot write {last}: File too large; there is no earlier one; training continues" in (
        result.stdout
    )
    assert result.stderr.strip().splitlines()[-1].startswith(f"error: cannot write {last}: File")
    assert "Traceback" not in result.stderr


FULL_DISK = """
import resource
import pytorch_lightning as pl

class FullDisk(pl.Callback):
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    def on_fit_end(self, trainer, module):
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


def test_training_on_a_disk_without_space_goes_on_and_loses_nothing(
    run: Run, tmp_path: Path
) -> None:
    """In the second epoch no byte is written: no checkpoint, log, metric, and no output."""
    (tmp_path / "full_disk.py").write_text(FULL_DISK)
    options = ["data.num_workers=0", "trainer.log_every_n_steps=1"]
    full = run("train", *options, "+callbacks.full._target_=full_disk.FullDisk")
    assert full.returncode == 1
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["epoch"] == 0
    assert {path.name for path in last.parent.iterdir()} == {"last.ckpt", "best.ckpt"}
    assert len(losses(tmp_path / "run", 0)) == 4  # they waited for space
    sentence = full.stderr.strip().splitlines()[-1]
    assert f"cannot write {last}: File too large; the previous checkpoint is kept" in sentence
    assert "TensorBoardLogger could not log everything: " in sentence
    assert "Traceback" not in full.stdout + full.stderr


def test_training_killed_between_two_epochs_is_the_uninterrupted_one(
    run: Run, tmp_path: Path
) -> None:
    """After the last batch of an epoch, before its validation, which the average takes part in."""
    options = ["augment=published", "data.train_batch_size=8", "trainer.log_every_n_steps=1"]
    options += ["callbacks=ema"]
    options += ["callbacks.recent.train_time_interval=null", "+callbacks.recent.save_top_k=-1"]
    options += ["+callbacks.recent.every_n_train_steps=8", "callbacks.recent.filename='at_{step}'"]
    options += ["+callbacks.recent.auto_insert_metric_name=false"]
    whole = run("train", *options, "trainer.max_steps=12")
    assert whole.returncode == 0, whole.stderr
    recent = tmp_path / "run" / "checkpoints" / "at_8.ckpt"
    progress = torch.load(recent, weights_only=True)["loops"]["fit_loop"]["epoch_progress"]
    assert progress["current"]["completed"] == 0
    into = [f"run_dir={tmp_path}/resumed", f"resume_from={recent}", "allow_config_changes=true"]
    resumed = run("train", *options, *into)
    assert resumed.returncode == 0, resumed.stderr
    expected, found = losses(tmp_path / "run", 0), losses(tmp_path / "resumed", 0)
    assert found[:5] == expected[7:]  # the step before the checkpoint is logged once more


def test_resumed_training_knows_the_best_so_far(run: Run, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert run("train", "trainer.max_epochs=1").returncode == 0
    refused = run("train", "resume_from=last")
    assert refused.returncode == 1
    assert "error: the run to resume had different settings: trainer.max_epochs: 1, now " in (
        refused.stderr
    )
    resumed = run("train", "resume_from=last", "allow_config_changes=true")
    assert resumed.returncode == 0, resumed.stderr
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    best = [s["best_model_score"] for s in checkpoint["callbacks"].values() if s.get("monitor")]
    scores = [
        float(row["val/top1"])
        for version in (0, 1)
        for row in csv.DictReader((run_dir / f"metrics/version_{version}/metrics.csv").open())
        if row["val/top1"]
    ]
    assert len(scores) == 2
    assert float(best[0]) == pytest.approx(max(scores))


@pytest.mark.parametrize(
    ("verb", "options", "message"),
    [
        ("train", ["data.root=/nowhere"], "error: /nowhere/train.csv does not exist"),
        ("train", ["optim.lr=fast"], "error: optim.lr is 'fast', expected float"),
        ("train", ["optim.learning_rate=1"], "optim.learning_rate"),
        (
            "train",
            ["data.num_classes=400"],
            "error: data.num_classes is 400, but the training list has 8",
        ),
        ("train", ["resume_from=best"], "error: no checkpoint"),
        ("evaluate", ["checkpoint=missing.ckpt"], "error: no checkpoint missing.ckpt"),
    ],
)
def test_mistake_is_told_in_one_sentence(
    run: Run, verb: str, options: list[str], message: str
) -> None:
    result = run(verb, *options)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_unreadable_videos_are_replaced_in_training_and_listed_in_results(
    run: Run, tmp_path: Path
) -> None:
    root = tmp_path / "broken"
    write_demo_dataset(root, {"train": 64, "val": 8, "test": 8}, 0, lambda _: None)
    broken = sorted((root / "train").rglob("*.mp4"))[3]
    broken.write_bytes(b"")
    sorted((root / "test").rglob("*.mp4"))[2].write_bytes(b"")
    sorted((root / "test").rglob("*.mp4"))[5].unlink()

    result = run("train", f"data.root={root}")
    assert result.returncode == 1
    assert "error: 1 of 64 training videos are unreadable so far" in result.stderr
    assert f"the first is {broken}: " in result.stderr
    assert "Traceback" not in result.stderr

    result = run("train", f"data.root={root}", "data.max_unreadable_fraction=0.02")
    assert result.returncode == 0, result.stderr
    told = result.stdout + result.stderr
    assert told.count(f"cannot decode {broken}: ") == 1
    assert "checked 32 of 64 training videos" in told
    assert "replaced by another sample" in told

    result = run("evaluate", f"data.root={root}", "checkpoint=last")
    assert result.returncode == 0, result.stderr
    assert "6 of 8: 1 missing, 1 unreadable" in result.stdout
    results = json.loads((tmp_path / "run" / "evaluation" / "results.json").read_text())
    assert (results["num_videos"], results["num_listed"]) == (6, 8)
    assert len(results["missing"]) == len(results["unreadable"]) == 1
    assert len(results["class_names"]) == 8


def write_kinetics(root: Path) -> int:
    """A tiny data set as Kinetics-400 is published; gives the number of classes."""
    rows = [("archery", "aa", 3, 13), ("zumba", "-b_", 0, 10)] * 2
    for split in ("train", "val"):
        lines = ["label,youtube_id,time_start,time_end,split"]
        for i, (label, name, start, end) in enumerate(rows):
            lines.append(f"{label},{name}{i},{start},{end},{split}")
            path = root / split / label / f"{name}{i}_{start:06d}_{end:06d}.mp4"
            write_numbered_video(path, 90, size=(120, 160))
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return 2


def write_something(root: Path) -> int:
    """A tiny data set as Something-Something v2 is published, in webm."""
    encoding = Encoding(codec="libvpx-vp9", options={"b": "500000", "g": "20", "cpu-used": "8"})
    entries = [
        {"id": str(i), "template": ("Pushing [something]", "Holding [something]")[i % 2]}
        for i in range(4)
    ]
    for i in range(4):
        write_numbered_video(root / "videos" / f"{i}.webm", 40, 12, (120, 216), encoding)
    (root / "labels").mkdir()
    for name in ("train", "validation"):
        (root / "labels" / f"{name}.json").write_text(json.dumps(entries))
    labels = {"Holding something": "0", "Pushing something": "1"}
    (root / "labels" / "labels.json").write_text(json.dumps(labels))
    return 2


@pytest.mark.parametrize(
    ("experiment", "write", "said", "protocol"),
    [
        (
            "k400_mvitv2_s_16x4",
            write_kinetics,
            "rate 6.25e-06: scaled from 0.0016 for 512 clips per step to 2 (2 samples)",
            "5x1@16x4 offset short256 crop224",
        ),
        (
            "ssv2_mvitv2_s_16x4",
            write_something,
            "rate 0.000313: scaled from 0.0025 for 16 clips per step to 2 (2 videos)",
            "1x3@16 segments short224 crop224",
        ),
    ],
)
def test_published_experiments_train_and_evaluate_on_the_official_layout(
    tmp_path: Path, experiment: str, write: Callable[[Path], int], said: str, protocol: str
) -> None:
    root, run_dir = tmp_path / "data", tmp_path / "run"
    num_classes = write(root)
    options = [f"experiment={experiment}", f"data.root={root}", f"run_dir={run_dir}", "trainer=cpu"]
    options += [f"data.num_classes={num_classes}", "data.num_workers=1"]
    options += ["+model.depths=[1,1,1,1]", "+model.embed_dim=8"]  # for time
    steps = ["trainer.max_steps=2", "trainer.log_every_n_steps=1"]
    if experiment.startswith("k400"):
        steps.append("data.train_batch_size=1")  # two samples of it
    else:  # starts from Kinetics weights
        path = tmp_path / "kinetics.pyth"
        config = replace(VARIANTS["mvitv2_s"], depths=(1, 1, 1, 1), embed_dim=8)
        torch.save({"model_state": MViT(config).state_dict()}, path)
        steps += ["data.train_batch_size=2", f"init.source={path}"]
    views = ["data.eval_batch_size=1", "+data.module.test.num_videos=2", "checkpoint=last"]
    for verb, more in (("train", steps), ("evaluate", views)):
        result = run_command(verb, *options, *more, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert verb != "train" or said in result.stdout
    assert len(losses(run_dir, 0)) == 2
    results = json.loads((run_dir / "evaluation" / "results.json").read_text())
    assert results["protocol"] == protocol


def test_loss_that_is_no_number_stops_before_a_checkpoint_holds_it(
    run: Run, tmp_path: Path
) -> None:
    every_step = ["callbacks.recent.train_time_interval=null"]
    every_step += ["+callbacks.recent.every_n_train_steps=1", "data.train_batch_size=4"]
    wild = [
        "optim.name=sgd",
        "optim.lr=1e12",
        "optim.start_lr=1e12",
        "trainer.gradient_clip_val=null",
    ]
    result = run("train", *every_step, *wild)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    error = result.stderr.strip().splitlines()[-1]
    assert error.startswith("error: the loss is ")
    assert "at a learning rate of 1e+12" in error
    saved = torch.load(tmp_path / "run" / "bad_batch_rank0.pt", weights_only=True)
    assert saved["clip"].shape[0] == len(saved["files"]) == 4
    assert all(path in error and Path(path).is_file() for path in saved["files"])
    assert f"batch {saved['batch_idx'] + 1}," in error
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == saved["batch_idx"]  # of the step before


def test_training_starts_from_the_weights_of_a_foreign_checkpoint(run: Run, tmp_path: Path) -> None:
    """One line from a foreign checkpoint to a fine-tune."""
    torch.manual_seed(0)
    config = VARIANTS["mvitv2_demo"]
    weights = MViT(replace(config, num_classes=3)).state_dict()
    pyth = tmp_path / "pretrained.pyth"
    torch.save({"epoch": 1, "model_state": weights, "optimizer_state": {}, "cfg": "A: 1"}, pyth)

    refused = run("train", "init=weights", f"init.source={pyth}")
    assert refused.returncode == 1
    assert "error: " in refused.stderr
    assert "reset=[head] starts a new head" in refused.stderr
    assert "Traceback" not in refused.stderr

    options = ["init=weights", f"init.source={pyth}", "init.reset=[head]", "optim.num_epochs=1"]
    frozen = ["optim.lr=0", "optim.start_lr=0", "optim.end_lr=0"]
    result = run("train", *options, *frozen)
    assert result.returncode == 0, result.stderr
    assert "pretrained.pyth: SlowFast checkpoint" in result.stdout
    assert "2 new" in result.stdout
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    for name, tensor in weights.items():
        kept = torch.equal(checkpoint["state_dict"][f"model.{name}"], tensor)
        assert kept or name.startswith("head."), name
    assert checkpoint["card"]["variant"] == "mvitv2_demo"
    assert (checkpoint["card"]["short_side"], checkpoint["card"]["sampling"]) == (32, "strided")
    assert checkpoint["card"]["class_names"] == tuple(checkpoint["class_names"])

    evaluated = run("evaluate", f"checkpoint={last}")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "videos                 17" in evaluated.stdout


def test_jobs_of_a_sweep_have_folders_of_their_own(run: Run, tmp_path: Path) -> None:
    rates = ["0.0001", "0.0002"]
    tried = ",".join([rates[0], "-1", rates[1]])
    result = run("train", "optim.num_epochs=1", f"optim.lr={tried}", "--multirun")
    assert result.returncode == 1
    assert "error: lr -1 must not be negative (in optim)" in result.stderr
    assert result.stderr.endswith("error: 1 job of the sweep ended by an error, see above\n")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["1", "-1", "failed"] in lines
    assert not (tmp_path / "run" / "1").exists()
    for number, rate in zip((0, 2), rates, strict=True):
        folder = tmp_path / "run" / str(number)
        assert (folder / "checkpoints" / "last.ckpt").exists()
        assert f"optim.lr={rate}" in (folder / "config" / "overrides.yaml").read_text()
        assert f"run_dir: {folder}\n" in (folder / "config" / "config.yaml").read_text()
        assert "epoch 1/1" in (folder / "train.log").read_text()
