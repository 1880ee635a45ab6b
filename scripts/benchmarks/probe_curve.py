"""Accuracy of probes and of fine-tuning by the number of videos of a class, on the demo's videos.

python scripts/benchmarks/probe_curve.py --data datasets/demo_0 --work runs/probe_curve

The backbone is trained on the classes that move; the others, which turn and zoom, are what is
learned from few videos of each. Every number is of the same test videos, which choose nothing:
probes are chosen by cross-validation, and of a fine-tuning the last checkpoint is evaluated. A
seed chooses the few videos and the random numbers of the training.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from random import Random
from statistics import mean
from typing import NamedTuple

KNOWN = "moving"  # word of the classes that the backbone is trained on
KINDS = ("linear", "attentive", "neighbours")
# A smaller grid and fewer folds than by default, for two cores.
OF_PROBES = ("probe.num_folds=3", "probe.attentive.weight_decay=[0.1]")
OF_FINE_TUNING = (
    "optim.num_epochs=30",
    "+trainer.limit_val_batches=4",
    "data.train_crop.flip_prob=0",
)


class Measured(NamedTuple):
    """Accuracy of a method with so many videos of each class."""

    num_videos: int
    method: str
    seed: int
    top1: float
    time_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="folder that the demo made")
    parser.add_argument("--work", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--counts", type=int, nargs="+", default=[5, 20, 100])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=4, help="of the backbone")
    parser.add_argument("--videos", type=int, default=2000, help="most of the backbone's training")
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    data = options.data.resolve()
    backbone = train_backbone(data, work, options.epochs, options.videos)
    rows = []
    for seed, count in product(options.seeds, options.counts):
        lists = write_lists(data, work / f"lists_{count}_{seed}", count, seed, known=False)
        lists += [f"data.root={data}", f"seed={seed}"]
        for method in (*KINDS, "fine-tuning"):
            start_s = time.monotonic()
            top1 = measure(method, work / f"{method}_{count}_{seed}", lists, backbone)
            time_s = time.monotonic() - start_s
            rows.append(Measured(count, method, seed, top1, time_s))
            sys.stdout.write(
                f"{seed}  {count:4d}  {method:<12} {100 * top1:5.1f} %  {time_s:.0f} s\n"
            )
            sys.stdout.flush()
            text = json.dumps([row._asdict() for row in rows], indent=2)
            (work / "curve.json").write_text(text)
    sys.stdout.write(table(rows))
    draw(rows, work / "curve.png")


def train_backbone(data: Path, work: Path, num_epochs: int, num_videos: int) -> Path:
    """Train on the known classes, unless an earlier start ended so; return the checkpoint."""
    folder = work / "backbone"
    lists = write_lists(data, work / "lists_backbone", num_videos // 8, 0, known=True)
    path, done = folder / "checkpoints" / "last.ckpt", folder / "done.txt"
    words = ["experiment=demo", "data=custom", f"data.root={data}", *lists, f"run_dir={folder}"]
    words += [f"optim.num_epochs={num_epochs}", "data.short_side=${clip.crop_size}"]
    words += ["data.train_batch_size=32", "data.train_crop.flip_prob=0", "overwrite=true"]
    if not done.exists() or done.read_text() != "\n".join(words):
        run("train", *words)
        done.write_text("\n".join(words))
    return path


def measure(method: str, folder: Path, data: Sequence[str], backbone: Path) -> float:
    """Train one probe, or fine-tune, and return the accuracy on the test videos."""
    if method != "fine-tuning":
        words = [f"checkpoint={backbone}", f"run_dir={folder}", f"cache={folder.parent}/features"]
        run("probe", *words, f"probe.kinds=[{method}]", *data, *OF_PROBES, "overwrite=true")
    else:
        words = ["experiment=finetune", f"init.source={backbone}", f"run_dir={folder}"]
        run("train", *words, *data, *OF_FINE_TUNING, "overwrite=true")
        run("evaluate", str(folder), "checkpoint=last", "overwrite=true", "report.thumbnails=false")
    result = json.loads((folder / "evaluation" / "results.json").read_text())
    return float(result["top1"])


def write_lists(data: Path, folder: Path, count: int, seed: int, *, known: bool) -> list[str]:
    """Write lists of the known classes, or of the others; return the words that name them.

    The seed chooses the training videos, all test videos are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = []
    for split, most in (("train", count), ("test", 10**9)):
        taken: dict[str, int] = defaultdict(int)
        lines = []
        with (data / f"{split}.csv").open(newline="") as file:
            listed = list(csv.DictReader(file))
            if split == "train":
                Random(seed).shuffle(listed)
            for row in listed:
                label = row["label"]
                if (KNOWN in label) == known and taken[label] < most:
                    taken[label] += 1
                    name = f"{row['youtube_id']}_{int(row['time_start']):06d}"
                    name += f"_{int(row['time_end']):06d}.mp4"
                    lines.append([f"{split}/{label}/{name}", label])
        path = folder / f"{split}.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["path", "label"], *lines])
        words.append(f"data.{'train' if split == 'train' else 'val'}_list={path.resolve()}")
    return words


def run(*words: str) -> None:
    """Run `video-mvit`; its output is shown where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "video_mvit", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(
            f"video-mvit {' '.join(words)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )


def curves(rows: Sequence[Measured]) -> dict[str, dict[int, list[float]]]:
    """Return the accuracies in percent by method and number of videos."""
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row.method][row.num_videos].append(100 * row.top1)
    return found


def table(rows: Sequence[Measured]) -> str:
    """Return the mean of each method, and the lowest and highest, in Markdown."""
    found = curves(rows)
    lines = [f"| videos per class | {' | '.join(found)} |", "|---" * (1 + len(found)) + "|"]
    for count in dict.fromkeys(row.num_videos for row in rows):
        values = [each[count] for each in found.values()]
        cells = [f"{mean(v):.1f} % ({min(v):.1f} to {max(v):.1f})" for v in values]
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(rows: Sequence[Measured], path: Path) -> None:
    """Draw a line for each method: mean, lowest and highest over the seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for method, points in curves(rows).items():
        counts, values = list(points), list(points.values())
        (line,) = axes.plot(counts, [mean(v) for v in values], marker="o", label=method)
        lowest, highest = [min(v) for v in values], [max(v) for v in values]
        axes.fill_between(counts, lowest, highest, alpha=0.15, color=line.get_color())
    axes.set(xscale="log", xlabel="training videos per class", ylabel="top-1 on test videos, %")
    axes.set_xticks(counts, map(str, counts))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
