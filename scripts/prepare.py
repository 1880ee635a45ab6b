"""Before training: decode every video once and keep a ledger, write copies that decode faster, or
pack videos into shards. An interrupted run goes on where it stopped.

python scripts/prepare.py data=kinetics400 data.root=/kinetics400 mode=scan
python scripts/prepare.py data=kinetics400 data.root=/kinetics400 mode=transcode output=/k400_256
"""

import contextlib
import sys
from collections.abc import Callable, Iterator

import hydra
from mistakes import mistakes_in_one_sentence
from omegaconf import DictConfig
from preparation import check, prepare_split, read_splits
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from run_folder import open_folder

console = Console(highlight=False, soft_wrap=True)


@hydra.main(version_base="1.3", config_path="../conf", config_name="prepare")
def main(cfg: DictConfig) -> None:
    with mistakes_in_one_sentence(), stopped_by_ctrl_c():
        check(cfg)
        open_folder(cfg.run_dir, "prepare")
        for split, manifest in read_splits(cfg):
            with progress_bar(f"{cfg.mode} {split}", len(manifest)) as on_progress:
                place, lines = prepare_split(cfg, split, manifest, on_progress)
            console.print(f"[bold]{split}[/]  {place}", *lines, sep="\n  ")


@contextlib.contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar, and the function that tells it how many more videos are done."""
    speed, bar = TextColumn("{task.fields[speed]}"), BarColumn()
    columns = (TextColumn(title), bar, MofNCompleteColumn(), speed, TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, speed="", start=False)

        def advance(num_videos: int) -> None:
            if not progress.tasks[0].started:  # done by an earlier run: no part of the speed
                progress.reset(task, completed=num_videos, total=total, speed="")
                return
            per_s = progress.tasks[0].speed
            progress.update(task, advance=num_videos, speed=f"{per_s:.1f}/s" if per_s else "")

        yield advance


@contextlib.contextmanager
def stopped_by_ctrl_c() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        console.print("stopped; what is done is kept, the same command goes on from here")
        sys.exit(130)


if __name__ == "__main__":
    main()
