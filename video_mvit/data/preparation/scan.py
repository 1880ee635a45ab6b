"""Scan a data set: decode every video once, keep the results in a scan report, and use them."""

import contextlib
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

from video_mvit.data.lists.manifest import Manifest
from video_mvit.data.preparation.scan_report import (
    ScannedVideo,
    ScanReport,
    Stamp,
    append_to,
    header_of,
    is_current,
    own_name,
    read_scan_report,
    stamp_or_none,
    write_lines,
)
from video_mvit.data.preparation.worker_pool import WorkerCrashed, map_in_processes
from video_mvit.data.reading.header_index import UNKNOWN
from video_mvit.data.reading.open import DecodeLimits, VideoDecodeError, examine_video

logger = logging.getLogger(__name__)

NUM_STAT_THREADS = 16  # network folders answer many requests at once
HANG_FACTOR = 6.0  # wall time per limit on processor time, after which a process counts as hung
NO_FILE = "no such file"
MAX_UNREADABLE = 0.01  # share of a list that a report may exclude unseen


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
    with append_to(path, manifest, known) as file, contextlib.closing(results):
        for (name, video), result in results:
            scanned = (
                _record_of_lost(name, video, result)
                if isinstance(result, WorkerCrashed)
                else result
            )
            known[name] = scanned
            write_lines(file, [asdict(scanned)])
            on_progress(1)
    listed = {name: known[name] for name in names}
    return ScanReport(**header_of(manifest), records=listed)


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
        stamps = threads.map(stamp_or_none, (manifest.path(i) for i in listed))
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
            stamp = stamp_or_none(manifest.path(i))
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
    stamp = stamp_or_none(path)
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


def _record_of_lost(name: str, path: str, lost: WorkerCrashed) -> ScannedVideo:
    stamp = stamp_or_none(path) or Stamp(0, 0)
    return ScannedVideo(name=name, size=stamp.size, mtime_ns=stamp.mtime_ns or 0, error=lost.reason)
