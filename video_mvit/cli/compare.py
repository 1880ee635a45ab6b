"""Compare two evaluations: metrics, flipped predictions and their significance.

video-mvit compare runs/a runs/b
"""

import argparse
import shlex
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("before", type=Path, help="folder of an evaluation, or of its run")
    parser.add_argument("after", type=Path, help="the same of another evaluation of these videos")
    parser.add_argument("--flips", type=Path, help="CSV file to write all flipped predictions to")
    arguments = parser.parse_args()
    from video_mvit.cli.comparison import can_flip, compare_folders

    before, after = evaluation_of(arguments.before), evaluation_of(arguments.after)
    compare_folders(before, after, arguments.flips)
    if arguments.flips is None and can_flip(before):
        named = shlex.join([str(arguments.before), str(arguments.after)])
        print(f"next: video-mvit compare {named} --flips flips.csv")  # noqa: T201


def evaluation_of(folder: Path) -> Path:
    """Return the evaluation in the folder of a run, or of the newest run; else the folder."""
    from video_mvit.cli.runs import EVALUATION, find_run, tell_run

    run = find_run(folder)
    if run is None or not (run / EVALUATION).is_dir():
        return folder
    tell_run(folder, run)
    return run / EVALUATION
