"""Prepare a data set: scan all videos, transcode them for fast decoding, or pack them into shards.

An interrupted run resumes with the same command.

video-mvit prepare data=kinetics400 data.root=/kinetics400 mode=scan
video-mvit prepare data=kinetics400 data.root=/kinetics400 mode=transcode output=/k400_256
"""

import contextlib
import copy
import errno
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from video_mvit.cli.auto_hardware import resolve_num_workers
from video_mvit.cli.build import build
from video_mvit.cli.config_check import check_values
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.option_values import check_verb
from video_mvit.cli.run_folder import open_folder
from video_mvit.cli.run_words import key_of
from video_mvit.cli.tasks import refuse_other_tasks
from video_mvit.cli.terminal import Terminal
from video_mvit.cli.words import words_for_settings
from video_mvit.data.lists.manifest import SHARD_PLACE, Manifest, ManifestSource
from video_mvit.data.lists.shards import write_shards
from video_mvit.data.preparation.copy_quality import measure_decoding, measure_psnr
from video_mvit.data.preparation.scan import known_bad, scan, still_unreadable, with_fingerprints
from video_mvit.data.preparation.scan_report import find_scan_report, read_scan_report
from video_mvit.data.preparation.transcode_job import TranscodeJob, transcode_list
from video_mvit.data.reading.formats import VIDEO_SUFFIXES
from video_mvit.data.reading.frame_names import frame_place
from video_mvit.data.reading.segments import SEGMENT
from video_mvit.errors import UserError
from video_mvit.host import num_usable_cores
from video_mvit.lock import only_writer

OnProgress = Callable[[int], None]

logger = logging.getLogger(__name__)


def check(cfg: DictConfig) -> None:
    """Raise `UserError` for an invalid option, before anything is read."""
    check_verb(cfg, "prepare")
    for key in ("data", "transcode", "decode_limits"):
        check_values(cfg[key], key)
    if cfg.mode != "scan" and not cfg.output:
        raise UserError(f"mode={cfg.mode} needs output=<folder to write to>")
    if cfg.mode == "shards":
        refuse_other_tasks(cfg, "mode=shards")
    key = "scan_reports" if cfg.mode == "scan" else "output"
    folder = Path(cfg[key])
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not os.access(existing, os.W_OK):
        raise UserError(f"{folder} is not writable; choose another folder with {key}=<folder>")


def read_splits(cfg: DictConfig) -> Iterator[tuple[str, Manifest]]:
    """Read the list of each split, skipping splits that share the list of an earlier one.

    The training list decides the class order, as in training. It is read if it is among the splits,
    and for shards, which store class numbers.
    """
    seen: list[Any] = []
    train = _source(cfg, "train").read() if "train" in cfg.splits or cfg.mode == "shards" else None
    for split in cfg.splits:
        node = OmegaConf.to_container(cfg.data.module[split].source, resolve=True)
        if node in seen:
            continue
        seen.append(node)
        if split == "train" and train is not None:
            manifest = train
        else:
            manifest = _source(cfg, split).read(None if train is None else train.class_names)
        logger.info("%s list: %s", split, manifest.summary())
        if cfg.mode != "scan" and any(map(SEGMENT.fullmatch, manifest.names)):
            raise UserError(
                f"mode={cfg.mode} copies whole videos, and the {split} list names parts of them; "
                "cut them out first"
            )
        yield split, manifest


def _source(cfg: DictConfig, split: str) -> ManifestSource:
    """Return the source of a split, as used in training and evaluation."""
    return build(cfg.data.module[split].source)  # type: ignore[no-any-return]


def prepare_split(
    cfg: DictConfig, split: str, manifest: Manifest, on_progress: OnProgress
) -> tuple[Path, list[str]]:
    """Process a split: -> output path, and lines to print.

    Raises `UserError` if the videos are unsuitable or the disk is full.
    """
    if cfg.mode != "scan":
        _check_are_files(manifest, cfg.mode)
    folder, lock = cfg.scan_reports if cfg.mode == "scan" else cfg.output, lock_of(cfg, split)
    with _disk_errors_in_one_sentence(folder):
        lock.parent.mkdir(parents=True, exist_ok=True)
        with only_writer(lock, f"mode={cfg.mode} for {split} in {folder}", "wait until it ends"):
            return MODES[cfg.mode](cfg, split, manifest, on_progress)


def _check_are_files(manifest: Manifest, mode: str) -> None:
    """Raise `UserError` for videos in shards and for folders of images."""
    if any(map(SHARD_PLACE.match, manifest.names)):
        raise UserError(
            f"mode={mode} reads video files, but data.shards names the shards in {manifest.root}; "
            "start from the files that they were made of"
        )
    unlike_videos = (
        i for i, n in enumerate(manifest.names) if not n.lower().endswith(VIDEO_SUFFIXES)
    )
    folders = [i for i in unlike_videos if frame_place(manifest.path(i)) is not None]
    if folders:
        raise UserError(
            f"{len(folders):,} of {len(manifest):,} videos in {manifest.root} are folders of "
            f"images, first: {manifest.names[folders[0]]!r}; "
            f"mode={mode} is for video files"
        )


@contextlib.contextmanager
def _disk_errors_in_one_sentence(folder: str) -> Iterator[None]:
    """Turn OS errors of a disk into a `UserError` that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(
                f"{folder} is full: {error.strerror}; free some space and start again to resume"
            ) from error
        raise UserError(f"{error.filename or folder}: {error.strerror}") from error


def scan_split(
    cfg: DictConfig, split: str, manifest: Manifest, on_progress: OnProgress
) -> tuple[Path, list[str]]:
    """Scan a split and return the path of its scan report."""
    path = scan_report_path(cfg, split)
    scan_report = scan(
        manifest,
        path,
        num_workers=num_workers(cfg),
        decode_limits=build(cfg.decode_limits),
        on_progress=on_progress,
    )
    bad = [f"unreadable: {name}: {reason}" for name, reason in scan_report.unreadable().items()]
    more = [f"and {len(bad) - 5:,} more, see the scan report"] if len(bad) > 5 else []
    return path, [*scan_report.summary(), *bad[:5], *more]


def transcode_split(
    cfg: DictConfig, split: str, manifest: Manifest, on_progress: OnProgress
) -> tuple[Path, list[str]]:
    """Transcode a split, or this job's part of it."""
    part, num_parts = part_of(cfg.shard)
    output = Path(cfg.output)
    below = os.path.relpath(manifest.root, cfg.data.root)
    is_inside = not below.startswith("..")
    job = TranscodeJob(
        folder=output / below if is_inside else output,
        report=output / f"{split}.transcode-{part}-of-{num_parts}.jsonl",
        spec=build(cfg.transcode),
        decode_limits=build(cfg.decode_limits),
        num_workers=num_workers(cfg),
        part=part,
        num_parts=num_parts,
    )
    report = transcode_list(manifest, job, on_progress)
    lines = report.summary()
    if report.pairs:
        before_s, after_s = measure_decoding(report.pairs, build(cfg.data.samplers.train))
        lines.append(
            f"decoding a random clip takes {1000 * after_s:.1f} ms, was {1000 * before_s:.1f} ms: "
            f"{before_s / after_s:.1f} times faster; PSNR {measure_psnr(report.pairs):.1f} dB"
        )
    if is_inside:
        use = f"copy the lists of {cfg.data.root} to {output}; data.root={output}"
        absolute = "; absolute paths in a list would still name the old videos"
        use += absolute if "train_list" in cfg.data else ""
    else:
        use = f"list them by their paths below {output}: they lay outside {cfg.data.root}"
    return job.folder, [*lines, f"to use them, {use}"]


def shard_split(
    cfg: DictConfig, split: str, manifest: Manifest, on_progress: OnProgress
) -> tuple[Path, list[str]]:
    """Pack a split into shards, without its unreadable videos."""
    path = scan_report_path(cfg, split)
    output = Path(cfg.output, cfg.data.module[split].source.name)
    bad: dict[int, str] = {}
    if path.exists():  # says what to look at again: no video is left out unseen
        scan_report = read_scan_report(path)
        manifest = with_fingerprints(manifest, scan_report)
        bad = still_unreadable(
            manifest,
            known_bad(manifest, scan_report, max_fraction=1.0),
            num_workers=num_workers(cfg),
            decode_limits=build(cfg.decode_limits),
        )
    index = write_shards(
        manifest, output, left_out=bad, max_bytes=cfg.max_bytes, on_progress=on_progress
    )
    use = f"to use them: the same command line with data.shards={cfg.output}"
    return output, [*index.summary(), use]


MODES = {"scan": scan_split, "transcode": transcode_split, "shards": shard_split}


def scan_report_path(cfg: DictConfig, split: str) -> Path:
    """Return the path where training and evaluation look for the scan report of a split."""
    name = Path(cfg.data.module[split].scan_report).name
    return find_scan_report(Path(cfg.scan_reports, name))


def lock_of(cfg: DictConfig, split: str) -> Path:
    """Return the lock file of what is written for a split; parts of it may be written at once."""
    if cfg.mode == "scan":
        return Path(f"{scan_report_path(cfg, split)}.lock")
    part = str(cfg.shard).replace("/", "-of-") if cfg.mode == "transcode" else "all"
    return Path(cfg.output, f".{split}.{cfg.mode}-{part}.lock")


def num_workers(cfg: DictConfig) -> int:
    """Return the number of worker processes."""
    return int(cfg.num_workers) if cfg.num_workers is not None else num_usable_cores()


def part_of(shard: str) -> tuple[int, int]:
    """Parse a shard such as "3/64": part 3 of 64, counted from 0."""
    part, _, num_parts = str(shard).partition("/")
    if not (part.isdecimal() and num_parts.isdecimal() and int(part) < int(num_parts)):
        raise UserError(f"shard is {shard!r}, expected 0/n to n-1/n, such as 0/4")
    return int(part), int(num_parts)


console = Terminal()


def main(cfg: DictConfig) -> None:
    """Process all splits, and print where the results are."""
    with exit_on_user_error(), stopped_by_ctrl_c():
        cfg = copy.deepcopy(cfg)
        resolve_num_workers(cfg)  # of training; only so that it is a valid number
        check(cfg)
        open_folder(cfg.run_dir, "prepare")
        for split, manifest in read_splits(cfg):
            with progress_bar(f"{cfg.mode} {split}", len(manifest)) as on_progress:
                place, lines = prepare_split(cfg, split, manifest, on_progress)
            console.print(f"[bold]{split}[/]  {place}", *lines, sep="\n  ")
        if cfg.mode == "scan":  # the others say how to use what they wrote
            words = [shlex.quote(each) for each in words_for_settings() if is_of_data(each)]
            console.print(f"next: video-mvit browse {' '.join(words)}", markup=False)


def is_of_data(word: str) -> bool:
    """Return whether a word says which videos there are."""
    return key_of(word).partition(".")[0] == "data"


@contextlib.contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar; yields a function that advances it."""
    speed, bar = TextColumn("{task.fields[speed]}"), BarColumn()
    columns = (TextColumn(title), bar, MofNCompleteColumn(), speed, TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, speed="", start=False)

        def advance(num_videos: int) -> None:
            if not progress.tasks[0].started:  # done by an earlier run: excluded from the speed
                progress.reset(task, completed=num_videos, total=total, speed="")
                return
            per_s = progress.tasks[0].speed
            progress.update(task, advance=num_videos, speed=f"{per_s:.1f}/s" if per_s else "")

        yield advance


@contextlib.contextmanager
def stopped_by_ctrl_c() -> Iterator[None]:
    """Exit with a hint on Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("interrupted: results so far are kept, the same command resumes")
        sys.exit(130)
