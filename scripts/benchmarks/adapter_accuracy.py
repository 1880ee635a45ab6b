"""Accuracy of fine-tuning with low-rank adapters beside that of all weights, on the demo's videos.

PYTHONPATH=scripts python -m benchmarks.adapter_accuracy --data datasets/demo_0 --work runs/lora

The backbone is trained on the classes that move; the others, which turn and zoom, are fine-tuned to
(`probe_curve.py`). Everything but adapter, learning rate and seed is as `experiment=finetune`
chooses it; the last weights are evaluated on test videos, which choose nothing.
"""

import argparse
import itertools
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import video_mvit
from benchmarks.probe_curve import train_backbone, write_lists
from video_mvit.training.finetune_settings import FINE_TUNE_LR

BELOW_THE_HEAD = "optim.freeze=[patch_embed,blocks.0-3,norm]"  # of the demo's network
METHODS: Mapping[str, Sequence[str]] = {
    "all weights": [],
    "adapters": ["adapter=lora", "adapter.stages=[1,2,3,4]"],
    "adapters of stages 3 and 4": ["adapter=lora"],
    "head": [BELOW_THE_HEAD],
}
# 97.5 % points of Student's t by the number of seeds.
STUDENT_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="folder that the demo made")
    parser.add_argument("--work", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--count", type=int, default=20, help="training videos of a class")
    parser.add_argument("--epochs", type=int, default=30, help="of each fine-tuning")
    parser.add_argument("--rates", type=float, nargs="+", default=[1, 3, 10], help="times 4e-3")
    parser.add_argument("--decays", type=float, nargs="+", default=[0.75], help="layer decay")
    parser.add_argument("--seeds", type=int, default=3, choices=(1, *STUDENT_T))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    options = parser.parse_args()
    data, work = options.data.resolve(), options.work.resolve()
    backbone = train_backbone(data, work, num_epochs=4, num_videos=2000)
    lists = write_lists(data, work / f"lists_{options.count}", options.count, 0, known=False)
    common = [
        *("experiment=finetune", "trainer=cpu", "overwrite=true", f"data.root={data}", *lists),
        *(f"init.source={backbone}", "data.train_crop.flip_prob=0"),
        *(
            f"optim.num_epochs={options.epochs}",
            f"+trainer.check_val_every_n_epoch={options.epochs}",
        ),
    ]
    for rate, decay, method in itertools.product(options.rates, options.decays, options.methods):
        rates = [f"optim.lr={rate * FINE_TUNE_LR}", f"optim.layer_decay={decay}"]
        folder = work / f"{method} {rate:g} {decay:g}".replace(" ", "_")
        words = [*common, *METHODS[method], *rates]
        top1 = [accuracy(folder / str(i), [*words, f"seed={i}"]) for i in range(options.seeds)]
        sys.stdout.write(f"{method:<27} rate x{rate:<4g} decay {decay:<5g} {told(top1)}\n")
        sys.stdout.flush()


def accuracy(folder: Path, words: Sequence[str]) -> float:
    """Fine-tune, unless an earlier start did; return the accuracy on test videos, in percent."""
    path = folder / "top1.json"
    if not path.exists():
        metrics = video_mvit.train(*words, f"run_dir={folder}").metrics
        path.write_text(json.dumps(metrics["val/top1"]))
    return 100 * float(json.loads(path.read_text()))


def told(percents: Sequence[float]) -> str:
    """Return mean and 95 % interval over seeds: "81.2 +- 1.4 %"."""
    n = len(percents)
    mean = f"{statistics.fmean(percents):.1f}"
    if n == 1:
        return f"{mean} %"
    return f"{mean} +- {STUDENT_T[n] * statistics.stdev(percents) / math.sqrt(n):.1f} %"


if __name__ == "__main__":
    main()
