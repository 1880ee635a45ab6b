"""What is known about every video of a list after decoding all of it, kept in a file.

A scan report is a file of JSON lines: a header that says of which list, then one record for each
video, in the order they were read. It grows as results come, so that an interrupted scan goes on
where it stopped. Records are found by the name of the video in the manifest (in shards: its own
name).
"""

import contextlib
import fcntl
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, TextIO

from video_mvit.data.lists.manifest import SHARD_PLACE, Manifest
from video_mvit.data.preparation.worker_pool import WorkerCrashed, map_in_processes
from video_mvit.data.reading.open import DecodeLimits, VideoDecodeError, examine_video
from video_mvit.errors import MissingFileError, UserError
from video_mvit.files import move_into_place, temporary_path

logger = logging.getLogger(__name__)

NUM_STAT_THREADS = 16  # a network folder answers many at once
HANG_FACTOR = 6.0  # wall time over the limit on processor time, after which a process hangs
NO_FILE = "no such file"
HEADER = {"list_sha1": str, "num_videos": int, "num_missing": int, "root": str}


@dataclass(frozen=True, kw_only=True, slots=True)
class ScannedVideo:
    """One video: `size` in bytes and `mtime_ns` of its file, and what decoding all of it showed.

    `error` says why it cannot be read; then the numbers are 0.
    """

    name: str
    size: int
    mtime_ns: int
    num_frames: int = 0
    fps: float = 0.0
    duration_s: float = 0.0
    height: int = 0
    width: int = 0
    codec: str = ""
    num_key_frames: int = 0
    error: str | None = None


RECORD: dict[str, Any] = {field.name: field.type for field in fields(ScannedVideo)}


@dataclass(frozen=True, kw_only=True)
class ScanReport:
    """Records by name, made for the list with digest `list_sha1` of `num_videos` below `root`.

    `num_missing` further videos were listed, but not on disk.
    """

    list_sha1: str
    num_videos: int
    num_missing: int
    root: str
    records: Mapping[str, ScannedVideo]

    def unreadable(self) -> dict[str, str]:
        """Why videos cannot be read, by name."""
        return {name: record.error for name, record in self.records.items() if record.error}

    def summary(self) -> list[str]:
        """Lines for a person: how many videos, how much of them, and of which kinds."""
        good = [record for record in self.records.values() if record.error is None]
        num_bad = len(self.records) - len(good)
        num_bytes = sum(record.size for record in self.records.values())
        lines = [
            f"{len(self.records):,} videos, {size_text(num_bytes)}, {num_bad:,} unreadable, "
            f"{self.num_missing:,} missing"
        ]
        if good:
            minutes = sum(record.duration_s for record in good) / 60
            length = f"{minutes / 60:,.1f} hours" if minutes >= 60 else f"{minutes:.1f} minutes"
            num_frames = sum(record.num_frames for record in good)
            gop = num_frames / max(sum(record.num_key_frames for record in good), 1)
            lines += [
                f"{length}, {num_frames:,} frames, a key frame every {gop:.0f}",
                describe_mix(f"{record.fps:.4g} fps" for record in good),
                describe_mix(f"{record.width}x{record.height}" for record in good),
                describe_mix(record.codec for record in good),
            ]
        return lines


class Stamp(NamedTuple):
    """Tells whether a file is still the same; the time is None where the file has none."""

    size: int
    mtime_ns: int | None


def size_text(num_bytes: int) -> str:
    """A size as a person says it, in MB or GB."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"


def own_name(name: str) -> str:
    """Name of a video in its list, without its place in a shard."""
    return SHARD_PLACE.sub("", name)


def stamp_of(path: str) -> Stamp:
    """Size and time of a file, of a folder of images, or of a member of a shard.

    Raises `OSError` where there is none.
    """
    if place := SHARD_PLACE.match(path):
        return Stamp(int(place[0][:-1].rpartition("+")[2]), None)
    status = os.stat(path)
    if not os.path.isdir(path):
        return Stamp(status.st_size, status.st_mtime_ns)
    with os.scandir(path) as entries:
        return Stamp(sum(entry.stat().st_size for entry in entries), status.st_mtime_ns)


def is_current(record: ScannedVideo, stamp: Stamp) -> bool:
    return record.size == stamp.size and stamp.mtime_ns in (None, record.mtime_ns)


def find_scan_report(path: Path) -> Path:
    """Path of a scan report: its own, or that of version 0.1 beside it where only this is there."""
    old = path.with_name(f"{path.name.removesuffix('.scan.jsonl')}.ledger.jsonl")
    return old if old.is_file() and not path.exists() else path


def read_scan_report(path: str | Path) -> ScanReport:
    """Read a scan report.

    A last line that was not finished is left out; of two records, the later one counts. Raises
    `FileNotFoundError`, or `UserError` with the line that is damaged.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; a scan report is a file that mode=scan writes")
    if not path.is_file():
        raise MissingFileError(f"no scan report {path}; video-mvit prepare mode=scan writes it")
    lines = path.read_bytes().split(b"\n")[:-1]  # after the last newline: nothing, or half a line
    header = _parse(path, 1, lines[0] if lines else b"", HEADER)
    records: dict[str, ScannedVideo] = {}
    for number, line in enumerate(lines[1:], start=2):
        record = ScannedVideo(**_parse(path, number, line, RECORD))
        records[record.name] = record
    return ScanReport(**header, records=records)


def scan(
    manifest: Manifest,
    path: Path,
    *,
    num_workers: int,
    decode_limits: DecodeLimits,
    on_progress: Callable[[int], None],
) -> ScanReport:
    """Decode every video of a list that a scan report does not know yet, and write what was found.

    `on_progress` is told how many videos of the list are known, first those that were before.
    Records of other videos stay in the file. Gives the scan report of this list alone; raises
    `UserError` where the file is no scan report, `OSError` where it cannot be written.
    """
    known = current_records(manifest, path)
    names = [own_name(name) for name in manifest.names]
    todo = [i for i, name in enumerate(names) if name not in known]
    on_progress(len(manifest) - len(todo))
    items = [(names[i], manifest.path(i)) for i in todo]
    results = map_in_processes(
        partial(examine, decode_limits=decode_limits),
        items,
        num_workers=num_workers,
        time_limit_s=decode_limits.time_s * HANG_FACTOR,
    )
    with _append_to(path, manifest, known) as file, contextlib.closing(results):
        for (name, video), result in results:
            record = (
                _record_of_lost(name, video, result)
                if isinstance(result, WorkerCrashed)
                else result
            )
            known[name] = record
            _write_lines(file, [asdict(record)])
            on_progress(1)
    listed = {name: known[name] for name in names}
    return ScanReport(**_header(manifest), records=listed)


def current_records(manifest: Manifest, path: Path) -> dict[str, ScannedVideo]:
    """Records of a scan report without those of listed videos that are to be read again.

    These are files that have changed, and those that could not be read: the reason may have been
    the machine, a network or a permission.
    """
    if not path.exists() or path.stat().st_size == 0:
        return {}
    records = dict(read_scan_report(path).records)
    names = [own_name(name) for name in manifest.names]
    listed = [i for i, name in enumerate(names) if name in records]
    with ThreadPoolExecutor(NUM_STAT_THREADS) as threads:
        stamps = threads.map(_stamp_or_none, (manifest.path(i) for i in listed))
        for i, stamp in zip(listed, stamps, strict=True):
            record = records[names[i]]
            if record.error or stamp is None or not is_current(record, stamp):
                del records[record.name]
    return records


def known_bad(manifest: Manifest, scan_report: ScanReport) -> dict[int, str]:
    """Videos of a list that the scan report calls unreadable, by index, with the reason.

    A file whose size has changed since gets another chance. Says so where the report was made for
    another list.
    """
    if scan_report.list_sha1 != manifest.digest():
        logger.info(
            "the scan report of %s was made for another list; its records are used by name",
            scan_report.root,
        )
    errors = scan_report.unreadable()
    bad = {}
    for i, name in enumerate(map(own_name, manifest.names) if errors else ()):
        if name in errors:
            stamp = _stamp_or_none(manifest.path(i))
            if stamp is None or stamp.size == scan_report.records[name].size:
                bad[i] = errors[name]
    return bad


def examine(item: tuple[str, str], decode_limits: DecodeLimits) -> ScannedVideo:
    """Decode all of a video, given its name and its path; an unreadable one is a record too."""
    name, path = item
    stamp = _stamp_or_none(path)
    if stamp is None:
        return ScannedVideo(name=name, size=0, mtime_ns=0, error=NO_FILE)
    record = ScannedVideo(name=name, size=stamp.size, mtime_ns=stamp.mtime_ns or 0)
    try:
        facts = examine_video(path, decode_limits)
    except VideoDecodeError as error:
        return replace(record, error=error.reason)
    return replace(
        record,
        num_frames=facts.num_frames,
        fps=round(facts.fps, 6),
        duration_s=round(facts.duration_s, 6),
        height=facts.size[0],
        width=facts.size[1],
        codec=facts.codec,
        num_key_frames=facts.num_key_frames,
    )


def _header(manifest: Manifest) -> dict[str, Any]:
    return {
        "list_sha1": manifest.digest(),
        "num_videos": len(manifest),
        "num_missing": len(manifest.missing),
        "root": manifest.root,
    }


def _parse(path: Path, number: int, line: bytes, schema: Mapping[str, Any]) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:  # not JSON, or not UTF-8
        content = None
    fits = isinstance(content, dict) and content.keys() == schema.keys()
    if fits and all(isinstance(content[key], kind) for key, kind in schema.items()):
        return dict(content)
    text = line[:60].decode("utf-8", "replace")
    if number == 1:
        raise UserError(f"{path} is no scan report: it starts with {text!r}")
    raise UserError(
        f"{path} line {number}: {text!r} is no record of a video; delete the line, and "
        "video-mvit prepare mode=scan reads that video again"
    )


@contextlib.contextmanager
def _append_to(
    path: Path, manifest: Manifest, known: Mapping[str, ScannedVideo]
) -> Iterator[TextIO]:
    """Replace a scan report by its header and known records, and keep it open for further ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = temporary_path(path)
    with contextlib.ExitStack() as stack:
        if path.exists():
            _lock(stack.enter_context(path.open("rb")), path)
        file = stack.enter_context(part.open("w", encoding="utf-8"))
        _lock(file, path)
        stack.callback(part.unlink, missing_ok=True)  # where it could not be written
        _write_lines(file, [_header(manifest), *map(asdict, known.values())])
        move_into_place(part, path)
        yield file


def _lock(file: IO[Any], path: Path) -> None:
    """Keep a second scan from replacing the file that this one writes to."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{path} is being written by another scan; wait for its end") from None


def _write_lines(file: TextIO, contents: Iterable[Mapping[str, Any]]) -> None:
    file.writelines(json.dumps(content) + "\n" for content in contents)
    file.flush()


def _record_of_lost(name: str, path: str, lost: WorkerCrashed) -> ScannedVideo:
    stamp = _stamp_or_none(path) or Stamp(0, 0)
    return ScannedVideo(name=name, size=stamp.size, mtime_ns=stamp.mtime_ns or 0, error=lost.reason)


def _stamp_or_none(path: str) -> Stamp | None:
    try:
        return stamp_of(path)
    except OSError:
        return None


def describe_mix(kinds: Iterable[str]) -> str:
    """The most common kinds with their shares: "30 fps 81 %, 25 fps 12 %, other 7 %"."""
    counts = Counter(kinds)
    total, top = counts.total(), counts.most_common(4)
    if len(counts) > len(top):
        top = [*top[:3], ("other", total - sum(count for _, count in top[:3]))]
    return ", ".join(f"{kind} {_percent(count / total)}" for kind, count in top)


def _percent(share: float) -> str:
    return (
        f"{100 * share:.0f} %"
        if share in (0, 1) or 0.005 <= share < 0.995
        else ("< 1 %" if share < 0.5 else "> 99 %")
    )
