"""Run the demo (`make demo`): generate videos, train, evaluate, report."""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

NUM_VIDEOS = {"train": 6000, "val": 160, "test": 320}
console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Run all steps of the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of videos and training (default 0)")
    seed = parser.parse_args().seed
    root, run_dir = Path("datasets", f"demo_{seed}"), Path("runs", f"demo_{seed}")
    options = ["experiment=demo", f"data.root={root}", f"run_dir={run_dir}", f"seed={seed}"]
    write_data(root, seed)
    start = time.perf_counter()
    run("2. Training", "train", *options, "overwrite=true")
    run(
        "3. Evaluation",
        "evaluate",
        *options,
        "checkpoint=last",
        "motion=[frozen,reversed,shuffled]",
    )
    report(run_dir, options, time.perf_counter() - start)


def write_data(root: Path, seed: int) -> None:
    """Generate the data set, unless it exists."""
    from video_mvit.data.preparation.demo import MOTIONS, write_demo_dataset

    console.print(
        f"[bold]1. Data[/] {sum(NUM_VIDEOS.values())} videos of {len(MOTIONS)} motions in {root}"
    )
    if (root / "test.csv").exists():
        console.print("   already exists")
        return
    columns = (
        TextColumn("   writing"),
        BarColumn(),
        TextColumn("{task.completed} videos"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=sum(NUM_VIDEOS.values()))
        write_demo_dataset(root, NUM_VIDEOS, seed, lambda n: progress.advance(task, n))


def run(title: str, verb: str, *options: str) -> None:
    """Print and run another verb; exit if it fails."""
    command = escape(shlex.join(["video-mvit", verb, *options]))
    console.print(f"\n[bold]{title}[/]\n   {command}")
    if code := subprocess.run(
        [sys.executable, "-m", "video_mvit", verb, *options], check=False
    ).returncode:
        sys.exit(code)


def report(run_dir: Path, options: list[str], time_s: float) -> None:
    """Print the results and what to try next."""
    from video_mvit.data.preparation.demo import MOTIONS

    result = json.loads((run_dir / "evaluation" / "results.json").read_text())
    top1, top5 = (100 * result[name] for name in ("top1", "top5"))
    frozen = 100 * result["motion"]["frozen"]
    chance, again = 100 / len(MOTIONS), " ".join(options)
    lines = [
        f"\n[bold]Done[/] in {time_s:.0f} s of training and evaluation, on {result['num_videos']} "
        "test videos:",
        f"  top-1 {top1:.1f} %, top-5 {top5:.1f} %",
        f"  top-1 {frozen:.1f} % on static clips (chance level {chance:.1f} %)",
        f"  report       {run_dir}/evaluation/report.html  (open it in a browser)",
        f"  results      {run_dir}/evaluation/results.json",
        f"  checkpoint   {run_dir}/checkpoints/last.ckpt",
        f"  logs         {run_dir}/metrics/, {run_dir}/tensorboard/",
        "\n[bold]Try next[/]  one clip per video instead of five; your own data:",
        f"  video-mvit evaluate {again} checkpoint=last data.num_clips=1 output={run_dir}/one_clip",
        "  video-mvit train experiment=k400_mvitv2_s_16x4 data.root=/kinetics400",
    ]
    console.print("\n".join(lines))
