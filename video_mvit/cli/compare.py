"""Compare two evaluations: metrics, flipped predictions and their significance.

video-mvit compare runs/a/evaluation runs/b/evaluation
"""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("before", type=Path, help="folder of an evaluation")
    parser.add_argument("after", type=Path, help="folder of another evaluation of the same videos")
    parser.add_argument("--flips", type=Path, help="CSV file to write all flipped predictions to")
    arguments = parser.parse_args()
    from video_mvit.cli.comparison import compare_folders

    compare_folders(arguments.before, arguments.after, arguments.flips)
