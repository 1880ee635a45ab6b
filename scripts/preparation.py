"""What `prepare.py` does to the list of one split; each mode says where it wrote and what."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from launch import build
from mistakes import check_values
from omegaconf import DictConfig, OmegaConf

from video_mvit.data.ledger import known_bad, read_ledger, scan
from video_mvit.data.manifest import Manifest
from video_mvit.data.processes import num_usable_cores
from video_mvit.data.shards import write_shards
from video_mvit.data.transcoding import TranscodeJob, measure_decoding, transcode_list

Progress = Callable[[int], None]


def check(cfg: DictConfig) -> None:
    """Raise `ValueError` for a value that no mode can use, before anything is read."""
    for key in ("data", "transcode", "budget"):
        check_values(cfg[key], key)
    if cfg.mode not in MODES:
        raise ValueError(f"mode is {cfg.mode!r}, expected one of {', '.join(MODES)}")
    for split in cfg.splits:
        if split not in cfg.data.sources:
            raise ValueError(f"splits names {split!r}; the data set has train, val and test")
    if cfg.num_workers is not None and not isinstance(cfg.num_workers, int):
        raise ValueError(f"num_workers is {cfg.num_workers!r}, expected int or null")
    if cfg.mode != "scan" and not cfg.output:
        raise ValueError(f"mode={cfg.mode} needs output=<folder to write to>")
    key = "ledger" if cfg.mode == "scan" else "output"
    folder = Path(cfg[key])
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not os.access(existing, os.W_OK):
        raise ValueError(f"{folder} cannot be written to; {key}=<folder> names another place")


def read_splits(cfg: DictConfig) -> Iterator[tuple[str, Manifest]]:
    """The list of each split; one that has the list of an earlier split is left out.

    The training list decides the order of classes, as in training.
    """
    seen: list[Any] = []
    train = build(cfg.data.sources.train).read()
    for split in cfg.splits:
        source = OmegaConf.to_container(cfg.data.sources[split], resolve=True)
        if source not in seen:
            seen.append(source)
            is_train = split == "train"
            yield (
                split,
                train if is_train else build(cfg.data.sources[split]).read(train.class_names),
            )


def scan_split(
    cfg: DictConfig, split: str, manifest: Manifest, on_progress: Progress
) -> tuple[Path, list[str]]:
    path = ledger_path(cfg, split)
    ledger = scan(
        manifest,
        path,
        num_workers=num_workers(cfg),
        budget=build(cfg.budget),
        on_progress=on_progress,
    )
    bad = [f"unreadable: {name}: {reason}" for name, reason in ledger.unreadable().items()]
    more = [f"and {len(bad) - 5:,} more, all in the ledger"] if len(bad) > 5 else []
    return path, [*ledger.summary(), *bad[:5], *more]


def transcode_split(
    cfg: DictConfig, split: str, manifest: Manifest, on_progress: Progress
) -> tuple[Path, list[str]]:
    part, num_parts = part_of(cfg.shard)
    output = Path(cfg.output)
    below = os.path.relpath(manifest.root, cfg.data.root)
    job = TranscodeJob(
        folder=output if below.startswith("..") else output / below,
        report=output / f"{split}.transcode-{part}-of-{num_parts}.jsonl",
        spec=build(cfg.transcode),
        budget=build(cfg.budget),
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
            f"{before_s / after_s:.1f} times faster"
        )
    lines.append(f"to use them, copy the lists of {cfg.data.root} to {output}; data.root={output}")
    return job.folder, lines


def shard_split(
    cfg: DictConfig, split: str, manifest: Manifest, on_progress: Progress
) -> tuple[Path, list[str]]:
    path, output = ledger_path(cfg, split), Path(cfg.output, split)
    bad = known_bad(manifest, read_ledger(path)) if path.exists() else {}
    index = write_shards(
        manifest, output, left_out=bad, max_bytes=cfg.max_bytes, on_progress=on_progress
    )
    use = f"data=shards data.root={cfg.output} data.num_classes={len(manifest.class_names)}"
    return output, [*index.summary(), f"to use them: {use}"]


MODES = {"scan": scan_split, "transcode": transcode_split, "shards": shard_split}


def ledger_path(cfg: DictConfig, split: str) -> Path:
    return Path(cfg.ledger, f"{split}.ledger.jsonl")


def num_workers(cfg: DictConfig) -> int:
    return int(cfg.num_workers) if cfg.num_workers is not None else num_usable_cores()


def part_of(shard: str) -> tuple[int, int]:
    """ "3/64" is part 3 of 64, counted from 0."""
    part, _, num_parts = str(shard).partition("/")
    if not (part.isdecimal() and num_parts.isdecimal() and int(part) < int(num_parts)):
        raise ValueError(f"shard is {shard!r}, expected 0/n to n-1/n, such as 0/4")
    return int(part), int(num_parts)
