"""What `target=train` puts in the place of parts of a training: network, loader, videos."""

import csv
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.model_peers import build_baseline
from benchmarks.peer_errors import BaselineError
from benchmarks.workloads import compile_blocks
from video_mvit.data.datamodule import VideoDataModule
from video_mvit.data.dataset import Batch
from video_mvit.data.preparation.demo import write_demo_dataset
from video_mvit.data.preparation.synthetic import generated_video
from video_mvit.errors import UserError
from video_mvit.models.config import variant_config

NUM_KEPT = 2  # batches of `MemoryDataModule`
NUM_EVALUATED = 8  # videos of the other splits, which are listed and not read
NUM_CLASSES = 400
COMPILED = "_compiled"  # behind the name of a baseline


def create_baseline(name: str, *, baseline: str, **options: Any) -> nn.Module:
    """Build what computes our variant `name`, by the name of a baseline; see `model_peers`.

    `<baseline>_compiled` has each block compiled. Raises `UserError` where it cannot be built.
    """
    config = variant_config(name, **options)
    try:
        network = build_baseline(baseline.removesuffix(COMPILED), config)
    except BaselineError as error:
        raise UserError(str(error)) from None
    if baseline.endswith(COMPILED):
        compile_blocks(network)
    return network


class MemoryDataModule(VideoDataModule):
    """Decode some training batches once, and give them again and again."""

    def train_dataloader(self) -> Any:
        loader = super().train_dataloader()
        return KeptBatches(list(islice(loader, NUM_KEPT)), len(loader))


class KeptBatches:
    """An epoch of `num_batches` batches, of which some are there."""

    def __init__(self, batches: Sequence[Batch], num_batches: int) -> None:
        self._batches, self._num_batches = batches, num_batches

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[Batch]:
        return islice(cycle(self._batches), self._num_batches)


def write_motions(folder: Path, num_videos: int, seed: int) -> Path:
    """Write the demo's data set of videos of 64 pixels, unless it exists: -> its root."""
    root = folder / f"motions_seed{seed}_{num_videos}"
    if not (root / "test.csv").exists():
        splits = {"train": num_videos, "val": NUM_EVALUATED, "test": NUM_EVALUATED}
        write_demo_dataset(root, splits, seed, lambda _: None)
    return root


def write_footage(folder: Path, num_files: int, num_videos: int, seed: int) -> Path:
    """Lay out generated videos of 340x256 as Kinetics-400, unless they are: -> its root.

    `num_videos` links share `num_files` files, which are seconds of work each.
    """
    root = folder / f"footage_seed{seed}_{num_files}x{num_videos}"
    files = [generated_video(folder / "videos", seed, number) for number in range(num_files)]
    for split, num_listed in (("train", max(num_videos, NUM_CLASSES)), ("val", NUM_EVALUATED)):
        rows = [["label", "youtube_id", "time_start", "time_end", "split"]]
        for number, file in zip(range(num_listed), cycle(files), strict=False):
            label, name = f"class {number % NUM_CLASSES:03d}", f"{split}{number:06d}"
            link = root / split / label / f"{name}_000000_000010.mp4"
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(file.resolve())
            rows.append([label, name, "0", "10", split])
        with (root / f"{split}.csv").open("w", newline="") as lines:
            csv.writer(lines).writerows(rows)
    return root
