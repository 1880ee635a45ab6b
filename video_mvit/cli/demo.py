"""Run a demo: generate videos (or pictures of objects), train, evaluate, report.

`make demo` classifies motions in videos, `make demo-detection` finds shapes in pictures.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from video_mvit.cli.terminal import Terminal
from video_mvit.errors import UserError

NUM_PICTURES = {"train": 1000, "val": 100}
NUM_VIDEOS = {"train": 6000, "val": 160, "test": 320}
console = Terminal()


def main() -> None:
    """Run all steps of a demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", nargs="?", choices=("motions", "detection"), default="motions")
    parser.add_argument("--seed", type=int, default=0, help="of data and training (default 0)")
    arguments = parser.parse_args()

    from video_mvit.cli.errors import exit_on_user_error  # slow to import

    demo = {"motions": classify_motions, "detection": detect_shapes}[arguments.kind]
    with exit_on_user_error():
        demo(arguments.seed)


def classify_motions(seed: int) -> None:
    """Train and evaluate a classifier of generated videos."""
    root, run_dir = Path("datasets", f"demo_{seed}"), Path("runs", f"demo_{seed}")
    options = ["experiment=demo", f"data.root={root}", f"run_dir={run_dir}", f"seed={seed}"]
    write_data(root, seed)
    start = time.perf_counter()
    run("2. Training", "train", *options, "overwrite=true")
    run(
        "3. Evaluation",
        "evaluate",
        str(run_dir),
        "checkpoint=last",
        "motion=[frozen,reversed,shuffled]",
        "overwrite=true",
    )
    report(run_dir, root, time.perf_counter() - start)


def write_data(root: Path, seed: int) -> None:
    """Generate the data set, unless it exists.

    Raises `UserError` where the folder holds other classes.
    """
    from video_mvit.data.preparation.demo import SCENES, write_demo_dataset

    console.print(
        f"[bold]1. Data[/] {sum(NUM_VIDEOS.values())} videos of {len(SCENES)} classes in {root}"
    )
    if (root / "test.csv").exists():
        if missing := [name for name in SCENES if not (root / "test" / name).is_dir()]:
            raise UserError(
                f"{root} holds other videos than those of the demo, without {missing[0]!r}; "
                "delete or rename it, or take another --seed"
            )
        console.print("   already exists")
        return
    with writing(sum(NUM_VIDEOS.values()), "videos") as on_progress:
        write_demo_dataset(root, NUM_VIDEOS, seed, on_progress, SCENES)


@contextmanager
def writing(total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show a bar; give the function that moves it on."""
    columns = (
        TextColumn("   writing"),
        BarColumn(),
        TextColumn(f"{{task.completed}} {unit}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total)
        yield lambda n: progress.advance(task, n)


def detect_shapes(seed: int) -> None:
    """Train and evaluate a detector of generated shapes."""
    root, run_dir = Path("datasets", f"shapes_{seed}"), Path("runs", f"shapes_{seed}")
    options = ["experiment=demo_detection", f"data.root={root}"]
    options += [f"run_dir={run_dir}", f"seed={seed}"]
    write_pictures(root, seed)
    start = time.perf_counter()
    run("2. Training", "train", *options, "overwrite=true")
    run("3. Evaluation", "evaluate", *options, "checkpoint=last", "overwrite=true")
    report_shapes(run_dir, root, time.perf_counter() - start)


def write_pictures(root: Path, seed: int) -> None:
    """Generate the data set of shapes, unless it exists."""
    from video_mvit.detection.demo_pictures import CLASS_COLORS, write_detection_demo

    total = sum(NUM_PICTURES.values())
    console.print(
        f"[bold]1. Data[/] {total} pictures of {', '.join(f'{name}s' for name in CLASS_COLORS)} "
        f"in {root}"
    )
    if (root / "annotations" / "instances_val.json").exists():
        console.print("   already exists")
        return
    with writing(total, "pictures") as on_progress:
        write_detection_demo(root, NUM_PICTURES, seed, on_progress)


def report_shapes(run_dir: Path, root: Path, time_s: float) -> None:
    """Print the results and what to try next."""
    result = json.loads((run_dir / "evaluation" / "results.json").read_text())
    box, mask = result["box"], result["mask"]
    lines = [
        f"\n[bold]Done[/] in {time_s:.0f} s of training and evaluation, on "
        f"{result['num_images']} pictures:",
        f"  box AP {100 * box['ap']:.1f}  (AP50 {100 * box['ap50']:.1f})",
        f"  mask AP {100 * mask['ap']:.1f}  (AP50 {100 * mask['ap50']:.1f})",
        f"  report       {run_dir}/evaluation/report.html  (open it in a browser)",
        f"  results      {run_dir}/evaluation/results.json",
        f"  checkpoint   {run_dir}/checkpoints/last.ckpt",
        "\n[bold]Try next[/]  a picture with its objects drawn; your own pictures:",
        f"  video-mvit predict checkpoint={run_dir}/checkpoints/last.ckpt "
        f"image={root}/val/000000.png annotate=shapes.png",
        "  video-mvit train experiment=finetune_detector data.root=/pictures init.source=det.pkl",
    ]
    console.print("\n".join(lines))


def run(title: str, verb: str, *options: str) -> None:
    """Print and run another verb; exit if it fails."""
    command = escape(shlex.join(["video-mvit", verb, *options]))
    console.print(f"\n[bold]{title}[/]\n   {command}")
    if code := subprocess.run(
        [sys.executable, "-m", "video_mvit", verb, *options], check=False
    ).returncode:
        sys.exit(code)


def report(run_dir: Path, root: Path, time_s: float) -> None:
    """Print the results and what to try next."""
    from video_mvit.data.preparation.demo import MOTIONS

    result = json.loads((run_dir / "evaluation" / "results.json").read_text())
    top1, top5 = (100 * result[name] for name in ("top1", "top5"))
    frozen = 100 * result["motion"]["frozen"]
    colour_alone = 100 / len(MOTIONS)
    clip = shlex.quote(str(min((root / "test" / "red moving left").iterdir())))
    lines = [
        f"\n[bold]Done[/] in {time_s:.0f} s of training and evaluation, on {result['num_videos']} "
        "test videos:",
        f"  top-1 {top1:.1f} %, top-5 {top5:.1f} %",
        f"  top-1 {frozen:.1f} % on static clips (the colour alone tells {colour_alone:.1f} %)",
        f"  report       {run_dir}/evaluation/report.html  (open it in a browser)",
        f"  results      {run_dir}/evaluation/results.json",
        f"  checkpoint   {run_dir}/checkpoints/last.ckpt",
        f"  logs         {run_dir}/metrics/",
        "\n[bold]Try next[/]  where it looks; what it trained on; videos of your own:",
        f"  video-mvit predict {run_dir} checkpoint=last explain=true {clip}",
        f"  video-mvit browse experiment=demo data.root={root}",
        "  video-mvit train experiment=finetune data.root=VIDEOS init.source=mvitv2_s_k400",
    ]
    console.print("\n".join(lines))
