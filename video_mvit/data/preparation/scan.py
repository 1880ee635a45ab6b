"""Scan a data set: decode every video once, and keep the results in a scan report.

A scan report is a file of JSON lines: a header that identifies the list, then one record per video,
in the order they were read. It is appended to as results arrive, so that an interrupted scan
resumes. Records are found by the video's name in the manifest (in shards: its own name).
"""

import contextlib
import fcntl
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, TextIO

import numpy as np

from video_mvit.data.frame_clock import describe_rate
from video_mvit.data.lists.manifest import SHARD_PLACE, Manifest
from video_mvit.data.preparation.worker_pool import WorkerCrashed, map_in_processes
from video_mvit.data.reading.frame_names import frame_place
from video_mvit.data.reading.header_index import MAX_FINGERPRINT, UNKNOWN
from video_mvit.data.reading.open import DecodeLimits, VideoDecodeError, examine_video
from video_mvit.errors import MissingFileError, UserError
from video_mvit.files import move_into_place, temporary_path
from video_mvit.schema import (
    MAX_INT64,
    Check,
    MismatchError,
    number,
    one_of,
    optional,
    parse_json,
    record,
    text,
    whole,
)

logger = logging.getLogger(__name__)

NUM_STAT_THREADS = 16  # network folders answer many requests at once
HANG_FACTOR = 6.0  # wall time per limit on processor time, after which a process counts as hung
NO_FILE = "no such file"
MAX_COUNT = 2**31
MAX_DIGEST = 64  # characters of a digest or the name of a codec
MAX_UNREADABLE = 0.01  # share of a list that a report may exclude unseen
HEADER = record(
    {
        "list_sha1": text(MAX_DIGEST),
        "num_videos": whole(),
        "num_missing": whole(),
        "root": text(),
    }
)
RECORD = record(
    {
        "name": text(),
        "size": whole(),
        "mtime_ns": whole(-MAX_INT64),
        "num_frames": whole(0, MAX_COUNT),
        "fps": number(0, MAX_COUNT),
        "is_variable": one_of(*(False, True)),
        "duration_s": number(0, MAX_COUNT),
        "height": whole(0, MAX_COUNT),
        "width": whole(0, MAX_COUNT),
        "codec": text(MAX_DIGEST),
        "num_key_frames": whole(0, MAX_COUNT),
        "fingerprint": whole(UNKNOWN, MAX_FINGERPRINT),
        "error": optional(text()),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScannedVideo:
    """One video: `size` in bytes and `mtime_ns` of its file, and what decoding all of it showed.

    `fingerprint` is of its index of packets (see `header_index`). `error` is the reason if it is
    unreadable; the numbers are 0 then.
    """

    name: str
    size: int
    mtime_ns: int
    num_frames: int = 0
    fps: float = 0.0
    is_variable: bool = False
    duration_s: float = 0.0
    height: int = 0
    width: int = 0
    codec: str = ""
    num_key_frames: int = 0
    fingerprint: int = UNKNOWN
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class ScanReport:
    """Records by name, for the list with digest `list_sha1` of `num_videos` below `root`.

    `num_missing` more videos are listed, but not on disk.
    """

    list_sha1: str
    num_videos: int
    num_missing: int
    root: str
    records: Mapping[str, ScannedVideo]

    def unreadable(self) -> dict[str, str]:
        """Return the reasons of unreadable videos, by name."""
        return {name: each.error for name, each in self.records.items() if each.error}

    def summary(self) -> list[str]:
        """Summarize number, size and properties of the videos in lines."""
        good = [each for each in self.records.values() if each.error is None]
        num_bad = len(self.records) - len(good)
        num_bytes = sum(each.size for each in self.records.values())
        lines = [
            f"{len(self.records):,} videos, {size_text(num_bytes)}, {num_bad:,} unreadable, "
            f"{self.num_missing:,} missing"
        ]
        if good:
            minutes = sum(each.duration_s for each in good) / 60
            length = f"{minutes / 60:,.1f} hours" if minutes >= 60 else f"{minutes:.1f} minutes"
            num_frames = sum(each.num_frames for each in good)
            gop = num_frames / max(sum(each.num_key_frames for each in good), 1)
            lines += [
                f"{length}, {num_frames:,} frames, a key frame every {gop:.0f}",
                describe_mix(
                    describe_rate(each.fps, is_variable=each.is_variable) for each in good
                ),
                describe_mix(f"{each.width}x{each.height}" for each in good),
                describe_mix(each.codec for each in good),
            ]
        return lines


class Stamp(NamedTuple):
    """Size and modification time of a file, to detect changes; None without a time."""

    size: int
    mtime_ns: int | None


def size_text(num_bytes: int) -> str:
    """Format a size in MB or GB."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"


def own_name(name: str) -> str:
    """Return the name of a video in its list, without its place in a shard."""
    return SHARD_PLACE.sub("", name)


def stamp_of(path: str) -> Stamp:
    """Return the stamp of a file, a folder of images, or a member of a shard.

    Raises `OSError` if it does not exist.
    """
    if member := SHARD_PLACE.match(path):
        return Stamp(int(member[0][:-1].rpartition("+")[2]), None)
    place = frame_place(path)
    path = path if place is None else place.folder
    status = os.stat(path)
    if place is None:
        return Stamp(status.st_size, status.st_mtime_ns)
    with os.scandir(path) as entries:
        return Stamp(sum(entry.stat().st_size for entry in entries), status.st_mtime_ns)


def is_current(scanned: ScannedVideo, stamp: Stamp) -> bool:
    """Return whether a record is of the file as it is now."""
    return scanned.size == stamp.size and stamp.mtime_ns in (None, scanned.mtime_ns)


def find_scan_report(path: Path) -> Path:
    """Return the path of a scan report, or of version 0.1's if only that exists."""
    old = path.with_name(f"{path.name.removesuffix('.scan.jsonl')}.ledger.jsonl")
    return old if old.is_file() and not path.exists() else path


def read_scan_report(path: str | Path) -> ScanReport:
    """Read a scan report.

    An incomplete last line is skipped; of two records, the later one counts. Raises
    `FileNotFoundError`, or `UserError` with the line that is damaged.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; expected the scan report that mode=scan writes")
    if not path.is_file():
        raise MissingFileError(f"no scan report {path}; video-mvit prepare mode=scan writes it")
    lines = path.read_bytes().split(b"\n")[:-1]  # drop an incomplete last line
    header = _parse(path, 1, lines[0] if lines else b"", HEADER)
    records: dict[str, ScannedVideo] = {}
    for line_number, line in enumerate(lines[1:], start=2):
        scanned = ScannedVideo(**_parse(path, line_number, line, _check_record))
        records[scanned.name] = scanned
    return ScanReport(**header, records=records)


def scan(
    manifest: Manifest,
    path: Path,
    *,
    num_workers: int,
    decode_limits: DecodeLimits,
    on_progress: Callable[[int], None],
) -> ScanReport:
    """Decode every video of a list that is not in the scan report yet, and record the results.

    `on_progress` receives the number of finished videos, first those of earlier runs. Records of
    other videos stay in the file. Returns the report of this list only; raises `UserError` if the
    file is not a scan report, `OSError` if it cannot be written.
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
            scanned = (
                _record_of_lost(name, video, result)
                if isinstance(result, WorkerCrashed)
                else result
            )
            known[name] = scanned
            _write_lines(file, [asdict(scanned)])
            on_progress(1)
    listed = {name: known[name] for name in names}
    return ScanReport(**_header(manifest), records=listed)


def current_records(manifest: Manifest, path: Path) -> dict[str, ScannedVideo]:
    """Read the records of a scan report, without listed videos that must be scanned again.

    These are changed files, and unreadable ones: the reason may have been the machine, a network or
    a permission.
    """
    if not path.exists() or path.stat().st_size == 0:
        return {}
    records = dict(read_scan_report(path).records)
    names = [own_name(name) for name in manifest.names]
    listed = [i for i, name in enumerate(names) if name in records]
    with ThreadPoolExecutor(NUM_STAT_THREADS) as threads:
        stamps = threads.map(_stamp_or_none, (manifest.path(i) for i in listed))
        for i, stamp in zip(listed, stamps, strict=True):
            scanned = records[names[i]]
            if scanned.error or stamp is None or not is_current(scanned, stamp):
                del records[scanned.name]
    return records


def known_bad(
    manifest: Manifest, scan_report: ScanReport, max_fraction: float = MAX_UNREADABLE
) -> dict[int, str]:
    """Return the unreadable videos of a list by index, with the reason.

    A file whose size has changed since is tried again. Nothing is excluded by a report of another
    list, nor by one that excludes more than `max_fraction` of the videos; the log says so.
    """
    if scan_report.list_sha1 not in {manifest.digest(), *manifest.parents}:
        logger.warning(
            "the scan report of %s was made for another list and is not used; "
            "video-mvit prepare mode=scan renews it",
            scan_report.root,
        )
        return {}
    errors = scan_report.unreadable()
    bad = {}
    for i, name in enumerate(map(own_name, manifest.names) if errors else ()):
        if name in errors:
            stamp = _stamp_or_none(manifest.path(i))
            if stamp is None or stamp.size == scan_report.records[name].size:
                bad[i] = errors[name]
    if len(bad) > max_fraction * len(manifest):
        logger.warning(
            "the scan report of %s has %d of %d videos as unreadable, more than the tolerated "
            "%g: they are not excluded; video-mvit prepare mode=scan renews it",
            scan_report.root,
            len(bad),
            len(manifest),
            max_fraction,
        )
        return {}
    return bad


def with_fingerprints(manifest: Manifest, scan_report: ScanReport) -> Manifest:
    """Return a list with the fingerprints of a report, by name.

    They need not be of this list, nor of the files as they are now: each is compared with the
    header of the file that is opened, and one that differs has no effect.
    """
    records = scan_report.records
    names = map(own_name, manifest.names)
    known = (records[name].fingerprint if name in records else UNKNOWN for name in names)
    numbers = (number or manifest.fingerprint(i) for i, number in enumerate(known))
    return replace(manifest, fingerprints=np.fromiter(numbers, np.int64, len(manifest)))


def still_unreadable(
    manifest: Manifest,
    bad: Mapping[int, str],
    *,
    num_workers: int,
    decode_limits: DecodeLimits,
) -> dict[int, str]:
    """Read videos of a list again that a report calls unreadable; return those that are."""
    names = {own_name(manifest.names[i]): i for i in bad}
    results = map_in_processes(
        partial(examine, decode_limits=decode_limits),
        [(name, manifest.path(i)) for name, i in names.items()],
        num_workers=num_workers,
        time_limit_s=decode_limits.time_s * HANG_FACTOR,
    )
    found: dict[int, str] = {}
    with contextlib.closing(results):
        for (name, _), result in results:
            if reason := result.reason if isinstance(result, WorkerCrashed) else result.error:
                found[names[name]] = reason
    return found


def examine(item: tuple[str, str], decode_limits: DecodeLimits) -> ScannedVideo:
    """Decode all of a video, given name and path; an unreadable one gives a record too."""
    name, path = item
    stamp = _stamp_or_none(path)
    if stamp is None:
        return ScannedVideo(name=name, size=0, mtime_ns=0, error=NO_FILE)
    scanned = ScannedVideo(name=name, size=stamp.size, mtime_ns=stamp.mtime_ns or 0)
    try:
        facts = examine_video(path, decode_limits)
    except VideoDecodeError as error:
        return replace(scanned, error=error.reason)
    return replace(
        scanned,
        num_frames=facts.num_frames,
        fps=round(facts.fps, 6),
        is_variable=facts.is_variable,
        duration_s=round(facts.duration_s, 6),
        height=facts.size[0],
        width=facts.size[1],
        codec=facts.codec,
        num_key_frames=facts.num_key_frames,
        fingerprint=facts.fingerprint,
    )


def _header(manifest: Manifest) -> dict[str, Any]:
    return {
        "list_sha1": manifest.digest(),
        "num_videos": len(manifest),
        "num_missing": len(manifest.missing),
        "root": manifest.root,
    }


def _check_record(value: Any) -> Any:
    """Check a record; older reports have no variable rates, and no fingerprints."""
    absent = {"is_variable": False, "fingerprint": UNKNOWN}
    return RECORD({**absent, **value} if isinstance(value, Mapping) else value)


def _parse(path: Path, line_number: int, line: bytes, check: Check) -> dict[str, Any]:
    try:
        return check(parse_json(line))  # type: ignore[no-any-return]
    except MismatchError as error:
        if line_number == 1:
            raise UserError(f"{path} is not a scan report: its first line is {error}") from None
        raise UserError(
            f"{path} line {line_number} is not a record of a video: {error}; delete the line and "
            "run video-mvit prepare mode=scan again"
        ) from None


@contextlib.contextmanager
def _append_to(
    path: Path, manifest: Manifest, known: Mapping[str, ScannedVideo]
) -> Iterator[TextIO]:
    """Rewrite a scan report with header and known records, and keep it open for appending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = temporary_path(path)
    with contextlib.ExitStack() as stack:
        if path.exists():
            _lock(stack.enter_context(path.open("rb")), path)
        file = stack.enter_context(part.open("w", encoding="utf-8"))
        _lock(file, path)
        stack.callback(part.unlink, missing_ok=True)  # if it could not be replaced
        _write_lines(file, [_header(manifest), *map(asdict, known.values())])
        move_into_place(part, path)
        yield file


def _lock(file: IO[Any], path: Path) -> None:
    """Lock a file against a second scan."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{path} is being written by another scan; wait until it ends") from None


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
    """Describe the most common values: "30 fps 81 %, 25 fps 12 %, other 7 %"."""
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
