"""`video-mvit train compile=blocks` from the command line to the checkpoint, on a CPU."""

import csv
import shutil
from pathlib import Path

import pytest
import torch
from support.commands import run_command

from video_mvit.data.preparation.demo import write_demo_dataset
from video_mvit.training.compiling import find_compiler

NUM_STEPS, NUM_CLIPS = 2, 4
# The least that has all kinds of blocks.
SMALLEST = [
    "+model.depths=[1,1,1,1]",
    "+model.embed_dim=8",
    "+model.drop_path_rate=0",
    "+model.head_dropout=0",
    f"data.train_batch_size={NUM_CLIPS}",
    "data.num_workers=0",
    "trainer.log_every_n_steps=1",
    "optim.num_epochs=1",
]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(find_compiler() is not None, reason=f"there is not {find_compiler()}")
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_compiled_training_has_the_losses_and_weights_of_eager(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_demo_dataset(
        root, {"train": NUM_STEPS * NUM_CLIPS, "val": 2, "test": 1}, 0, lambda _: None
    )
    # What generated code computes does not depend on how it is optimized, and this takes less time.
    compiler = tmp_path / "g++"
    compiler.write_text(f'#!/bin/sh\nexec {shutil.which("g++")} "$@" -O0\n')
    compiler.chmod(0o755)
    environment = {"CXX": str(compiler), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
    found = []
    for name, words in (("eager", []), ("compiled", ["compile=blocks"])):
        run_dir = tmp_path / name
        command = ["train", "experiment=demo", f"data.root={root}", f"run_dir={run_dir}"]
        done = run_command(*command, *SMALLEST, *words, cwd=tmp_path, environment=environment)
        assert done.returncode == 0, done.stderr
        with (run_dir / "metrics" / "version_0" / "metrics.csv").open() as file:
            rows = [row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]]
        state = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        found.append({"losses": torch.tensor([float(row) for row in rows]), **state})
    eager, compiled = found
    assert (tmp_path / "inductor").is_dir()  # code was generated
    assert len(eager["losses"]) == NUM_STEPS
    torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-4)
