"""What changed between two evaluations: the numbers, which videos flipped, and whether by chance.

python scripts/compare.py runs/a/evaluation runs/b/evaluation
"""

import argparse
import csv
from pathlib import Path

from comparing import console, show_comparison, show_numbers
from mistakes import mistakes_in_one_sentence

from video_mvit.evaluation.comparison import Comparison, compare
from video_mvit.evaluation.folder import read_folder
from video_mvit.prediction.writing import shown_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("before", type=Path, help="folder of an evaluation")
    parser.add_argument("after", type=Path, help="folder of another one of the same videos")
    parser.add_argument(
        "--flips", type=Path, help="CSV file to write, with all videos that flipped"
    )
    arguments = parser.parse_args()
    with mistakes_in_one_sentence():
        (first, before), (second, after) = (
            read_folder(folder) for folder in (arguments.before, arguments.after)
        )
        names = (first.origin.class_names, second.origin.class_names)
        comparison = compare(before, after, names)
        if arguments.flips:
            write_flips(arguments.flips, comparison)
    show_numbers(first, second)
    show_comparison(first, second, comparison)
    if arguments.flips:
        console.print(f"\nall of them: {shown_name(str(arguments.flips))}", markup=False)


def write_flips(path: Path, comparison: Comparison) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["video", "label", "before", "after", "change"])
        for change, flips in (("gained", comparison.gained), ("lost", comparison.lost)):
            table.writerows([f.video, f.label, f.before, f.after, change] for f in flips)


if __name__ == "__main__":
    main()
