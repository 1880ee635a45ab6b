"""Accuracy of fine-tuning with low-rank adapters beside that of all weights and of the head alone.

cd scripts && python -m benchmarks.adapter_accuracy --data ../datasets/demo_0 --work ../runs/lora

As in `probe_curve.py`, the backbone is trained on the classes that move and fine-tuned to the
others, which turn and zoom. What is not named in `METHODS` is as `experiment=finetune` chooses it.
The last weights are evaluated on test videos, which choose nothing.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ablations.page import mean_of

from benchmarks.probe_curve import fine_tune, lists_of_new, train_backbone
from video_mvit.training.finetune_settings import FINE_TUNE_LR

LAST_STAGES, ALL_STAGES = "adapter.stages=[3,4]", "adapter.stages=[1,2,3,4]"
METHODS: Mapping[str, Sequence[str]] = {
    "all weights": (),
    "adapters of all stages": ("adapter=lora", ALL_STAGES),
    "adapters of stages 3 and 4": ("adapter=lora", LAST_STAGES),
    "the same, rate of all weights": ("adapter=lora", LAST_STAGES, f"optim.lr={FINE_TUNE_LR}"),
    "head": ("optim.freeze=[patch_embed,blocks.0-3,norm]",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="folder that the demo made")
    parser.add_argument("--work", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--count", type=int, default=20, help="training videos of a class")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=4, help="of the backbone")
    parser.add_argument("--videos", type=int, default=2000, help="most of the backbone's training")
    options = parser.parse_args()
    data, work = options.data.resolve(), options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    backbone = train_backbone(data, work, options.epochs, options.videos)
    for method, words in METHODS.items():
        percents = []
        for seed in options.seeds:
            of_data = lists_of_new(data, work, options.count, seed)
            folder = work / f"{method}_{seed}".replace(" ", "_").replace(",", "")
            percents.append(100 * fine_tune(folder, [*of_data, *words], backbone))
        each = ", ".join(f"{percent:.1f}" for percent in percents)
        sys.stdout.write(f"{method:<30} {mean_of(percents)} %  ({each})\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
