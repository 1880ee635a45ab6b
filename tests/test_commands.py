"""The commands as a person runs them: train, resume, evaluate, and a mistake of each kind."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from video_mvit.data.demo import write_demo_dataset

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    write_demo_dataset(root, {"train": 64, "val": 16, "test": 17}, 0, lambda _: None)
    return root


@pytest.fixture
def run(data_root: Path, tmp_path: Path) -> Run:
    def run_script(script: str, *options: str) -> subprocess.CompletedProcess[str]:
        shared = [
            "experiment=demo",
            f"data.root={data_root}",
            f"run_dir={tmp_path}/run",
            "optim.num_epochs=2",
        ]
        command = [sys.executable, str(ROOT / "scripts" / script), *shared, *options]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300
        )

    return run_script


def losses(run_dir: Path, version: int) -> list[tuple[str, str]]:
    with (run_dir / "metrics" / f"version_{version}" / "metrics.csv").open() as file:
        return [
            (row["step"], row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]
        ]


def test_training_writes_checkpoints_logs_and_configuration_and_evaluates(
    run: Run, tmp_path: Path
) -> None:
    result = run("train.py", "trainer.log_every_n_steps=1")
    assert result.returncode == 0, result.stderr
    assert "epoch 2/2" in result.stdout + result.stderr
    run_dir = tmp_path / "run"
    assert {path.name for path in (run_dir / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert (run_dir / "config" / "config.yaml").exists()
    assert list((run_dir / "tensorboard").glob("events*"))
    assert len(losses(run_dir, 0)) == 4
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert len(checkpoint["class_names"]) == 8

    again = run("train.py")
    assert again.returncode == 1
    assert "resume_from=last continues it" in again.stderr

    result = run("evaluate.py", "checkpoint=last", "frozen=true")
    assert result.returncode == 0, result.stderr
    results = json.loads((run_dir / "evaluation" / "results.json").read_text())
    assert results["num_videos"] == 17
    assert results["protocol"] == "5x1@8x4 offset short32 crop32"
    assert results["top1"] * 17 == pytest.approx(round(results["top1"] * 17), abs=1e-4)
    assert 0 <= results["frozen_top1"] <= 1
    assert "top-1 on frozen clips" in result.stdout
    assert len(losses(run_dir, 0)) == 4  # evaluation leaves the logs of the training alone


def test_resumed_training_ends_with_the_same_weights_as_an_uninterrupted_one(
    run: Run, tmp_path: Path
) -> None:
    """With fixed clips and order, so that only the state of model, optimizer and schedule is
    tested.
    """
    fixed = [
        "data.samplers.train=${data.samplers.val}",
        "data.train_crop.scale=[1,1]",
        "data.train_crop.ratio=[1,1]",
    ]
    fixed += ["+data.module.train.num_videos=32", "+trainer.limit_val_batches=1"]
    fixed += ["optim.name=sgd", "optim.lr=0.05"]  # AdamW would blow rounding up to whole steps
    assert run("train.py", *fixed).returncode == 0
    whole = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)[
        "state_dict"
    ]
    assert (
        run("train.py", *fixed, f"run_dir={tmp_path}/halves", "trainer.max_epochs=1").returncode
        == 0
    )
    resumed = run("train.py", *fixed, f"run_dir={tmp_path}/halves", "resume_from=last")
    assert resumed.returncode == 0, resumed.stderr
    halves = torch.load(tmp_path / "halves" / "checkpoints" / "last.ckpt", weights_only=True)[
        "state_dict"
    ]
    checkpoint = torch.load(tmp_path / "halves" / "checkpoints" / "last.ckpt", weights_only=True)
    best = [s["best_model_score"] for s in checkpoint["callbacks"].values() if s.get("monitor")]
    metrics = [tmp_path / "halves" / "metrics" / f"version_{i}" / "metrics.csv" for i in (0, 1)]
    scores = [
        float(row["val/top1"])
        for path in metrics
        for row in csv.DictReader(path.open())
        if row["val/top1"]
    ]
    assert len(scores) == 2
    assert float(best[0]) == pytest.approx(max(scores))  # `last` knows the best so far
    for name, weight in whole.items():
        torch.testing.assert_close(halves[name], weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        ("train.py", ["data.root=/nowhere"], "error: /nowhere/train.csv does not exist"),
        ("train.py", ["optim.lr=fast"], "error: optim.lr is 'fast', expected float"),
        ("train.py", ["optim.learning_rate=1"], "optim.learning_rate"),
        (
            "train.py",
            ["data.num_classes=400"],
            "error: data.num_classes is 400, but the training list has 8",
        ),
        ("train.py", ["resume_from=best"], "error: no checkpoint"),
        ("evaluate.py", ["checkpoint=missing.ckpt"], "error: no checkpoint missing.ckpt"),
    ],
)
def test_mistake_is_told_in_one_sentence(
    run: Run, script: str, options: list[str], message: str
) -> None:
    result = run(script, *options)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_unreadable_video_stops_training_with_its_name(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "broken"
    write_demo_dataset(root, {"train": 32, "val": 8, "test": 8}, 0, lambda _: None)
    broken = sorted((root / "train").rglob("*.mp4"))[3]
    broken.write_bytes(b"")
    result = run("train.py", f"data.root={root}")
    assert result.returncode == 1
    assert f"error: cannot decode {broken}: " in result.stderr
    assert "Traceback" not in result.stderr
