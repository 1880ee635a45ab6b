"""Accuracy of fine-tuning with low-rank adapters beside that of all weights and of the head alone.

cd scripts && python -m benchmarks.adapter_accuracy --data ../datasets/demo_0 \\
    --backbone ../runs/demo_0/checkpoints/best.ckpt --work ../runs/adapter_accuracy

The demo's network, which was trained on classes, learns the velocity of the shapes: R2 of the last
weights on the test videos, which choose nothing. What is not in `METHODS` is as
`experiment=finetune` chooses it. A seed chooses the training videos and the random numbers.
"""

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import mean

import numpy as np

from benchmarks.probe_curve import run
from video_mvit.data.preparation.demo import demo_velocity
from video_mvit.training.finetune_settings import FINE_TUNE_LR

LAST_STAGES, ALL_STAGES = "adapter.stages=[3,4]", "adapter.stages=[1,2,3,4]"
METHODS: Mapping[str, Sequence[str]] = {
    "all weights": (),
    "adapters of all stages": ("adapter=lora", ALL_STAGES),
    "adapters of stages 3 and 4": ("adapter=lora", LAST_STAGES),
    "the same, rate of all weights": ("adapter=lora", LAST_STAGES, f"optim.lr={FINE_TUNE_LR}"),
    "head": ("optim.freeze=[patch_embed,blocks.0-3,norm]",),
}
SPLITS = ("train", "val", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="folder that the demo made")
    parser.add_argument("--backbone", type=Path, required=True, help="checkpoint of the demo")
    parser.add_argument("--work", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--count", type=int, default=640, help="training videos")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    data, work = options.data.resolve(), options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    tests = write_list(data, work, "test", 10**9, 0)
    for method, of_method in METHODS.items():
        found = []
        for seed in options.seeds:
            videos = write_list(data, work, "train", options.count, seed)
            folder = work / f"{method}_{seed}".replace(" ", "_").replace(",", "")
            words = ["experiment=finetune", "data=regression", f"data.root={data}"]
            words += [f"data.train_list={videos}", f"data.val_list={tests}", f"seed={seed}"]
            words += [f"init.source={options.backbone.resolve()}", f"run_dir={folder}"]
            words += [f"optim.num_epochs={options.epochs}", *of_method]
            run("train", *words, "+trainer.limit_val_batches=1", "overwrite=true")
            run("evaluate", str(folder), "checkpoint=last", "overwrite=true")
            result = json.loads((folder / "evaluation" / "results.json").read_text())
            found.append(float(result["r2"]))
        each = ", ".join(f"{r2:.3f}" for r2 in found)
        sys.stdout.write(f"{method:<30} R2 {mean(found):.3f}  ({each})\n")
        sys.stdout.flush()


def write_list(data: Path, folder: Path, split: str, count: int, seed: int) -> Path:
    """Write a list of videos of a split, chosen by a seed, and their velocities."""
    videos = sorted((data / split).rglob("*.mp4"))
    Random(seed).shuffle(videos)
    path = folder / f"{split}_{seed}.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "right", "down"])
        for video in videos[:count]:
            number = int(video.stem.removeprefix(split).partition("_")[0])
            random = np.random.default_rng((0, SPLITS.index(split), number))
            rows.writerow([video.relative_to(data), *demo_velocity(video.parent.name, random)])
    return path


if __name__ == "__main__":
    main()
